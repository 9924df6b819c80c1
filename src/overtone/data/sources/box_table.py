"""Objects in a table: a row for each, with the image, the class and the box.

| column | by name |
|---|---|
| image paths, relative to `data.root` or to the table | `image`, `path`, `file`, `filename`; `data.image_column` |
| class | `label`, `class`, `category`; `data.label_column` |
| box | `xmin`, `ymin`, `xmax`, `ymax`; or `x1`, `y1`, `x2`, `y2`; or `x`, `y`, `width`, `height`: pixels |
| `train`, `val` or `test` | `split`, optional, the same in all rows of an image; `data.split_column` |

A row with an image alone says that it has no objects. Instead, a row for each image may have lists (Parquet): a column
of objects, or columns of boxes and of classes, as `data.sources.box_cells` has them.
"""

import os
from pathlib import Path
from typing import Any

from overtone.config import Data
from overtone.data.sources.box_cells import BOXES, CLASSES, OBJECTS, cells_of, noted
from overtone.data.sources.boxed import Faults, Marked, Noted
from overtone.data.sources.image_size import image_size
from overtone.data.sources.table import LABEL_NAMES, Table
from overtone.errors import OvertoneError

_CORNERS = (("xmin", "ymin", "xmax", "ymax"), ("x1", "y1", "x2", "y2"), ("left", "top", "right", "bottom"))
_SIDES = (("x", "y", "width", "height"), ("x", "y", "w", "h"), ("left", "top", "width", "height"))


def read_table(data: Data, faults: Faults) -> tuple[dict[str, list[Marked]], list[str]]:
    """The images of each part (or of `all`) with their objects, and the names of the classes.

    Raises:
        OvertoneError: no such table, columns that are missing, or rows that are no objects.
    """
    table = Table(data)
    listed = _list_columns(table)
    if listed:
        return _read_lists(table, listed, faults)
    columns, is_corners = _box_columns(table)
    labels = table.values(table.column(LABEL_NAMES, data.label_column, "label"))
    numbers = [table.values(column) for column in columns]
    names, parts = table.texts(table.image_column), table.parts()
    images: dict[str, Marked] = {}
    part_of: dict[str, str] = {}
    for row, name in enumerate(names):
        if name not in images:
            images[name] = _marked(table, name, faults)
        part = "all" if parts is None else str(parts[row])
        if part_of.setdefault(name, part) != part:
            raise OvertoneError(f"{table.path}: {name} is in {part_of[name]} and in {part}; give all its rows one part")
        one = _noted(labels[row], [values[row] for values in numbers], is_corners, f"{table.path}: row {row + 1}")
        if one is not None:
            images[name].objects.append(one)
    return _by_part(table, list(images.values()), list(part_of.values()))


def _read_lists(table: Table, columns: list[str], faults: Faults) -> tuple[dict[str, list[Marked]], list[str]]:
    """As `read_table`, of a table with a row for each image."""
    where, parts = str(table.path), table.parts()
    images = [_marked(table, name, faults) for name in table.texts(table.image_column)]
    cells, key = cells_of({name: table.values(name) for name in columns}, where)
    objects, _ = noted(cells, key, [image.size or (0, 0) for image in images], (), where)
    for image, found in zip(images, objects, strict=True):
        image.objects = found
    return _by_part(table, images, ["all"] * len(images) if parts is None else parts.tolist())


def _list_columns(table: Table) -> list[str]:
    """The column of objects, or those of boxes and classes; empty where the table has a row for each box."""
    names = [name for name in table.names if any(isinstance(v, (list, dict)) for v in table.values(name))]
    objects = next((name for name in OBJECTS if name in names), None)
    pair = [next((name for name in wanted if name in names), None) for wanted in (BOXES, CLASSES)]
    return [objects] if objects else [str(name) for name in pair] if None not in pair else []


def _marked(table: Table, name: str, faults: Faults) -> Marked:
    path = table.root / name
    if not os.path.isfile(path):
        faults.add("annotated images that are not there", name)
    return Marked(Path(name).as_posix(), path, image_size(path, table.data.preprocess.exif))


def _by_part(table: Table, images: list[Marked], parts: list[str]) -> tuple[dict[str, list[Marked]], list[str]]:
    """The images that are there by part, and the names of all classes."""
    found: dict[str, list[Marked]] = {}
    for image, part in zip(images, parts, strict=True):
        if os.path.isfile(image.path):
            found.setdefault(part, []).append(image)
    if not found:
        raise OvertoneError(f"none of the images of {table.path} are in {table.root}; give their folder as --data.root")
    return found, sorted({one.label for image in images for one in image.objects})


def _box_columns(table: Table) -> tuple[list[str], bool]:
    """The four columns of the box, and whether they are its corners."""
    for is_corners, choices in ((True, _CORNERS), (False, _SIDES)):
        for names in choices:
            columns = [table.find((name,), None) for name in names]
            if None not in columns:
                return [str(column) for column in columns], is_corners
    raise OvertoneError(f"{table.path} has no columns of boxes; name them xmin, ymin, xmax, ymax")


def _noted(label: Any, values: list[Any], is_corners: bool, where: str) -> Noted | None:
    """The object of a row; None where the row has neither class nor box."""
    is_empty = [value is None or value == "" for value in (label, *values)]
    if all(is_empty):
        return None
    try:
        left, top, third, fourth = (float(value) for value in values)
        if is_empty[0]:
            raise ValueError
    except (TypeError, ValueError):
        raise OvertoneError(f"{where} has not a class and four numbers; fill it in or remove it") from None
    right, bottom = (third, fourth) if is_corners else (left + third, top + fourth)
    return Noted(str(label), (left, top, right, bottom))
