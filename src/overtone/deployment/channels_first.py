"""HorNet's deployed blocks as convolutions on (B, C, H, W).

PyTorch is fastest where the channels lie last and 1x1 convolutions are linears. Compilers that choose the layout
themselves see a transposition in every change between the two orders, and copy: OpenVINO took 54 ms for HorNet-T 7x7 in
that form and takes 47 ms in this one (two cores). The arithmetic is the same.
"""

import copy

import torch
import torch.nn.functional as F
from timm.layers.norm import LayerNorm2d
from torch import Tensor, nn

from overtone.deployment.channel_norm import ChannelNorm
from overtone.deployment.gated_conv import DeployedGlobalLocalFilter, DeployedGnConv, DeployedHorNetBlock


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
        self.gate_in, self.filter_in, self.out = map(_convolution, (source.gate_in, source.filter_in, source.out))
        self.steps = nn.ModuleList(_convolution(step) for step in source.steps)

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


class ChannelsFirstBlock(nn.Module):
    """A block that takes and gives (B, H, W, C); between two of them the transpositions cancel."""

    def __init__(self, source: DeployedHorNetBlock) -> None:
        super().__init__()
        self.norm1, self.norm2 = ChannelNorm(source.norm1), ChannelNorm(source.norm2)
        self.gnconv = ChannelsFirstGnConv(source.gnconv)
        self.pwconv1, self.pwconv2 = _convolution(source.pwconv1), _convolution(source.pwconv2)

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = x.permute(0, 3, 1, 2)
        x = x + self.gnconv(self.norm1(x))
        x = x + self.pwconv2(F.gelu(self.pwconv1(self.norm2(x))))
        return x.permute(0, 2, 3, 1)


def with_channels_first(net: nn.Module) -> nn.Module:
    """A deployed network whose HorNet blocks are convolutions and whose norms of maps are plain arithmetic.

    It shares the weights of the one given, which stays.
    """
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    net = copy.deepcopy(net, dict(shared))
    for name, module in list(net.named_modules()):
        if type(module) is DeployedHorNetBlock:
            net.set_submodule(name, ChannelsFirstBlock(module))
        elif name and type(module) is LayerNorm2d:
            net.set_submodule(name, ChannelNorm(module))
    return net


def _convolution(linear: nn.Module) -> nn.Conv2d:
    """The 1x1 convolution with the weights of a linear layer."""
    assert isinstance(linear, nn.Linear)
    conv = nn.Conv2d(linear.in_features, linear.out_features, 1, device="meta")
    conv.weight = nn.Parameter(linear.weight.detach()[:, :, None, None], requires_grad=False)
    conv.bias = nn.Parameter(linear.bias.detach(), requires_grad=False)
    return conv
