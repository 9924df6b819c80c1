"""Memory of the CPU kept by the process between steps, rather than given back to the system and asked for again."""

import ctypes
import platform

# the numbers of <malloc.h>
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST = 1 << 30  # bytes; larger blocks are mapped each on its own as before


def keep_freed_memory() -> bool:
    """Let the C library reuse freed blocks of up to 1 GiB instead of returning them; True where that was done.

    A training step frees and takes the same blocks again and again. Each block that comes anew from the system is
    filled with zeros page by page, which for maps of a few megabytes takes as long as computing on them. Only glibc on
    Linux has this setting; its dynamic limit, 32 MiB at most, is what it replaces.
    """
    if platform.system() != "Linux" or platform.libc_ver()[0] != "glibc":
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return bool(mallopt(_M_MMAP_THRESHOLD, _LARGEST) and mallopt(_M_TRIM_THRESHOLD, _LARGEST))
