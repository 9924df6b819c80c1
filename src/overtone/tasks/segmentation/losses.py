"""Losses of logits against masks, each summed over the pixels that it is then divided by."""

import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.data.masks import IGNORED
from overtone.heads.upernet import resize
from overtone.tasks.segmentation.settings import SegmentationSettings


def pixel_loss(
    logits: Tensor, targets: Tensor, settings: SegmentationSettings, class_weights: Tensor | None = None
) -> Tensor:
    """The recipe's loss of each pixel, summed; `counted_pixels` is what to divide it by.

    Args:
        logits: `(B, K, h, w)`; resized bilinearly to the masks.
        targets: `(B, H, W)`, classes, `IGNORED` where there is none.
        settings: which loss.
        class_weights: `(K,)`, of cross entropy and focal loss.
    """
    targets = targets.long()
    if not len(targets):
        return logits.sum() * 0
    logits = resize(logits, targets.shape[-2:])
    if settings.loss == "dice":
        return _dice(logits, targets, settings)
    entropy = F.cross_entropy(logits, targets, class_weights, ignore_index=IGNORED, reduction="none")
    if settings.loss == "focal":
        # without the weight of the class: the probability of the true one
        plain = F.cross_entropy(logits, targets, ignore_index=IGNORED, reduction="none")
        entropy = (1 - (-plain).exp()) ** settings.focal_gamma * entropy
    total = entropy.sum()
    return total + _dice(logits, targets, settings) if settings.loss == "cross_entropy_dice" else total


def counted_pixels(targets: Tensor, settings: SegmentationSettings) -> int:
    """The pixels that the loss is divided by: those with a class, or all."""
    return targets.numel() if settings.normalise == "all" else int((targets != IGNORED).sum())


def _dice(logits: Tensor, targets: Tensor, settings: SegmentationSettings) -> Tensor:
    """1 - the mean over an image's classes of 2 |P T| / (|P| + |T|), times the image's counted pixels, summed.

    P is the softmax on the labelled pixels (Milletari et al. 2016, arXiv:1606.04797, without the squares). Only the
    classes that an image has are in its mean.
    """
    labelled = (targets != IGNORED)[:, None]
    shares = logits.softmax(1) * labelled
    truth = torch.zeros_like(shares).scatter_(1, targets.where(labelled[:, 0], 0)[:, None], 1.0) * labelled
    both, sizes = (shares * truth).sum((2, 3)), (shares + truth).sum((2, 3))
    is_there = truth.sum((2, 3)) > 0
    scores = (2 * both / sizes.clamp(min=1e-6) * is_there).sum(1) / is_there.sum(1).clamp(min=1)
    counted = labelled.sum((1, 2, 3)) if settings.normalise == "labelled" else targets[0].numel()
    return ((1 - scores) * counted * is_there.any(1)).sum()
