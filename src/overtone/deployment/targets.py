"""Every runtime by its name."""

from overtone.deployment.executorch_runtime import ExecuTorch
from overtone.deployment.onnx_runtime import OnnxRuntime
from overtone.deployment.openvino_runtime import OpenVino
from overtone.deployment.runtimes import Runtime
from overtone.deployment.torch_runtime import AheadOfTime, TorchExported
from overtone.errors import OvertoneError

RUNTIMES: dict[str, Runtime] = {
    runtime.name: runtime for runtime in (OnnxRuntime(), OpenVino(), ExecuTorch(), TorchExported(), AheadOfTime())
}


def runtime_named(name: str) -> Runtime:
    """A runtime by its name.

    Raises:
        OvertoneError: there is none.
    """
    if name not in RUNTIMES:
        raise OvertoneError(f"there is no runtime {name!r}; there are {', '.join(RUNTIMES)}")
    return RUNTIMES[name]
