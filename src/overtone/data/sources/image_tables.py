"""Images whose bytes lie in Parquet or Arrow files beside their labels, as the `datasets` library keeps them.

Read with pyarrow alone: one row group or record batch at a time is in memory. The images are in a column of structures
with `bytes` and `path`, or of bytes; class names are in the files' own metadata (`huggingface`), where `datasets` puts
them.
"""

import importlib
import json
import os
from collections import OrderedDict
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.opening import is_folder
from overtone.data.sources.seeded import held_out
from overtone.data.sources.shard_list import part_of
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

_SUFFIXES = (".parquet", ".pq", ".arrow")
_IMAGE = ("image", "img", "jpg", "png", "webp", "picture")
_LABEL = ("label", "labels", "fine_label", "cls", "class", "target")
_MOST_KEPT = 4  # row groups
_FOLDERS = frozenset({"train", "training", "val", "valid", "validation", "test", "testing", "data", "default"})


class ImageTable:
    """Rows with the bytes of an image and a label: a source of records with `image` and `label`.

    Args:
        labels: names of the classes.
        files: the Parquet or Arrow files.
        ends: int64, where the rows of each row group end, counted over all files.
        groups: file and row group of each of these.
        targets: class of each row, -1 where it is unknown.
        positions: which rows.
        column: of the images.
        origin: where they come from, one phrase for messages.
        window: row groups that training's order draws from at a time.
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
    ) -> None:
        self.labels, self.origin, self.window = tuple(labels), origin, window
        self._files, self._ends, self._groups = tuple(files), ends, tuple(groups)
        self._targets, self._positions, self._column = targets, positions, column
        self._kept: OrderedDict[int, Any] = OrderedDict()

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
        group = int(np.searchsorted(self._ends, row, side="right"))
        value = self._images(group)[row - (int(self._ends[group - 1]) if group else 0)].as_py()
        content = value.get("bytes") if isinstance(value, dict) else value
        if not content and isinstance(value, dict) and value.get("path"):
            return {"image": self._files[self._groups[group][0]].parent / value["path"], "label": target}
        if not content:
            raise BadImage(None, "the row holds no image")
        return {"image": content, "label": target}

    def entry(self, position: int) -> tuple[str, str, int]:
        """File name and row, label; sizes are not known before an image is read."""
        path, row = self._place(position)
        target = int(self._targets[int(self._positions[position])])
        return f"{path.name}#{row}", self.labels[target] if target >= 0 else "", 0

    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
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
        return ImageTable(self.labels, *tables, self._column, origin, self.window)

    def in_files(self, wanted: Callable[[Path], bool], origin: str) -> "ImageTable":
        """The images of the files that are wanted."""
        chosen = np.array([wanted(self._files[file]) for file, _ in self._groups], dtype=bool)
        group = np.searchsorted(self._ends, self._positions, side="right")
        return self.part(np.flatnonzero(chosen[group]), origin)

    def _place(self, position: int) -> tuple[Path, int]:
        row = int(self._positions[position])
        group = int(np.searchsorted(self._ends, row, side="right"))
        file = self._groups[group][0]
        first = next(at for at, (other, _) in enumerate(self._groups) if other == file)
        return self._files[file], row - (int(self._ends[first - 1]) if first else 0)

    def _images(self, group: int) -> Any:
        """The column of images of a row group."""
        if group not in self._kept:
            file, number = self._groups[group]
            try:
                self._kept[group] = _opened(self._files[file]).column(number, self._column)
            except (OSError, ValueError, KeyError, IndexError) as error:
                raise BadImage(None, f"{self._files[file]} cannot be read: {error}") from error
            if len(self._kept) > max(_MOST_KEPT, self.window):
                self._kept.popitem(last=False)
        self._kept.move_to_end(group)
        return self._kept[group]


class ImageTables:
    """Parquet files with images in them, or a folder of `datasets`' `save_to_disk`, by `data.root` or `data.table`."""

    target = "label"

    def matches(self, data: Data) -> bool:
        """Whether these are such files, by their columns."""
        place = data.table or data.root
        if place is None or str(place).startswith("hf-dataset:"):
            return place is not None
        try:
            files = _files(place)
            return bool(files) and _image_column(_opened(files[0]).schema, data.image_column) is not None
        except (OSError, ValueError, ImportError, OvertoneError):
            return False

    def splits(self, data: Data) -> Splits:
        """By the names of files or folders (train, validation, test); where none says val, a part is held out.

        Raises:
            OvertoneError: nothing to train on, or a column that is not there.
        """
        parts = self._parts(data)
        if "train" not in parts:
            raise OvertoneError(f"{data.table or data.root} has {some(parts)} but no train files; add some")
        train, val, test = parts["train"], parts.get("val"), parts.get("test")
        place = data.table or data.root
        if val is None and test is not None and data.validate_on == "test":
            return Splits(train, test, f"train and test files of {place}")
        if val is None:
            seeded = _seeded(train, data)
            return Splits(seeded.train, seeded.val, seeded.origin, seeded.seeded, test)
        return Splits(train, val, f"train and validation files of {place}", test=test)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part, chosen as of folders.

        Raises:
            OvertoneError: there is no such part.
        """
        parts = self._parts(data)
        if part == "auto":
            named = next((name for name in ("val", "test") if name in parts), None)
            part = named or ("val" if trained_on is not None else "all")  # type: ignore[assignment]
        if part == "all":
            return _read(data)
        if part in parts and (part != "train" or (trained_on is None and len(parts) > 1)):
            return parts[part]
        if part == "test" or "train" not in parts:
            raise OvertoneError(f"{data.table or data.root} has no files of {part}; it has {some(parts)}")
        splits = _seeded(parts["train"], trained_on or data)
        return splits.train if part == "train" else splits.val

    def _parts(self, data: Data) -> dict[str, ImageTable]:
        images = _read(data)
        names = {_part(path, data) for path in images._files}
        return {
            name: images.in_files(lambda path, name=name: _part(path, data) == name, f"{name} rows, {images.origin}")
            for name in sorted(names)
        }


class _Parquet:
    def __init__(self, path: Path) -> None:
        self._file = importlib.import_module("pyarrow.parquet").ParquetFile(path)
        self.schema = self._file.schema_arrow
        self.sizes = [self._file.metadata.row_group(at).num_rows for at in range(self._file.num_row_groups)]

    def column(self, group: int, name: str) -> Any:
        return self._file.read_row_group(group, columns=[name]).column(name)


class _Arrow:
    """A file of `save_to_disk`: a stream of record batches."""

    def __init__(self, path: Path) -> None:
        arrow = importlib.import_module("pyarrow")
        with arrow.memory_map(str(path)) as file:
            self._table = arrow.ipc.open_stream(file).read_all()
        self.schema, self._batches = self._table.schema, self._table.to_batches()
        self.sizes = [batch.num_rows for batch in self._batches]

    def column(self, group: int, name: str) -> Any:
        return self._batches[group].column(self.schema.get_field_index(name))


def _opened(path: Path) -> Any:
    return _Arrow(path) if path.suffix == ".arrow" else _Parquet(path)


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


def _read(data: Data) -> ImageTable:
    place = data.table or data.root
    assert place is not None
    if str(place).startswith("hf-dataset:"):
        place = _downloaded(str(place).removeprefix("hf-dataset:"))
    files = _files(place)
    if not files:
        raise OvertoneError(f"{place} holds no Parquet or Arrow files")
    opened = [_opened(path) for path in files]
    schema = opened[0].schema
    column = _image_column(schema, data.image_column)
    label = data.label_column or next((name for name in _LABEL if name in schema.names), None)
    if column is None or label is None or label not in schema.names:
        missing = "images (bytes)" if column is None else "labels"
        raise OvertoneError(
            f"{files[0]} has no column of {missing}; it has {some(schema.names)}: "
            "name them with --data.image-column and --data.label-column"
        )
    groups = [(at, group) for at, file in enumerate(opened) for group in range(len(file.sizes))]
    sizes = np.array([size for file in opened for size in file.sizes], dtype=np.int64)
    values = [value for at, group in groups for value in opened[at].column(group, label).to_pylist()]
    labels, targets = _classes(values, _names(schema, label))
    rows = np.arange(int(sizes.sum()))
    ends, window = np.cumsum(sizes), data.shuffle_shards
    return ImageTable(labels, files, ends, groups, targets, rows, column, f"all rows of {place}", window)


def _names(schema: Any, label: str) -> tuple[str, ...]:
    """The class names in the metadata that `datasets` writes."""
    try:
        about: Mapping[str, Any] = parse_json((schema.metadata or {})[b"huggingface"].decode())
        return tuple(map(str, about["info"]["features"][label]["names"]))
    except (KeyError, ValueError, TypeError):
        return ()


def _classes(values: Sequence[Any], names: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes and the position of each row's; -1: none."""
    known = sorted({value for value in values if value is not None}, key=lambda value: (isinstance(value, str), value))
    if all(isinstance(value, int) for value in known):
        count = len(names) or (max(known) + 1 if known else 0)
        targets = [value if value is not None and 0 <= value < count else -1 for value in values]
        return names or tuple(map(str, range(count))), np.array(targets, dtype=np.int64)
    words = names or tuple(str(value) for value in known)
    position = {word: at for at, word in enumerate(words)}
    return words, np.array([position.get(str(value), -1) for value in values], dtype=np.int64)


def _seeded(images: ImageTable, data: Data) -> Splits:
    if data.val_fraction == 0:
        return Splits(images, images.part([], images.origin), f"{images.origin} (nothing held out)")
    targets = images._targets[images._positions]
    chosen = held_out((images.entry(position)[0] for position in range(len(images))), targets, data)
    origin = f"seeded split of {images.origin} (seed {data.split_seed}, {data.val_fraction:.4g} held out)"
    train, val = (images.part(np.flatnonzero(chosen == is_val), origin) for is_val in (False, True))
    return Splits(train, val, origin, seeded=True)


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
