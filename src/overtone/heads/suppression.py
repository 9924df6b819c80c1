"""Non-maximum suppression as exporters can follow it, for one image."""

from typing import NamedTuple

import torch
from torch import Tensor
from torchvision.ops import nms


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


def suppressed(boxes: Tensor, scores: Tensor, groups: Tensor, limits: Limits, side: int) -> Tensor:
    """Indices, by descending score, of the boxes (N, 4) within a square image that stay; groups do not meet."""
    kept = nms(boxes + (groups * (side + 1.0))[:, None], scores, limits.overlap)
    return kept[torch.ones_like(kept).cumsum(0) <= limits.most]


def filled(rows: Tensor, kept: Tensor, count: int) -> Tensor:
    """The rows (N, ...) of these indices, at most so many, followed by rows of zeros: (count, ...)."""
    places = torch.ones_like(kept).cumsum(0) - 1
    return rows.new_zeros(count, *rows.shape[1:]).index_put((places,), rows[kept])
