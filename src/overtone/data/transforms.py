"""One sample: from a decoded image to the model's input, for evaluation and for training.

Evaluation is Pillow's and torchvision's arithmetic, pixel for pixel, because that is how the published figures were
measured; training's random crop, which is resized, is theirs up to one grey level (see `data.cropping`), and is
normalised with a product in the place of two divisions, which rounds the last bit of a value otherwise. Training
draws from the global generators, which the loader seeds for every sample (see `data.seeding`).
"""

import dataclasses
import math
import random
from collections.abc import Callable, Sequence
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from timm.data.auto_augment import rand_augment_transform
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torchvision.transforms import (
    ColorJitter,
    Compose,
    RandomCrop,
    RandomHorizontalFlip,
    RandomVerticalFlip,
)

from overtone.config import Augment, Interpolation, Preprocess, Recipe
from overtone.data.bounded_resize import ResizeAndCrop, Squash
from overtone.data.cropping import Pixels, RandomFlip, RandomResizedCrop, as_image
from overtone.data.decoding import Exif, as_pixels
from overtone.errors import OvertoneError

Transform = Callable[[Any], Tensor]
"""From an image in RGB to float32 `(3, size, size)`, normalised."""


class ImageTransform(Compose):
    """The steps of a transform; it carries along what decoding the image needs.

    Attributes:
        exif: the EXIF policy.
        takes: what the first step takes: an `image`, its `pixels` as a tensor, or `scaled`: part of a file, which may
            be decoded at a smaller size. Every transform also takes an image.
        most: pixels that the shorter side may have, or the image is resized before; None: any number.
    """

    most: int | None = None

    def __init__(
        self, steps: Sequence[Callable], exif: Exif, takes: Literal["image", "pixels", "scaled"] = "image"
    ) -> None:
        super().__init__(steps)
        self.exif: Exif = exif
        self.takes: Literal["image", "pixels", "scaled"] = takes

    @property
    def normalise(self) -> "Normalise | None":
        """The normalisation, where it is the last step: then `pixels` does all the others."""
        last = self.transforms[-1] if self.transforms else None
        return last if isinstance(last, Normalise) else None

    def pixels(self, image: Pixels) -> Tensor:
        """All steps but the last: uint8 `(H, W, 3)`."""
        values: Any = image
        for step in self.transforms[:-1]:
            values = step(values)
        return values if isinstance(values, Tensor) else as_pixels(values)


class ProgressiveTransform:
    """Training at one resolution after the other: another transform for each part of the epochs.

    Args:
        transforms: one for each part, in turn.
        epochs: epochs of the training; epoch e is of part e * len(transforms) // epochs.
    """

    def __init__(self, transforms: Sequence[ImageTransform], epochs: int) -> None:
        self.transforms, self.epochs = tuple(transforms), epochs
        self.exif, self.takes, self.most = transforms[0].exif, transforms[0].takes, transforms[0].most

    def for_epoch(self, epoch: int) -> ImageTransform:
        """The transform of an epoch, counted from 0."""
        return self.transforms[epoch * len(self.transforms) // self.epochs]

    def normalise_of(self, side: int) -> "Normalise | None":
        """The normalisation that is left to do to images of so many pixels a side, if any is."""
        last = (transform.normalise for transform in self.transforms)
        return next((step for step in last if step is not None and step.size == side), None)


# Rotations and shears know no Lanczos filter (Pillow's Image.transform).
_WARP_FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.BICUBIC,
}
_TRANSLATION = 0.45  # largest translation of RandAugment as a share of the side, as timm's training script has it


def evaluation_transform(preprocess: Preprocess) -> ImageTransform:
    """The transform of evaluation and prediction; it draws nothing.

    Equal to torchvision's `Resize`, `CenterCrop`, `ToTensor` and `Normalize` on Pillow images, bit for bit.

    Args:
        preprocess: `shorter`: the shorter side becomes int(size / crop_fraction), the longer one keeps the ratio
            (rounded down), then the centre is cut out; `squash`: the whole image becomes the square.
    """
    return ImageTransform([*_geometry(preprocess), Normalise(preprocess)], preprocess.exif)


def seen_box(preprocess: Preprocess, size: tuple[int, int]) -> tuple[float, float, float, float]:
    """The part of an image that `evaluation_transform` shows: left, top, right, bottom.

    Args:
        preprocess: of the transform.
        size: width and height of the image, pixels.
    """
    width, height = size
    if preprocess.resize == "squash":
        return 0.0, 0.0, float(width), float(height)
    side = min(width, height) * preprocess.size / int(preprocess.size / preprocess.crop_fraction)
    left, top = (width - side) / 2, (height - side) / 2
    return left, top, left + side, top + side


def training_transform(preprocess: Preprocess, augment: Augment, *, scaled_decoding: bool = False) -> ImageTransform:
    """The transform of training: crop, flips, RandAugment or colour jitter, normalisation, random erasing.

    The order is that of timm's training script, and so is the rule that RandAugment, which changes colours itself,
    takes the place of colour jitter: where both are given, colour jitter is not applied.

    Args:
        preprocess: size, filter, mean and deviation, EXIF policy.
        augment: what is drawn.
        scaled_decoding: let large JPEG files be decoded at a smaller size, which changes pixels; it takes a random
            resized crop.

    Raises:
        OvertoneError: a RandAugment policy that timm cannot read.
    """
    steps: list[Callable] = _crop(preprocess, augment)
    on_pixels = augment.crop == "random_resized"
    if augment.hflip > 0:
        steps.append(RandomFlip(augment.hflip, "across") if on_pixels else RandomHorizontalFlip(augment.hflip))
    if augment.vflip > 0:
        steps.append(RandomFlip(augment.vflip, "down") if on_pixels else RandomVerticalFlip(augment.vflip))
    if on_pixels and (augment.rand_augment or augment.color_jitter > 0):
        steps.append(as_image)
    if augment.rand_augment:
        steps.append(_rand_augment(augment.rand_augment, preprocess))
    elif augment.color_jitter > 0:
        steps.append(ColorJitter(*(augment.color_jitter,) * 3))
    steps.append(Normalise(preprocess, exact=not on_pixels))
    if augment.random_erasing > 0:
        steps.append(RandomErasing(augment.random_erasing, mode="pixel", device="cpu"))
    takes = "image" if not on_pixels else "scaled" if scaled_decoding else "pixels"
    return ImageTransform(steps, preprocess.exif, takes)


def recipe_transform(recipe: Recipe) -> ImageTransform | ProgressiveTransform:
    """The transform of a recipe's training: at the recipe's size, or at its progressive ones.

    Raises:
        OvertoneError: see `training_transform`.
    """
    preprocess, train = recipe.data.preprocess, recipe.train
    transforms = [
        training_transform(
            dataclasses.replace(preprocess, size=size), recipe.augment, scaled_decoding=recipe.data.scaled_decoding
        )
        for size in train.sizes or (preprocess.size,)
    ]
    for transform in transforms:
        transform.most = recipe.data.cache_side
    return ProgressiveTransform(transforms, train.epochs) if train.sizes else transforms[0]


class Normalise:
    """An image in RGB as a float32 tensor `(3, H, W)`: value / 255, minus the mean, divided by the deviation.

    Args:
        preprocess: mean, deviation, and the size of most images.
        exact: bit for bit torchvision's `ToTensor` and `Normalize`, without their checks and copies. Otherwise a value
            is multiplied by 1 / (255 * deviation) and mean / deviation subtracted, which takes half the time and is
            off by less than 0.001 grey levels.
    """

    def __init__(self, preprocess: Preprocess, *, exact: bool = True) -> None:
        self.size, self.exact = preprocess.size, exact
        mean, std = _channels(preprocess)
        quick = (1 / (255 * std.double())).float(), (mean.double() / std.double()).float()
        self._channels = (mean, std) if exact else quick
        # a row of the input, channels innermost: one run of numbers takes half the time of three channels
        self._row = tuple(values.flatten().repeat(preprocess.size) for values in self._channels)

    def __call__(self, image: Image.Image | Tensor, out: Tensor | None = None) -> Tensor:
        """Normalise one image, or its pixels, uint8 `(H, W, 3)`.

        Args:
            image: the image.
            out: where to put the values, float32 `(3, H, W)` with any strides; default: new memory, contiguous.
        """
        pixels = image if isinstance(image, Tensor) else as_pixels(image)
        if out is None:
            out = torch.empty(3, *pixels.shape[:2])
        self.batch([pixels], out.unsqueeze(0))
        return out

    def batch(self, images: Sequence[Tensor], out: Tensor) -> None:
        """Normalise the pixels of images of one size into the memory of a batch.

        Args:
            images: uint8 `(H, W, 3)` each.
            out: float32 `(B, 3, H, W)` with any strides.
        """
        innermost = out.permute(0, 2, 3, 1)
        if innermost.shape[2] == self.size and innermost.is_contiguous():
            places = innermost.flatten(2).unbind()
            for pixels, rows in zip(images, places, strict=True):  # one by one, in the processor's cache
                self._apply(rows.copy_(pixels.flatten(1)), self._row)
            return
        for pixels, place in zip(images, out.unbind(), strict=True):
            self.of_values(place.copy_(pixels.permute(2, 0, 1)))

    def of_values(self, values: Tensor) -> Tensor:
        """Normalise values in 0..255 in place, float32 `(..., 3, H, W)`."""
        return self._apply(values, [channel.to(values.device) for channel in self._channels])

    def _apply(self, values: Tensor, numbers: Sequence[Tensor]) -> Tensor:
        first, second = numbers
        return values.div_(255).sub_(first).div_(second) if self.exact else values.mul_(first).sub_(second)


class PadAndCrop:
    """Pad an image of `size` x `size` by reflection and cut a random square of its old size from it.

    As torchvision's `RandomCrop(size, padding, padding_mode="reflect")`, an order of magnitude faster: the padded
    image is never made, rows and columns are looked up.
    """

    def __init__(self, size: int, padding: int) -> None:
        self.size, self.padding = size, padding
        self.source = np.pad(np.arange(size), padding, mode="reflect")

    def __call__(self, image: Image.Image) -> Image.Image:
        """Crop one image; draws two numbers from `random`."""
        top, left = random.randint(0, 2 * self.padding), random.randint(0, 2 * self.padding)
        rows, columns = self.source[top : top + self.size], self.source[left : left + self.size]
        return Image.fromarray(np.asarray(image)[rows[:, None], columns])


def normalise(images: Tensor, preprocess: Preprocess) -> Tensor:
    """Values in 0..1, `(..., 3, H, W)`, to what the model takes: minus the mean, divided by the deviation."""
    mean, std = (values.to(images) for values in _channels(preprocess))
    return (images - mean) / std


def _channels(preprocess: Preprocess) -> tuple[Tensor, Tensor]:
    """Mean and deviation, each `(3, 1, 1)`."""
    mean, std = (torch.tensor(values, dtype=torch.float32) for values in (preprocess.mean, preprocess.std))
    return mean.view(3, 1, 1), std.view(3, 1, 1)


def _geometry(preprocess: Preprocess) -> list[Callable]:
    """Images of any size to `size` x `size`, the same part every time."""
    if preprocess.resize == "squash":
        return [Squash(preprocess.size, preprocess.interpolation)]
    shorter = int(preprocess.size / preprocess.crop_fraction)
    return [ResizeAndCrop(shorter, preprocess.size, preprocess.interpolation)]


def _crop(preprocess: Preprocess, augment: Augment) -> list[Callable]:
    """Images of any size to `size` x `size`, as the augmentation says."""
    if augment.crop == "random_resized":
        return [RandomResizedCrop(preprocess.size, augment.scale, augment.ratio, preprocess.interpolation)]
    steps = _geometry(preprocess)
    padding = preprocess.size // 8
    if augment.crop == "pad" and padding:
        reflect = augment.pad_mode == "reflect"
        steps.append(PadAndCrop(preprocess.size, padding) if reflect else RandomCrop(preprocess.size, padding))
    return steps


def _rand_augment(policy: str, preprocess: Preprocess) -> Callable:
    mean = tuple(min(255, round(255 * value)) for value in preprocess.mean)
    settings = {
        "translate_const": math.floor(preprocess.size * _TRANSLATION),
        "img_mean": mean,
        "interpolation": _WARP_FILTERS[preprocess.interpolation],
    }
    try:
        transform = rand_augment_transform(policy, settings)
    except (AssertionError, ValueError, KeyError) as error:
        raise OvertoneError(
            f"augment.rand_augment is {policy!r}, which timm cannot read; give a policy such as rand-m9-mstd0.5-inc1"
        ) from error
    for operation in transform.ops:
        if operation.name.startswith("Posterize"):
            operation.aug_fn = _posterize
    return transform


def _posterize(image: Image.Image, bits: int, **_: object) -> Image.Image:
    """Keep the highest bits of each value.

    At the highest magnitude timm keeps 0 bits, which made a black image when the published networks were trained;
    newer versions of Pillow refuse it.
    """
    if bits < 1:
        return Image.new(image.mode, image.size)
    return ImageOps.posterize(image, bits) if bits < 8 else image
