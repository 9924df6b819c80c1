"""The one way in which an image file is opened: regular files only, without waiting, and no more than a bound is read.

A path may name anything: a pipe that nobody writes into, a device without end, a socket, a folder, a link to itself, or
5,000 characters. Each of these is an `OSError` or a `ValueError` with a short reason, at once.
"""

import os
import stat
from pathlib import Path

MAX_BYTES = 600_000_000
"""Larger files are refused: it holds the largest image (see `decoding.MAX_PIXELS`) without compression."""

_KINDS = (
    (stat.S_ISDIR, "is a directory"),
    (stat.S_ISFIFO, "is a pipe, not a file"),
    (stat.S_ISSOCK, "is a socket, not a file"),
    (stat.S_ISCHR, "is a device, not a file"),
    (stat.S_ISBLK, "is a device, not a file"),
)
FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)


class NotRegular(OSError):
    """A path that names no regular file, or one that is too large; `strerror` says which."""

    def __init__(self, reason: str) -> None:
        super().__init__(None, reason)
        self.strerror = reason


def read_file(path: Path, most: int = MAX_BYTES) -> bytes:
    """The content of a regular file; never waits for a pipe or a device.

    Args:
        path: the file, of which links are followed.
        most: bytes that it may have.

    Raises:
        NotRegular: the path names something else, or the file is larger than `most`.
        OSError: the file cannot be opened or read.
        ValueError: the path holds a NUL character.
    """
    # What a path names is asked first, because opening can do something: a tape is wound back, a pipe's writer woken.
    _check(os.stat(path), most)
    descriptor = os.open(path, FLAGS)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)  # of what was opened, which may have been put in its place since
        _check(status, most)
        # no more room than the size asks for; read gives None of a file that would have to be waited for (of /proc)
        content = file.read(status.st_size + 1) or b""
        if len(content) > status.st_size:  # it has grown, or has no size
            content += file.read(most + 1 - len(content)) or b""
    if len(content) > most:
        raise NotRegular(_too_large(most))
    return content


def read_at(descriptor: int, start: int, length: int) -> bytes:
    """Some bytes of an open file; by one thread at a time, because Windows has no `pread`."""
    if hasattr(os, "pread"):
        return os.pread(descriptor, length, start)
    os.lseek(descriptor, start, os.SEEK_SET)
    return os.read(descriptor, length)


def _check(status: os.stat_result, most: int) -> None:
    if not stat.S_ISREG(status.st_mode):
        kinds = (reason for is_kind, reason in _KINDS if is_kind(status.st_mode))
        raise NotRegular(next(kinds, "is not a regular file"))
    if status.st_size > most:
        raise NotRegular(_too_large(most))


def _too_large(most: int) -> str:
    return f"is larger than {most:,} bytes"


def resolved_once(path: Path) -> Path:
    """A path without links, to find the same file under two names; a path that cannot be resolved as it is.

    A link to itself, a path that is too long or one with a NUL character has no other name: reading it says what is
    wrong with it.
    """
    try:
        return Path(os.path.realpath(path, strict=True))
    except (OSError, ValueError, RuntimeError):
        return Path(path)


def is_folder(path: Path) -> bool:
    """Whether a path names a folder; False where that cannot be found out."""
    try:
        return stat.S_ISDIR(os.stat(path).st_mode)
    except (OSError, ValueError):
        return False
