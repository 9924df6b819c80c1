"""Recursive gated convolution and the spatial filters inside it (HorNet, arXiv:2207.14284, sections 3.1 and 3.2).

Everything here works on (B, H, W, C): layer norms and 1x1 convolutions then read memory in order, and the depthwise
convolutions see the same memory as a channels_last (B, C, H, W) tensor, so no permutation copies anything. The 1x1
convolutions stay `nn.Conv2d` only for the shape of their weights, which is the published one.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from overtone.errors import OvertoneError
from overtone.layers.affine import scale_output, set_affine
from overtone.layers.channel_norm import ChannelNorm
from overtone.layers.circular_conv import circular_conv, circular_kernel, resize_complex_weight
from overtone.layers.depthwise_conv import depthwise_conv2d
from overtone.layers.onednn_linear import OneDnnLinear, linear

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
        gates = self.dwconv(linear(x, weight_q, bias_q), self.scale).split(self.dims, dim=-1)
        y = linear(x, weight_p, bias_p) * gates[0]
        for pw, gate in zip(self.pws, gates[1:], strict=True):
            y = pointwise(pw, y) * gate
        return pointwise(self.proj_out, y)

    def deployed(self, shape: tuple[int, ...] | None) -> nn.Module:
        """The fastest exact form for inference on maps of `shape` (B, H, W, C)."""
        return self if shape is None else DeployedGnConv(self, (shape[1], shape[2]))

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
    return linear(x, conv.weight.flatten(1), conv.bias)


# --- deployed forms ---------------------------------------------------------------------------------------------------
#
# Layer norms keep their fused kernel, the constant s goes into the filter, the 1x1 convolutions become the linears that
# they are on (B, H, W, C), and a global filter becomes real arithmetic of one size. Its two halves of the channels are
# published interleaved one by one, which costs as much as the filter itself: here they lie side by side within each
# gate, and the linears around have their channels in that order.


class DeployedGnConv(nn.Module):
    """A recursive gated convolution on (B, H, W, C), from the one it is to replace.

    Args:
        gnconv: what is replaced; it is left as it is.
        map_size: height and width of its maps; only a global filter depends on it.
    """

    def __init__(self, gnconv: GnConv, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.dims = list(gnconv.dims)
        self.filter: nn.Module
        if isinstance(gnconv.dwconv, GlobalLocalFilter):
            self.filter = DeployedGlobalLocalFilter(gnconv.dwconv, self.dims, map_size, gnconv.scale)
            order = self.filter.channel_order()
        else:
            self.filter = scaled_filter(gnconv.dwconv, gnconv.scale)
            order = [torch.arange(dim) for dim in self.dims]
        weights, biases = (t.split([self.dims[0], sum(self.dims)]) for t in _rows(gnconv.proj_in))
        self.gate_in = linear_of(weights[0], biases[0], rows=order[0])
        self.filter_in = linear_of(weights[1], biases[1])
        self.steps = nn.ModuleList(
            linear_of(*_rows(pw), rows=order[i + 1], columns=order[i]) for i, pw in enumerate(gnconv.pws)
        )
        self.out = linear_of(*_rows(gnconv.proj_out), columns=order[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        gates = self.filter(self.filter_in(x)).split(self.dims, dim=-1)
        y = self.gate_in(x) * gates[0]
        for step, gate in zip(self.steps, gates[1:], strict=True):
            y = step(y) * gate
        return self.out(y)

    def channels_first(self) -> "ChannelsFirstGnConv":
        """The same on (B, C, H, W)."""
        return ChannelsFirstGnConv(self)


class DeployedGlobalLocalFilter(nn.Module):
    """A global-local filter for maps of one size, whose output has the channels of each gate as local, then global.

    Args:
        source: what is replaced; it is left as it is.
        gates: channels of each gate, in order.
        map_size: height and width of the maps.
        scale: factor of the output.

    Raises:
        OvertoneError: by `forward`, for maps of another size.
    """

    def __init__(
        self, source: GlobalLocalFilter, gates: Sequence[int], map_size: tuple[int, int], scale: float
    ) -> None:
        super().__init__()
        ends = torch.tensor([0, *gates]).cumsum(0).tolist()
        # Published channel 2 j is local channel j, channel 2 j + 1 is global channel j.
        self.local_sizes = [(b + 1) // 2 - (a + 1) // 2 for a, b in pairwise(ends)]
        self.global_sizes = [b // 2 - a // 2 for a, b in pairwise(ends)]
        self.starts = ends[:-1]
        self.pre_norm, self.dw = copy_norm(source.pre_norm), scaled_filter(source.dw, 1.0)
        self.circular = circular_conv(circular_kernel(source.complex_weight, *map_size), source.dw.weight.dtype)
        order = torch.cat([start + channels for start, channels in zip(self.starts, self.channel_order(), strict=True)])
        norm, self.post_norm = source.post_norm, copy_norm(source.post_norm)
        set_affine(self.post_norm, norm.weight.double()[order] * scale, norm.bias.double()[order] * scale)

    def channel_order(self) -> list[Tensor]:
        """For each gate, which of its published channels lies at each place."""
        gates = zip(self.starts, self.local_sizes, self.global_sizes, strict=True)
        return [
            torch.cat((torch.arange(local) * 2 + start % 2, torch.arange(other) * 2 + (start + 1) % 2))
            for start, local, other in gates
        ]

    def forward(self, x: Tensor) -> Tensor:
        """Filter maps (B, H, W, C)."""
        local_half, global_half = self.pre_norm(x).chunk(2, dim=-1)
        local_parts = self.dw(local_half).split(self.local_sizes, dim=-1)
        global_parts = self.circular(global_half).split(self.global_sizes, dim=-1)
        side_by_side = [part for pair in zip(local_parts, global_parts, strict=True) for part in pair]
        return self.post_norm(torch.cat(side_by_side, dim=-1))


class ChannelsFirstFilter(nn.Module):
    """A global-local filter on (B, C, H, W)."""

    def __init__(self, source: DeployedGlobalLocalFilter) -> None:
        super().__init__()
        self.local_sizes, self.global_sizes = source.local_sizes, source.global_sizes
        self.pre_norm, self.post_norm = ChannelNorm(source.pre_norm), ChannelNorm(source.post_norm)
        self.dw, self.circular = source.dw, source.circular

    def forward(self, x: Tensor) -> Tensor:
        """Filter maps."""
        local_half, global_half = self.pre_norm(x).chunk(2, dim=1)
        local_parts = self.dw(local_half.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).split(self.local_sizes, dim=1)
        global_parts = (
            self.circular(global_half.permute(0, 2, 3, 1)).permute(0, 3, 1, 2).split(self.global_sizes, dim=1)
        )
        side_by_side = [part for pair in zip(local_parts, global_parts, strict=True) for part in pair]
        return self.post_norm(torch.cat(side_by_side, dim=1))


class ChannelsFirstGnConv(nn.Module):
    """A recursive gated convolution on (B, C, H, W)."""

    def __init__(self, source: DeployedGnConv) -> None:
        super().__init__()
        self.dims, found = source.dims, source.filter
        self.filter = ChannelsFirstFilter(found) if isinstance(found, DeployedGlobalLocalFilter) else None
        self.dwconv = None if self.filter is not None else found
        self.gate_in, self.filter_in, self.out = map(as_convolution, (source.gate_in, source.filter_in, source.out))
        self.steps = nn.ModuleList(as_convolution(step) for step in source.steps)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to the same."""
        filtered = self.filter_in(x)
        if self.filter is not None:
            filtered = self.filter(filtered)
        elif self.dwconv is not None:
            filtered = self.dwconv(filtered.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)
        gates = filtered.split(self.dims, dim=1)
        y = self.gate_in(x) * gates[0]
        for step, gate in zip(self.steps, gates[1:], strict=True):
            y = step(y) * gate
        return self.out(y)


def scaled_filter(source: DepthwiseFilter, scale: float) -> DepthwiseFilter:
    """A depthwise filter of its own whose output is `scale` times that of `source`."""
    size, like = source.kernel_size[0], source.weight
    with torch.device("meta"):  # no initialisation of what is replaced
        copied = DepthwiseFilter(source.out_channels, size, source.bias is not None).to(like.dtype)
    set_affine(copied, source.weight, source.bias)
    if scale != 1.0:
        scale_output(copied, torch.full((source.out_channels,), scale, dtype=torch.float64, device=like.device))
    return copied


def _rows(conv: nn.Module) -> tuple[Tensor, Tensor]:
    """Weight (out, in) and bias (out,) of a 1x1 convolution."""
    assert isinstance(conv, nn.Conv2d)
    return conv.weight.flatten(1), bias_of(conv)


def linear_of(weight: Tensor, bias: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> OneDnnLinear:
    """A linear layer of its own; output channels reordered by `rows`, input channels by `columns`."""
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    if columns is not None:
        weight = weight[:, columns]
    layer = OneDnnLinear(weight.shape[1], weight.shape[0], device="meta", dtype=weight.dtype)  # not initialised
    set_affine(layer, weight, bias)
    return layer


def copy_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    """A layer norm of its own with the values of another."""
    copied = nn.LayerNorm(list(norm.normalized_shape), norm.eps, device="meta", dtype=norm.weight.dtype)
    set_affine(copied, norm.weight, norm.bias)
    return copied


def as_convolution(linear: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution with the weights of a linear layer."""
    assert isinstance(linear, nn.Linear)
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, device="meta")
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv
