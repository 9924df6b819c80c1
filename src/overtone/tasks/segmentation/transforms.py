"""Images with their masks: resized, cropped, mirrored and distorted together, and joined into batches.

Geometry is torchvision's v2 functions on its `tv_tensors`; what is drawn comes from the generator of `random`, which
the loader seeds for every sample. Images are 8-bit up to the normalisation.
"""

import random
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as moved

from overtone.config import Augment, Preprocess
from overtone.data.decoding import BadImage, decode_pixels
from overtone.data.masks import IGNORED
from overtone.data.pipeline import Batch, Draw
from overtone.data.sources import Record
from overtone.data.transforms import normalise
from overtone.tasks.segmentation.distortion import distorted
from overtone.tasks.segmentation.settings import SegmentationSettings

_MOST_DRAWS = 10
_INTERPOLATIONS = {name: InterpolationMode(name) for name in ("nearest", "bilinear", "bicubic", "lanczos")}


class Views(NamedTuple):
    """What a network sees of one image in evaluation.

    Attributes:
        pixels: the image at each scale, float32 `(1, 3, H_i, W_i)`, normalised.
        size: height and width of the image itself, which outputs are resized to.
    """

    pixels: tuple[Tensor, ...]
    size: tuple[int, int]


Pair = tuple[tv_tensors.Image, tv_tensors.Mask]


def fitted_size(height: int, width: int, longer: int, shorter: int) -> tuple[int, int]:
    """Height and width of an image that is resized into a longer and a shorter side and keeps its ratio.

    With f = min(longer / max(h, w), shorter / min(h, w)): int(h f + 0.5), int(w f + 0.5), at least 1 pixel each.
    """
    factor = min(longer / max(height, width), shorter / min(height, width))
    return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)


class Resizer:
    """Resizes images, and masks to the nearest pixel, by the recipe's rule and a factor.

    Args:
        preprocess: gives the filter.
        settings: `scale` and `antialias`.
    """

    def __init__(self, preprocess: Preprocess, settings: SegmentationSettings) -> None:
        self._filter = _INTERPOLATIONS[preprocess.interpolation]
        self._scale, self._antialias = settings.scale, settings.antialias

    def size(self, height: int, width: int, factor: float = 1.0) -> tuple[int, int]:
        """Height and width of an image afterwards."""
        if self._scale is None:
            return max(int(height * factor + 0.5), 1), max(int(width * factor + 0.5), 1)
        longer, shorter = (max(int(side * factor), 1) for side in self._scale)
        return fitted_size(height, width, longer, shorter)

    def image(self, image: Tensor, factor: float = 1.0) -> Tensor:
        """The image, `(3, H, W)`."""
        height, width = image.shape[-2:]
        size = self.size(height, width, factor)
        if size == (height, width):
            return image
        return moved.resize(image, list(size), interpolation=self._filter, antialias=self._antialias)

    def mask(self, mask: Tensor, factor: float = 1.0) -> Tensor:
        """The mask, `(H, W)`, for an image of its size."""
        size = self.size(mask.shape[-2], mask.shape[-1], factor)
        if size == tuple(mask.shape[-2:]):
            return mask
        return moved.resize(mask[None], list(size), interpolation=InterpolationMode.NEAREST)[0]


class TrainingChanges:
    """Scale jitter, crop, mirror and distortion of a training image and its mask.

    Args:
        preprocess: `size` is the side of the crops; images that are smaller stay so, and are padded in the batch.
        augment: probabilities of mirroring.
        settings: all else.
    """

    def __init__(self, preprocess: Preprocess, augment: Augment, settings: SegmentationSettings) -> None:
        self._resizer, self._side = Resizer(preprocess, settings), preprocess.size
        self._augment, self._settings = augment, settings

    def __call__(self, image: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Change an image, uint8 `(3, H, W)`, and its mask, uint8 `(H, W)`."""
        factor = random.uniform(*self._settings.ratio)
        image = tv_tensors.Image(self._resizer.image(image, factor))
        mask = tv_tensors.Mask(self._resizer.mask(mask, factor))
        top, left, height, width = self._crop(mask)
        image, mask = (moved.crop(value, top, left, height, width) for value in (image, mask))
        if random.random() < self._augment.hflip:
            image, mask = (moved.horizontal_flip(value) for value in (image, mask))
        if random.random() < self._augment.vflip:
            image, mask = (moved.vertical_flip(value) for value in (image, mask))
        pixels, labels = (value.as_subclass(Tensor) for value in (image, mask))
        return (distorted(pixels) if self._settings.distort else pixels), labels

    def _crop(self, mask: Tensor) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop that no class fills too much of, if one is found."""
        height, width = (min(self._side, side) for side in mask.shape[-2:])
        for draw in range(_MOST_DRAWS + 1):
            top = random.randint(0, mask.shape[-2] - height)
            left = random.randint(0, mask.shape[-1] - width)
            if self._settings.most_of_one_class >= 1 or draw == _MOST_DRAWS:
                break
            if is_mixed(mask[..., top : top + height, left : left + width], self._settings.most_of_one_class):
                break
        return top, left, height, width


def is_mixed(mask: Tensor, most: float) -> bool:
    """Whether a mask has two classes or more and none on a share of `most` or more of its labelled pixels."""
    counts = torch.bincount(mask.as_subclass(Tensor).flatten(), minlength=IGNORED + 1)[:IGNORED]
    return int((counts > 0).sum()) > 1 and int(counts.max()) < most * int(counts.sum())


class MaskPipeline:
    """From a record with a mask to a batch.

    In training: crops, padded with zeros after the normalisation and with `IGNORED` on the right and below. In
    evaluation: `Views` of one image, and its mask as it is.

    Args:
        preprocess: mean, deviation, side of the crops, EXIF policy.
        settings: how images are resized.
        changes: those of training; None in evaluation.
        transform: takes the place of `Views` in evaluation, for a network that takes something else.
        channels_last: memory format of training batches.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        settings: SegmentationSettings,
        changes: TrainingChanges | None = None,
        *,
        transform: Callable[[Any], Any] | None = None,
        channels_last: bool = False,
    ) -> None:
        self._preprocess, self._settings, self._changes = preprocess, settings, changes
        self._transform, self._channels_last = transform, channels_last
        self.largest_batch = None if changes is not None else 1  # images of any size make no batch

    def decode(self, record: Record) -> tuple[Tensor, Tensor | None]:
        """The image, uint8 `(3, H, W)`, and its mask, uint8 `(H, W)`; None for an image without one.

        Raises:
            BadImage: one of them cannot be read, or they differ in size.
        """
        source = record.get("image", b"")
        image = decode_pixels(source, self._preprocess.exif).permute(2, 0, 1)
        if "mask" not in record:
            return image, None
        mask = torch.from_numpy(record["mask"].pixels())
        if mask.shape != image.shape[1:]:
            path = None if isinstance(source, bytes) else source
            raise BadImage(
                path, f"it is {image.shape[2]}x{image.shape[1]} pixels and its mask {mask.shape[1]}x{mask.shape[0]}"
            )
        return image, mask

    def transform(self, decoded: tuple[Tensor, Tensor | None], draw: Draw) -> tuple[Any, Tensor | None]:
        """A crop and its mask in training; in evaluation what the network sees, and the mask."""
        image, mask = decoded
        if self._changes is not None and mask is not None:
            return self._changes(image, mask)
        return self.views(image), mask

    def views(self, image: Tensor) -> Any:
        """What a network sees of an image, uint8 `(3, H, W)`, in evaluation."""
        if self._transform is not None:
            return self._transform(image)
        resizer = Resizer(self._preprocess, self._settings)
        scaled = (resizer.image(image, scale) for scale in self._settings.scales)
        size = (int(image.shape[1]), int(image.shape[2]))
        return Views(tuple(normalise(one.float() / 255, self._preprocess)[None] for one in scaled), size)

    def collate(self, samples: Sequence[tuple[Any, Any]], ids: Tensor, bad: tuple[tuple[int, str], ...]) -> Batch:
        """Join crops, or hand on one image."""
        side = self._preprocess.size
        if self._changes is None:
            if not samples:
                return Batch(torch.empty(0, 3, 0, 0), torch.empty(0, 0, 0, dtype=torch.uint8), ids, bad)
            views, mask = samples[0]
            return Batch(views, torch.empty(0, 0, 0, dtype=torch.uint8) if mask is None else mask[None], ids, bad)
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        images = torch.zeros((len(samples), 3, side, side)).to(memory_format=layout)
        masks = torch.full((len(samples), side, side), IGNORED, dtype=torch.uint8)
        for index, (image, mask) in enumerate(samples):
            height, width = mask.shape
            images[index, :, :height, :width] = normalise(image.float() / 255, self._preprocess)
            masks[index, :height, :width] = mask
        return Batch(images, masks, ids, bad)
