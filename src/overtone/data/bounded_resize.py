"""The resize of evaluation, which never holds more than `MAX_RESIZED` pixels, whatever shape an image has.

Resizing the shorter side of an image of 1 x 1,000,000 pixels to 256 gives 256 million rows, of which the centre crop
keeps 224. Where the resized image would be larger than the bound, only the rows (or columns) that the crop keeps are
computed, from the few pixels that they depend on, by the arithmetic of Pillow's resampling: weights in double
precision, rounded to 22 bits, and sums in whole numbers; for `nearest`, positions added up step by step. The result
equals the whole resize bit for bit.
"""

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import numpy as np
from PIL import Image
from torchvision.transforms import CenterCrop, InterpolationMode, Resize

from overtone.config import Interpolation
from overtone.data.decoding import BadImage

MAX_RESIZED = 1 << 26
"""Pixels of an image that is resized whole before its centre is cut out (256 MiB, as Pillow stores them)."""

FILTERS: dict[Interpolation, Image.Resampling] = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}
_SUPPORT: dict[Interpolation, float] = {"bilinear": 1.0, "bicubic": 2.0, "lanczos": 3.0}
_STEPS = 1 << 20  # added up at a time
_MOST_STEPS = 1 << 28  # 256 GiB where the other side is 256 pixels
_BITS = 22  # of Pillow's weights behind the binary point


class ResizeAndCrop:
    """torchvision's `Resize(shorter)` and `CenterCrop(size)` of images in RGB, bit for bit, in bounded memory.

    Args:
        shorter: what the shorter side becomes, pixels; the longer one keeps the ratio, rounded down.
        size: side of the square that is cut out, pixels.
        interpolation: filter of the resize.
    """

    def __init__(self, shorter: int, size: int, interpolation: Interpolation) -> None:
        self.shorter, self.size = shorter, size
        self.interpolation: Interpolation = interpolation
        self.resize, self.crop = Resize(shorter, InterpolationMode(interpolation)), CenterCrop(size)

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize one image and cut out its centre.

        Raises:
            BadImage: there is not enough memory for it.
        """
        short, long = sorted(image.size)
        new_long = int(self.shorter * long / short)  # as torchvision rounds
        with enough_memory():
            if short >= self.shorter or new_long <= self.size or self.shorter * new_long <= MAX_RESIZED:
                return self.crop(self.resize(image))
            # as CenterCrop rounds, half to even
            first = round((new_long - self.size) / 2)
            return self.crop(self._part(image, _Axis(long, new_long, self.interpolation), first))

    def _part(self, image: Image.Image, axis: "_Axis", first: int) -> Image.Image:
        """The resized image of which the longer side has only `size` pixels, from `first` on."""
        weights = axis.nearest(first, self.size) if self.interpolation == "nearest" else axis.weights(first, self.size)
        start = weights[0][0]
        stop = max(begin + len(values) for begin, values in weights)
        filter_ = FILTERS[self.interpolation]
        # Across and then down, as Pillow does where both sides grow.
        if image.width < image.height:
            across = image.crop((0, start, image.width, stop))
            across = across.resize((self.shorter, across.height), filter_)
            return Image.fromarray(_weighted(np.asarray(across), weights, start))
        part = np.asarray(image.crop((start, 0, stop, image.height))).swapaxes(0, 1)
        across = Image.fromarray(np.ascontiguousarray(_weighted(part, weights, start).swapaxes(0, 1)))
        return across.resize((across.width, self.shorter), filter_)


class Squash:
    """torchvision's `Resize((size, size))` of images in RGB; images whose resize would hold too much are bad.

    Args:
        size: side of the square, pixels.
        interpolation: filter of the resize.
    """

    def __init__(self, size: int, interpolation: Interpolation) -> None:
        self.size, self.resize = size, Resize((size, size), InterpolationMode(interpolation))

    def __call__(self, image: Image.Image) -> Image.Image:
        """Resize one image.

        Raises:
            BadImage: the image is so long and narrow that more than `MAX_RESIZED` pixels would be held in between, or
                there is not enough memory for it.
        """
        check_squash(image.size, self.size)
        with enough_memory():
            return self.resize(image)


def check_squash(sides: tuple[int, int], size: int) -> None:
    """Refuse an image that grows along one side so that resizing it to a square holds more than `MAX_RESIZED` pixels.

    Args:
        sides: width and height of the image, pixels.
        size: side of the square, pixels.

    Raises:
        BadImage: it is too long for its width.
    """
    if min(sides) < size and size * max(sides) > max(MAX_RESIZED, size * size):
        raise BadImage(None, f"{sides[0]} x {sides[1]} pixels are too long and narrow to be resized to a square")


@contextmanager
def enough_memory() -> Iterator[None]:
    """A block in which one image that does not fit into memory is a bad image, and no end of everything.

    Raises:
        BadImage: memory ran out inside the block.
    """
    try:
        yield
    except MemoryError as error:
        raise BadImage(None, "not enough memory to resize it") from error


class _Axis:
    """One side of an image of `length` pixels that becomes `new` pixels, more than before."""

    def __init__(self, length: int, new: int, interpolation: Interpolation) -> None:
        self.length = length
        self.interpolation: Interpolation = interpolation
        self.scale = float(np.float32(length)) / new  # Pillow keeps the length as a float of 32 bits

    def weights(self, first: int, count: int) -> list[tuple[int, list[int]]]:
        """For each new pixel from `first` on: the first old pixel that it depends on, and the weights, times 2^22."""
        return [self._weights((position + 0.5) * self.scale) for position in range(first, first + count)]

    def _weights(self, centre: float) -> tuple[int, list[int]]:
        support, shape = _SUPPORT[self.interpolation], _SHAPES[self.interpolation]
        begin, end = max(int(centre - support + 0.5), 0), min(int(centre + support + 0.5), self.length)
        values = [shape(old - centre + 0.5) for old in range(begin, end)]
        total = 0.0
        for value in values:  # one after the other: the sum of Python 3.12 is a more exact one
            total += value
        shares = [value / total * (1 << _BITS) for value in values]
        return begin, [int(share - 0.5) if share < 0 else int(share + 0.5) for share in shares]

    def nearest(self, first: int, count: int) -> list[tuple[int, list[int]]]:
        """As `weights`, for the one old pixel under each new one."""
        centre, passed = self.scale * 0.5, 0
        if first + count > _MOST_STEPS:  # more rows than Pillow can make: nothing to be equal to
            centre, passed = (first + 0.5) * self.scale, first
        while passed < first:  # the steps that Pillow adds up, with what rounding each of them brings
            steps = np.full(min(first - passed, _STEPS) + 1, self.scale)
            steps[0] = centre
            centre, passed = float(np.add.accumulate(steps)[-1]), passed + len(steps) - 1
        chosen = []
        for _ in range(count):
            chosen.append((min(int(centre), self.length - 1), [1 << _BITS]))
            centre += self.scale
        return chosen


def _weighted(pixels: np.ndarray, weights: list[tuple[int, list[int]]], start: int) -> np.ndarray:
    """Rows `(N, W, 3)` as weighted sums of the rows of `pixels`, uint8 `(H, W, 3)`, of which the first is `start`."""
    rows = np.empty((len(weights), *pixels.shape[1:]), dtype=np.uint8)
    for row, (begin, values) in enumerate(weights):
        old = pixels[begin - start : begin - start + len(values)].astype(np.int64)
        sums = np.tensordot(np.array(values, dtype=np.int64), old, 1) + (1 << (_BITS - 1))
        rows[row] = np.clip(sums >> _BITS, 0, 255)
    return rows


def _bilinear(x: float) -> float:
    return 1.0 - abs(x) if abs(x) < 1.0 else 0.0


def _bicubic(x: float) -> float:
    """The cubic filter with a = -0.5 (Keys, "Cubic convolution interpolation for digital image processing", 1981)."""
    a, x = -0.5, abs(x)
    if x < 1.0:
        return ((a + 2.0) * x - (a + 3.0)) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * a if x < 2.0 else 0.0


def _lanczos(x: float) -> float:
    return _sinc(x) * _sinc(x / 3) if -3.0 <= x < 3.0 else 0.0


def _sinc(x: float) -> float:
    return 1.0 if x == 0.0 else math.sin(x * math.pi) / (x * math.pi)


_SHAPES: dict[Interpolation, Callable[[float], float]] = {
    "bilinear": _bilinear,
    "bicubic": _bicubic,
    "lanczos": _lanczos,
}
