"""Photometric distortion of 8-bit images, as the published segmentation networks were trained with.

Every step ends in 8 bits, clipped and truncated. Saturation and hue change in the 8-bit HSV of OpenCV (hue 0..179 in
steps of two degrees), converted there and back each time, which loses some colours: that is part of the recipe.
"""

import random

import torch
from torch import Tensor

_HUES = 180
_FRACTION = 12  # bits behind the binary point of the quotients of the conversion to HSV


def distorted(image: Tensor) -> Tensor:
    """Distort an image with draws from `random`.

    Each with probability 0.5: brightness + U(-32, 32); contrast x U(0.5, 1.5), with equal chance before or after the
    next two; saturation x U(0.5, 1.5); hue + an integer in [-18, 18), modulo 180.

    Args:
        image: uint8 `(3, H, W)`, RGB.
    """
    if random.random() < 0.5:
        image = brightened(image, random.uniform(-32, 32))
    is_first = random.random() < 0.5
    if is_first and random.random() < 0.5:
        image = contrasted(image, random.uniform(0.5, 1.5))
    if random.random() < 0.5:
        image = saturated(image, random.uniform(0.5, 1.5))
    if random.random() < 0.5:
        image = hue_turned(image, random.randrange(-18, 18))
    if not is_first and random.random() < 0.5:
        image = contrasted(image, random.uniform(0.5, 1.5))
    return image


def brightened(image: Tensor, by: float) -> Tensor:
    """Every value plus a number."""
    return (image.float() + by).clamp_(0, 255).byte()


def contrasted(image: Tensor, factor: float) -> Tensor:
    """Every value times a number."""
    return (image.float() * factor).clamp_(0, 255).byte()


def saturated(image: Tensor, factor: float) -> Tensor:
    """The saturation times a number."""
    hue, saturation, value = to_hsv(image)
    return from_hsv(hue, (saturation.float() * factor).clamp_(0, 255).int(), value)


def hue_turned(image: Tensor, by: int) -> Tensor:
    """The hue turned by a number of steps of two degrees."""
    hue, saturation, value = to_hsv(image)
    return from_hsv((hue + by) % _HUES, saturation, value)


def to_hsv(image: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Hue 0..179, saturation and value 0..255 of uint8 `(3, H, W)`, each int32 `(H, W)`.

    Quotients are rounded to 12 bits behind the point before they are multiplied, and the products to integers.
    """
    red, green, blue = image.int().unbind(0)
    value, smallest = image.amax(0).int(), image.amin(0).int()
    range_ = value - smallest
    half = 1 << (_FRACTION - 1)
    by_value = torch.round((255 << _FRACTION) / value.clamp(min=1).double()).int()
    saturation = (range_ * by_value + half) >> _FRACTION
    by_range = torch.round((_HUES << _FRACTION) / (6 * range_.clamp(min=1).double())).int()
    sector = torch.where(
        value == red, green - blue, torch.where(value == green, blue - red + 2 * range_, red - green + 4 * range_)
    )
    hue = (sector * by_range + half) >> _FRACTION
    return torch.where(hue < 0, hue + _HUES, hue), saturation, value


def from_hsv(hue: Tensor, saturation: Tensor, value: Tensor) -> Tensor:
    """The RGB image, uint8 `(3, H, W)`, of what `to_hsv` gives; computed in float32 and rounded."""
    turned = hue.float() * (6 / _HUES)
    share, light = saturation.float() * (1 / 255), value.float() * (1 / 255)
    sector = turned.floor()
    part = turned - sector
    low, falling = light * (1 - share), light * (1 - share * part)
    rising = light * (1 - share * (1 - part))
    # red, green and blue in each of the six sectors of the circle
    tones = torch.stack([light, low, falling, rising])
    order = torch.tensor([[0, 3, 1], [2, 0, 1], [1, 0, 3], [1, 2, 0], [3, 1, 0], [0, 1, 2]])
    chosen = order[sector.long() % 6].permute(2, 0, 1)  # (3, H, W)
    return (tones.gather(0, chosen) * 255).round_().clamp_(0, 255).byte()
