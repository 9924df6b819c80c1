"""The folder of a run: what it holds, who may write into it."""

import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overtone.checkpoint import SUFFIX, is_temporary
from overtone.errors import OvertoneError

try:
    import fcntl
except ImportError:  # Windows has no flock; a second run in a folder is not found out there
    fcntl = None

RECIPE, SAMPLES, METRICS, LOG = "recipe.json", "samples.jsonl.gz", "metrics.jsonl", "log.txt"
OLD_SPLIT, OLD_REPORT = "split.json", "per_class.json"  # before format 2
BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"
REPORT, SUMMARY, FAULT = "report.json", "summary.json", "not_finite.json"
CURVES, CONFUSION, TENSORBOARD = "curves.png", "confusion.png", "tensorboard"
STATUS, TRACKERS, SLURM = "status.json", "trackers.json", "slurm"
_LOCK, _TRIES, _TRY_SECONDS = ".lock", 4, 0.05
# what a run leaves; the recipe goes last, so that a folder half cleared is still known as a run's
_FILES = (SUMMARY, METRICS, LOG, BEST, REPORT, OLD_REPORT, FAULT, CURVES, CONFUSION, STATUS, TRACKERS)
_FILES += (SAMPLES, OLD_SPLIT, RECIPE)
_DAMAGED = ".damaged"
_LAST = re.compile(rf"last(?:-([1-9]\d*))?{re.escape(SUFFIX)}")


def check_folder(folder: Path, *, overwrite: bool, resume: bool) -> bool:
    """Whether a run may use this folder, before anything is done for it.

    Returns:
        Whether there is a run in it to resume, perhaps one that has no checkpoint yet.

    Raises:
        OvertoneError: it holds something that is not a run and `overwrite` is not set, or there is nothing to resume.
    """
    if folder.exists() and not folder.is_dir():
        raise OvertoneError(f"{folder} is a file; give another folder as --run.out")
    if overwrite and resume:
        raise OvertoneError("--run.overwrite starts over and --run.resume does not; give one of them")
    has_checkpoint = bool(checkpoints(folder))
    if resume and not has_checkpoint:
        raise OvertoneError(f"{folder} has no {LAST} to resume from; start the run without --run.resume")
    if overwrite or not folder.is_dir():
        return False
    if has_checkpoint or (folder / RECIPE).is_file():
        return True
    if any(entry.name not in (_LOCK, SLURM) and not is_temporary(entry) for entry in folder.iterdir()):
        raise OvertoneError(f"{folder} is not empty; give another --run.out, or --run.overwrite to replace it")
    return False


def last_name(age: int) -> str:
    """Name of the checkpoint before which `age` newer ones were written."""
    return LAST if age == 0 else f"last-{age}{SUFFIX}"


def checkpoints(folder: Path) -> list[Path]:
    """The checkpoints that a training could be resumed from, the newest first."""
    if not folder.is_dir():
        return []
    found = [(int(match[1] or 0), path) for path in folder.iterdir() if (match := _LAST.fullmatch(path.name))]
    return [path for _, path in sorted(found)]


def make_room(folder: Path, keep: int) -> None:
    """Give the last checkpoints the names of older ones, so that a new one may take the newest name.

    The newest keeps its own name beside the older one until it is replaced: whenever this is cut short, no whole
    checkpoint is without a name.

    Args:
        folder: the run folder.
        keep: how many checkpoints there may be with the new one, at least 1.
    """
    newest = folder / LAST
    older = [folder / last_name(age) for age in range(1, keep)]
    # where a crash came between the two names of one file, the names are shifted already
    if older and newest.is_file() and not (older[0].is_file() and newest.samefile(older[0])):
        for age in range(len(older) - 1, 0, -1):
            if older[age - 1].is_file():
                os.replace(older[age - 1], older[age])
        older[0].unlink(missing_ok=True)
        try:
            os.link(newest, older[0])
        except OSError:  # a file system without hard links
            os.replace(newest, older[0])
    prune(folder, keep)


def prune(folder: Path, keep: int) -> None:
    """Remove checkpoints that are older than the `keep` last names."""
    names = {last_name(age) for age in range(keep)}
    for path in checkpoints(folder):
        if path.name not in names:
            path.unlink()


def set_aside(path: Path) -> Path:
    """Rename a damaged checkpoint so that nobody takes it for one; gives the new name."""
    aside = path.with_name(path.name + _DAMAGED)
    os.replace(path, aside)
    return aside


def remove_temporary(folder: Path) -> None:
    """Remove what processes that are gone have left half written; the folder must be claimed."""
    for path in folder.iterdir():
        if is_temporary(path):
            path.unlink(missing_ok=True)


@contextmanager
def claimed(folder: Path) -> Iterator[Path]:
    """Make the folder and hold it for this process alone; the hold ends with the process, however it ends.

    Raises:
        OvertoneError: another run holds it, or it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        handle = os.open(folder / _LOCK, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OvertoneError(f"{folder} cannot be used: {error.strerror}; give another folder as --run.out") from error
    try:
        if not _hold(handle):
            raise OvertoneError(f"another run is using {folder}; give another folder as --run.out")
        yield folder
    finally:
        os.close(handle)


def is_claimed(folder: Path) -> bool:
    """Whether a run holds the folder now; where there is no flock, nobody can tell and it is False."""
    if fcntl is None:
        return False
    try:
        handle = os.open(folder / _LOCK, os.O_RDONLY)
    except OSError:
        return False
    try:
        # shared, so that several may look at once; a run that starts in this moment tries again
        fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:  # a file system without locks
        return False
    finally:
        os.close(handle)
    return False


def _hold(handle: int) -> bool:
    """Lock the open file for this process; a lock that is gone again at once is one of `is_claimed`."""
    if fcntl is None:
        return True
    for _ in range(_TRIES):
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            return True
        except BlockingIOError:
            time.sleep(_TRY_SECONDS)
    return False


def clear(folder: Path) -> None:
    """Remove what an earlier run has left in the folder, and nothing else."""
    for path in (*checkpoints(folder), *folder.glob(f"*{_DAMAGED}")):
        path.unlink()
    for events in (folder / TENSORBOARD).glob("events.out.tfevents.*"):
        events.unlink()
    with suppress(OSError):  # not empty: someone else's files
        (folder / TENSORBOARD).rmdir()
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
