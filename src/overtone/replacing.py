"""The one way to replace or clear what an earlier command wrote: a file that Overtone did not write is never removed.

A caller names what is Overtone's by patterns of paths relative to the folder, such as `model.onnx` or
`tensorboard/events.out.tfevents.*`; a `*` stays within one part of a path.
"""

import fnmatch
import glob
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path, PurePosixPath

from filelock import FileLock, Timeout

from overtone.errors import OvertoneError

_LOCK, _NEW, _OLD = ".lock", "new", "old"
_MOST_NAMES = 5


def foreign_files(folder: Path, ours: Iterable[str]) -> list[str]:
    """Paths below `folder` that no pattern of `ours` matches, relative to it and sorted; links are not followed."""
    patterns = list(ours)
    return sorted(name for name in _files(folder) if not _matches(name, patterns))


def check_replaceable(folder: Path, ours: Iterable[str], remedy: str) -> None:
    """Refuse to replace a folder that holds anything but our own files.

    Args:
        folder: the folder, which may be absent.
        ours: patterns of the files that may go.
        remedy: what the user can do instead, for the message.

    Raises:
        OvertoneError: it is a file, or holds files that are not ours; the message names them.
    """
    if not folder.exists():
        return
    if not folder.is_dir():
        raise OvertoneError(f"{folder} is a file and is not replaced; {remedy}")
    foreign = foreign_files(folder, ours)
    if foreign:
        more = f" and {len(foreign) - _MOST_NAMES} more" if len(foreign) > _MOST_NAMES else ""
        names = ", ".join(foreign[:_MOST_NAMES])
        raise OvertoneError(f"{folder} holds files that overtone did not write ({names}{more}); {remedy}")


def remove_files(folder: Path, ours: Iterable[str]) -> None:
    """Remove the files that match `ours`, then the folders that are empty; every other file stays.

    Args:
        folder: the folder; it goes too if nothing is left in it.
        ours: patterns of the files that go, in the order in which they are removed.
    """
    names = _files(folder)
    for pattern in ours:
        for name in names:
            if _matches(name, [pattern]):
                (folder / name).unlink(missing_ok=True)
    for root, _, _ in os.walk(folder, topdown=False):
        with suppress(OSError):  # not empty
            os.rmdir(root)


@contextmanager
def replacing_folder(out: Path, ours: Iterable[str], remedy: str = "choose another --out") -> Iterator[Path]:
    """A path for a new folder, which takes the name `out` once the block has ended well.

    The new folder and the replaced one share a working folder beside `out`, `.NAME.*.tmp`, which is locked while this
    process lives. What a killed process has left is cleaned up by the next call for the same `out`, and an earlier
    folder that it had moved away gets its name back.

    Args:
        out: the folder to write or to replace.
        ours: patterns of the files of an earlier one, which are all that is removed.
        remedy: what the user can do where `out` holds anything else.

    Yields:
        A path, not yet created, whose parent may hold temporary files of the block.

    Raises:
        OvertoneError: `out` holds anything else when it is to be replaced.
        OSError: the system cannot write there.
    """
    out, patterns = Path(os.path.realpath(out)), list(ours)
    check_replaceable(out, patterns, remedy)
    out.parent.mkdir(parents=True, exist_ok=True)
    _clean_up_after_dead(out, patterns)
    work = Path(tempfile.mkdtemp(prefix=f".{out.name}.", suffix=".tmp", dir=out.parent))
    lock = FileLock(work / _LOCK)
    lock.acquire()
    try:
        new = work / _NEW
        yield new
        check_replaceable(out, patterns, remedy)  # the block may have taken minutes
        if out.exists():
            os.replace(out, work / _OLD)
        os.replace(new, out)
        _flush_names(out.parent)
    finally:
        lock.release()
        _close(work, out, patterns)


def _close(work: Path, out: Path, ours: list[str]) -> None:
    """Remove a working folder after the replaced folder was restored, or freed of our files."""
    old = work / _OLD
    with suppress(OSError):
        if old.exists() and not out.exists():
            os.replace(old, out)
        elif old.exists():
            remove_files(old, ours)
            if old.exists():  # a file appeared in it at the last moment: it is not ours to remove
                os.replace(old, work.with_name(f"{out.name}.{work.name.split('.')[-2]}.replaced"))
    if not old.exists():
        shutil.rmtree(work, ignore_errors=True)


def _clean_up_after_dead(out: Path, ours: list[str]) -> None:
    for work in out.parent.glob(f".{glob.escape(out.name)}.*.tmp"):
        lock_file = work / _LOCK
        if work.is_symlink() or not lock_file.is_file() or lock_file.is_symlink():
            continue  # not a working folder of ours
        lock = FileLock(lock_file)
        try:
            lock.acquire(timeout=0)
        except (Timeout, OSError):
            continue
        lock.release()
        _close(work, out, ours)


def _files(folder: Path) -> list[str]:
    """Every file, link and empty folder below `folder`, as paths relative to it with forward slashes."""
    found = []
    for root, folders, files in os.walk(folder):
        links = [name for name in folders if os.path.islink(os.path.join(root, name))]
        names = files + links + ([] if files or folders or root == str(folder) else [""])
        found += [Path(root, name).relative_to(folder).as_posix() for name in names]
    return found


def _matches(name: str, patterns: Iterable[str]) -> bool:
    parts = PurePosixPath(name).parts
    for pattern in patterns:
        wanted = PurePosixPath(pattern).parts
        if len(parts) == len(wanted) and all(map(fnmatch.fnmatchcase, parts, wanted)):
            return True
    return False


def _flush_names(folder: Path) -> None:
    """Make sure that a folder's list of names is on the disk, where the system can."""
    with suppress(OSError):  # Windows opens no folders
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
