"""Boxes (x1, y1, x2, y2) and the deltas that networks predict for them (arXiv:1311.2524, appendix C)."""

import math
from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.models.detection._utils import BoxCoder as TorchvisionBoxCoder
from torchvision.ops import batched_nms

# Sides change by a factor of at most 1000 / 16 in one decoding.
LARGEST_LOG_FACTOR = math.log(1000.0 / 16)
_FLOOR = 1e-6  # of the areas that GIoU divides by


def at_least_float32(x: Tensor) -> Tensor:
    """What a head predicted in float32 or more: boxes and losses need it, also where the network runs in less."""
    return x.to(torch.promote_types(x.dtype, torch.float32))


class BoxCoder:
    """Deltas ((gx - px) / pw, (gy - py) / ph, log(gw / pw), log(gh / ph)) over standard deviations.

    The arithmetic is torchvision's; the lower clamp of the last two, which it lacks, is ours.

    Args:
        stds: What the four deltas are divided by.
    """

    def __init__(self, stds: Sequence[float]) -> None:
        x, y, w, h = stds
        self.stds = (x, y, w, h)
        self._coder = TorchvisionBoxCoder((1 / x, 1 / y, 1 / w, 1 / h), LARGEST_LOG_FACTOR)

    def encode(self, truth: Tensor, boxes: Tensor) -> Tensor:
        """Deltas (N, 4) that lead from `boxes` (N, 4), of positive size, to `truth` (N, 4)."""
        return self._coder.encode_single(truth, boxes)

    def decode(self, deltas: Tensor, boxes: Tensor) -> Tensor:
        """Boxes (N, K, 4) from deltas (N, 4 K), all K of a row relative to the same one of `boxes` (N, 4)."""
        lowest = deltas.new_tensor([-math.inf, -math.inf, *(-LARGEST_LOG_FACTOR / std for std in self.stds[2:])])
        deltas = deltas.unflatten(1, (-1, 4)).maximum(lowest)
        return self._coder.decode_single(deltas.flatten(1), boxes).unflatten(1, (-1, 4))


def clip_boxes(boxes: Tensor, limits: Tensor) -> Tensor:
    """Boxes (..., 4) with x in [0, width] and y in [0, height], where `limits` (..., 4) is (width, height) twice."""
    return boxes.clamp(min=0).minimum(limits)


def limits_of(image_sizes: Sequence[tuple[int, int]], like: Tensor) -> Tensor:
    """Sizes (height, width) of B images as limits (B, 4) for `clip_boxes`."""
    return like.new_tensor([[w, h, w, h] for h, w in image_sizes]).reshape(-1, 4)


def generalized_iou(boxes: Tensor, truth: Tensor) -> Tensor:
    """GIoU (arXiv:1902.09630) of pairs of boxes (N, 4) and (N, 4), in [-1, 1].

    Both areas that divide, of the union and of the enclosing box, are at least 1e-6 (torchvision adds 1e-7 instead).
    """
    overlap = (boxes[:, 2:].minimum(truth[:, 2:]) - boxes[:, :2].maximum(truth[:, :2])).clamp(min=0).prod(1)
    hull = (boxes[:, 2:].maximum(truth[:, 2:]) - boxes[:, :2].minimum(truth[:, :2])).clamp(min=0).prod(1)
    union = ((boxes[:, 2:] - boxes[:, :2]).prod(1) + (truth[:, 2:] - truth[:, :2]).prod(1) - overlap).clamp(min=_FLOOR)
    hull = hull.clamp(min=_FLOOR)
    return overlap / union - (hull - union) / hull


def nms_in_groups(boxes: Tensor, scores: Tensor, groups: Tensor, threshold: float) -> Tensor:
    """Indices of the boxes that non-maximum suppression keeps within each group, by descending score.

    Args:
        boxes: (N, 4), none below 0.
        scores: (N,).
        groups: (N,), such as image and class in one number; boxes of different groups never meet.
        threshold: IoU above which the lower score goes.
    """
    # torchvision moves the groups apart by an offset: with many groups float32 would lose the fractions of a pixel.
    if boxes.device.type != "mps":  # which has no float64
        boxes, scores = boxes.double(), scores.double()
    return batched_nms(boxes, scores, groups, threshold)


def best_of_each_image(images: Tensor, num_images: int, limit: int) -> tuple[Tensor, list[int]]:
    """The first `limit` entries of each image, for entries in descending order of score.

    Args:
        images: (N,) which image an entry belongs to.
        num_images: B.
        limit: At most so many entries an image.

    Returns:
        Indices into the entries, image by image and in their order within one; how many belong to each image.
    """
    by_image, order = images.sort(stable=True)
    counts = torch.bincount(images, minlength=num_images)
    starts = counts.cumsum(0) - counts
    rank = torch.arange(len(images), device=images.device) - starts[by_image]
    return order[rank < limit], counts.clamp(max=limit).tolist()
