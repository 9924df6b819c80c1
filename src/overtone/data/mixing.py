"""One batch: mixup (arXiv:1710.09412) and CutMix (arXiv:1905.04899), which blend each image with another one."""

import torch
from timm.data.mixup import Mixup
from torch import Tensor

from overtone.config import Augment
from overtone.data.seeding import seeded

_MIXING = 0x6D6978696E67  # keeps what is drawn here apart from what else the same numbers seed


def mixer_of(augment: Augment, num_classes: int, label_smoothing: float = 0.0) -> "Mixer | None":
    """The mixer that the recipe asks for, or None where mixup and cutmix are off."""
    return Mixer(augment, num_classes, label_smoothing) if augment.mixup > 0 or augment.cutmix > 0 else None


class Mixer:
    """Mixes the images of a batch in pairs of neighbours, with one drawn share for the whole batch.

    What is drawn is a function of the numbers given to the call, such as (seed, step). As several processes get runs of
    neighbours, each image has the same partner however many they are. timm's `Mixup` does the work.
    """

    def __init__(self, augment: Augment, num_classes: int, label_smoothing: float = 0.0) -> None:
        if augment.mixup <= 0 and augment.cutmix <= 0:
            raise ValueError("neither mixup nor cutmix is on; ask mixer_of, which gives None then")
        self._mixup = Mixup(
            mixup_alpha=augment.mixup,
            cutmix_alpha=augment.cutmix,
            prob=augment.mix_prob,
            switch_prob=augment.mix_switch_prob,
            mode="batch",
            label_smoothing=label_smoothing,
            num_classes=num_classes,
        )

    def __call__(self, images: Tensor, targets: Tensor, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Mix one batch.

        In a batch of odd size the last image stays as it is.

        Args:
            images: `(B, C, H, W)`, floating.
            targets: `(B,)`, class of each image.
            seed: the numbers that decide what is drawn.

        Returns:
            The mixed images `(B, C, H, W)` and the share of each class `(B, num_classes)`, float32; rows add up to 1.
        """
        num_images = len(images)
        if num_images == 0:
            raise ValueError("an empty batch cannot be mixed")
        # timm takes even batches only, and mixes the first image with the last, the second with the last but one, …
        pairs = torch.arange(num_images + num_images % 2, device=images.device).clamp(max=num_images - 1).view(-1, 2)
        order = torch.cat([pairs[:, 0], pairs[:, 1].flip(0)])
        with seeded(_MIXING, *seed):
            mixed, shares = self._mixup(images[order], targets[order])
        images, ordered = torch.empty_like(images), torch.empty_like(shares[:num_images])
        images[order], ordered[order] = mixed, shares
        return images, ordered

    def with_shares(self, images: Tensor, seed: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Mix one batch whose targets are not classes.

        Returns:
            The mixed images `(B, C, H, W)` and the share of each image of the batch in each, float32 `(B, B)`: times
            the targets `(B, K)` it is the mixed targets.
        """
        before, smoothing = self._mixup.num_classes, self._mixup.label_smoothing
        self._mixup.num_classes, self._mixup.label_smoothing = len(images), 0.0
        try:
            return self(images, torch.arange(len(images), device=images.device), seed)
        finally:
            self._mixup.num_classes, self._mixup.label_smoothing = before, smoothing
