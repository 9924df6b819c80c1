"""Masks of regions: the head of Mask R-CNN (arXiv:1703.06870), its targets and its loss."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.ops import roi_align

from overtone.heads.box_coding import at_least_float32

POOLED = 14  # side of the features of a region
MASK_SIDE = 28


class MaskHead(nn.Module):
    """One logit a pixel and class; torchvision's layers, which are the same bits.

    Args:
        channels: Channels of a region's features.
        num_classes: Classes without the background.
    """

    def __init__(self, channels: int, num_classes: int) -> None:
        super().__init__()
        self.convs = MaskRCNNHeads(channels, [channels] * 4, 1)
        self.predictor = MaskRCNNPredictor(channels, channels, num_classes)
        for name, parameter in self.predictor.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x: Tensor) -> Tensor:
        """Features (N, C, 14, 14) to logits (N, K, 28, 28)."""
        return at_least_float32(self.predictor(self.convs(x)))

    def of_class(self, x: Tensor, classes: Tensor) -> Tensor:
        """Features (N, C, 14, 14) to the logits (N, 28, 28) of one class each."""
        return self(x)[torch.arange(len(x), device=x.device), classes]


@torch.no_grad()
def mask_targets(masks: Sequence[Tensor], matched: Tensor, rois: Tensor, padded: tuple[int, int]) -> Tensor:
    """The ground truth's bitmap over each region, (P, 28, 28) of zeros and ones.

    RoIAlign of the bitmap (half-pixel shift, adaptive sampling) over the region clipped to the padded image, at least
    0.5. torchvision's `project_masks_on_boxes` shifts by half a pixel and does not round.

    Args:
        masks: Bitmaps (G_i, h_i, w_i) of the images, each at most of the padded size.
        matched: (P,) ground truth of each region, counted over all images.
        rois: Regions (P, 5) in pixels of the padded images.
        padded: Height and width of the padded images.
    """
    height, width = padded
    bitmaps = torch.cat([F.pad(x, (0, width - x.shape[2], 0, height - x.shape[1])) for x in masks])
    boxes = rois[:, 1:].clamp(min=0).minimum(rois.new_tensor([width, height, width, height]))
    used, place = matched.unique(return_inverse=True)
    regions = torch.cat((place[:, None].to(boxes), boxes), dim=1)
    pooled = roi_align(bitmaps[used, None].to(boxes), regions, MASK_SIDE, 1.0, sampling_ratio=-1, aligned=True)
    return (pooled[:, 0] >= 0.5).to(boxes)


def mask_loss(logits: Tensor, targets: Tensor) -> Tensor:
    """Sigmoid cross entropy of (P, 28, 28), the mean over regions and pixels; 0 without regions."""
    return F.binary_cross_entropy_with_logits(logits, targets, reduction="sum") / max(targets.numel(), 1)
