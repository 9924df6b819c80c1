"""Features of regions from the level of the pyramid that fits their size (arXiv:1612.03144, equation 1)."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torchvision.ops import roi_align

_FINEST_SCALE = 56  # a region of this side and up to twice of it has the finest level
_MARGIN = 1e-6


def roi_levels(rois: Tensor, num_levels: int) -> Tensor:
    """Level of each region (N, 5): floor(log2(sqrt(w h) / 56 + 1e-6)) within [0, num_levels).

    `torchvision.ops.poolers.LevelMapper` has the margin elsewhere and differs within 1e-4 pixel of a border.
    """
    sides = (rois[:, 3:] - rois[:, 1:3]).prod(1).sqrt()
    return (sides / _FINEST_SCALE + _MARGIN).log2().floor().clamp(0, num_levels - 1).long()


def roi_features(pyramid: Sequence[Tensor], strides: Sequence[int], rois: Tensor, size: int) -> Tensor:
    """RoIAlign with half-pixel shift and adaptive sampling of each region on its level.

    Args:
        pyramid: The levels to choose from, (B, C, H_i, W_i).
        strides: Their strides.
        rois: (N, 5), image, x1, y1, x2, y2 in pixels of the network's input; they may lie outside.
        size: Side of the result.

    Returns:
        (N, C, size, size); zeros for a region without width or height.
    """
    levels = roi_levels(rois, len(pyramid))
    if torch.compiler.is_exporting():  # a graph takes all regions on every level: their number is then fixed
        return _on_every_level(pyramid, strides, rois, size, levels)
    parts, indices = [], []
    for level, (features, stride) in enumerate(zip(pyramid, strides, strict=True)):
        index = (levels == level).nonzero()[:, 0]
        parts.append(roi_align(features, rois[index], size, 1 / stride, sampling_ratio=-1, aligned=True))
        indices.append(index)
    return torch.cat(parts)[torch.cat(indices).argsort()]


def _on_every_level(
    pyramid: Sequence[Tensor], strides: Sequence[int], rois: Tensor, size: int, levels: Tensor
) -> Tensor:
    result = rois.new_zeros(len(rois), pyramid[0].shape[1], size, size)
    for level, (features, stride) in enumerate(zip(pyramid, strides, strict=True)):
        own = (levels == level)[:, None]  # others have no size here, and so no samples
        found = roi_align(features, rois * own, size, 1 / stride, sampling_ratio=-1, aligned=True)
        result = torch.where(own[..., None, None], found, result)
    return result


def rois_of(boxes: Sequence[Tensor]) -> Tensor:
    """Boxes (N_i, 4) of B images as regions (N, 5) with the image's number in front."""
    images = [x.new_full((len(x), 1), i) for i, x in enumerate(boxes)]
    return torch.cat([torch.cat(images), torch.cat(list(boxes))], dim=1)
