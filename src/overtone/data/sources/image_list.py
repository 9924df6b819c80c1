"""Image files with one target each, packed: a million paths as Python objects would be copied into every worker."""

import os
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Protocol, overload

import numpy as np

from overtone.data.mapped_bytes import MappedBytes
from overtone.data.sources.source import Record
from overtone.data.storage import address_of

_CHUNK = 1 << 16


class Paths(Sequence[Path]):
    """Paths as one run of bytes."""

    def __init__(self, paths: Iterable[str | Path]) -> None:
        names = [os.fsencode(path) for path in paths]
        self._names: bytes | MappedBytes = b"".join(names)
        self._ends = np.cumsum([len(name) for name in names], dtype=np.int64)

    @classmethod
    def packed(cls, names: bytes | MappedBytes, ends: np.ndarray) -> "Paths":
        """Paths that are one run of bytes already; `ends` int64 `(n,)`."""
        paths = cls(())
        paths._names, paths._ends = names, ends
        return paths

    def chosen(self, positions: np.ndarray) -> "Paths":
        """The paths at some positions."""
        starts = np.concatenate([[0], self._ends[:-1]])[positions] if len(positions) else np.empty(0, np.int64)
        ends = self._ends[positions]
        parts = []
        for at in range(0, len(positions), _CHUNK):
            pairs = zip(starts[at : at + _CHUNK].tolist(), ends[at : at + _CHUNK].tolist(), strict=True)
            parts.append(b"".join([self._names[start:end] for start, end in pairs]))
        return Paths.packed(b"".join(parts), np.cumsum(ends - starts, dtype=np.int64))

    def __len__(self) -> int:
        return len(self._ends)

    @overload
    def __getitem__(self, index: int) -> Path: ...
    @overload
    def __getitem__(self, index: slice) -> tuple[Path, ...]: ...
    def __getitem__(self, index: int | slice) -> Path | tuple[Path, ...]:
        if isinstance(index, slice):
            return tuple(self[i] for i in range(*index.indices(len(self))))
        index = range(len(self))[index]
        start = self._ends[index - 1] if index else 0
        return Path(os.fsdecode(self._names[start : self._ends[index]]))

    def __iter__(self) -> Iterator[Path]:
        start = 0
        for end in self._ends.tolist():
            yield Path(os.fsdecode(self._names[start:end]))
            start = end

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Paths):
            return self._names[:] == other._names[:] and np.array_equal(self._ends, other._ends)
        return tuple(self) == other

    def __hash__(self) -> int:
        return hash(self._names[:])


class Contents(Protocol):
    """Reads images whose paths are no files; picklable."""

    def image(self, path: Path) -> Path | bytes:
        """The bytes of an image, or a path that is a file of its own.

        Raises:
            BadImage: it is not there, or cannot be read.
        """
        ...

    def size(self, path: Path) -> int:
        """Bytes of an image, -1 where there is none."""
        ...


def found(path: Path, contents: Contents | None) -> Path | bytes:
    """The file, or what `contents` reads there."""
    return path if contents is None else contents.image(path)


class ImageList:
    """Image files, each with one label: a source of records with `image` and `label`.

    Args:
        labels: names of the classes; a target is a position in it.
        paths: the files.
        targets: class of each file.
        origin: where the list comes from, one phrase for messages.
        root: folder that the names of `entry` are relative to.
        contents: reads paths that are no files; None: all are files.
    """

    def __init__(
        self,
        labels: Sequence[str],
        paths: Iterable[Path],
        targets: Iterable[int],
        origin: str = "",
        root: Path | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.labels, self.origin, self.root = tuple(labels), origin, root
        self.paths = paths if isinstance(paths, Paths) else Paths(paths)
        self.contents = contents
        self.targets = np.asarray(targets if isinstance(targets, np.ndarray) else list(targets), dtype=np.int64)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def name(self, position: int) -> str:
        """The file."""
        return address_of(self.paths[position])

    def read(self, position: int) -> Record:
        """The file and its label; the file is not opened."""
        return {"image": found(self.paths[position], self.contents), "label": int(self.targets[position])}

    def entry(self, position: int) -> tuple[str, str, int]:
        """Name below `root`, label and size in bytes (-1 where the file is gone)."""
        path = self.paths[position]
        name = path.relative_to(self.root) if self.root is not None and path.is_relative_to(self.root) else path
        try:
            size = os.stat(path).st_size if self.contents is None else self.contents.size(path)
        except (OSError, ValueError):
            size = -1
        return name.as_posix(), self.labels[self.targets[position]], size

    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        return tuple(np.bincount(self.targets, minlength=len(self.labels)).tolist())

    def part(self, positions: Sequence[int] | np.ndarray, origin: str) -> "ImageList":
        """The images at some positions."""
        chosen = np.asarray(positions, dtype=np.int64)
        paths = self.paths.chosen(chosen)
        return ImageList(self.labels, paths, self.targets[chosen], origin, self.root, self.contents)

    def relabelled(self, labels: Sequence[str]) -> "ImageList":
        """The same images with targets that are positions in other labels, which hold all of theirs."""
        position = {name: target for target, name in enumerate(labels)}
        targets = np.array([position[name] for name in self.labels], dtype=np.int64)[self.targets]
        return ImageList(labels, self.paths, targets, self.origin, self.root, self.contents)

    def __eq__(self, other: object) -> bool:
        """Whether these are the same files with the same labels from the same place."""
        if not isinstance(other, ImageList):
            return NotImplemented
        same = (self.labels, self.origin) == (other.labels, other.origin) and self.paths == other.paths
        return same and np.array_equal(self.targets, other.targets)

    def __hash__(self) -> int:
        return hash((self.labels, self.paths))
