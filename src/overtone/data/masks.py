"""Masks of a segmentation: from a file of indices, palette indices or colours to the class of every pixel.

Class indices are uint8; `IGNORED` is a pixel without a class, which counts nowhere.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

import numpy as np

from overtone.data.decoding import BadImage, Encoded, decode_stored
from overtone.data.opening import read_file
from overtone.errors import OvertoneError

IGNORED = 255
MOST_CLASSES = 255
UNLABELLED = frozenset({"unlabelled", "unlabeled", "void", "ignore", "ignored", "unknown"})
"""Names in a list of classes that stand for pixels without a class, in lower case."""

Colour = tuple[int, int, int]
_MOST_BYTES = 10_000_000  # of a list of classes


class Mask(Protocol):
    """An undecoded mask; picklable."""

    @property
    def name(self) -> str:
        """Display name, for messages."""
        ...

    def pixels(self) -> np.ndarray:
        """The class of every pixel, uint8 `(H, W)`, `IGNORED` where there is none.

        Raises:
            BadImage: it cannot be read, or holds what stands for no class.
        """
        ...


@dataclass(frozen=True)
class ClassList:
    """The classes of some masks, and what stands for them there.

    Attributes:
        labels: names of the classes that are learned.
        indices: from an index in the masks to a class, or to `IGNORED`.
        colours: from a colour in the masks to a class, or to `IGNORED`; empty where masks hold indices.
    """

    labels: tuple[str, ...]
    indices: Mapping[int, int]
    colours: Mapping[Colour, int] = field(default_factory=dict)

    def decoded(self, source: Encoded, name: str) -> np.ndarray:
        """The class of every pixel of a mask file, uint8 `(H, W)`.

        Args:
            source: the file or its bytes.
            name: of the mask, for messages.

        Raises:
            BadImage: it cannot be read, or holds an index or a colour that stands for no class.
        """
        path = source if isinstance(source, Path) else None
        try:
            values, palette = decode_stored(source)
        except BadImage as error:
            raise BadImage(path, f"mask {name}: {error.reason}") from error
        try:
            return self._of_colours(_coloured(values, palette)) if self.colours else self._of_indices(values)
        except ValueError as error:
            raise BadImage(path, f"mask {name} {error}") from error

    def _of_indices(self, values: np.ndarray) -> np.ndarray:
        if values.ndim == 3:
            if not (values == values[..., :1]).all():
                raise ValueError("is coloured, and no classes.csv says what its colours stand for")
            values = values[..., 0]
        largest = int(values.max(initial=0))
        if values.min(initial=0) < 0 or largest > 65535:
            raise ValueError("holds values outside of 0..65535")
        table = np.full(max(largest, IGNORED) + 1, -1, dtype=np.int16)
        for index, label in self.indices.items():
            if index < len(table):
                table[index] = label
        found = table[values]
        if (found < 0).any():
            first = int(values[found < 0].min())
            known = f"{min(self.indices)} to {max(i for i in self.indices if i != IGNORED)}"
            raise ValueError(f"holds the index {first}, which is no class (they are {known})")
        return found.astype(np.uint8)

    def _of_colours(self, values: np.ndarray) -> np.ndarray:
        packed = _packed(values.astype(np.int64))
        known = np.array(sorted((_packed(np.array(colour)), label) for colour, label in self.colours.items()))
        at = np.minimum(np.searchsorted(known[:, 0], packed), len(known) - 1)
        unknown = known[at, 0] != packed
        if unknown.any():
            row, column = np.argwhere(unknown)[0]
            colour = tuple(int(value) for value in values[row, column])
            raise ValueError(f"holds the colour {colour}, which is no class of the list")
        return known[at, 1].astype(np.uint8)

    def relabelled(self, labels: Sequence[str]) -> "ClassList":
        """The same masks by other labels, which hold all of these."""
        position = {label: labels.index(name) for label, name in enumerate(self.labels)} | {IGNORED: IGNORED}
        indices = {index: position[label] for index, label in self.indices.items()}
        colours = {colour: position[label] for colour, label in self.colours.items()}
        return ClassList(tuple(labels), indices, colours)


@dataclass(frozen=True)
class MaskFile:
    """A mask in a file.

    Attributes:
        path: the file.
        classes: what its values stand for.
    """

    path: Path
    classes: ClassList

    @property
    def name(self) -> str:
        """The file."""
        return str(self.path)

    def pixels(self) -> np.ndarray:
        """The class of every pixel; see `Mask`."""
        return self.classes.decoded(self.path, self.path.name)


@dataclass(frozen=True)
class StoredMask:
    """A mask whose file is in memory.

    Attributes:
        name: display name.
        content: the bytes of the file.
        classes: what its values stand for.
    """

    name: str
    content: bytes
    classes: ClassList

    def pixels(self) -> np.ndarray:
        """The class of every pixel; see `Mask`."""
        return self.classes.decoded(self.content, self.name)


def class_list(
    names: Sequence[str], ignore_index: int | None = None, colours: Sequence[Colour] | None = None
) -> ClassList:
    """The classes of masks whose indices count from 0.

    A class that is named as in `UNLABELLED`, or has the index `ignore_index`, is not learned: the others move up.

    Args:
        names: in the order of the indices.
        ignore_index: index of pixels without a class, beside 255.
        colours: of each name, where masks hold colours.

    Raises:
        OvertoneError: no class, too many, or two of the same name.
    """
    dropped = {index for index, name in enumerate(names) if name.lower() in UNLABELLED or index == ignore_index}
    kept = [index for index in range(len(names)) if index not in dropped]
    labels = tuple(names[index] for index in kept)
    if not 1 <= len(labels) <= MOST_CLASSES or len(set(labels)) < len(labels):
        raise OvertoneError(
            f"the list of classes has {len(labels)} classes, {len(set(labels))} different ones; "
            f"give each a name of its own, and no more than {MOST_CLASSES}"
        )
    positions = {index: label for label, index in enumerate(kept)} | dict.fromkeys(dropped, IGNORED)
    by_colour = {} if colours is None else {colour: positions[index] for index, colour in enumerate(colours)}
    indices = {IGNORED: IGNORED} | positions
    if ignore_index is not None:
        indices[ignore_index] = IGNORED
    return ClassList(labels, indices, by_colour)


def read_class_list(path: Path, ignore_index: int | None = None) -> ClassList:
    """The classes of a `classes.txt` (a name a line) or a `classes.csv` (names, perhaps with colours).

    A CSV has a header: a column `name` (or `class`, `label`), and for colours `r`, `g`, `b`, or one column `color` such
    as `#ff8000` or `255 128 0`.

    Raises:
        OvertoneError: it cannot be read, or is not such a list.
    """
    try:
        text = read_file(path, _MOST_BYTES).decode("utf-8-sig")
    except (OSError, ValueError) as error:
        raise OvertoneError(f"{path} cannot be read: {error}; give the names of the classes, one a line") from error
    if path.suffix.lower() != ".csv":
        names = [line.strip() for line in text.splitlines() if line.strip()]
        return _named(path, names, ignore_index, None)
    rows = [row for row in csv.reader(io.StringIO(text), skipinitialspace=True) if any(cell.strip() for cell in row)]
    header = [cell.strip().lower() for cell in rows[0]] if rows else []
    name_at = next((header.index(name) for name in ("name", "class", "label", "class_name") if name in header), None)
    if name_at is None or len(rows) < 2:
        raise OvertoneError(f"{path} is no list of classes; its first line must be name,r,g,b (or name alone)")
    if any(len(row) < len(header) for row in rows):
        raise OvertoneError(f"{path} has a line with fewer columns than its first; give every class all of them")
    names = [row[name_at].strip() for row in rows[1:]]
    return _named(path, names, ignore_index, _colours(path, header, rows[1:]))


def _named(path: Path, names: list[str], ignore_index: int | None, colours: list[Colour] | None) -> ClassList:
    try:
        return class_list(names, ignore_index, colours)
    except OvertoneError as error:
        raise OvertoneError(f"{path}: {error}") from error


def _colours(path: Path, header: list[str], rows: list[list[str]]) -> list[Colour] | None:
    single = next((header.index(name) for name in ("color", "colour", "rgb") if name in header), None)
    triple = [header.index(name) for name in ("r", "g", "b") if name in header]
    if single is None and len(triple) < 3:
        return None
    found: list[Colour] = []
    for row in rows:
        cells = [row[at] for at in triple] if single is None else _parts(row[single])
        values = [int(cell) for cell in cells if cell.strip().isdigit()]
        if len(values) != 3 or max(values) > 255:
            raise OvertoneError(f"{path}: {','.join(row)} has no colour of three numbers in 0..255; mend the line")
        found.append((values[0], values[1], values[2]))
    if len(set(found)) < len(found):
        raise OvertoneError(f"{path} gives two classes the same colour; give each a colour of its own")
    return found


def _parts(text: str) -> list[str]:
    text = text.strip()
    if text.startswith("#") and len(text) == 7:
        try:
            return [str(int(text[at : at + 2], 16)) for at in (1, 3, 5)]
        except ValueError:
            return []
    return text.replace(",", " ").replace(";", " ").split()


def _coloured(values: np.ndarray, palette: np.ndarray | None) -> np.ndarray:
    """The colours `(H, W, 3)` of what a file stores."""
    if values.ndim == 3:
        return values
    if palette is None:
        return np.repeat(values[..., None], 3, axis=2)
    if int(values.max(initial=0)) >= len(palette):
        raise ValueError("holds an index beyond its palette")
    return palette[values]


def _packed(values: np.ndarray) -> np.ndarray:
    return (values[..., 0] << 16) | (values[..., 1] << 8) | values[..., 2]
