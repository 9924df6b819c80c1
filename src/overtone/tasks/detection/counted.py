"""What an evaluation of a detector has counted, as a few long arrays: to be sent to a process or kept in a file."""

from collections.abc import Iterator, Sequence
from itertools import islice
from typing import Any

import numpy as np
import torch
from torch import Tensor

from overtone.data.sources import Objects
from overtone.tasks.detection.coco_metrics import Found

Counted = tuple[Any, ...]
Column = tuple[Tensor, Tensor]
"""The length of each array of a list, and all of them in one."""
_OBJECTS, _FOUND = ("boxes", "labels", "crowd", "difficult", "areas"), ("boxes", "scores", "labels")


def packed(images: Sequence[tuple[str, Objects, Found]]) -> Counted:
    """Names, objects and detections of images as strings and tensors; nothing for no images."""
    if not images:
        return ()
    names, truths, found = zip(*images, strict=True)
    outlines: tuple[Any, ...] = ()
    if truths[0].outlines is not None:
        outlines = (_column([np.frombuffer(one, np.uint8) for truth in truths for one in truth.outlines]),)
    masks: tuple[Any, ...] = ()
    if found[0].masks is not None:
        every = [mask for one in found for mask in one.masks]
        sizes = torch.tensor([mask["size"] for mask in every], dtype=torch.int64).reshape(-1, 2)
        masks = (sizes, _column([np.frombuffer(mask["counts"], np.uint8) for mask in every]))
    return (
        list(names),
        torch.tensor([truth.size for truth in truths]),
        tuple(_column([getattr(truth, field) for truth in truths]) for field in _OBJECTS),
        outlines,
        tuple(_column([getattr(one, field) for one in found]) for field in _FOUND),
        masks,
    )


def unpacked(counted: Counted) -> list[tuple[str, Objects, Found]]:
    """The images that were `packed`."""
    if not counted:
        return []
    names, sizes, objects, outlines, found, masks = counted
    outline = (one.tobytes() for one in _arrays(outlines[0])) if outlines else None
    mask = _masks(*masks) if masks else None
    columns = zip(*(_arrays(column) for column in (*objects, *found)), strict=True)
    images = []
    for name, size, values in zip(names, sizes.tolist(), columns, strict=True):
        truth = dict(zip(_OBJECTS, values[: len(_OBJECTS)], strict=True))
        answers = dict(zip(_FOUND, values[len(_OBJECTS) :], strict=True))
        drawn = None if outline is None else tuple(islice(outline, len(truth["boxes"])))
        given = None if mask is None else tuple(islice(mask, len(answers["boxes"])))
        images.append((name, Objects(**truth, outlines=drawn, size=tuple(size)), Found(**answers, masks=given)))
    return images


def _column(arrays: Sequence[np.ndarray]) -> Column:
    whole = np.concatenate(arrays) if arrays else np.empty(0, np.uint8)
    return torch.tensor([len(one) for one in arrays], dtype=torch.int64), torch.from_numpy(whole)


def _arrays(column: Column) -> Iterator[np.ndarray]:
    lengths, whole = column
    return (one.numpy() for one in whole.split(lengths.tolist()))


def _masks(sizes: Tensor, column: Column) -> Iterator[dict[str, Any]]:
    for size, counts in zip(sizes.tolist(), _arrays(column), strict=True):
        yield {"size": size, "counts": counts.tobytes()}
