"""A global filter of HorNet at one fixed map size, as products with small real matrices.

`irfft2(rfft2(x) * W)` is a circular convolution of each channel. At a fixed size both transforms are small matrices,
one per axis, and the complex arithmetic is written out in real numbers, so that no graph compiler, runtime or
accelerator has to know a Fourier transform or a complex type. `benchmarks/global_filter.py` compares two such forms
with the Fourier transform, with a circular depthwise convolution and with a dense matrix per channel: on maps of 7x7
one matrix over the whole map is the fastest, on the larger ones of the published networks (12 to 24 pixels wide) one
per axis. Beyond about 50 pixels the Fourier transform would win.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.errors import OvertoneError

WHOLE_MAP_PIXELS = 64  # up to this many, one transform over the whole map is faster than one per axis


def resize_complex_weight(weight: Tensor, height: int, width: int) -> Tensor:
    """Both parts of a global filter (C, h, w, 2) resized bilinearly, corners aligned, to (C, height, width, 2)."""
    if weight.shape[1:3] == (height, width):
        return weight
    parts = F.interpolate(weight.permute(3, 0, 1, 2), (height, width), mode="bilinear", align_corners=True)
    return parts.permute(1, 2, 3, 0)


def circular_kernel(complex_weight: Tensor, height: int, width: int) -> Tensor:
    """The kernel k of the circular convolution that a global filter is on maps of height x width.

    Args:
        complex_weight: W as stored, (C, h, w, 2); resized where it was made for maps of another size.
        height: of the maps.
        width: of the maps.

    Returns:
        k (C, height, width) in float64: y[p] = sum_q k[(p - q) mod (height, width)] x[q].
    """
    weight = resize_complex_weight(complex_weight.detach().double(), height, width // 2 + 1)
    return torch.fft.irfft2(torch.view_as_complex(weight.contiguous()), s=(height, width))


def circular_conv(kernel: Tensor, dtype: torch.dtype) -> "CircularConv":
    """The faster form for a kernel (C, H, W), by the size of the map."""
    form = WholeMapCircularConv if kernel.shape[1] * kernel.shape[2] <= WHOLE_MAP_PIXELS else SeparableCircularConv
    return form(kernel, dtype)


class CircularConv(nn.Module):
    """Circular convolution, per channel, of maps (B, H, W, C) of one fixed size, without a complex number.

    Args:
        kernel: (C, H, W), as `circular_kernel` gives it.
        dtype: of the matrices.

    Raises:
        OvertoneError: by `forward`, for maps of another size.
    """

    takes_one_size = True
    same_part: Tensor  # what each part of the spectrum is multiplied by
    other_part: Tensor  # what the other part, real for imaginary and imaginary for real, is multiplied by

    def __init__(self, kernel: Tensor, dtype: torch.dtype) -> None:
        super().__init__()
        self.map_size = (kernel.shape[1], kernel.shape[2])
        for name, matrix in self._matrices(kernel.double()).items():
            self.register_buffer(name, matrix.to(dtype).contiguous())

    def _matrices(self, kernel: Tensor) -> dict[str, Tensor]:
        raise NotImplementedError

    def _convolve(self, x: Tensor) -> Tensor:
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, H, W, C)."""
        height, width = self.map_size
        if x.shape[1] != height or x.shape[2] != width:
            raise OvertoneError(
                f"this network was deployed for global filters of {height}x{width} maps and was given "
                f"{x.shape[1]}x{x.shape[2]}: deploy it again with the example_size of these images"
            )
        return self._convolve(x)

    def extra_repr(self) -> str:
        """The size that this module is for."""
        return f"map_size={self.map_size}, channels={self.same_part.shape[-1]}"


class WholeMapCircularConv(CircularConv):
    """One matrix to the spectrum of the whole map, the product with the kernel's, and one matrix back.

    Of each pair of conjugate frequencies one is kept, P / 2 of them or little more, P = H * W.
    """

    inwards: Tensor  # (2 M, P), M frequencies
    outwards: Tensor  # (P, 2 M)

    def _matrices(self, kernel: Tensor) -> dict[str, Tensor]:
        height, width = self.map_size
        pixels = torch.arange(height * width, dtype=torch.float64, device=kernel.device)
        y, x = pixels.div(width, rounding_mode="floor"), pixels % width
        conjugates = (-y) % height * width + (-x) % width
        kept = pixels <= conjugates
        angle = 2 * math.pi * (y[kept, None] * y / height + x[kept, None] * x / width)
        parts = torch.cat((angle.cos(), -angle.sin()))
        times = (2.0 - (pixels == conjugates)[kept].double()) / (height * width)
        spectrum = torch.fft.fft2(kernel).flatten(1)[:, kept].T  # (M, C)
        return {
            "inwards": parts,
            "outwards": (parts * times.repeat(2)[:, None]).T,
            "same_part": torch.cat((spectrum.real, spectrum.real)),
            "other_part": torch.cat((-spectrum.imag, spectrum.imag)),
        }

    def _convolve(self, x: Tensor) -> Tensor:
        half = self.inwards.shape[0] // 2
        z = torch.matmul(self.inwards, x.flatten(1, 2))  # (B, 2 M, C)
        z = torch.addcmul(z * self.same_part, torch.cat((z[:, half:], z[:, :half]), dim=1), self.other_part)
        return torch.matmul(self.outwards, z).view(-1, *self.map_size, x.shape[3])


class SeparableCircularConv(CircularConv):
    """Along H to the real half spectrum, along W to the full one, the product with the kernel's, and both ways back.

    Four small matrices; the two parts of a complex number lie one after the other along W.
    """

    rows_in: Tensor  # (2 K, H), K = H // 2 + 1 frequencies
    rows_out: Tensor  # (H, 2 K)
    columns_in: Tensor  # (2 W, 2 W)
    columns_out: Tensor  # (2 W, 2 W)

    def _matrices(self, kernel: Tensor) -> dict[str, Tensor]:
        height, width = self.map_size
        half = torch.arange(height // 2 + 1, dtype=torch.float64, device=kernel.device)
        y = torch.arange(height, dtype=torch.float64, device=kernel.device)
        angle = 2 * math.pi / height * half[:, None] * y
        parts = torch.stack((angle.cos(), -angle.sin()), dim=1)  # (K, 2, H)
        # Every frequency but 0 and the highest of an even number stands for itself and its conjugate.
        times = (2.0 - ((half == 0) | (2 * half == height)).double()) / height
        x = torch.arange(width, dtype=torch.float64, device=kernel.device)
        angle = 2 * math.pi / width * x[:, None] * x
        cos, sin = angle.cos(), angle.sin()
        spectrum = torch.fft.fft2(kernel)[:, : height // 2 + 1].permute(1, 2, 0)  # (K, W, C)
        return {
            "rows_in": parts.flatten(0, 1),
            "rows_out": (parts * times[:, None, None]).flatten(0, 1).T,
            "columns_in": torch.cat((torch.cat((cos, sin), 1), torch.cat((-sin, cos), 1))),
            "columns_out": torch.cat((torch.cat((cos, -sin), 1), torch.cat((sin, cos), 1))) / width,
            "same_part": torch.cat((spectrum.real, spectrum.real), 1),  # (K, 2 W, C)
            "other_part": torch.cat((-spectrum.imag, spectrum.imag), 1),
        }

    def _convolve(self, x: Tensor) -> Tensor:
        (height, width), channels = self.map_size, x.shape[3]
        rows = torch.matmul(self.rows_in, x.reshape(-1, height, width * channels))  # (B, 2 K, W * C)
        z = torch.matmul(self.columns_in, rows.view(-1, height // 2 + 1, 2 * width, channels))
        swapped = torch.cat((z[:, :, width:], z[:, :, :width]), dim=2)
        z = torch.addcmul(z * self.same_part, swapped, self.other_part)
        rows = torch.matmul(self.columns_out, z).view(-1, 2 * (height // 2 + 1), width * channels)
        return torch.matmul(self.rows_out, rows).view(-1, height, width, channels)
