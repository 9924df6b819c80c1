"""Every runtime, by name."""

from overtone.deployment.runtimes.executorch_runtime import ExecuTorch
from overtone.deployment.runtimes.onnx_runtime import OnnxRuntime
from overtone.deployment.runtimes.openvino_runtime import OpenVino
from overtone.deployment.runtimes.runtime import Runtime
from overtone.deployment.runtimes.torch_runtime import AheadOfTime, TorchExported
from overtone.errors import OvertoneError

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime for runtime in (OnnxRuntime(), OpenVino(), ExecuTorch(), TorchExported(), AheadOfTime())
}


def runtime_named(name: str) -> Runtime:
    """The runtime of that name.

    Raises:
        OvertoneError: there is none.
    """
    if name not in RUNTIMES:
        raise OvertoneError(f"there is no runtime {name!r}; choose one of {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
