"""Non-maximum suppression as exporters can follow it, for one image."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms

Size = tuple[int, int]


class Limits(NamedTuple):
    """What turns candidates into detections.

    Attributes:
        score: that a detection exceeds.
        overlap: IoU above which, of two of a group, the surer one suppresses the other.
        most: detections of an image.
    """

    score: float
    overlap: float
    most: int


def within(boxes: Tensor, size: Size) -> Tensor:
    """Boxes (N, 4), or of any shape (..., 4), cut at the edges of an image of a height and width."""
    height, width = size
    left, top, right, bottom = boxes.unbind(-1)
    x, y = (left.clamp(0, width), right.clamp(0, width)), (top.clamp(0, height), bottom.clamp(0, height))
    return torch.stack((x[0], y[0], x[1], y[1]), dim=-1)


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, limits: Limits, size: Size) -> Tensor:
    """Indices, by descending score, of the boxes (N, 4) within an image that stay; groups do not meet."""
    kept = nms(boxes + (groups * (max(size) + 1.0))[:, None], scores, limits.overlap)
    return kept[torch.ones_like(kept).cumsum(0) <= limits.most]


def filled(rows: Tensor, kept: Tensor, count: int) -> Tensor:
    """The rows (N, ...) of these indices, at most so many, followed by rows of zeros: (count, ...)."""
    places = torch.ones_like(kept).cumsum(0) - 1
    return rows.new_zeros(count, *rows.shape[1:]).index_put((places,), rows[kept])
