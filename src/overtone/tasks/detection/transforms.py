"""Images with their objects: resized, mirrored, cropped and joined together, and padded into batches.

Geometry is torchvision's v2 functions on its `tv_tensors`; what is drawn comes from the generator of `random`, which
the loader seeds for every sample. Images are 8-bit up to the normalisation; padding is 0 after it.
"""

import random
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import InterpolationMode, v2
from torchvision.transforms.v2 import functional as moved

from overtone.config import Augment, Preprocess
from overtone.data.decoding import BadImage, as_pixels, as_rgb, decode_pixels
from overtone.data.pipeline import Batch, Draw
from overtone.data.segments import bitmap
from overtone.data.sources import Objects, Record
from overtone.data.transforms import normalise
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.segmentation.transforms import fitted_size

_INTERPOLATIONS = {name: InterpolationMode(name) for name in ("nearest", "bilinear", "bicubic", "lanczos")}
_MOSAIC_CENTRE = (0.3, 0.7)  # shares of the side between which the corner that four images share lies
Size = tuple[int, int]


class Views(NamedTuple):
    """What a detector takes: images of several sizes, padded to one.

    Attributes:
        pixels: float32 `(B, 3, H, W)`, normalised.
        sizes: height and width of each image before padding.
        scales: width and height of each image over those of its original.
        originals: height and width of each original.
    """

    pixels: Tensor
    sizes: tuple[Size, ...]
    scales: tuple[tuple[float, float], ...]
    originals: tuple[Size, ...]


class Truth(NamedTuple):
    """What is known of an image in evaluation.

    Attributes:
        name: display name of the image.
        objects: in pixels of the image itself; None where nothing is known.
    """

    name: str
    objects: Objects | None


class Decoded(NamedTuple):
    """A decoded sample.

    Attributes:
        image: uint8 `(3, H, W)`.
        truth: its objects.
    """

    image: Tensor
    truth: Truth


class Marked(NamedTuple):
    """An image with its objects while it is changed.

    Attributes:
        image: uint8 `(3, H, W)`.
        boxes: float32 `(N, 4)`.
        labels: int64 `(N,)`.
        masks: uint8 `(N, H, W)`; None where none are learned.
    """

    image: tv_tensors.Image
    boxes: tv_tensors.BoundingBoxes
    labels: Tensor
    masks: tv_tensors.Mask | None

    def moved(self, change: Callable[[Any], Any]) -> "Marked":
        """All of it changed alike; boxes are cut at the edges."""
        image = change(self.image)
        boxes: Any = moved.clamp_bounding_boxes(change(self.boxes))
        return Marked(image, boxes, self.labels, None if self.masks is None else change(self.masks))

    def kept(self, smallest: float) -> "Marked":
        """Without the objects that have nothing left, or sides below `smallest`."""
        boxes, valid = moved.sanitize_bounding_boxes(self.boxes, min_size=max(smallest, 1e-3))
        masks = None if self.masks is None else tv_tensors.Mask(self.masks[valid])
        return Marked(self.image, _boxes(boxes.as_subclass(Tensor), self.size), self.labels[valid], masks)

    @property
    def size(self) -> Size:
        """Height and width."""
        return int(self.image.shape[-2]), int(self.image.shape[-1])


def _boxes(corners: Tensor, size: Size) -> tv_tensors.BoundingBoxes:
    """Left, top, right, bottom `(N, 4)` in an image of a height and width."""
    return tv_tensors.BoundingBoxes(corners, format="XYXY", canvas_size=size)  # type: ignore[call-overload]


def marked(decoded: Decoded, *, masks: bool) -> Marked:
    """A decoded sample with the objects that are learned: crowds are not."""
    objects = decoded.truth.objects
    size = int(decoded.image.shape[-2]), int(decoded.image.shape[-1])
    if objects is None:
        objects = Objects(*(np.zeros(0),) * 5, outlines=None, size=size)
    chosen = np.flatnonzero(~objects.crowd.astype(bool))
    boxes = _boxes(torch.from_numpy(objects.boxes.reshape(-1, 4)[chosen].astype(np.float32)), size)
    bitmaps = None
    if masks:
        outlines = objects.outlines or (b"",) * len(objects)
        drawn = [torch.from_numpy(bitmap(outlines[i], objects.boxes[i].tolist(), *size)) for i in chosen]
        bitmaps = tv_tensors.Mask(torch.stack(drawn) if drawn else torch.zeros((0, *size), dtype=torch.uint8))
    labels = torch.from_numpy(objects.labels[chosen].astype(np.int64))
    return Marked(tv_tensors.Image(decoded.image), boxes, labels, bitmaps)


class Resizer:
    """Resizes images with what is marked on them; bitmaps to the nearest pixel.

    Args:
        preprocess: `size`, the shorter side, and the filter.
        settings: the longest side, and whether to smooth.
    """

    def __init__(self, preprocess: Preprocess, settings: DetectionSettings) -> None:
        self._filter, self._antialias = _INTERPOLATIONS[preprocess.interpolation], settings.antialias
        self._shorter, self._longest = preprocess.size, settings.longest

    def size(self, height: int, width: int, shorter: int | None = None) -> Size:
        """Height and width of an image with a shorter side of `shorter`, or less where the longer one is at its end."""
        shorter = self._shorter if shorter is None else shorter
        return fitted_size(height, width, max(self._longest, shorter), shorter)

    def to(self, value: Any, size: Size) -> Any:
        """An image, boxes or masks at a size."""
        return moved.resize(value, list(size), interpolation=self._filter, antialias=self._antialias)


class TrainingChanges:
    """The random changes of a training image and its objects.

    Args:
        preprocess: `size` and the filter.
        augment: probabilities of mirroring, and the change of colours.
        settings: all else.
        masks: whether masks are learned.
    """

    def __init__(
        self, preprocess: Preprocess, augment: Augment, settings: DetectionSettings, *, masks: bool = False
    ) -> None:
        self._resizer, self._side = Resizer(preprocess, settings), preprocess.size
        self._augment, self._settings, self._masks = augment, settings, masks
        strength = augment.color_jitter
        self._colours = v2.ColorJitter(strength, strength, strength) if strength else None

    def __call__(self, decoded: Decoded, draw: Draw) -> Marked:
        """Change a sample; `draw` gives the others of a mosaic."""
        sample = marked(decoded, masks=self._masks)
        if random.random() < self._settings.mosaic:
            sample = self._mosaic(sample, draw)
        if random.random() < self._augment.hflip:
            sample = sample.moved(moved.horizontal_flip)
        if random.random() < self._augment.vflip:
            sample = sample.moved(moved.vertical_flip)
        if random.random() < self._settings.crop:
            sample = self._cropped(self._resized(sample, random.choice(self._settings.crop_shorter)))
        shorter = random.choice(self._settings.shorter or (self._side,))
        sample = self._resized(sample, max(round(shorter * random.uniform(*self._settings.jitter)), 1))
        if self._colours is not None:
            sample = sample._replace(image=self._colours(sample.image))
        return sample.kept(self._settings.smallest)

    def _resized(self, sample: Marked, shorter: int) -> Marked:
        size = self._resizer.size(*sample.size, shorter)
        return sample if size == sample.size else sample.moved(lambda value: self._resizer.to(value, size))

    def _cropped(self, sample: Marked) -> Marked:
        """A part, of sides drawn between crop_sides or as large as the image, at a place drawn."""
        low, high = self._settings.crop_sides
        height, width = (random.randint(min(side, low), min(side, high)) for side in sample.size)
        top, left = random.randint(0, sample.size[0] - height), random.randint(0, sample.size[1] - width)
        return sample.moved(lambda value: moved.crop(value, top, left, height, width)).kept(self._settings.smallest)

    def _mosaic(self, sample: Marked, draw: Draw) -> Marked:
        """Four images around a point: this one and three drawn from all, each cut at the edges of its quarter."""
        others = (draw.decoded_at(random.randrange(draw.num_samples)) for _ in range(3))
        samples = [sample, *(marked(other, masks=self._masks) for other in others)]
        side = self._side
        row, column = (round(side * random.uniform(*_MOSAIC_CENTRE)) for _ in range(2))
        quarters = [(0, 0, row, column), (0, column, row, side - column)]
        quarters += [(row, 0, side - row, column), (row, column, side - row, side - column)]
        canvas = torch.zeros((3, side, side), dtype=torch.uint8)
        boxes, labels, masks = [], [], []
        for one, (top, left, height, width) in zip(samples, quarters, strict=True):
            part = self._filling(one, height, width)
            canvas[:, top : top + height, left : left + width] = part.image
            boxes.append(part.boxes.as_subclass(Tensor) + torch.tensor([left, top, left, top]))
            labels.append(part.labels)
            if part.masks is not None:
                whole = torch.zeros((len(part.masks), side, side), dtype=torch.uint8)
                whole[:, top : top + height, left : left + width] = part.masks
                masks.append(whole)
        joined = _boxes(torch.cat(boxes), (side, side))
        bitmaps = tv_tensors.Mask(torch.cat(masks)) if self._masks else None
        return Marked(tv_tensors.Image(canvas), joined, torch.cat(labels), bitmaps)

    def _filling(self, sample: Marked, height: int, width: int) -> Marked:
        """A part of an image that fills a rectangle: resized to cover it, at half to all of the size of a whole one."""
        least = max(height / sample.size[0], width / sample.size[1])
        factor = max(least, self._side / min(sample.size) * random.uniform(0.5, 1.0))
        size = (max(round(sample.size[0] * factor), height), max(round(sample.size[1] * factor), width))
        sample = sample.moved(lambda value: self._resizer.to(value, size))
        top, left = random.randint(0, size[0] - height), random.randint(0, size[1] - width)
        return sample.moved(lambda value: moved.crop(value, top, left, height, width)).kept(self._settings.smallest)


class BoxPipeline:
    """From a record with objects to a batch: `Views` with, in training, boxes and labels, else `Truth`.

    Args:
        preprocess: mean, deviation, shorter side, EXIF policy.
        settings: how images are resized and padded.
        changes: those of training; None in evaluation.
        transform: takes the place of resizing in evaluation, for a network that takes something else.
        channels_last: memory format of the batches.
    """

    def __init__(
        self,
        preprocess: Preprocess,
        settings: DetectionSettings,
        changes: TrainingChanges | None = None,
        *,
        transform: Callable[[Any], Any] | None = None,
        channels_last: bool = False,
    ) -> None:
        self._preprocess, self._settings, self._changes = preprocess, settings, changes
        self._resizer, self._transform, self._channels_last = Resizer(preprocess, settings), transform, channels_last
        self.by_orientation = settings.by_orientation and changes is not None

    def decode(self, record: Record) -> Decoded:
        """The image, and what is marked on it.

        Raises:
            BadImage: it cannot be read, or is of another size than the annotations say.
        """
        source: Any = record.get("image", b"")
        is_opened, exif = isinstance(source, Image.Image), self._preprocess.exif
        pixels = as_pixels(as_rgb(source, exif)) if is_opened else decode_pixels(source, exif)
        image, objects = pixels.permute(2, 0, 1), record.get("boxes")
        size = (int(image.shape[1]), int(image.shape[2]))
        if objects is not None and objects.size != size:
            said = f"{objects.size[1]}x{objects.size[0]}"
            raise BadImage(None, f"it is {size[1]}x{size[0]} pixels and its annotations are of an image of {said}")
        name = str(source) if isinstance(source, Path) else record.get("name", "")
        return Decoded(image, Truth(name, objects))

    def transform(self, decoded: Decoded, draw: Draw) -> tuple[Any, Any]:
        """A changed image with boxes in training; in evaluation the resized one, and what is known of it."""
        if self._changes is not None:
            sample = self._changes(decoded, draw)
            target = {"boxes": sample.boxes.as_subclass(Tensor), "labels": sample.labels}
            if sample.masks is not None:
                target["masks"] = sample.masks.as_subclass(Tensor)
            return (sample.image.as_subclass(Tensor), sample.size), target
        return self.view(decoded.image), decoded.truth

    def view(self, image: Tensor) -> Any:
        """An image, uint8 `(3, H, W)`, as a network sees it in evaluation, and the size of the image itself."""
        size = (int(image.shape[-2]), int(image.shape[-1]))
        if self._transform is not None:
            return self._transform(image), size
        return self._resizer.to(image, self._resizer.size(*size)), size

    def alone(self, image: Any) -> Tensor:
        """Pillow's image in RGB as a network takes it, float32 `(3, H, W)`."""
        pixels = self.view(as_pixels(image).permute(2, 0, 1))[0]
        return normalise(pixels.float() / 255, self._preprocess)

    def collate(self, samples: Sequence[tuple[Any, Any]], ids: Tensor, bad: tuple[tuple[int, str], ...]) -> Batch:
        """Normalise images and pad them to one size."""
        images, targets = [image for (image, _), _ in samples], tuple(target for _, target in samples)
        sizes = tuple((int(image.shape[-2]), int(image.shape[-1])) for image in images)
        originals = tuple(size for (_, size), _ in samples)
        scales = tuple(
            (float(np.float32(new[1] / old[1])), float(np.float32(new[0] / old[0])))
            for new, old in zip(sizes, originals, strict=True)
        )
        divisor = self._settings.size_divisor
        height = -(-max((size[0] for size in sizes), default=0) // divisor) * divisor
        width = -(-max((size[1] for size in sizes), default=0) // divisor) * divisor
        layout = torch.channels_last if self._channels_last else torch.contiguous_format
        pixels = torch.zeros((len(images), 3, height, width)).to(memory_format=layout)
        for index, image in enumerate(images):
            pixels[index, :, : sizes[index][0], : sizes[index][1]] = normalise(image.float() / 255, self._preprocess)
        return Batch(Views(pixels, sizes, scales, originals), targets, ids, bad)
