"""Recursive gated convolution and the spatial filters inside it (HorNet, arXiv:2207.14284, sections 3.1 and 3.2).

Everything here works on (B, H, W, C): layer norms and 1x1 convolutions then read memory in order, and the depthwise
convolutions see the same memory as a channels_last (B, C, H, W) tensor, so no permutation copies anything. The 1x1
convolutions stay `nn.Conv2d` only for the shape of their weights, which is the published one.
"""

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from overtone.errors import OvertoneError
from overtone.layers.depthwise_conv import depthwise_conv2d

NORM_EPS = 1e-6


class DepthwiseFilter(nn.Conv2d):
    """A depthwise convolution of stride 1 on (B, H, W, C), whose output is multiplied by a constant."""

    def __init__(self, channels: int, kernel_size: int, bias: bool) -> None:
        super().__init__(channels, channels, kernel_size, padding=kernel_size // 2, groups=channels, bias=bias)

    def forward(self, input: Tensor, scale: float = 1.0) -> Tensor:
        """Filter `input` of shape (B, H, W, C), which may be a slice of a wider tensor.

        Args:
            input: The maps.
            scale: Factor of the output.
        """
        return depthwise_conv2d(input.permute(0, 3, 1, 2), self, scale).permute(0, 2, 3, 1)


class GlobalLocalFilter(nn.Module):
    """Half of the channels through a 3x3 depthwise convolution, half through a learned filter in the Fourier domain.

    The global half is the circular convolution of GFNet (arXiv:2107.00645): irfft2(rfft2(x) * W), both orthonormal. It
    runs in float32 at least, whatever the precision around it.

    Args:
        channels: Number of channels C, even.
        map_size: Height and width of the maps that the stored filter W is made for. Maps of another size use W
            resized bilinearly with aligned corners; what is stored never changes.
    """

    def __init__(self, channels: int, map_size: tuple[int, int]) -> None:
        super().__init__()
        if channels % 2:
            raise OvertoneError(f"a global-local filter halves its channels, {channels} is odd: choose an even width")
        height, width = map_size
        half = channels // 2
        self.complex_weight = nn.Parameter(torch.empty(half, height, width // 2 + 1, 2))
        self.dw = DepthwiseFilter(half, 3, bias=False)
        self.pre_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        self.post_norm = nn.LayerNorm(channels, eps=NORM_EPS)
        trunc_normal_(self.complex_weight, std=0.02)

    def spectrum_filter(self, height: int, width: int) -> Tensor:
        """W for maps of height x width: complex, (C/2, height, width // 2 + 1)."""
        weight = self.complex_weight
        # A half-precision model has no complex type of its own, and W multiplies a float32 spectrum anyway.
        weight = weight.to(torch.promote_types(weight.dtype, torch.float32))
        # A model moved to channels_last has this parameter, of four dimensions, restrided as if it were a kernel.
        return torch.view_as_complex(resize_complex_weight(weight, height, width // 2 + 1).contiguous())

    def global_filter(self, x: Tensor) -> Tensor:
        """The Fourier-domain filter of the maps `x`, (B, H, W, C/2), as float32 or, in a float64 model, float64."""
        size = x.shape[1], x.shape[2]
        # The transforms read one map after the other, so the cast also lays the maps out as (B, C/2, H, W).
        maps = x.permute(0, 3, 1, 2).to(torch.float32, memory_format=torch.contiguous_format)
        spectrum = torch.fft.rfft2(maps, norm="ortho") * self.spectrum_filter(*size)
        return torch.fft.irfft2(spectrum, s=size, norm="ortho").permute(0, 2, 3, 1)

    def forward(self, x: Tensor, scale: float = 1.0) -> Tensor:
        """Filter `x` of shape (B, H, W, C); the output is multiplied by `scale`, through the last norm's parameters."""
        local_half, global_half = self.pre_norm(x).chunk(2, dim=-1)
        local_half = self.dw(local_half)
        global_half = self.global_filter(global_half).to(local_half.dtype)
        interleaved = torch.stack((local_half, global_half), dim=-1).flatten(-2)
        norm = self.post_norm
        return F.layer_norm(interleaved, norm.normalized_shape, norm.weight * scale, norm.bias * scale, norm.eps)


def resize_complex_weight(weight: Tensor, height: int, width: int) -> Tensor:
    """Both parts of a global filter (C, h, w, 2) resized bilinearly, corners aligned, to (C, height, width, 2)."""
    if weight.shape[1:3] == (height, width):
        return weight
    parts = F.interpolate(weight.permute(3, 0, 1, 2), (height, width), mode="bilinear", align_corners=True)
    return parts.permute(1, 2, 3, 0)


class GnConv(nn.Module):
    """Recursive gated convolution of order n on (B, H, W, C): spatial interactions of order n at linear cost (Eq. 3.3).

    With d_i = C // 2^(n-1-i): p, q = proj_in(x), q = scale * filter(q) split into q_0 … q_(n-1) of d_i channels,
    y = p * q_0, then y = pws[i](y) * q_(i+1), and proj_out(y).

    Args:
        dim: Channels C of input and output.
        order: n, at least 1.
        spatial_filter: Class of the filter, "7x7" (depthwise convolution) or "gf" (`GlobalLocalFilter`).
        map_size: Height and width of the maps, for the stored size of a global filter; unused by "7x7".
        scale: Factor of the filter's output (the published models: 1/3).
        in_dim: Channels of the input where they are not `dim` (the published segmentation head has 2048 to 512).
    """

    def __init__(
        self,
        dim: int,
        order: int,
        spatial_filter: str = "7x7",
        map_size: tuple[int, int] = (14, 14),
        scale: float = 1 / 3,
        in_dim: int | None = None,
    ) -> None:
        super().__init__()
        self.dims = [dim >> (order - 1 - i) for i in range(order)]
        if self.dims[0] == 0:
            raise OvertoneError(
                f"a recursive convolution of order {order} needs {2 ** (order - 1)} channels, not {dim}"
            )
        self.scale = scale
        gated = sum(self.dims)
        self.proj_in = nn.Conv2d(in_dim or dim, self.dims[0] + gated, 1)
        self.dwconv: DepthwiseFilter | GlobalLocalFilter
        if spatial_filter == "gf":
            self.dwconv = GlobalLocalFilter(gated, map_size)
        else:
            self.dwconv = DepthwiseFilter(gated, 7, bias=True)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.pws = nn.ModuleList(nn.Conv2d(narrow, wide, 1) for narrow, wide in pairwise(self.dims))

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, in_dim) to (B, H, W, C)."""
        # Two products with rows of one weight instead of one product that is split: the filter gets its input dense.
        sizes = [self.dims[0], sum(self.dims)]
        weight_p, weight_q = self.proj_in.weight.flatten(1).split(sizes)
        bias_p, bias_q = bias_of(self.proj_in).split(sizes)
        gates = self.dwconv(F.linear(x, weight_q, bias_q), self.scale).split(self.dims, dim=-1)
        y = F.linear(x, weight_p, bias_p) * gates[0]
        for pw, gate in zip(self.pws, gates[1:], strict=True):
            y = pointwise(pw, y) * gate
        return pointwise(self.proj_out, y)

    def multiply_adds(self, inputs: tuple[Tensor, ...], output: Tensor) -> int:
        """Multiply-adds of the convolutions for one image: all have stride 1, so each weight is used once per pixel."""
        pixels = output.shape[1] * output.shape[2]
        return pixels * sum(conv.weight.numel() for conv in self.modules() if isinstance(conv, nn.Conv2d))


def bias_of(conv: nn.Module) -> Tensor:
    """The bias of a convolution that has one."""
    assert isinstance(conv, nn.Conv2d) and conv.bias is not None
    return conv.bias


def pointwise(conv: nn.Module, x: Tensor) -> Tensor:
    """A 1x1 convolution of (B, H, W, C) as the matrix product it is."""
    assert isinstance(conv, nn.Conv2d)
    return F.linear(x, conv.weight.flatten(1), conv.bias)
