"""Objects in the cells of a table's columns: the lists of boxes and classes of one image.

| column | a cell holds |
|---|---|
| `objects` (`annotations`) | `{"bbox": […], "category": […]}`, as in the Hub's datasets, or a list of such objects |
| `bbox` (`boxes`) and `category` (`labels`, …) | the two lists in columns of their own |

A box is `[left, top, width, height]`, COCO's, under `bbox`, and `[left, top, right, bottom]` under `boxes`. The Hub has
both under `bbox`: where boxes of all images together fit into them in the other reading only, it is taken.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from overtone.data.sources.boxed import Noted
from overtone.errors import OvertoneError

OBJECTS = ("objects", "annotations")
BOXES = ("bbox", "boxes", "bboxes")
CLASSES = ("category", "categories", "category_id", "label", "labels", "class", "classes", "class_labels")
_CROWD = ("iscrowd", "is_crowd", "crowd")
_OVER = 2  # pixels that a box may reach over an edge


def cells_of(columns: Mapping[str, Iterable[Any]], where: str) -> tuple[list[dict[str, Any]], str]:
    """The objects of each image as lists by name (see `keys_of`), and the name that their boxes have.

    Args:
        columns: the column of objects, or those of boxes and classes.
        where: for messages.

    Raises:
        OvertoneError: they hold no boxes, or not as many classes.
    """
    names, rows = list(columns), zip(*columns.values(), strict=True)
    cells = [_cell(row[0] if len(names) == 1 else dict(zip(names, row, strict=True))) for row in rows]
    keys = {key for cell in cells for key in cell}
    boxes, classes = (next((name for name in wanted if name in keys), None) for wanted in (BOXES, CLASSES))
    if keys and (boxes is None or classes is None):
        raise OvertoneError(
            f"{where} has objects of {sorted(keys)}; their boxes are looked for under {' or '.join(BOXES)} and their "
            f"classes under {' or '.join(CLASSES)}: rename them"
        )
    crowd = next((name for name in _CROWD if name in keys), "")
    found = []
    for row, cell in enumerate(cells):
        lists = {
            "boxes": cell.get(boxes or "") or [],
            "classes": cell.get(classes or "") or [],
            "crowd": cell.get(crowd),
            "area": cell.get("area"),
        }
        count = len(lists["boxes"])
        if any(values is not None and len(values) != count for values in lists.values()):
            raise OvertoneError(f"{where}: row {row + 1} has {count} boxes and lists of another length; fill them in")
        found.append({name: [None] * count if values is None else values for name, values in lists.items()})
    return found, boxes or BOXES[0]


def _cell(value: Any) -> dict[str, Any]:
    """A dict of lists, of itself or of a list of dicts."""
    if isinstance(value, list):
        keys = {key for one in value for key in one or ()}
        return {key: [one.get(key) for one in value] for key in keys}
    return value or {}


def noted(
    cells: Sequence[Mapping[str, list[Any]]],
    key: str,
    sizes: Sequence[tuple[int, int]],
    names: Sequence[str],
    where: str,
) -> tuple[list[list[Noted]], str]:
    """The objects of each image, and what their numbers were read as.

    Args:
        cells: see `cells_of`.
        key: the name that the boxes have.
        sizes: height and width of each image.
        names: of the classes, which numbers are positions in; empty: classes are called as they are.
        where: for messages.

    Raises:
        OvertoneError: a box that is not four numbers, or a class that is none.
    """
    try:
        boxes = [np.array(cell["boxes"], dtype=np.float64).reshape(-1, 4) for cell in cells]
    except (TypeError, ValueError) as error:
        raise OvertoneError(f"{where} has a box that is not four numbers; correct it") from error
    sides = np.concatenate(
        [np.tile((width, height), (len(b), 1)) for (height, width), b in zip(sizes, boxes, strict=True)]
    )
    is_corners = key == "boxes"
    fits = {corners: _fit(np.concatenate(boxes), sides, corners) for corners in (True, False)}
    if not fits[is_corners] and fits[not is_corners]:
        is_corners = not is_corners
    found = []
    for row, (cell, own) in enumerate(zip(cells, boxes, strict=True)):
        corners = own if is_corners else np.concatenate((own[:, :2], own[:, :2] + own[:, 2:]), axis=1)
        labels = [_name(value, names, f"{where}: row {row + 1}") for value in cell["classes"]]
        found.append(
            [
                Noted(label, (box[0], box[1], box[2], box[3]), bool(crowd), area=None if area is None else float(area))
                for label, box, crowd, area in zip(labels, corners.tolist(), cell["crowd"], cell["area"], strict=True)
            ]
        )
    return found, "[left, top, right, bottom]" if is_corners else "[left, top, width, height]"


def _fit(boxes: np.ndarray, sides: np.ndarray, is_corners: bool) -> bool:
    """Whether all boxes have a size and lie in their images when they are read so."""
    ends = boxes[:, 2:] if is_corners else boxes[:, :2] + boxes[:, 2:]
    return bool((ends >= boxes[:, :2]).all() and (ends <= sides + _OVER).all())


def _name(value: Any, names: Sequence[str], where: str) -> str:
    if isinstance(value, int) and names:
        if 0 <= value < len(names):
            return names[value]
        raise OvertoneError(f"{where} has the class {value}, and there are {len(names)}; correct it")
    if value is None or value == "":
        raise OvertoneError(f"{where} has an object without a class; fill it in or remove the object")
    return str(value)
