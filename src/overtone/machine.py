"""What this machine gives a process: cores, memory. Every figure has a fallback where the system has no such call."""

import math
import os
import sys
from pathlib import Path

try:
    import resource
except ImportError:  # Windows
    resource = None

_STATUS, _CLEAR = Path("/proc/self/status"), Path("/proc/self/clear_refs")  # Linux
_FORGET_PEAK = "5"


def usable_cores() -> int:
    """Cores that this process may use: those of its affinity mask, else all."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def resident_bytes() -> float:
    """Memory of this process now; off Linux the most it has held, NaN where the system does not say that either."""
    return _of_status("VmRSS")


def peak_bytes() -> float:
    """The most memory that this process has held since `forget_peak`, off Linux since it began; NaN if unknown."""
    return _of_status("VmHWM")


def forget_peak() -> None:
    """Begin the peak anew, where the system can."""
    if _CLEAR.exists():
        _CLEAR.write_text(_FORGET_PEAK, encoding="ascii")


def _of_status(name: str) -> float:
    if _STATUS.is_file():
        lines = _STATUS.read_text(encoding="ascii", errors="replace").splitlines()
        for line in lines:
            if line.startswith(f"{name}:"):
                return int(line.split()[1]) * 1024.0
    if resource is None:
        return math.nan
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return float(most if sys.platform == "darwin" else most * 1024)
