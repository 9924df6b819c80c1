"""COCO's run lengths of masks: down the columns, alternately outside and inside, as numbers or as text."""

from typing import Any

import numpy as np


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths of bool `(H, W)`: by columns, the first run is of zeros."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.concatenate([[0], changes, [values.size]])
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if values.size and values[0] else counts}


def lengths_in(text: bytes) -> list[int]:
    """Run lengths from COCO's text: groups of five bits, the lowest first, 48 added to each.

    The sixth bit says that another group follows; the last group's fifth bit is the sign. From the fourth number on, it
    is the difference to the number two before. pycocotools' own reader does not check the length of the text.

    Raises:
        ValueError: another character, or the text ends in the middle of a number.
    """
    lengths: list[int] = []
    value = shift = 0
    for character in text:
        group = character - 48
        if not 0 <= group < 64 or shift > 60:
            raise ValueError("run lengths that are no text of COCO's")
        value |= (group & 31) << shift
        shift += 5
        if group & 32:
            continue
        if group & 16:
            value -= 1 << shift
        lengths.append(value + lengths[-2] if len(lengths) > 2 else value)
        value = shift = 0
    if shift:
        raise ValueError("run lengths that end in the middle of a number")
    return lengths
