"""The input of an exported network: a normalised tensor, a cropped image, or an image of any size.

`normalised` is the network's own input. `pixels` has the normalisation in the graph, `image` the resize too: Pillow's
filter written as two matrix products whose weights are computed from the image's size within the graph, rounded to
whole grey levels between and after them as Pillow does.
"""

from collections.abc import Callable
from typing import Any, Literal

import torch
from PIL import Image
from torch import Tensor, nn

from overtone.config import Interpolation, Preprocess
from overtone.data.transforms import ImageTransform, evaluation_transform

InputKind = Literal["normalised", "pixels", "image"]
_SUPPORT: dict[Interpolation, float] = {"nearest": 0.5, "bilinear": 1, "bicubic": 2, "lanczos": 3}
_BICUBIC = -0.5  # Pillow's a


def input_transform(kind: InputKind, preprocess: Preprocess) -> ImageTransform:
    """The transform from an RGB image to the input of a network of this kind.

    Returns:
        A transform that gives float32 (3, S, S) for `normalised`, uint8 (S, S, 3) for `pixels` and uint8 (H, W, 3) for
        `image`.
    """
    whole = evaluation_transform(preprocess)
    if kind == "normalised":
        return whole
    geometry = list(whole.transforms[:-1]) if kind == "pixels" else []
    return ImageTransform([*geometry, _pixels], preprocess.exif)


def as_batch(transform: Callable[[Any], Any], image: Image.Image) -> Tensor:
    """An image as a batch of one, as the network takes it."""
    return transform(image).unsqueeze(0)


def _pixels(image: Image.Image) -> Tensor:
    return torch.frombuffer(bytearray(image.tobytes()), dtype=torch.uint8).view(image.height, image.width, 3)


def with_input(net: nn.Module, kind: InputKind, preprocess: Preprocess) -> nn.Module:
    """A network with equal outputs whose input is a batch of what `input_transform` returns."""
    if kind == "normalised":
        return net
    return FromPixels(net, preprocess, resize=kind == "image").eval().requires_grad_(False)


def input_shape(kind: InputKind, size: int) -> tuple[int, int, int, int]:
    """The shape of a single input of a network; that of an `image` is an example, any height and width will do."""
    if kind == "normalised":
        return 1, 3, size, size
    # Any size that no other dimension has, so that the exporter takes them for different ones.
    height, width = (size, size) if kind == "pixels" else (size + 13, size + 29)
    return 1, height, width, 3


def example_input(kind: InputKind, preprocess: Preprocess, batch: int, *, any_size: bool = False) -> Tensor:
    """Zeros of the shape and type that a network of this kind of input takes."""
    shape = (batch, *input_shape(kind, preprocess.size)[1:])
    if any_size:  # large enough for every network, and as no other dimension
        shape = (batch, 3, preprocess.size + 77, preprocess.size + 93)
    return torch.zeros(shape, dtype=torch.float32 if kind == "normalised" else torch.uint8)


class FromPixels(nn.Module):
    """A network behind its preprocessing: uint8 (B, H, W, 3) to logits."""

    def __init__(self, net: nn.Module, preprocess: Preprocess, *, resize: bool) -> None:
        super().__init__()
        self.net = net
        self.resize = PillowResize(preprocess) if resize else None
        self.mean = nn.Buffer(torch.tensor(preprocess.mean).view(3, 1, 1))
        self.std = nn.Buffer(torch.tensor(preprocess.std).view(3, 1, 1))

    def forward(self, images: Tensor) -> Any:
        """Resize where asked, normalise, and run the network."""
        images = images.permute(0, 3, 1, 2).to(torch.float32)
        if self.resize is not None:
            images = self.resize(images)
        return self.net((images / 255 - self.mean) / self.std)


def _grey_levels(values: Tensor) -> Tensor:
    """Whole numbers of 0..255, halves upwards, as Pillow rounds."""
    return torch.floor(values + 0.5).clamp(0, 255)


class PillowResize(nn.Module):
    """The resize and centre crop of `evaluation_transform`, on tensors, for any size of image.

    Pillow computes in fixed point with 22 bits, this in float32: what lies halfway between two grey levels may be
    rounded to the other one, about one pixel in a thousand of a photograph.
    """

    def __init__(self, preprocess: Preprocess) -> None:
        super().__init__()
        self.size = preprocess.size
        self.squash = preprocess.resize == "squash"
        self.shorter = int(preprocess.size / preprocess.crop_fraction)
        self.interpolation: Interpolation = preprocess.interpolation

    def forward(self, images: Tensor) -> Tensor:
        """(B, 3, H, W) in 0..255 to (B, 3, S, S) in whole numbers of 0..255."""
        height, width = images.shape[2], images.shape[3]
        rows, columns = torch.arange(height), torch.arange(width)
        tall, wide = rows[-1] + 1, columns[-1] + 1  # the sizes as tensors: they are arithmetic, not shapes
        short = torch.minimum(tall, wide)
        images = images @ self._weights(columns, wide, short).T
        images = _grey_levels(images)
        images = self._weights(rows, tall, short) @ images
        return _grey_levels(images)

    def _weights(self, positions: Tensor, length: Tensor, short: Tensor) -> Tensor:
        """Shares (S, length) of the old pixels in each new one that the crop keeps."""
        resized = torch.full_like(length, self.size)
        if not self.squash:
            resized = torch.div(self.shorter * length, short, rounding_mode="floor")
        first = torch.round((resized - self.size).to(torch.float32) / 2)  # as torchvision's CenterCrop: half to even
        scale = length.to(torch.float32) / resized.to(torch.float32)
        centres = (torch.arange(self.size).to(torch.float32) + first + 0.5) * scale
        old = positions.to(torch.float32)
        if self.interpolation == "nearest":
            return (old[None, :] == torch.floor(centres)[:, None]).to(torch.float32)
        distance = ((old[None, :] + 0.5 - centres[:, None]) / scale.clamp(min=1)).abs()
        shares = self._filter(distance)
        return shares / shares.sum(dim=1, keepdim=True)

    def _filter(self, x: Tensor) -> Tensor:
        """Pillow's filter at distances x >= 0 in units of its width."""
        if self.interpolation == "bilinear":
            return (1 - x).clamp(min=0)
        inside = (x < _SUPPORT[self.interpolation]).to(torch.float32)
        if self.interpolation == "lanczos":
            return torch.sinc(x) * torch.sinc(x / 3) * inside
        near = ((_BICUBIC + 2) * x - (_BICUBIC + 3)) * x * x + 1
        far = (((x - 5) * x + 8) * x - 4) * _BICUBIC
        return torch.where(x < 1, near, far) * inside
