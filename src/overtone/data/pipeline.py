"""From a record to a batch: decode, transform, collate; run in the processes that read.

A task gives the pipeline of its samples; `ImagePipeline` is that of tasks whose targets do not move with the pixels.
"""

import math
from collections.abc import Callable, Sequence
from copy import copy
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import get_worker_info

from overtone.data.cropping import Pixels, at_most
from overtone.data.decoding import Exif, as_rgb, decode_image, decode_pixels, open_scaled
from overtone.data.sources.source import Record
from overtone.data.transforms import ImageTransform, Normalise, ProgressiveTransform, Transform

_DECODERS: dict[str, Callable[[Any, Exif], Pixels]] = {
    "image": decode_image,
    "pixels": decode_pixels,
    "scaled": open_scaled,
}


class Batch(NamedTuple):
    """Samples of one step.

    Attributes:
        inputs: what the network takes; for images float32 `(B, 3, H, W)`, normalised, in the loader's memory format (B
            is 0, and H, W too, where none could be read).
        targets: what the outputs are compared with; for classes int64 `(B,)`.
        ids: int64 `(B,)`, positions in the source.
        bad: position and reason of each sample that could not be read; it is in none of the above.
    """

    inputs: Any
    targets: Any
    ids: Tensor
    bad: tuple[tuple[int, str], ...] = ()

    @property
    def num_samples(self) -> int:
        """Number of samples that could be read."""
        return len(self.ids)


class Draw(NamedTuple):
    """What decides every random choice for a sample; the global generators are seeded with it before `transform`.

    Attributes:
        seed: of the training.
        epoch: counted from 0.
        position: of the sample in its source.
        num_samples: of the source.
        decoded_at: the decoded sample at another position, for transforms that combine several.
    """

    seed: int
    epoch: int
    position: int
    num_samples: int
    decoded_at: Callable[[int], Any]


NO_DRAW = Draw(0, 0, 0, 1, lambda position: None)
"""Of evaluation and prediction, which draw nothing."""


class Pipeline(Protocol):
    """What a task does to records before the network sees them; picklable.

    One whose samples have different sizes may have an attribute `largest_batch`: samples in a batch at most.
    """

    def decode(self, record: Record) -> Any:
        """Decode a record, the same way every time: what it gives may be kept for the epochs to come.

        Raises:
            BadImage: it cannot be read.
        """
        ...

    def transform(self, decoded: Any, draw: Draw) -> Any:
        """Turn a decoded sample into one sample of a batch.

        Raises:
            BadImage: it cannot be read.
        """
        ...

    def collate(self, samples: Sequence[Any], ids: Tensor, bad: tuple[tuple[int, str], ...]) -> Batch:
        """Join samples (perhaps none) into a batch."""
        ...


class ImagePipeline:
    """Images of one size with a target each that no transform changes.

    Args:
        transform: from an image in RGB to a tensor; what it draws from the global generators is seeded for each image.
            An `ImageTransform` says how to decode (`exif`, `takes`); any other callable gets Pillow's images as they
            are stored. Of a `ProgressiveTransform` each epoch takes its own.
        target: gives a record's target, an integer or a row of numbers.
        no_targets: the targets of a batch without samples, such as int64 `(0,)`; it gives their type too.
        channels_last: lay the images of a batch out with channels innermost, as they are decoded.
    """

    def __init__(
        self,
        transform: Transform | ProgressiveTransform,
        target: Callable[[Record], Any],
        no_targets: Tensor,
        *,
        channels_last: bool = False,
    ) -> None:
        self._transform, self.target, self._no_targets = transform, target, no_targets
        self.channels_last, self._sends_pixels = channels_last, False
        self.exif: Exif = getattr(transform, "exif", "ignore")
        self._decode = _DECODERS[getattr(transform, "takes", "image")]
        self.most: int | None = getattr(transform, "most", None)

    def decode(self, record: Record) -> tuple[Pixels, Any]:
        """The image and its target."""
        image = record.get("image", b"")
        decoded = as_rgb(image, self.exif) if isinstance(image, Image.Image) else self._decode(image, self.exif)
        return decoded if self.most is None else at_most(decoded, self.most), self.target(record)

    def transform(self, decoded: tuple[Pixels, Any], draw: Draw) -> tuple[Tensor, Any]:
        """The image as uint8 `(H, W, 3)` where only the normalisation is left, which `collate` does in place."""
        image, target = decoded
        transform = self.transform_of(draw.epoch)
        if isinstance(transform, ImageTransform) and transform.normalise is not None:
            return transform.pixels(image), target
        image: Any = transform(image)
        return image, target

    def collate(self, samples: Sequence[tuple[Tensor, Any]], ids: Tensor, bad: tuple[tuple[int, str], ...]) -> Batch:
        """Normalise the images into the memory of the batch."""
        if not samples:
            return Batch(torch.empty(0, 3, 0, 0), self._no_targets.clone(), ids, bad)
        targets = self.targets([target for _, target in samples])
        images, normalise = [image for image, _ in samples], self.normalise_of(samples[0][0].shape[0])
        if normalise is None:
            room = self._room(images[0].shape, len(images), images[0].dtype)
            torch.stack(images, out=room)
        elif self._sends_pixels:
            room = torch.stack(images, out=_memory((len(images), *images[0].shape), torch.uint8))
        else:
            room = self._room((3, *images[0].shape[:2]), len(images), torch.float32)
            normalise.batch(images, room)
        return Batch(room, targets, ids, bad)

    def sending_pixels(self) -> "ImagePipeline":
        """This pipeline for processes that send pixels, a quarter of the bytes, which `finish` normalises."""
        other = copy(self)
        other._sends_pixels = True
        return other

    def finish(self, batch: Batch) -> Batch:
        """In the main process: normalise the pixels of a process that sent them."""
        pixels: Tensor = batch.inputs
        if not self._sends_pixels or pixels.dtype != torch.uint8:
            return batch
        normalise = self.normalise_of(pixels.shape[1])
        if normalise is None:
            return batch
        room = self._room((3, *pixels.shape[1:3]), len(pixels), torch.float32)
        normalise.batch(pixels.unbind(), room)
        return batch._replace(inputs=room)

    def targets(self, values: Sequence[Any]) -> Tensor:
        """The targets of a batch."""
        return torch.from_numpy(np.asarray(values, dtype=self._no_targets.numpy().dtype))

    @property
    def transforms(self) -> tuple[Transform, ...]:
        """The transforms of all epochs."""
        transform = self._transform
        return tuple(transform.transforms) if isinstance(transform, ProgressiveTransform) else (transform,)

    def transform_of(self, epoch: int) -> Transform:
        """The transform of an epoch."""
        transform = self._transform
        return transform.for_epoch(epoch) if isinstance(transform, ProgressiveTransform) else transform

    def normalise_of(self, side: int) -> Normalise | None:
        """What is left to do to images of so many pixels a side, if anything is."""
        transform = self._transform
        if isinstance(transform, ProgressiveTransform):
            return transform.normalise_of(side)
        return transform.normalise if isinstance(transform, ImageTransform) else None

    def _room(self, shape: Sequence[int], count: int, dtype: torch.dtype) -> Tensor:
        """Memory of a batch."""
        shape = [count, *shape]
        inner = self.channels_last and len(shape) == 4
        if inner:
            shape.append(shape.pop(1))
        room = _memory(shape, dtype)
        return room.movedim(-1, 1) if inner else room


def _memory(shape: Sequence[int], dtype: torch.dtype) -> Tensor:
    """A new tensor; in a process that reads, in memory that the main one sees too, or it would be copied there."""
    size = math.prod(shape) * dtype.itemsize
    if get_worker_info() is None:
        # NumPy asks the system for large pages: a new batch takes ten rather than five thousand small ones.
        memory = torch.from_numpy(np.empty(size, np.uint8))
    else:
        memory = torch.empty(0, dtype=torch.uint8).set_(torch.UntypedStorage._new_shared(size))
    return memory.view(dtype).view(*shape)


def class_images(transform: Transform | ProgressiveTransform, *, channels_last: bool = False) -> ImagePipeline:
    """The pipeline of images with one class each: targets int64 `(B,)`."""
    return ImagePipeline(transform, class_of, torch.empty(0, dtype=torch.int64), channels_last=channels_last)


def class_of(record: Record) -> int:
    """The class of a record, the target of a classification."""
    return record.get("label", 0)
