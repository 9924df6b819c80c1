"""Random crops and flips on the pixels themselves, uint8 `(H, W, 3)`, channels innermost as a file is decoded.

PyTorch's resize of whole numbers computes what Pillow's does (antialiased, across and then down, rounded to grey levels
after each) in a quarter of the time, to one grey level. Pillow itself goes down first where that is less work, since
version 13; with bicubic that shows where values beyond 0..255 are cut in between.
"""

from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor

from overtone.config import Interpolation
from overtone.data.bounded_resize import FILTERS, check_squash, enough_memory
from overtone.data.decoding import StoredJpeg, as_pixels

Pixels = Image.Image | Tensor | StoredJpeg
"""An image in RGB, its pixels as uint8 `(H, W, 3)`, or a file of which a part is decoded."""

_BY_PILLOW = ("nearest", "lanczos")  # PyTorch has no Lanczos filter, and its nearest pixel may be another one


class RandomResizedCrop:
    """A random part of an image, resized to a square: Inception's crop, drawn by timm from `random`.

    Args:
        size: side of the square, pixels.
        scale: least and largest share of the area.
        ratio: least and largest aspect ratio (width / height).
        interpolation: filter of the resize.
    """

    def __init__(
        self, size: int, scale: tuple[float, float], ratio: tuple[float, float], interpolation: Interpolation
    ) -> None:
        self.size, self.scale, self.ratio = size, scale, ratio
        self.interpolation: Interpolation = interpolation

    def __call__(self, image: Pixels) -> Tensor:
        """Crop and resize one image to uint8 `(size, size, 3)`.

        Raises:
            BadImage: a stored file that cannot be read, or a part that is too long and narrow (see `check_squash`).
        """
        with enough_memory():
            if isinstance(image, Image.Image):
                image = as_pixels(image)
            if isinstance(image, StoredJpeg):
                width, height = image.size
                box = self.drawn(width, height)
                return resized(image.part(*box, least=self.size), self.size, self.interpolation)
            top, left, height, width = self.drawn(image.shape[1], image.shape[0])
            return resized(image[top : top + height, left : left + width], self.size, self.interpolation)

    def drawn(self, width: int, height: int) -> tuple[int, int, int, int]:
        """Draw top, left, height and width of the part of an image of so many pixels."""
        shape = torch.empty(3, height, width, device="meta")
        return RandomResizedCropAndInterpolation.get_params(shape, self.scale, self.ratio)


class RandomFlip:
    """Turns pixels left to right (or top to bottom) with a probability, drawn as torchvision draws it.

    Args:
        probability: of turning them.
        axis: `across` or `down`.
    """

    def __init__(self, probability: float, axis: Literal["across", "down"]) -> None:
        self.probability = float(np.float32(probability))  # as PyTorch compares it
        self.dimension = 1 if axis == "across" else 0

    def __call__(self, pixels: Tensor) -> Tensor:
        """Flip uint8 `(H, W, 3)`, perhaps."""
        return pixels.flip(self.dimension) if self.drawn() else pixels

    def drawn(self) -> bool:
        """Draw whether to turn."""
        return torch.rand(1).item() < self.probability


def resized(pixels: Tensor, size: int, interpolation: Interpolation) -> Tensor:
    """Resize uint8 `(H, W, 3)` to `(size, size, 3)`, antialiased.

    Raises:
        BadImage: the pixels are too long and narrow (see `check_squash`).
    """
    check_squash((pixels.shape[1], pixels.shape[0]), size)
    if interpolation in _BY_PILLOW:
        image = as_image(pixels).resize((size, size), FILTERS[interpolation])
        return as_pixels(image)
    images = pixels.unsqueeze(0).permute(0, 3, 1, 2)  # a view, channels_last
    images = F.interpolate(images, (size, size), mode=interpolation, antialias=True)
    return images[0].permute(1, 2, 0)


def at_most(pixels: Pixels, side: int) -> Pixels:
    """An image whose shorter side has at most so many pixels: a larger one is resized, bicubic and antialiased."""
    if isinstance(pixels, StoredJpeg):
        raise TypeError("a file that is decoded in part has no size of its own")
    sides = pixels.size if isinstance(pixels, Image.Image) else (pixels.shape[1], pixels.shape[0])
    if min(sides) <= side:
        return pixels
    width, height = (max(round(length * side / min(sides)), side) for length in sides)
    with enough_memory():
        image = pixels if isinstance(pixels, Image.Image) else as_image(pixels)
        small = image.resize((width, height), Image.Resampling.BICUBIC)
        return small if isinstance(pixels, Image.Image) else as_pixels(small)


def as_image(pixels: Tensor) -> Image.Image:
    """Uint8 `(H, W, 3)` as an image in RGB, which the libraries that change colours take."""
    return Image.fromarray(np.ascontiguousarray(pixels.numpy()))
