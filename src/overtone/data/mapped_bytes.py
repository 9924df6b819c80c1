"""A file as bytes that all processes on a machine share in memory."""

import mmap
from pathlib import Path


class MappedBytes:
    """The content of a file that is not empty; slices of it are bytes. A copy in another process maps the file again.

    Raises:
        OSError: it cannot be opened.
        ValueError: it is empty.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        with path.open("rb") as file:
            self._map = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)

    def __len__(self) -> int:
        return len(self._map)

    def __getitem__(self, index: slice) -> bytes:
        return self._map[index]

    def __reduce__(self) -> tuple[type["MappedBytes"], tuple[Path]]:
        return MappedBytes, (self.path,)
