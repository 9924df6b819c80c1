"""Training images whose files are decoded, cropped and resized on the device: on the CPU only draws are made.

The processes that read send the bytes of the files with the crops and flips that were drawn for them, by the same seeds
as always; the main process hands them to a decoder, a function of files, crops and flips. Files that are no plain JPEG,
and batches in which it fails, are decoded on the CPU, which also names what is wrong with a file.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from overtone.data.bounded_resize import check_squash
from overtone.data.cropping import RandomFlip, RandomResizedCrop, resized
from overtone.data.decoding import MAX_PIXELS, BadImage, as_pixels, as_rgb, decode_pixels
from overtone.data.jpeg import frame_size
from overtone.data.opening import read_file
from overtone.data.pipeline import Batch, Draw, ImagePipeline
from overtone.data.sources.source import Record
from overtone.data.transforms import Normalise
from overtone.errors import OvertoneError


class Drawn(NamedTuple):
    """One image, and what is to be done to it.

    Attributes:
        content: a JPEG file, uint8 `(N,)`, or the pixels of another one, uint8 `(H, W, 3)`.
        box: top, left, height and width of the crop.
        flips: whether it is then turned across, and down.
    """

    content: np.ndarray
    box: tuple[int, int, int, int]
    flips: tuple[bool, bool]

    @property
    def is_file(self) -> bool:
        """Whether it has to be decoded."""
        return self.content.ndim == 1


class Sent(NamedTuple):
    """A batch of `Drawn` as few tensors, since each takes a file descriptor on its way between processes.

    Attributes:
        contents: uint8, all contents one after the other.
        numbers: int64 `(B, 10)`: length, rows and columns (0 of a file), box, flips, and side of the square.
    """

    contents: Tensor
    numbers: Tensor

    @classmethod
    def of(cls, images: Sequence[Drawn], side: int) -> "Sent":
        """Join images."""
        contents = [image.content.reshape(-1) for image in images]
        rows = [
            [len(flat), *(image.content.shape[:2] if not image.is_file else (0, 0)), *image.box, *image.flips, side]
            for flat, image in zip(contents, images, strict=True)
        ]
        return cls(torch.from_numpy(np.concatenate(contents)), torch.tensor(rows, dtype=torch.int64))

    def images(self) -> list[Drawn]:
        """The images again."""
        ends = self.numbers[:, 0].cumsum(0).tolist()
        found = []
        for end, (length, rows, columns, *rest) in zip(ends, self.numbers.tolist(), strict=True):
            flat = self.contents.numpy()[end - length : end]
            box: Any = tuple(rest[:4])
            found.append(Drawn(flat.reshape(rows, columns, 3) if rows else flat, box, (bool(rest[4]), bool(rest[5]))))
        return found


Decoder = Callable[[list[Drawn], int], Tensor]
"""From JPEG files and the side of the square in pixels to uint8 `(B, 3, side, side)` on the device; fails with a
`RuntimeError`, as libraries do, where it cannot decode one of them."""


class DevicePipeline:
    """An image pipeline of training whose decoding is left to a device.

    Args:
        inner: the pipeline on the CPU: random resized crops, flips, and the normalisation.
        decoder: makes the decoder; called in the main process when the first batch arrives.
        device: where the batches are to be.

    Raises:
        OvertoneError: the pipeline does more than that.
    """

    def __init__(self, inner: Any, decoder: Callable[[], Decoder], device: torch.device) -> None:
        if not isinstance(inner, ImagePipeline):
            raise OvertoneError("data.decoder is for whole images (classification, multilabel); set it to cpu")
        for transform in inner.transforms:
            crop, *flips = getattr(transform, "transforms", [None])
            last = flips.pop() if flips else None
            is_known = isinstance(crop, RandomResizedCrop) and isinstance(last, Normalise)
            if not is_known or not all(isinstance(step, RandomFlip) for step in flips):
                raise OvertoneError(
                    "data.decoder decodes, crops and flips on the device, and nothing else: set augment.crop to "
                    "random_resized and rand_augment, color_jitter and random_erasing off, or data.decoder to cpu"
                )
            self._interpolation = crop.interpolation
        self._inner, self._make, self._device = inner, decoder, device
        self._decoder: Decoder | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_decoder": None}

    def decode(self, record: Record) -> tuple[np.ndarray, tuple[int, int], Any]:
        """The file, or the pixels of one that is no plain JPEG; width and height; and the target."""
        image, exif, target = record.get("image", b""), self._inner.exif, self._inner.target(record)
        if isinstance(image, Image.Image):
            pixels = as_pixels(as_rgb(image, exif))
            return pixels.numpy(), (pixels.shape[1], pixels.shape[0]), target
        try:
            content = image if isinstance(image, bytes) else read_file(image)
            size = frame_size(content) if exif == "ignore" else None
        except (OSError, ValueError):  # `decode_pixels` says what is wrong
            content, size = image, None
        if size is not None and 0 < size[0] * size[1] <= MAX_PIXELS:
            assert isinstance(content, bytes)
            return np.frombuffer(bytearray(content), np.uint8), size, target
        pixels = decode_pixels(content, exif)
        return pixels.numpy(), (pixels.shape[1], pixels.shape[0]), target

    def transform(self, decoded: tuple[np.ndarray, tuple[int, int], Any], draw: Draw) -> tuple[Drawn, int, Any]:
        """What is drawn for the image, the side of the square, and the target."""
        content, (width, height), target = decoded
        crop, *steps = self._inner.transform_of(draw.epoch).transforms  # type: ignore[attr-defined]
        box = crop.drawn(width, height)
        check_squash((box[3], box[2]), crop.size)
        turned = {step.dimension for step in steps[:-1] if step.drawn()}
        return Drawn(content, box, (1 in turned, 0 in turned)), crop.size, target

    def collate(self, samples: Sequence[Any], ids: Tensor, bad: tuple[tuple[int, str], ...]) -> Batch:
        """Join files and draws; `finish` makes images of them."""
        if not samples:
            return self._inner.collate(samples, ids, bad)
        sent = Sent.of([image for image, _, _ in samples], samples[0][1])
        return Batch(sent, self._inner.targets([target for _, _, target in samples]), ids, bad)

    def finish(self, batch: Batch) -> Batch:
        """In the main process: the images, normalised, on the device."""
        if not batch.num_samples:
            return batch
        images, side = batch.inputs.images(), int(batch.inputs.numbers[0, -1])
        pixels = torch.empty(len(images), 3, side, side, dtype=torch.uint8, device=self._device)
        files = [at for at, image in enumerate(images) if image.is_file]
        decoded = self._decoded([images[at] for at in files], side)
        if decoded is not None and files:
            pixels[files] = decoded
        bad: list[tuple[int, str]] = []
        good = []
        for at, image in enumerate(images):
            if decoded is None or not image.is_file:
                try:
                    pixels[at] = on_cpu(image, side, self._interpolation).to(self._device)
                except BadImage as error:
                    bad.append((int(batch.ids[at]), error.reason))
                    continue
            good.append(at)
        if bad:
            batch = Batch(None, batch.targets[good], batch.ids[good], (*batch.bad, *bad))
            pixels = pixels[good]
        layout = torch.channels_last if self._inner.channels_last else torch.contiguous_format
        normalise = self._inner.normalise_of(side)
        assert normalise is not None
        return batch._replace(inputs=normalise.of_values(pixels.to(torch.float32, memory_format=layout)))

    def _decoded(self, files: list[Drawn], side: int) -> Tensor | None:
        """The images of the files; None where one of them cannot be decoded so."""
        if self._decoder is None:
            self._decoder = self._make()
        try:
            return self._decoder(files, side) if files else torch.empty(0)
        except RuntimeError as error:
            if "out of memory" in str(error):
                raise
            self._decoder = None  # it may be in any state
            return None


def on_cpu(image: Drawn, side: int, interpolation: Any) -> Tensor:
    """Decode, crop, resize and flip one image here: uint8 `(3, side, side)`.

    Raises:
        BadImage: it cannot be read.
    """
    pixels = decode_pixels(image.content.tobytes()) if image.is_file else torch.from_numpy(image.content)
    top, left, height, width = image.box
    pixels = resized(pixels[top : top + height, left : left + width], side, interpolation)
    axes = [axis for axis, flip in zip((1, 0), image.flips, strict=True) if flip]
    return (pixels.flip(axes) if axes else pixels).permute(2, 0, 1)
