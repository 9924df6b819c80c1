"""HorNet's deployed forms.

A block with everything constant folded into its weights: layer norms give scale and shift to the linears after them,
layer scale goes into the last linear of each branch; the recursive convolution has its own form in `layers.gnconv`.

For compilers that choose the layout themselves the same block consists of convolutions on (B, C, H, W). PyTorch is
fastest where the channels lie last and 1x1 convolutions are linears, but such a compiler sees a transposition in every
change between the two orders, and copies: OpenVINO took 54 ms for HorNet-T 7x7 in that form and takes 47 ms in this one
(two cores).

Maps centred over the channels: between two stages' convolutions a map only grows by what blocks add to it, and only
layer norms read it. They subtract the mean over the channels of each pixel first; so whatever adds to the map may
subtract its own mean beforehand, which for a convolution is a change of its weights. The same holds between a block's
first convolution and its global filter. This is exact. In OpenVINO a mean over channels costs a pass over the map, 3 %
of HorNet-T's time on two cores.
"""

from typing import Any

import torch.nn.functional as F
from torch import Tensor, nn

from overtone.layers.affine import fold_layer_norm, scale_output, set_affine
from overtone.layers.channel_norm import ChannelNorm
from overtone.layers.gnconv import (
    ChannelsFirstFilter,
    ChannelsFirstGnConv,
    DeployedGnConv,
    as_convolution,
    copy_norm,
    linear_of,
)


class DeployedHorNetBlock(nn.Module):
    """A block on (B, H, W, C), from the one it is to replace, which is left as it is."""

    def __init__(self, block: Any, map_size: tuple[int, int]) -> None:
        super().__init__()
        self.gnconv = DeployedGnConv(block.gnconv, map_size)
        self.norm1, self.norm2 = copy_norm(block.norm1), copy_norm(block.norm2)
        self.pwconv1 = linear_of(block.pwconv1.weight, block.pwconv1.bias)
        self.pwconv1.gelu = True
        self.pwconv2 = linear_of(block.pwconv2.weight, block.pwconv2.bias)
        fold_layer_norm(self.norm1, [self.gnconv.gate_in, self.gnconv.filter_in])
        fold_layer_norm(self.norm2, [self.pwconv1])
        if block.gamma1 is not None and block.gamma2 is not None:
            scale_output(self.gnconv.out, block.gamma1)
            scale_output(self.pwconv2, block.gamma2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = x + self.gnconv(self.norm1(x))
        return x + self.pwconv2(self.pwconv1(self.norm2(x)))

    def channels_first(self) -> "ChannelsFirstBlock":
        """The same as convolutions on (B, C, H, W) inside."""
        return ChannelsFirstBlock(self)


class ChannelsFirstBlock(nn.Module):
    """A block that takes and gives (B, H, W, C); between two of them the transpositions cancel."""

    def __init__(self, source: DeployedHorNetBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(source.norm1), ChannelNorm(source.norm2)
        self.gnconv = ChannelsFirstGnConv(source.gnconv)
        self.pwconv1, self.pwconv2 = as_convolution(source.pwconv1), as_convolution(source.pwconv2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = x.permute(0, 3, 1, 2)
        x = x + self.gnconv(self.norm1(x))
        x = x + self.pwconv2(F.gelu(self.pwconv1(self.norm2(x))))
        return x.permute(0, 2, 3, 1)


class Centred(nn.Module):
    """A layer whose output has its mean over the channels subtracted."""

    def __init__(self, layer: nn.Module) -> None:
        super().__init__()
        self.layer = layer

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, H, W) to (B, C, H, W)."""
        y = self.layer(x)
        return y - y.mean(1, keepdim=True)


def centre_maps(net: Any) -> None:
    """Rewrite, in place, a HorNet whose blocks are `ChannelsFirstBlock`s.

    Its logits stay the same; the maps of its stages do not. A network that takes the maximum of its maps is left as it
    is: an average of centred maps is centred, a maximum is not.
    """
    if "max" in net.global_pool.pool_type:
        return
    for before, stage in zip(net.downsample_layers.children(), net.stages.children(), strict=True):
        assert isinstance(before, nn.Sequential)
        first, last = before[0], before[-1]
        if isinstance(first, ChannelNorm):  # it reads the stage before
            first.is_centred = True
        if isinstance(last, nn.Conv2d):
            centre_output(last)
        else:
            before[-1] = Centred(last)
        for block in stage.children():
            assert isinstance(block, ChannelsFirstBlock)
            _centre_block(block)


def _centre_block(block: ChannelsFirstBlock) -> None:
    block.norm1.is_centred = block.norm2.is_centred = True
    centre_output(block.gnconv.out)
    centre_output(block.pwconv2)
    if isinstance(block.gnconv.filter, ChannelsFirstFilter):
        block.gnconv.filter.pre_norm.is_centred = True
        centre_output(block.gnconv.filter_in)


def centre_output(conv: nn.Conv2d) -> None:
    """Subtract from a convolution's output its mean over the channels."""
    weight = conv.weight.double()
    bias = None if conv.bias is None else conv.bias.double()
    set_affine(conv, weight - weight.mean(0), None if bias is None else bias - bias.mean())
