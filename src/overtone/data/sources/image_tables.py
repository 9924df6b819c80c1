"""Images whose bytes lie in Parquet or Arrow files beside their labels, as the `datasets` library keeps them.

Read with pyarrow alone: one row group or record batch at a time is in memory. The images are in a column of structures
with `bytes` and `path`, or of bytes; class names are in the files' own metadata (`huggingface`), where `datasets` puts
them.
"""

import importlib
import json
import os
from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.masks import ClassList, MaskFile, StoredMask, read_class_list
from overtone.data.opening import is_folder
from overtone.data.sources.arrow_columns import classes_of, names_of, opened, tags_of
from overtone.data.sources.masks import LISTS
from overtone.data.sources.parts import PART_OF, evaluation_of, splits_of
from overtone.data.sources.shard_list import part_of
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.errors import OvertoneError, some

_SUFFIXES = (".parquet", ".pq", ".arrow")
_IMAGE = ("image", "img", "jpg", "png", "webp", "picture")
_COLUMNS: dict[str, tuple[str, ...]] = {
    "label": ("label", "labels", "fine_label", "cls", "class", "target"),
    "labels": ("labels", "tags", "label", "classes"),
    "mask": ("mask", "annotation", "segmentation", "label"),
    "": (),
}
_MOST_KEPT = 4  # row groups
_FOLDERS = frozenset({*PART_OF, "data", "default"})


class ImageTable:
    """Rows with the bytes of an image and what is learned of it: a source of records.

    Args:
        labels: names of the classes.
        files: the Parquet or Arrow files.
        ends: int64, where the rows of each row group end, counted over all files.
        groups: file and row group of each of these.
        targets: class of each row, -1 where it is unknown; 0 where something else is learned.
        positions: which rows.
        column: of the images.
        origin: where they come from, one phrase for messages.
        window: row groups that training's order draws from at a time.
        tags: uint8 `(rows, labels)`, where several labels are learned.
        masks: column of the masks and what their values stand for, where these are learned.
    """

    def __init__(
        self,
        labels: Sequence[str],
        files: Sequence[Path],
        ends: np.ndarray,
        groups: Sequence[tuple[int, int]],
        targets: np.ndarray,
        positions: np.ndarray,
        column: str,
        origin: str,
        window: int,
        tags: np.ndarray | None = None,
        masks: tuple[str, ClassList] | None = None,
    ) -> None:
        self.labels, self.origin, self.window = tuple(labels), origin, window
        self._files, self._ends, self._groups = tuple(files), ends, tuple(groups)
        self._targets, self._positions, self._column = targets, positions, column
        self._tags, self._masks = tags, masks
        self._kept: OrderedDict[tuple[int, str], Any] = OrderedDict()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_kept": OrderedDict()}

    def __len__(self) -> int:
        """Number of images."""
        return len(self._positions)

    def name(self, position: int) -> str:
        """The file and the row in it, counted from 0."""
        return "#".join(map(str, self._place(position)))

    def read(self, position: int) -> Record:
        """The bytes of the image and its label.

        Raises:
            BadImage: there are none, or the file can no longer be read.
        """
        row = int(self._positions[position])
        target = int(self._targets[row])
        if target < 0:
            raise BadImage(None, "no label that the training knows")
        record: Record = {"image": self._encoded(row, self._column)}
        if self._tags is not None:
            record["labels"] = np.flatnonzero(self._tags[row]).tolist()
        elif self._masks is not None:
            column, classes = self._masks
            content = self._encoded(row, column)
            is_path = isinstance(content, Path)
            record["mask"] = (
                MaskFile(content, classes) if is_path else StoredMask(self.name(position), content, classes)
            )
        elif self.labels:
            record["label"] = target
        return record

    def entry(self, position: int) -> tuple[str, str, int]:
        """File name and row, label; sizes are not known before an image is read."""
        path, row = self._place(position)
        row_at = int(self._positions[position])
        target = int(self._targets[row_at])
        label = self.labels[target] if target >= 0 and self.labels else ""
        if self._tags is not None or self._masks is not None:
            label = "" if self._tags is None else "|".join(self.labels[at] for at in np.flatnonzero(self._tags[row_at]))
        return f"{path.name}#{row}", label, 0

    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        if self._tags is not None:
            return tuple(self._tags[self._positions].sum(axis=0, dtype=np.int64).tolist())
        targets = self._targets[self._positions]
        return tuple(np.bincount(targets[targets >= 0], minlength=len(self.labels)).tolist())

    def groups(self) -> np.ndarray:
        """Number of images of each row group, which are neighbours."""
        group = np.searchsorted(self._ends, self._positions, side="right")
        return np.diff(np.flatnonzero(np.r_[True, group[1:] != group[:-1], True])) if len(group) else group

    def part(self, positions: Sequence[int] | np.ndarray, origin: str) -> "ImageTable":
        """The images at some positions."""
        chosen = self._positions[np.asarray(positions, dtype=np.int64)]
        tables = (self._files, self._ends, self._groups, self._targets, chosen)
        return ImageTable(self.labels, *tables, self._column, origin, self.window, self._tags, self._masks)

    @property
    def schema(self) -> Any:
        """The columns of the first file."""
        return opened(self._files[0]).schema

    def values(self, column: str) -> list[Any]:
        """A column of all images, as Python values; read group by group, and not kept."""
        group = np.searchsorted(self._ends, self._positions, side="right")
        first = np.r_[0, self._ends]
        found: list[Any] = []
        for at in dict.fromkeys(group.tolist()):
            file, number = self._groups[at]
            rows = opened(self._files[file]).column(number, column).to_pylist()
            found += [rows[row] for row in (self._positions[group == at] - first[at]).tolist()]
        return found

    def _place(self, position: int) -> tuple[Path, int]:
        row = int(self._positions[position])
        group = int(np.searchsorted(self._ends, row, side="right"))
        file = self._groups[group][0]
        first = next(at for at, (other, _) in enumerate(self._groups) if other == file)
        return self._files[file], row - (int(self._ends[first - 1]) if first else 0)

    def _encoded(self, row: int, column: str) -> bytes | Path:
        """The bytes of an image, or where its file is.

        Raises:
            BadImage: the row has none, or the file can no longer be read.
        """
        group = int(np.searchsorted(self._ends, row, side="right"))
        value = self._values(group, column)[row - (int(self._ends[group - 1]) if group else 0)].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content and isinstance(value, dict) and value.get("path"):
            return self._files[self._groups[group][0]].parent / value["path"]
        if not content:
            raise BadImage(None, f"the row holds no {'image' if column == self._column else column}")
        return content

    def _values(self, group: int, column: str) -> Any:
        """A column of a row group."""
        key = group, column
        if key not in self._kept:
            file, number = self._groups[group]
            try:
                self._kept[key] = opened(self._files[file]).column(number, column)
            except (OSError, ValueError, KeyError, IndexError) as error:
                raise BadImage(None, f"{self._files[file]} cannot be read: {error}") from error
            if len(self._kept) > max(_MOST_KEPT, self.window) * (1 if self._masks is None else 2):
                self._kept.popitem(last=False)
        self._kept.move_to_end(key)
        return self._kept[key]


class ImageTables:
    """Parquet files with images in them, or a folder of `datasets`' `save_to_disk`, by `data.root` or `data.table`.

    Args:
        target: `label`, `labels` or `mask`; empty: nothing is learned.
    """

    def __init__(self, target: str) -> None:
        self.target = target

    def matches(self, data: Data) -> bool:
        """Whether these are such files, by their columns."""
        place = data.table or data.root
        if place is None or str(place).startswith("hf-dataset:"):
            return place is not None
        try:
            files = _files(place)
            return bool(files) and _image_column(opened(files[0]).schema, data.image_column) is not None
        except (OSError, ValueError, ImportError, OvertoneError):
            return False

    def splits(self, data: Data) -> Splits:
        """By the names of files or folders (train, validation, test); where none says val, a part is held out.

        Raises:
            OvertoneError: nothing to train on, or a column that is not there.
        """
        parts = self._parts(data)
        return splits_of(parts, data, f"the files of {data.table or data.root}", _targets)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part, chosen as of folders.

        Raises:
            OvertoneError: there is no such part.
        """
        return evaluation_of(self._parts(data), data, part, trained_on, lambda: read_rows(data, self.target), _targets)

    def _parts(self, data: Data) -> dict[str, ImageTable]:
        images = read_rows(data, self.target)
        parts = positions_by_part(images, data)
        return {name: images.part(at, f"{name} rows, {images.origin}") for name, at in parts.items()}


def positions_by_part(images: ImageTable, data: Data) -> dict[str, np.ndarray]:
    """Which of all images are of each part, as the names of files or folders say."""
    names = np.array([_part(path, data) for path in images._files])
    part = names[[file for file, _ in images._groups]][np.searchsorted(images._ends, images._positions, "right")]
    return {name: np.flatnonzero(part == name) for name in sorted(set(names.tolist()))}


def _files(place: Path) -> list[Path]:
    """Such files in a folder, in `data/` and in folders named like a part: a quick look, made at any folder."""
    if not is_folder(place):
        return [place] if place.suffix.lower() in _SUFFIXES and place.is_file() else []
    with os.scandir(place) as entries:
        below = [Path(entry.path) for entry in entries if entry.name.lower() in _FOLDERS and entry.is_dir()]
    found = [path for folder in (place, *below) for path in map(Path, _names_in(folder))]
    return sorted(path for path in found if path.is_file())


def _names_in(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return [
            entry.path
            for entry in entries
            if entry.name.lower().endswith(_SUFFIXES) and not entry.name.startswith(("cache-", "."))
        ]


def _part(path: Path, data: Data) -> str:
    """The part that the name of a file, or of its folder below the one that was given, says."""
    own = part_of(path.stem)
    below = path.parent != (data.table or data.root)
    return (
        part_of(path.parent.name) if own == "train" and below and is_folder(data.table or data.root or Path()) else own
    )


def _image_column(schema: Any, chosen: str | None) -> str | None:
    """The column that holds the bytes of images; None where there is none."""
    holding = []
    for field in schema:
        kind = str(field.type)
        if kind.startswith(("binary", "large_binary", "struct<bytes:", "struct<bytes: binary")):
            holding.append(field.name)
    if chosen is not None:
        return chosen if chosen in holding else None
    return next((name for name in _IMAGE if name in holding), holding[0] if len(holding) == 1 else None)


def read_rows(data: Data, target: str) -> ImageTable:
    """All images of such files, with what is learned of them (see `ImageTables`).

    Raises:
        OvertoneError: there are none, or a column is not there.
    """
    place = data.table or data.root
    assert place is not None
    if str(place).startswith("hf-dataset:"):
        place = _downloaded(str(place).removeprefix("hf-dataset:"))
    files = _files(place)
    if not files:
        raise OvertoneError(f"{place} holds no Parquet or Arrow files")
    tables = [opened(path) for path in files]
    schema = tables[0].schema
    column = _image_column(schema, data.image_column)
    wanted = _COLUMNS[target]
    label = data.label_column or next((name for name in wanted if name in schema.names), None)
    if column is None or (target and (label is None or label not in schema.names or label == column)):
        missing = "images (bytes)" if column is None else "masks" if target == "mask" else "labels"
        raise OvertoneError(
            f"{files[0]} has no column of {missing}; it has {some(schema.names)}: "
            "name them with --data.image-column and --data.label-column"
        )
    groups = [(at, group) for at, file in enumerate(tables) for group in range(len(file.sizes))]
    sizes = np.array([size for file in tables for size in file.sizes], dtype=np.int64)
    labels: tuple[str, ...] = ()
    targets, tags, masks = np.zeros(int(sizes.sum()), dtype=np.int64), None, None
    if target == "mask":
        classes = _mask_classes(place, data.ignore_index)
        labels, masks = classes.labels, (str(label), classes)
    elif target:
        values = [value for at, group in groups for value in tables[at].column(group, label).to_pylist()]
        names = names_of(schema, str(label))
        if target == "labels":
            labels, targets, tags = tags_of(values, names)
        else:
            labels, targets = classes_of(values, names)
    rows = np.arange(len(targets))
    columns = (files, np.cumsum(sizes), groups, targets, rows, column)
    return ImageTable(labels, *columns, f"all rows of {place}", data.shuffle_shards, tags, masks)


def unlabelled_tables(place: Path) -> ImageTable | None:
    """All images of such files, whatever else they hold; None where there are none.

    Raises:
        OvertoneError: they cannot be read.
    """
    kind = ImageTables("")
    return read_rows(Data(root=place), "") if kind.matches(Data(root=place)) else None


def _mask_classes(place: Path, ignore_index: int | None) -> ClassList:
    """The classes that a list beside the files names."""
    folder = place if is_folder(place) else place.parent
    listed = next((folder / name for name in LISTS if (folder / name).is_file()), None)
    if listed is None:
        raise OvertoneError(f"{folder} names no classes; put classes.txt there, a name in each line")
    return read_class_list(listed, ignore_index)


def _targets(images: ImageTable) -> np.ndarray:
    return images._targets[images._positions]


def _downloaded(name: str) -> Path:
    """The folder with the Parquet files of a dataset on the Hub, fetched into the Hub's own cache.

    Raises:
        OvertoneError: huggingface_hub is not installed, or the dataset cannot be fetched.
    """
    try:
        hub = importlib.import_module("huggingface_hub")
    except ImportError as error:
        raise OvertoneError(f"hf-dataset:{name} needs huggingface_hub: pip install 'overtone[datasets]'") from error
    try:
        return Path(hub.snapshot_download(name, repo_type="dataset", allow_patterns=["*.parquet"]))
    except Exception as error:  # the library lets many kinds of exceptions through
        reason = json.dumps(str(error).split("\n")[0])
        raise OvertoneError(
            f"hf-dataset:{name} cannot be fetched: {reason}; check the name and the network, or give the folder of its "
            "Parquet files"
        ) from error
