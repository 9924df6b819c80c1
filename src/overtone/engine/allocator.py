"""Memory of the CPU kept by the process between steps, rather than given back to the system and asked for again."""

import ctypes
import os
import platform

# the numbers of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_HUGE_PAGES = "THP_MEM_ALLOC_ENABLE"  # PyTorch reads it before its first tensor in memory of the CPU
_LARGEST = 1 << 30  # bytes; larger blocks are mapped each on its own as before


def keep_freed_memory() -> bool:
    """Let the C library reuse freed blocks of up to 1 GiB instead of returning them; True where that was done.

    A training step frees and takes the same blocks again and again. Each block that comes anew from the system is
    filled with zeros page by page, which for maps of a few megabytes takes as long as computing on them. Only glibc on
    Linux has this setting; its dynamic limit, 32 MiB at most, is what it replaces.

    Blocks of 2 MiB or more are also put on huge pages where the system gives them on request, which spares the
    processor a fortieth to a fifteenth of a step; the variable's own value in the environment overrides that.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    os.environ.setdefault(_HUGE_PAGES, "1")
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST) and mallopt(_M_TRIM_THRESHOLD, _LARGEST))
