"""Columns of Parquet and Arrow files, and the labels that they hold; read with pyarrow, a row group at a time."""

import importlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from overtone.data.sources.table import words_in
from overtone.plain_json import parse_json


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


def opened(path: Path) -> Any:
    """A file with its `schema`, the `sizes` of its row groups, and `column(group, name)`."""
    return _Arrow(path) if path.suffix == ".arrow" else _Parquet(path)


def tags_of(values: Sequence[Any], names: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray, np.ndarray]:
    """Names of the labels, -1 for each row without labels or with an unknown one, and the labels of each row."""
    rows = [None if value is None else words_in(value) for value in values]
    given = {word for words in rows for word in words or ()}
    numbers = {str(at): at for at in range(len(names))} if given - set(names) else {}
    labels = names or tuple(sorted(given))
    position = {word: at for at, word in enumerate(labels)} | numbers
    tags, targets = np.zeros((len(rows), len(labels)), dtype=np.uint8), np.zeros(len(rows), dtype=np.int64)
    for at, words in enumerate(rows):
        if words is None or not position.keys() >= set(words):
            targets[at] = -1
        else:
            tags[at, [position[word] for word in words]] = 1
    return labels, targets, tags


def names_of(schema: Any, label: str) -> tuple[str, ...]:
    """The class names in the metadata that `datasets` writes."""
    try:
        about: Mapping[str, Any] = parse_json((schema.metadata or {})[b"huggingface"].decode())
        return _names(about["info"]["features"][label])
    except (KeyError, ValueError, TypeError, RecursionError):
        return ()


def _names(feature: Any) -> tuple[str, ...]:
    """The names in a feature, or in one inside: of a list's elements, or a structure's fields."""
    if isinstance(feature, dict) and "names" in feature:
        return tuple(map(str, feature["names"]))
    inside = feature if isinstance(feature, list) else feature.values() if isinstance(feature, dict) else ()
    return next(filter(None, map(_names, inside)), ())


def classes_of(values: Sequence[Any], names: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes and the position of each row's; -1: none."""
    known = sorted({value for value in values if value is not None}, key=lambda value: (isinstance(value, str), value))
    if all(isinstance(value, int) for value in known):
        count = len(names) or (max(known) + 1 if known else 0)
        targets = [value if value is not None and 0 <= value < count else -1 for value in values]
        return names or tuple(map(str, range(count))), np.array(targets, dtype=np.int64)
    words = names or tuple(str(value) for value in known)
    position = {word: at for at, word in enumerate(words)}
    return words, np.array([position.get(str(value), -1) for value in values], dtype=np.int64)
