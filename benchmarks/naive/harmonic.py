"""Harm-ResNet-50 (arXiv:2001.06570): first layer of stride 4 with inner batch norm, no pool, harmonic 3x3 throughout.

The stored shapes show the published formulation: a bank (1, F, k, k) beside a weight (no, ni, F, 1, 1) is multiplied
out to a kernel in every forward pass; a bank (ni * F, 1, k, k) beside a weight (no, ni * F, 1, 1) filters the maps
first. `filtered=True` has the 3x3 layers in the second form too, the one that the paper draws: F.conv2d for all DCT
filters, then a 1x1 convolution of F times as many maps.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def dct_filters(kernel: int) -> Tensor:
    """The filters (k * k, k, k), each divided by its L1 norm."""
    filters = torch.empty(kernel * kernel, kernel, kernel, dtype=torch.float64)
    for i in range(kernel):
        for j in range(kernel):
            for x in range(kernel):
                for y in range(kernel):
                    row = math.cos(math.pi * (x + 0.5) * i / kernel)
                    filters[i * kernel + j, x, y] = row * math.cos(math.pi * (y + 0.5) * j / kernel)
    return (filters / filters.abs().sum((1, 2), keepdim=True)).float()


class Harm2d(nn.Module):
    """A harmonic convolution without bias."""

    def __init__(
        self, in_chs: int, out_chs: int, kernel: int, stride: int, *, inner_bn: bool = False, filtered: bool = False
    ) -> None:
        super().__init__()
        self.stride, self.padding, self.in_chs, self.filtered = stride, kernel // 2, in_chs, filtered
        filters, count = dct_filters(kernel), kernel * kernel
        if inner_bn:
            self.register_buffer("dct", filters.unsqueeze(1).repeat(in_chs, 1, 1, 1))
            self.weight = nn.Parameter(torch.empty(out_chs, in_chs * count, 1, 1))
            self.bn = nn.BatchNorm2d(in_chs * count, affine=False)
        else:
            self.register_buffer("dct", filters.unsqueeze(0))
            self.weight = nn.Parameter(torch.empty(out_chs, in_chs, count, 1, 1))
            self.bn = None
        nn.init.kaiming_normal_(self.weight, mode="fan_out", nonlinearity="relu")

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""
        if self.bn is not None:
            maps = F.conv2d(x, self.dct, stride=self.stride, padding=self.padding, groups=self.in_chs)
            return F.conv2d(self.bn(maps), self.weight)
        if self.filtered:
            bank = self.dct.transpose(0, 1).repeat(self.in_chs, 1, 1, 1)
            maps = F.conv2d(x, bank, stride=self.stride, padding=self.padding, groups=self.in_chs)
            return F.conv2d(maps, self.weight.reshape(self.weight.shape[0], -1, 1, 1))
        kernels = torch.sum(self.weight * self.dct, dim=2)
        return F.conv2d(x, kernels, stride=self.stride, padding=self.padding)


class Bottleneck(nn.Module):
    """1x1, harmonic 3x3 with the stride, 1x1, and a shortcut."""

    def __init__(self, in_chs: int, channels: int, stride: int, filtered: bool) -> None:
        super().__init__()
        out_chs = 4 * channels
        self.conv1 = nn.Conv2d(in_chs, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.harm2 = Harm2d(channels, channels, 3, stride, filtered=filtered)
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_chs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_chs)
        self.relu = nn.ReLU(inplace=True)
        self.downsample = None
        if stride != 1 or in_chs != out_chs:
            self.downsample = nn.Sequential(nn.Conv2d(in_chs, out_chs, 1, stride, bias=False), nn.BatchNorm2d(out_chs))

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, 4 * channels, H / stride, W / stride)."""
        y = self.relu(self.bn1(self.conv1(x)))
        y = self.relu(self.bn2(self.harm2(y)))
        y = self.bn3(self.conv3(y))
        y += x if self.downsample is None else self.downsample(x)
        return self.relu(y)


class HarmResNet50(nn.Module):
    """Harm-ResNet-50."""

    def __init__(self, filtered: bool = False) -> None:
        super().__init__()
        self.harm1 = Harm2d(3, 64, 7, 4, inner_bn=True)
        self.bn1 = nn.BatchNorm2d(64)
        self.relu = nn.ReLU(inplace=True)
        in_chs = 64
        for stage, depth in enumerate((3, 4, 6, 3)):
            channels, blocks = 64 * 2**stage, []
            for index in range(depth):
                blocks.append(Bottleneck(in_chs, channels, 2 if stage and not index else 1, filtered))
                in_chs = 4 * channels
            self.add_module(f"layer{stage + 1}", nn.Sequential(*blocks))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(in_chs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1000)."""
        x = self.relu(self.bn1(self.harm1(x)))
        for stage in range(1, 5):
            x = getattr(self, f"layer{stage}")(x)
        return self.fc(self.avgpool(x).flatten(1))
