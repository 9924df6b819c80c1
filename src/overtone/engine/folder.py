"""The folder of a run: what it holds, who may write into it."""

import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from overtone.checkpoint import SUFFIX
from overtone.errors import OvertoneError

try:
    import fcntl
except ImportError:  # Windows has no flock; a second run in a folder is not found out there
    fcntl = None

RECIPE, SPLIT, METRICS, LOG = "recipe.json", "split.json", "metrics.jsonl", "log.txt"
BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"
REPORT, SUMMARY, FAULT = "per_class.json", "summary.json", "not_finite.json"
CURVES, CONFUSION, TENSORBOARD = "curves.png", "confusion.png", "tensorboard"
_LOCK = ".lock"
_FILES = (RECIPE, SPLIT, METRICS, LOG, BEST, LAST, REPORT, SUMMARY, FAULT, CURVES, CONFUSION)


def check_folder(folder: Path, *, overwrite: bool, resume: bool) -> None:
    """Whether a run may use this folder, before anything is done for it.

    Raises:
        OvertoneError: it holds something and neither `overwrite` nor `resume` is set, or there is nothing to resume.
    """
    if folder.exists() and not folder.is_dir():
        raise OvertoneError(f"{folder} is a file; give another folder as --run.out")
    if resume:
        if not (folder / LAST).is_file():
            raise OvertoneError(f"{folder} has no {LAST} to go on from; start the run without --run.resume")
        return
    if not overwrite and folder.is_dir() and any(entry.name != _LOCK for entry in folder.iterdir()):
        hint = ", --run.resume to go on with the run in it" if (folder / LAST).is_file() else ""
        raise OvertoneError(f"{folder} is not empty; give another --run.out, or --run.overwrite to replace it{hint}")


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
        if fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError as error:
                raise OvertoneError(f"another run is using {folder}; give another folder as --run.out") from error
        yield folder
    finally:
        os.close(handle)


def clear(folder: Path) -> None:
    """Remove what an earlier run has left in the folder, and nothing else."""
    for name in _FILES:
        (folder / name).unlink(missing_ok=True)
    for events in (folder / TENSORBOARD).glob("events.out.tfevents.*"):
        events.unlink()
    with suppress(OSError):  # not empty: someone else's files
        (folder / TENSORBOARD).rmdir()
