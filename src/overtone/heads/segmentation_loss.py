"""The loss that the published segmentation networks were trained with."""

from torch import Tensor
from torch.nn import functional as F

from overtone.heads.segmenter import TrainingLogits
from overtone.heads.upernet import resize

IGNORED = 255
AUXILIARY_WEIGHT = 0.4


def pixel_cross_entropy(logits: Tensor, labels: Tensor, ignored: int = IGNORED) -> Tensor:
    """Cross entropy of every pixel, summed and divided by the number of all pixels, the ignored ones included.

    So a batch with much padding weighs less; it is what the published networks were trained with.

    Args:
        logits: (B, num_classes, h, w), resized bilinearly to the labels.
        labels: (B, H, W), integers.
        ignored: The label that counts nothing.
    """
    resized = resize(logits, labels.shape[-2:])
    return F.cross_entropy(resized, labels, ignore_index=ignored, reduction="sum") / labels.numel()


def segmentation_losses(
    outputs: TrainingLogits,
    labels: Tensor,
    ignored: int = IGNORED,
    auxiliary_weight: float = AUXILIARY_WEIGHT,
) -> dict[str, Tensor]:
    """The terms of the published loss, to be added: `decode` and, with an auxiliary head, `auxiliary` (weighted).

    Args:
        outputs: Of a `Segmenter` in training mode.
        labels: (B, H, W), integers.
        ignored: The label that counts nothing.
        auxiliary_weight: Factor of the auxiliary term.
    """
    losses = {"decode": pixel_cross_entropy(outputs.logits, labels, ignored)}
    if outputs.auxiliary is not None:
        losses["auxiliary"] = auxiliary_weight * pixel_cross_entropy(outputs.auxiliary, labels, ignored)
    return losses
