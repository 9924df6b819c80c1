"""Images of a table that are no files of their own: members of archives (`photos.tar#a/1.jpg`), files in a store."""

import bisect
import os
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from overtone.data.decoding import BadImage
from overtone.data.packed_texts import PackedTexts
from overtone.data.scan_progress import counted
from overtone.data.shard_files import ShardFiles
from overtone.data.sources.shard_indices import reader_of
from overtone.data.storage import Changed, address_of, is_remote, read_all, stamp
from overtone.data.tar_members import BrokenTar, Member, members
from overtone.errors import OvertoneError

_SPLIT = ".tar#"


def is_pointer(path: str | Path) -> bool:
    """Whether a path names a member of an archive, or something in a store."""
    return _SPLIT in str(path) or is_remote(address_of(path))


class Pointed:
    """Where the images lie that some paths point to; it is sent to the processes that read.

    Args:
        paths: of all images.
        cache_bytes: room on this machine for archives in a store; 0: they are read by range.

    Raises:
        OvertoneError: an archive cannot be read.
    """

    def __init__(self, paths: Iterable[Path], cache_bytes: int) -> None:
        archives = sorted({archive for archive, _ in map(_parted, paths) if archive})
        with counted("reading the headers of archives: members") as add, ThreadPoolExecutor(8) as pool:
            self._files = ShardFiles(archives, list(pool.map(stamp, archives)), cache_bytes)
            self._listings = list(pool.map(lambda at: _Listing(self._files, at, add), range(len(archives))))
        self._number = {archive: at for at, archive in enumerate(archives)}

    def image(self, path: Path) -> Path | bytes:
        """The bytes of an image, or a path that is a file of its own.

        Raises:
            BadImage: it is not there, or cannot be read.
        """
        archive, name = _parted(path)
        if archive:
            at = self._number[archive]
            return self._files.read(at, *self._listings[at].span(name))
        address = address_of(path)
        if not is_remote(address):
            return path
        try:
            return read_all(address)
        except OvertoneError as error:
            raise BadImage(None, str(error)) from error

    def size(self, path: Path) -> int:
        """Bytes of an image; 0 in a store, which is not asked for each, -1 where there is none."""
        archive, name = _parted(path)
        try:
            if archive:
                return self._listings[self._number[archive]].span(name)[1]
            return 0 if is_remote(address_of(path)) else os.stat(path).st_size
        except (BadImage, OSError, ValueError):
            return -1


class _Listing:
    """The members of an archive, sorted by name, packed: a million of them as Python objects are too many."""

    def __init__(self, files: ShardFiles, at: int, add: Callable[[int], None]) -> None:
        found: list[Member] = []
        self._problem = ""
        try:
            with reader_of(files, at) as read:
                for member in members(read, files.stamps[at].size):
                    found.append(member)
                    add(1)
        except BrokenTar as error:
            self._problem = f": {error}"
        except Changed as error:
            raise OvertoneError(f"{error} changes while it is read; wait until it is written") from error
        found.sort()
        self._names = PackedTexts.of(member.name for member in found)
        self._spans = np.array([(member.offset, member.size) for member in found], dtype=np.int64).reshape(-1, 2)

    def span(self, name: str) -> tuple[int, int]:
        """Offset and size of a member.

        Raises:
            BadImage: there is none of this name.
        """
        at = bisect.bisect_left(self._names, name)
        if at == len(self._names) or self._names[at] != name:
            raise BadImage(None, f"the archive has no member {name}{self._problem}")
        start, length = self._spans[at].tolist()
        return start, length


def _parted(path: Path) -> tuple[str, str]:
    """The archive and the member; empty for another path."""
    archive, split, name = address_of(path).partition(_SPLIT)
    return (f"{archive}.tar", name) if split else ("", "")
