"""HorNet's block with everything constant folded into its weights.

Layer norms keep their fused kernel and give scale and shift to the linears after them, layer scale goes into the last
linear of each branch, the constant s into the filter, the 1x1 convolutions become the linears that they are on
(B, H, W, C), and a global filter becomes real arithmetic of one size. Its two halves of the channels are published
interleaved one by one, which costs as much as the filter itself: here they lie side by side within each gate, and the
linears around have their channels in that order.
"""

from collections.abc import Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.deployment.affine import fold_layer_norm, scale_output, set_affine
from overtone.deployment.dataflow import Dataflow
from overtone.deployment.global_filter import circular_conv, circular_kernel
from overtone.layers.gnconv import DepthwiseFilter, GlobalLocalFilter, GnConv, bias_of
from overtone.models.hornet import HorNetBlock


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
        self.gate_in = _linear(weights[0], biases[0], rows=order[0])
        self.filter_in = _linear(weights[1], biases[1])
        self.steps = nn.ModuleList(
            _linear(*_rows(pw), rows=order[i + 1], columns=order[i]) for i, pw in enumerate(gnconv.pws)
        )
        self.out = _linear(*_rows(gnconv.proj_out), columns=order[-1])

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        gates = self.filter(self.filter_in(x)).split(self.dims, dim=-1)
        y = self.gate_in(x) * gates[0]
        for step, gate in zip(self.steps, gates[1:], strict=True):
            y = step(y) * gate
        return self.out(y)


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
        self.pre_norm, self.dw = _copy_norm(source.pre_norm), scaled_filter(source.dw, 1.0)
        self.circular = circular_conv(circular_kernel(source.complex_weight, *map_size), source.dw.weight.dtype)
        order = torch.cat([start + channels for start, channels in zip(self.starts, self.channel_order(), strict=True)])
        norm, self.post_norm = source.post_norm, _copy_norm(source.post_norm)
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


class DeployedHorNetBlock(nn.Module):
    """A block on (B, H, W, C), from the one it is to replace, which is left as it is."""

    def __init__(self, block: HorNetBlock, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.gnconv = DeployedGnConv(block.gnconv, map_size)
        self.norm1, self.norm2 = _copy_norm(block.norm1), _copy_norm(block.norm2)
        self.pwconv1 = _linear(block.pwconv1.weight, block.pwconv1.bias)
        self.pwconv2 = _linear(block.pwconv2.weight, block.pwconv2.bias)
        fold_layer_norm(self.norm1, [self.gnconv.gate_in, self.gnconv.filter_in])
        fold_layer_norm(self.norm2, [self.pwconv1])
        if block.gamma1 is not None and block.gamma2 is not None:
            scale_output(self.gnconv.out, block.gamma1)
            scale_output(self.pwconv2, block.gamma2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = x + self.gnconv(self.norm1(x))
        return x + self.pwconv2(F.gelu(self.pwconv1(self.norm2(x))))


def fold_hornet_blocks(net: nn.Module, flow: Dataflow) -> None:
    """Replace the blocks of HorNet, and recursive convolutions that stand elsewhere, by their deployed form.

    Args:
        net: a network in eval mode; it is changed.
        flow: a pass over it, for the sizes of the maps.
    """
    for name, module in list(net.named_modules()):
        if not isinstance(module, HorNetBlock | GnConv) or name in flow.borrowed or not flow.calls[name]:
            continue
        height, width = flow.input_shapes[name][1:3]
        if type(module) is HorNetBlock:
            net.set_submodule(name, DeployedHorNetBlock(module, (height, width)))
        elif type(module) is GnConv and any(found is module for found in net.modules()):  # not gone with its block
            net.set_submodule(name, DeployedGnConv(module, (height, width)))


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


def _linear(weight: Tensor, bias: Tensor, rows: Tensor | None = None, columns: Tensor | None = None) -> nn.Linear:
    """A linear layer of its own; output channels reordered by `rows`, input channels by `columns`."""
    if rows is not None:
        weight, bias = weight[rows], bias[rows]
    if columns is not None:
        weight = weight[:, columns]
    linear = nn.Linear(weight.shape[1], weight.shape[0], device="meta", dtype=weight.dtype)  # not initialised
    set_affine(linear, weight, bias)
    return linear


def _copy_norm(norm: nn.LayerNorm) -> nn.LayerNorm:
    copied = nn.LayerNorm(list(norm.normalized_shape), norm.eps, device="meta", dtype=norm.weight.dtype)
    set_affine(copied, norm.weight, norm.bias)
    return copied
