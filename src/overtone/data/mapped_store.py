"""Decoded samples in two memory-mapped files, which all processes of this machine that read them share.

`pixels` holds one run of bytes after the other; `rows` says where the one of each sample lies. A run is written before
its row, and a row that was written before the machine was last started is believed only if the checksum is right: a
sample is there whole, or decoded again. Room is taken under a lock.
"""

import mmap
import os
import platform
import shutil
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
from filelock import FileLock

from overtone.data.caching import data_cache, write_whole

_PAGE = 4096  # a page holds parts of one sample only
_FIELDS = 4  # of a row: size, checksum, the start of the machine, and, written last, 1 + the place in pages
_ROWS, _PIXELS, _LOCK = "rows", "pixels", "lock"


class MappedStore:
    """A store (see `decoded_cache.Store`) in a folder; a copy in another process opens the files again.

    Args:
        folder: made when needed; samples of one source and one way of decoding only.
        rows: samples that there may be.
        limit: bytes of all folders beside this one and itself; those used longest ago are removed for its sake.
    """

    def __init__(self, folder: Path, rows: int, limit: int) -> None:
        self.folder, self.rows, self.limit = folder, rows, limit
        folder.mkdir(parents=True, exist_ok=True)
        with FileLock(folder / _LOCK):
            if not (folder / _ROWS).exists():
                # zeros; the first row holds the number of pages in use
                write_whole(folder / _ROWS, lambda path: os.truncate(path, (rows + 1) * _FIELDS * 8))
        os.utime(folder / _ROWS)  # used now
        self._open()

    @classmethod
    def of(cls, key: str, rows: int, limit: int) -> "MappedStore":
        """The store of a key in this machine's cache; machines that share the folder have stores of their own."""
        return cls(data_cache() / "decoded" / (platform.node() or "here") / key, rows, limit)

    def __getstate__(self) -> tuple[Path, int, int]:
        return self.folder, self.rows, self.limit

    def __setstate__(self, state: tuple[Path, int, int]) -> None:
        self.folder, self.rows, self.limit = state
        self._open()

    def get(self, number: int) -> np.ndarray | None:
        """See `Store`."""
        size, checksum, start, place = self._table[number + 1].tolist()
        if not place or not size:
            return None
        begin = (place - 1) * _PAGE
        if begin + size > len(self._mapped):
            self._map()
            if begin + size > len(self._mapped):
                return None
        content = np.frombuffer(self._mapped, np.uint8, size, begin)
        if start != self._started:
            if zlib.crc32(content.data) != checksum:
                self._table[number + 1, -1] = 0
                return None
            self._table[number + 1, 2] = self._started
        return content

    def put(self, number: int, size: int, pieces: list[Any]) -> None:
        """See `Store`; a full disk is no room."""
        try:
            self._put(self._table[number + 1], b"".join(pieces))
        except OSError:  # the disk is full, or the folder was removed
            self.is_full = True

    def _put(self, row: np.ndarray, content: bytes) -> None:
        with FileLock(self.folder / _LOCK):
            if row[-1]:
                return  # another process was quicker
            # after a crash of the machine the number of pages may be an old one
            place = max(int(self._table[0, 0]), -(-os.fstat(self._file).st_size // _PAGE))
            end = place - (-len(content) // _PAGE)
            self.is_full = not self._fits(end * _PAGE)
            if self.is_full:
                return
            self._table[0, 0] = end
        view, start = memoryview(content), place * _PAGE
        while len(view):
            written = os.pwrite(self._file, view, start)
            view, start = view[written:], start + written
        row[:3] = len(content), zlib.crc32(content), self._started
        row[-1] = place + 1

    def _open(self) -> None:
        self._started = _machine_start()
        self.is_full, self._others = False, _size_of(self._beside())
        self._table = np.asarray(np.memmap(self.folder / _ROWS, np.int64, "r+", shape=(self.rows + 1, _FIELDS)))
        self._file = os.open(self.folder / _PIXELS, os.O_RDWR | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o666)
        self._mapped: Any = b""

    def _map(self) -> None:
        if os.fstat(self._file).st_size:
            # copies on writing: what a caller changes by mistake reaches no file
            self._mapped = mmap.mmap(self._file, 0, access=mmap.ACCESS_COPY)

    def __del__(self) -> None:
        with suppress(AttributeError, OSError):
            os.close(self._file)

    def _fits(self, size: int) -> bool:
        """Whether so many bytes are within the limit, after older stores have made room."""
        while size + self._others > self.limit:
            beside = self._beside()
            if size > self.limit or not beside:
                return False
            shutil.rmtree(beside[0], ignore_errors=True)
            if beside[0].exists():
                return False
            self._others = _size_of(beside[1:])
        return True

    def _beside(self) -> list[Path]:
        """The other stores, the one used longest ago first."""
        found = []
        for path in self.folder.parent.glob(f"*/{_ROWS}"):
            with suppress(OSError):
                found.append((path.stat().st_mtime_ns, path.parent))
        return [folder for _, folder in sorted(found) if folder != self.folder]


def _size_of(folders: list[Path]) -> int:
    total = 0
    for folder in folders:
        with suppress(OSError):
            total += (folder / _PIXELS).stat().st_size
    return total


def _machine_start() -> int:
    """A number that another start of the machine has not; where it is not known, that another process has not."""
    try:
        text = Path("/proc/sys/kernel/random/boot_id").read_bytes()
    except OSError:
        text = os.urandom(16)
    return zlib.crc32(text) + 1
