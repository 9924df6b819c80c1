"""The objects of one image as JSON beside it: in a tar shard, or a row of a table.

| key | holds |
|---|---|
| `width`, `height` | of the image, pixels |
| `boxes` | `[left, top, right, bottom]` of each object, pixels |
| `labels` | the class of each: a name, or its position |
| `crowd`, `difficult`, `areas`, `outlines` | of each, where known (`Objects`); an outline is COCO's `segmentation` |
"""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from overtone.data.decoding import BadImage
from overtone.data.segments import pack, unpack
from overtone.data.sources.boxed import Objects

_MOST_SIDE = 1 << 30


def objects_to_json(objects: Objects, labels: Sequence[str]) -> dict[str, Any]:
    """The objects as JSON values, of which `objects_from_json` gives the same, bit for bit."""
    height, width = objects.size
    values: dict[str, Any] = {
        "width": width,
        "height": height,
        "boxes": objects.boxes.tolist(),
        "labels": [labels[label] for label in objects.labels],
        "areas": objects.areas.tolist(),
    }
    for name in ("crowd", "difficult"):
        if getattr(objects, name).any():
            values[name] = getattr(objects, name).tolist()
    if objects.outlines is not None:
        values["outlines"] = [unpack(outline) for outline in objects.outlines]
    return values


def objects_from_json(values: Any, positions: Mapping[str | int, int]) -> Objects:
    """The objects that JSON values describe; boxes over an edge of the image are cut at it.

    Args:
        values: see the module.
        positions: of each class, by name and by number.

    Raises:
        BadImage: they are not as the module has them, or of an unknown class.
    """
    try:
        width, height = int(values["width"]), int(values["height"])
        boxes = np.array(values["boxes"], dtype=np.float64).reshape(-1, 4)
        names, count = values["labels"], len(boxes)
        crowd, difficult = (np.array(values.get(name, [False] * count), dtype=bool) for name in ("crowd", "difficult"))
        areas = values.get("areas")
        areas = (boxes[:, 2:] - boxes[:, :2]).prod(1) if areas is None else np.array(areas, dtype=np.float64)
        outlines = values.get("outlines")
        packed = None if outlines is None else tuple(pack(outline) for outline in outlines)
        lengths = {len(names), len(crowd), len(difficult), len(areas), count if packed is None else len(packed)}
        if lengths != {count} or not 0 < min(width, height) <= max(width, height) < _MOST_SIDE:
            raise ValueError("lists of different lengths, or an image of no size")
    except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
        reason = f"no {error}" if isinstance(error, KeyError) else str(error)
        raise BadImage(None, f"its JSON is no list of boxes and labels: {reason}") from error
    unknown = [name for name in names if isinstance(name, (list, dict)) or name not in positions]
    if unknown:
        raise BadImage(None, f"its class {unknown[0]!r} is unknown to the training")
    cut = boxes.clip(0, np.array([width, height, width, height]))
    if not np.isfinite(boxes).all() or (cut[:, 2:] <= cut[:, :2]).any():
        raise BadImage(None, "a box of its JSON has no size, or lies outside of the image")
    labels = np.array([positions[name] for name in names], dtype=np.int64)
    return Objects(cut.astype(np.float32), labels, crowd, difficult, areas, packed, (height, width))
