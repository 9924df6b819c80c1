"""Whether batches that other processes read fit into the memory that they hand them over in."""

import shutil
from collections.abc import Callable
from pathlib import Path

SHARED = Path("/dev/shm")  # where Linux keeps shared memory; containers often give it 64 MB
_PREFETCHED = 2  # batches that each process of PyTorch's loader may have ready
_BEING_USED = 1
_MIB = 2**20


def fitting_workers(
    workers: int,
    batch_size: int,
    size: int,
    say: Callable[[str], object],
    *,
    sharers: int = 1,
    free: int | None = None,
) -> int:
    """How many of the processes that are to read images may be started; what is too many dies of a bus error.

    Args:
        workers: as many as are wanted.
        batch_size: images in a batch.
        size: side of the images, pixels.
        say: called with a line if there are to be fewer, with the reason.
        sharers: trainings, or processes of one, that share the memory equally.
        free: bytes of shared memory; default: what `/dev/shm` has free now.
    """
    if workers == 0 or (free is None and not SHARED.is_dir()):
        return workers
    free = (shutil.disk_usage(SHARED).free if free is None else free) // sharers
    batch = batch_size * 3 * size * size * 4  # float32
    needed = (workers * _PREFETCHED + _BEING_USED) * batch
    if needed <= free:
        return workers
    fitting = max((free // batch - _BEING_USED) // _PREFETCHED, 0)
    instead = "images are read in the main process" if fitting == 0 else f"{fitting} are used"
    say(
        f"{SHARED} has {free // _MIB:,} MiB free, and {workers} processes that read images may need "
        f"{needed // _MIB:,} MiB: {instead}; in a container --shm-size gives more"
    )
    return fitting
