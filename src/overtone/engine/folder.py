"""The folder of a run: what it holds, who may write into it."""

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from filelock import FileLock, Timeout

from overtone.checkpoint import BEST, LAST, SUFFIX, is_temporary
from overtone.errors import OvertoneError
from overtone.replacing import remove_files

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

RECIPE, SAMPLES, METRICS, LOG = "recipe.json", "samples.jsonl.gz", "metrics.jsonl", "log.txt"
OLD_SPLIT, OLD_REPORT = "split.json", "per_class.json"  # before format 2
REPORT, SUMMARY, FAULT = "report.json", "summary.json", "not_finite.json"
CURVES, EXAMPLES, TENSORBOARD = "curves.png", "examples", "tensorboard"
PLOTS = tuple(f"{name}.png" for name in ("confusion", "reliability", "average_precision", "iou", "precision_recall"))
HTML = "report.html"
STATUS, TRACKERS, SLURM = "status.json", "trackers.json", "slurm"
LOCK, _PATIENCE, _POLL = ".lock", 0.2, 0.05  # seconds
_DAMAGED = ".damaged"
RUN_FILES = (
    *(f"last{age}{SUFFIX}" for age in ("", *("-[1-9]" + "[0-9]" * more for more in range(4)))),
    *(f"{name}{_DAMAGED}" for name in (f"last*{SUFFIX}", BEST, REPORT)),
    *(f"{TENSORBOARD}/events.out.tfevents.*", f"{EXAMPLES}/*.png"),
    *(SUMMARY, METRICS, LOG, BEST, REPORT, OLD_REPORT, FAULT, CURVES, HTML, STATUS, TRACKERS, SAMPLES, OLD_SPLIT),
    *PLOTS,
    RECIPE,
)
"""What a run leaves, as patterns for `replacing`; the recipe is last: a folder half cleared is still a run's."""
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
    if any(entry.name not in (LOCK, SLURM) and not is_temporary(entry) for entry in folder.iterdir()):
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
            older[0].hardlink_to(newest)
        except (OSError, NotImplementedError):  # a file system, or a system, without hard links
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
        lock = FileLock(folder / LOCK)
        lock.acquire(timeout=_PATIENCE, poll_interval=_POLL)  # a hold that ends at once is one of `is_claimed`
    except Timeout as error:
        raise OvertoneError(f"another run is using {folder}; give another folder as --run.out") from error
    except OSError as error:
        raise OvertoneError(f"{folder} cannot be used: {error.strerror}; give another folder as --run.out") from error
    try:
        yield folder
    finally:
        lock.release()


def is_claimed(folder: Path) -> bool:
    """Whether a run holds the folder now; False too where the file system has no locks.

    Several processes may ask at once, and where the system has `flock` the folder may be another user's.
    """
    path = folder / LOCK
    try:
        if fcntl is None:
            return path.is_file() and _is_held(path)
        with path.open("rb") as file:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)  # shared: no two that ask are in each other's way
    except BlockingIOError:
        return True
    except OSError:
        return False
    return False


def _is_held(path: Path) -> bool:
    lock = FileLock(path)
    try:
        lock.acquire(timeout=_POLL, poll_interval=_POLL / 2)
    except Timeout:
        return True
    lock.release()
    return False


def clear(folder: Path) -> None:
    """Remove what an earlier run has left in the folder, and nothing else."""
    remove_files(folder, RUN_FILES)
