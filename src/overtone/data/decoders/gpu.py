"""JPEG files by torchvision's `decode_jpeg` on CUDA (nvJPEG), a batch at a time, then cropped and resized there.

Crops are resized in float32, antialiased, and rounded to grey levels, as PyTorch's and Pillow's resize on the CPU are
up to their rounding. nvJPEG's inverse transform and its upsampling of the colours are not libjpeg's: there pixels
differ.
"""

import warnings
from typing import Any

import torch
import torch.nn.functional as F
import torchvision.io
from torch import Tensor

from overtone.data.device_decoding import Drawn
from overtone.errors import OvertoneError


def decode_files(files: list[Tensor], device: torch.device) -> list[Tensor]:
    """JPEG files, uint8 `(N,)` on the CPU, as uint8 `(3, H, W)` on a device."""
    decode: Any = torchvision.io.decode_jpeg
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # deprecated since torchvision 0.29
        return decode(files, mode="RGB", device=device)


class Gpu:
    """See `device_decoding.Decoder`.

    Args:
        device: the CUDA device.
        interpolation: `bilinear` or `bicubic`.
    """

    def __init__(self, device: torch.device, interpolation: str) -> None:
        self.device, self.interpolation = device, interpolation

    @staticmethod
    def check() -> None:
        """Refuse a torchvision without the call.

        Raises:
            OvertoneError: it has none.
        """
        if getattr(torchvision.io, "decode_jpeg", None) is None:
            raise OvertoneError("data.decoder is gpu, and this torchvision has no decode_jpeg: set it to cpu or dali")

    def __call__(self, files: list[Drawn], side: int) -> Tensor:
        """Decode, crop, resize and flip."""
        decoded = decode_files([torch.from_numpy(file.content) for file in files], self.device)
        return torch.stack([self._cut(image, file, side) for image, file in zip(decoded, files, strict=True)])

    def _cut(self, image: Tensor, file: Drawn, side: int) -> Tensor:
        top, left, height, width = file.box
        crop = image[None, :, top : top + height, left : left + width].float()
        crop = F.interpolate(crop, (side, side), mode=self.interpolation, antialias=True)[0]
        axes = [axis for axis, flip in zip((2, 1), file.flips, strict=True) if flip]
        crop = crop.round().clamp(0, 255).to(torch.uint8)
        return crop.flip(axes) if axes else crop
