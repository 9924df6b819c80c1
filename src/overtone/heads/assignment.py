"""Which ground truth an anchor or a proposal belongs to, and which of them a training step samples."""

from dataclasses import dataclass

import torch
from torch import Tensor
from torchvision.models.detection._utils import BalancedPositiveNegativeSampler
from torchvision.ops import box_iou

NEGATIVE, IGNORED = -1, -2  # torchvision's numbers, of its `Matcher`


@dataclass(frozen=True)
class Assigner:
    """Assignment by overlap (arXiv:1506.01497, section 3.1.2).

    A box takes the ground truth of its highest IoU where that is at least `positive`; it is negative where all are
    below `negative` and ignored between. torchvision's `Matcher` differs in the low-quality matches: it has no lower
    bound for them and keeps a tied box with its own best ground truth.

    Attributes:
        positive: IoU from which a box is positive.
        negative: IoU below which it is negative.
        low_quality: Where given, each ground truth whose highest IoU is at least this also takes every box that ties
            with that IoU, whatever the box took before; of several ground truths the last one has it.
    """

    positive: float
    negative: float
    low_quality: float | None = None

    def __call__(self, truth: Tensor, boxes: Tensor) -> Tensor:
        """The index of the ground truth of each box, `NEGATIVE` or `IGNORED`.

        Args:
            truth: Ground-truth boxes (G, 4); none: every box is negative.
            boxes: (N, 4).

        Returns:
            (N,) int64.
        """
        if not len(truth) or not len(boxes):
            return boxes.new_full((len(boxes),), NEGATIVE, dtype=torch.int64)
        iou = box_iou(truth, boxes).nan_to_num(0.0)  # (G, N); two boxes without area do not overlap
        highest, matched = iou.max(0)
        matched = torch.where(highest >= self.positive, matched, IGNORED)
        matched = torch.where(highest < self.negative, NEGATIVE, matched)
        if self.low_quality is None:
            return matched
        best = iou.amax(1, keepdim=True)
        ties = (iou == best) & (best >= self.low_quality)
        numbers = torch.arange(1, len(truth) + 1, device=iou.device)
        last = (ties * numbers[:, None]).amax(0)  # 0: no tie
        return torch.where(last > 0, last - 1, matched)


def sample(matched: Tensor, number: int, positive_fraction: float) -> tuple[Tensor, Tensor]:
    """Random positives, at most a fraction of `number`, and negatives that fill up the rest.

    Args:
        matched: (N,) as an `Assigner` returns it.
        number: Boxes to sample.
        positive_fraction: Share of them that may be positive.

    Returns:
        Indices of the positives and of the negatives, each ascending.
    """
    sampler = BalancedPositiveNegativeSampler(number, positive_fraction)
    kind = torch.where(matched >= 0, 1, torch.where(matched == NEGATIVE, 0, -1))
    positive, negative = sampler([kind])
    return positive[0].nonzero()[:, 0], negative[0].nonzero()[:, 0]
