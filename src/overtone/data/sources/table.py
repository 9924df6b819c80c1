"""A table of images: a CSV or Parquet file with a column of image paths, columns of labels, and perhaps of splits.

| column | by name, else by option |
|---|---|
| image paths, relative to `data.root` or to the table | `image`, `path`, `file`, `filename`; `data.image_column` |
| one label each | `label`, `class`, `target`; `data.label_column` |
| several labels each | `labels`, `tags`: a list, or text separated by `|` or `,`; else every other column, of 0 and 1 |
| `train`, `val` or `test` | `split`, optional; `data.split_column` |

Read with pyarrow (extra `table`). Rows keep the table's order.
"""

import importlib
import io
import re
from collections.abc import Iterable, Sequence
from operator import attrgetter
from pathlib import Path
from typing import Any

import numpy as np

from overtone.config import Data
from overtone.data.sources.image_list import Contents, ImageList, Paths, found
from overtone.data.sources.parts import PART_OF, evaluation_of, splits_of
from overtone.data.sources.pointed import Pointed, is_pointer
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.data.storage import address_of, is_remote, read_all
from overtone.errors import OvertoneError, some

_IMAGE = ("image", "path", "file", "filename", "image_path", "filepath")
LABEL_NAMES = ("label", "class", "target", "category")
_LABELS = ("labels", "tags", "classes")
_SPLIT = ("split", "subset", "fold")
_SEPARATORS = re.compile(r"[|,]")


class TaggedImages:
    """Image files, each with any number of labels: a source of records with `image` and `labels`.

    Args:
        labels: names of all labels.
        paths: the files.
        tags: uint8 `(files, labels)`, 1 where a label holds.
        origin: where they come from, one phrase for messages.
        root: folder that the names of `entry` are relative to.
        contents: reads paths that are no files; None: all are files.
    """

    def __init__(
        self,
        labels: Sequence[str],
        paths: Iterable[Path],
        tags: np.ndarray,
        origin: str,
        root: Path | None = None,
        contents: Contents | None = None,
    ) -> None:
        self.labels, self.origin, self.root = tuple(labels), origin, root
        self.paths = paths if isinstance(paths, Paths) else Paths(paths)
        self.contents = contents
        self.tags = np.ascontiguousarray(tags, dtype=np.uint8)

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def name(self, position: int) -> str:
        """The file."""
        return address_of(self.paths[position])

    def read(self, position: int) -> Record:
        """The file and the positions of its labels; the file is not opened."""
        return {
            "image": found(self.paths[position], self.contents),
            "labels": np.flatnonzero(self.tags[position]).tolist(),
        }

    def entry(self, position: int) -> tuple[str, str, int]:
        """Name below `root`, labels and size in bytes."""
        name, _, size = ImageList(("",), [self.paths[position]], [0], "", self.root, self.contents).entry(0)
        return name, "|".join(self.labels[i] for i in np.flatnonzero(self.tags[position])), size

    def counts(self) -> tuple[int, ...]:
        """Number of images that each label holds of."""
        return tuple(self.tags.sum(axis=0, dtype=np.int64).tolist())

    def part(self, positions: Sequence[int] | np.ndarray, origin: str) -> "TaggedImages":
        """The images at some positions."""
        chosen = np.asarray(positions, dtype=np.int64)
        paths = self.paths.chosen(chosen)
        return TaggedImages(self.labels, paths, self.tags[chosen], origin, self.root, self.contents)


class ClassTable:
    """A table with one label for each image."""

    target = "label"

    def matches(self, data: Data) -> bool:
        """Whether a table is given."""
        return data.table is not None

    def splits(self, data: Data) -> Splits:
        """The training and validation images; see `parts.splits_of`."""
        images, parts = self._read(data)
        if len(images.labels) < 2:
            raise OvertoneError(f"{data.table} has one class only, {', '.join(images.labels)}; add images of another")
        return splits_of(_by_part(images, parts), data, f"split column of {images.origin}", attrgetter("targets"))

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part; see `parts.evaluation_of`."""
        images, parts = self._read(data)
        by_part = _by_part(images, parts)
        return evaluation_of(by_part, data, part, trained_on, lambda: images, attrgetter("targets"))

    def _read(self, data: Data) -> tuple[ImageList, np.ndarray | None]:
        table = Table(data)
        values = table.texts(table.column(LABEL_NAMES, data.label_column, "label"))
        labels = sorted(set(values))
        position = {name: at for at, name in enumerate(labels)}
        targets = np.array([position[value] for value in values], dtype=np.int64)
        paths, parts = table.images(), table.parts()
        return ImageList(labels, paths, targets, table.origin, table.root, table.contents(paths)), parts


class TagTable:
    """A table with any number of labels for each image."""

    target = "labels"

    def matches(self, data: Data) -> bool:
        """Whether a table is given."""
        return data.table is not None

    def splits(self, data: Data) -> Splits:
        """The training and validation images; see `parts.splits_of`."""
        images, parts = self._read(data)
        return splits_of(_by_part(images, parts), data, f"split column of {images.origin}")

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part; see `parts.evaluation_of`."""
        images, parts = self._read(data)
        return evaluation_of(_by_part(images, parts), data, part, trained_on, lambda: images)

    def _read(self, data: Data) -> tuple[TaggedImages, np.ndarray | None]:
        table = Table(data)
        column = table.find(_LABELS, data.label_column)
        labels, tags = table.flags() if column is None else table.lists(column)
        paths, parts = table.images(), table.parts()
        return TaggedImages(labels, paths, tags, table.origin, table.root, table.contents(paths)), parts


class Table:
    """A table in memory, and what its columns hold.

    Raises:
        OvertoneError: no such file, one that cannot be read, without rows, or without images.
    """

    def __init__(self, data: Data) -> None:
        assert data.table is not None
        self.data, self.path = data, _table_path(data.table, data.root)
        self._columns = _read_file(self.path)
        self.origin = f"the table {address_of(self.path)}"
        if not self._columns or not self.num_rows:
            raise OvertoneError(f"{self.path} has no rows; give a table with a row for each image")
        self._image = self.column(_IMAGE, data.image_column, "image")
        self._split = self.find(_SPLIT, data.split_column)
        self.root = self._root()

    @property
    def num_rows(self) -> int:
        """Number of images."""
        return len(next(iter(self._columns.values())))

    @property
    def names(self) -> list[str]:
        """The columns."""
        return list(self._columns)

    def find(self, names: Sequence[str], chosen: str | None) -> str | None:
        """The column of one of these names, or the chosen one; None where there is none.

        Raises:
            OvertoneError: the chosen one is not there.
        """
        if chosen is not None:
            if chosen not in self._columns:
                raise OvertoneError(f"{self.path} has no column {chosen!r}; it has {some(self._columns)}")
            return chosen
        lower = {name.lower(): name for name in self._columns}
        return next((lower[name] for name in names if name in lower), None)

    def column(self, names: Sequence[str], chosen: str | None, what: str) -> str:
        """As `find`, of a column that must be there.

        Raises:
            OvertoneError: there is none.
        """
        found = self.find(names, chosen)
        if found is None:
            raise OvertoneError(
                f"{self.path} has no column named {' or '.join(names)}; it has {some(self._columns)}: "
                f"name the one to take with --data.{what}-column"
            )
        return found

    @property
    def image_column(self) -> str:
        """The column of image paths."""
        return self._image

    def values(self, column: str) -> list[Any]:
        """A column as it is read; None where a row has nothing."""
        return self._columns[column]

    def texts(self, column: str) -> list[str]:
        """A column of words.

        Raises:
            OvertoneError: a row has none.
        """
        values = self._columns[column]
        for row, value in enumerate(values):
            if value is None or str(value) == "":
                raise OvertoneError(f"{self.path}: row {row + 1} has no {column}; fill it in or remove the row")
        return [str(value) for value in values]

    def images(self) -> list[Path]:
        """The image files.

        Raises:
            OvertoneError: a row has none, or two rows have the same.
        """
        names = self.texts(self._image)
        seen: dict[str, int] = {}
        for row, name in enumerate(names):
            if name in seen:
                raise OvertoneError(
                    f"{self.path}: rows {seen[name] + 1} and {row + 1} have the same image, {name}; remove one of them"
                )
            seen[name] = row
        return [Path(name) if is_remote(name) else self.root / name for name in names]

    def contents(self, paths: Sequence[Path]) -> Contents | None:
        """What reads the images that are no files of their own; None where there are none.

        Raises:
            OvertoneError: an archive cannot be read.
        """
        pointers = [path for path in paths if is_pointer(path)]
        return Pointed(pointers, round(self.data.cache_gb * 1e9)) if pointers else None

    def parts(self) -> np.ndarray | None:
        """`train`, `val` or `test` of each row; None where no column says.

        Raises:
            OvertoneError: another word.
        """
        if self._split is None:
            return None
        parts = self.texts(self._split)
        for row, part in enumerate(parts):
            if part.lower() not in PART_OF:
                raise OvertoneError(
                    f"{self.path}: row {row + 1} has the {self._split} {part!r}; it must be train, val or test"
                )
        return np.array([PART_OF[part.lower()] for part in parts])

    def lists(self, column: str) -> tuple[list[str], np.ndarray]:
        """Names of all labels and uint8 `(rows, labels)`, of a column of lists or of text with separators."""
        rows = [words_in(value) for value in self._columns[column]]
        labels = sorted({word for words in rows for word in words})
        if not labels:
            raise OvertoneError(f"{self.path}: the column {column} holds no label; fill it in or name another column")
        position = {name: at for at, name in enumerate(labels)}
        tags = np.zeros((len(rows), len(labels)), dtype=np.uint8)
        for row, words in enumerate(rows):
            tags[row, [position[word] for word in words]] = 1
        return labels, tags

    def flags(self) -> tuple[list[str], np.ndarray]:
        """Names of all labels and uint8 `(rows, labels)`, of one column of 0 and 1 for each label.

        Raises:
            OvertoneError: another value, or no such column.
        """
        names = [name for name in self._columns if name not in (self._image, self._split)]
        if not names:
            raise OvertoneError(f"{self.path} has no columns of labels beside {self._image}; see docs/data.md")
        tags = np.zeros((self.num_rows, len(names)), dtype=np.uint8)
        for at, name in enumerate(names):
            for row, value in enumerate(self._columns[name]):
                if isinstance(value, str) or value not in (0, 1):
                    raise OvertoneError(
                        f"{self.path}: row {row + 1} of column {name} is {value!r}; a column for each label holds 0 or "
                        "1, and one column of lists is named labels or by --data.label-column"
                    )
                tags[row, at] = int(value)
        return names, tags

    def _root(self) -> Path:
        """The folder that the paths of the images are relative to: the one in which the first image lies."""
        first = str(next(iter(self._columns[self._image]), ""))
        folders = [folder for folder in (self.data.root, self.path.parent) if folder is not None]
        first = first.partition("#")[0] if is_pointer(first) else first
        there = (folder for folder in folders if is_remote(address_of(folder)) or (folder / first).is_file())
        return next(there, folders[0])


def _by_part(images: Any, parts: np.ndarray | None) -> dict[str, Any]:
    """The rows of each part that the split column names; without one `all`."""
    if parts is None:
        return {"all": images}
    rows = {part: np.flatnonzero(parts == part) for part in np.unique(parts).tolist()}
    return {part: images.part(at, f"{part} rows of {images.origin}") for part, at in rows.items()}


def _table_path(table: Path, root: Path | None) -> Path:
    if is_remote(address_of(table)):
        return table
    candidates = [table] if root is None or table.is_absolute() else [table, root / table]
    found = next((path for path in candidates if path.is_file()), None)
    if found is None:
        raise OvertoneError(f"data.table {table} is not there; give a CSV or Parquet file with a row for each image")
    return found


def _read_file(path: Path) -> dict[str, list[Any]]:
    """The columns of a CSV (or TSV) or Parquet file as Python values."""
    try:
        parquet, csv = importlib.import_module("pyarrow.parquet"), importlib.import_module("pyarrow.csv")
    except ImportError as error:
        raise OvertoneError(
            f'reading {path} needs pyarrow, which is not installed: pip install "overtone[table]"'
        ) from error
    address = address_of(path)
    file = io.BytesIO(read_all(address)) if is_remote(address) else path
    try:
        if path.suffix.lower() in (".parquet", ".pq"):
            table = parquet.ParquetFile(file).read()
        else:
            delimiter = "\t" if path.suffix.lower() == ".tsv" else ","
            table = csv.read_csv(file, parse_options=csv.ParseOptions(delimiter=delimiter, newlines_in_values=True))
        return {name: table.column(name).to_pylist() for name in table.column_names}
    except (OSError, ValueError, KeyError) as error:  # pyarrow's own errors are of these kinds
        raise OvertoneError(f"{path} cannot be read as a table: {' '.join(str(error).split())}") from error


def words_in(value: Any) -> list[str]:
    """The labels of a cell: a list, or text with separators."""
    words = value if isinstance(value, list) else _SEPARATORS.split("" if value is None else str(value))
    return [word for word in (str(word).strip() for word in words) if word]
