"""Region proposal network (arXiv:1506.01497) over a pyramid, as the published detectors have it.

torchvision's `RPNHead` is the same bits. Its `AnchorGenerator` rounds and takes other strides, and its
`RegionProposalNetwork` matches, filters and borders differently, so these are here.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.rpn import RPNHead

from overtone.heads.assignment import IGNORED, Assigner, sample
from overtone.heads.box_coding import (
    BoxCoder,
    at_least_float32,
    best_of_each_image,
    clip_boxes,
    limits_of,
    nms_in_groups,
)

STRIDES = (4, 8, 16, 32, 64)
_ASSIGNER = Assigner(positive=0.7, negative=0.3, low_quality=0.3)
RATIOS = (0.5, 1.0, 2.0)  # height over width
SCALE = 8


@dataclass(frozen=True)
class RpnSettings:
    """What surrounds the head; the defaults are those of Cascade Mask R-CNN.

    Attributes:
        test_per_level: Anchors of each level and image, of the highest scores, that are decoded in evaluation.
        test_proposals: Proposals of an image after suppression in evaluation.
        train_per_level: As `test_per_level`, in training.
        train_proposals: As `test_proposals`, in training.
        nms: IoU above which the lower of two proposals of one level goes.
        inside_only: Whether anchors over the image's edge take no part in training.
        assigner: Which anchors are positive.
        sampled: Anchors of an image that count in the loss.
        positive_fraction: Share of them that may be positive.
        beta: Where smooth L1 of the deltas changes from square to linear; 0: L1.
    """

    test_per_level: int = 1000
    test_proposals: int = 1000
    train_per_level: int = 2000
    train_proposals: int = 2000
    nms: float = 0.7
    inside_only: bool = True
    assigner: Assigner = _ASSIGNER
    sampled: int = 256
    positive_fraction: float = 0.5
    beta: float = 1 / 9


@dataclass(frozen=True)
class RpnTargets:
    """What the anchors of one image (A in all) are trained to.

    Attributes:
        positive: Indices of the sampled positives, ascending.
        negative: Indices of the sampled negatives, ascending.
        deltas: Encoded ground truth of each positive, (P, 4).
    """

    positive: Tensor
    negative: Tensor
    deltas: Tensor


def base_anchors(stride: int) -> Tensor:
    """The boxes of one cell around (0, 0), (3, 4) float64: height 8 s sqrt(r), width 8 s / sqrt(r), not rounded."""
    halves = [(SCALE * stride / math.sqrt(r) / 2, SCALE * stride * math.sqrt(r) / 2) for r in RATIOS]
    return torch.tensor([(-x, -y, x, y) for x, y in halves], dtype=torch.float64)


class RegionProposals(nn.Module):
    """The head with its anchors, proposals and losses.

    Args:
        channels: Channels of the pyramid.
        settings: What surrounds the head.
    """

    def __init__(self, channels: int = 256, settings: RpnSettings | None = None) -> None:
        super().__init__()
        self.settings = settings or RpnSettings()
        self.head = RPNHead(channels, len(RATIOS))
        self.coder = BoxCoder((1.0, 1.0, 1.0, 1.0))

    def forward(self, pyramid: Sequence[Tensor]) -> tuple[list[Tensor], list[Tensor]]:
        """Logits (B, 3, H_i, W_i) and deltas (B, 12, H_i, W_i) of each level."""
        logits, deltas = self.head(list(pyramid))
        return [at_least_float32(x) for x in logits], [at_least_float32(x) for x in deltas]

    def anchors(self, logits: Sequence[Tensor]) -> list[Tensor]:
        """The anchors of each level, (H_i W_i 3, 4), by row, column, ratio: cell (x, y) has its at (x s, y s)."""
        anchors = []
        for stride, level in zip(STRIDES, logits, strict=True):
            height, width = level.shape[-2:]
            y = torch.arange(height, device=level.device, dtype=level.dtype) * stride
            x = torch.arange(width, device=level.device, dtype=level.dtype) * stride
            y, x = torch.meshgrid(y, x, indexing="ij")
            corners = torch.stack((x, y, x, y), dim=-1)[:, :, None]  # (H, W, 1, 4)
            anchors.append((corners + base_anchors(stride).to(level)).reshape(-1, 4))
        return anchors

    @torch.no_grad()
    def proposals(
        self, logits: Sequence[Tensor], deltas: Sequence[Tensor], image_sizes: Sequence[tuple[int, int]]
    ) -> list[tuple[Tensor, Tensor]]:
        """The boxes that the heads look at.

        Args:
            logits: Of each level, (B, 3, H_i, W_i).
            deltas: Of each level, (B, 12, H_i, W_i).
            image_sizes: Height and width of each image before padding; boxes are clipped to it.

        Returns:
            For each image boxes (N, 4) and their scores (N,), descending.
        """
        settings = self.settings
        per_level = settings.train_per_level if self.training else settings.test_per_level
        limit = settings.train_proposals if self.training else settings.test_proposals
        taken = []
        for level, anchors in enumerate(self.anchors(logits)):
            scores, codes = (
                flat_maps(logits[level], 1)[..., 0].sigmoid(),
                flat_maps(deltas[level], 4),
            )  # (B, A), (B, A, 4)
            scores, index = scores.topk(min(per_level, scores.shape[1]))
            codes = codes.gather(1, index[..., None].expand(-1, -1, 4))
            boxes = self.coder.decode(codes.flatten(0, 1), anchors[index.flatten()]).view_as(codes)
            taken.append((boxes, scores, torch.full_like(index, level)))
        boxes, scores, levels = (torch.cat(parts, dim=1) for parts in zip(*taken, strict=True))
        boxes = clip_boxes(boxes, limits_of(image_sizes, boxes)[:, None])
        images = torch.arange(len(boxes), device=boxes.device)[:, None].expand_as(scores)
        solid = (boxes[..., 2:] > boxes[..., :2]).all(-1)
        boxes, scores, levels, images = boxes[solid], scores[solid], levels[solid], images[solid]
        kept = nms_in_groups(boxes, scores, images * len(STRIDES) + levels, settings.nms)
        best, counts = best_of_each_image(images[kept], len(image_sizes), limit)
        kept = kept[best]
        return list(zip(boxes[kept].split(counts), scores[kept].split(counts), strict=True))

    @torch.no_grad()
    def targets(self, anchors: Tensor, truth: Tensor, image_size: tuple[int, int]) -> RpnTargets:
        """What the anchors (A, 4) of one image are trained to, given its ground-truth boxes (G, 4)."""
        height, width = image_size
        inside = (anchors[:, :2] >= 0).all(1) & (anchors[:, 2] < width) & (anchors[:, 3] < height)
        if not self.settings.inside_only:
            inside = torch.ones_like(inside)
        # Left out before the assignment: a ground truth's best anchor is the best one of those inside.
        matched = torch.full_like(inside, IGNORED, dtype=torch.int64)
        matched[inside] = self.settings.assigner(truth, anchors[inside])
        positive, negative = sample(matched, self.settings.sampled, self.settings.positive_fraction)
        return RpnTargets(positive, negative, self.coder.encode(truth[matched[positive]], anchors[positive]))

    def losses(
        self,
        logits: Sequence[Tensor],
        deltas: Sequence[Tensor],
        image_sizes: Sequence[tuple[int, int]],
        truth: Sequence[Tensor],
    ) -> tuple[Tensor, Tensor]:
        """Sigmoid cross entropy of the sampled anchors and smooth L1 of the positive ones' deltas.

        Both are sums over the batch, divided by the number of sampled anchors of the batch, where an image counts at
        least one positive and one negative.

        Args:
            logits: Of each level, (B, 3, H_i, W_i).
            deltas: Of each level, (B, 12, H_i, W_i).
            image_sizes: Height and width of each image before padding.
            truth: Ground-truth boxes (G, 4) of each image.

        Returns:
            The two losses of each level, (L,) and (L,).
        """
        anchors = self.anchors(logits)
        level = torch.cat([torch.full((len(x),), i, device=x.device) for i, x in enumerate(anchors)])
        all_anchors = torch.cat(anchors)
        scores = torch.cat([flat_maps(x, 1)[..., 0] for x in logits], dim=1)  # (B, A)
        codes = torch.cat([flat_maps(x, 4) for x in deltas], dim=1)  # (B, A, 4)
        by_level = scores.new_zeros(2, len(anchors)).unbind()
        total = 0
        for i, (boxes, size) in enumerate(zip(truth, image_sizes, strict=True)):
            found = self.targets(all_anchors, boxes.to(all_anchors), size)
            taken = torch.cat((found.positive, found.negative))
            wanted = (torch.arange(len(taken), device=taken.device) < len(found.positive)).to(scores)
            entropy = F.binary_cross_entropy_with_logits(scores[i, taken], wanted, reduction="none")
            distance = F.smooth_l1_loss(
                codes[i, found.positive], found.deltas, reduction="none", beta=self.settings.beta
            )
            by_level = (
                by_level[0].index_add(0, level[taken], entropy),
                by_level[1].index_add(0, level[found.positive], distance.sum(1)),
            )
            total += max(len(found.positive), 1) + max(len(found.negative), 1)
        return by_level[0] / total, by_level[1] / total


def flat_maps(maps: Tensor, numbers: int) -> Tensor:
    """Maps (B, 3 numbers, H, W) as one row an anchor, (B, H W 3, numbers)."""
    return maps.permute(0, 2, 3, 1).reshape(len(maps), -1, numbers)
