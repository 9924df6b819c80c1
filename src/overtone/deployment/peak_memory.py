"""The memory that something needs, measured in a process of its own."""

import multiprocessing
import resource
import sys
import warnings
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib import import_module
from pathlib import Path

import torch

from overtone.deployment.contenders import Contender, open_warm

_LIBRARIES = {"onnx": "onnxruntime", "openvino": "openvino", "executorch": "executorch.runtime"}
_RESET = "5"  # what /proc/self/clear_refs takes for: begin the peak anew
_CALLS = 3


def in_own_process(measure: Callable[..., float], *arguments: object) -> float:
    """What a function of a module gives in a fresh process, with as many threads as here."""
    context = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(1, context, torch.set_num_threads, (torch.get_num_threads(),)) as pool:
        return pool.submit(measure, *arguments).result()


def peak_of_contender(contender: Contender) -> float:
    """Megabytes at the highest point of a call beyond what the process has before it opens the contender.

    Meant for a process of its own. Where the peak cannot be begun anew (elsewhere than on Linux), what opening and
    compiling take is counted too.
    """
    warnings.simplefilter("ignore")
    if contender.runtime == "openvino":
        sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]  # it reports to its makers
    if contender.runtime in _LIBRARIES:
        import_module(_LIBRARIES[contender.runtime])  # the library's own size says nothing of the network
    before = resident()
    call = open_warm(contender)
    images = contender.images()
    return peak_of(lambda: call(images), before)


def peak_of(call: Callable[[], object], before: float) -> float:
    """Megabytes at the highest point of some calls, beyond `before`."""
    begin_peak()
    for _ in range(_CALLS):
        call()
    return max(0.0, peak() - before)


def begin_peak() -> None:
    """Forget the highest point so far, where the system can."""
    path = Path("/proc/self/clear_refs")
    if path.exists():
        path.write_text(_RESET, encoding="ascii")


def resident() -> float:
    """Megabytes in memory now."""
    return _status("VmRSS")


def peak() -> float:
    """Megabytes at the highest point since `begin_peak`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    path = Path("/proc/self/status")
    if not path.exists():
        unit = 1 if sys.platform == "darwin" else 1024
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
    line = next(line for line in path.read_text(encoding="ascii", errors="replace").splitlines() if name in line)
    return int(line.split()[1]) * 1024 / 1e6
