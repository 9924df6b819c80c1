"""The memory of a process: now, and at the highest point."""

import resource
import sys
from collections.abc import Callable
from pathlib import Path

_RESET = "5"  # what /proc/self/clear_refs takes for: begin the peak anew
_CALLS = 3


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
