"""HorNet-T (arXiv:2207.14284) with 7x7 or with global filters, as published: NCHW, norms of elementary steps."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_EPS = 1e-6
_SCALE = 1 / 3


class LayerNormChannelsFirst(nn.Module):
    """Layer norm over the channels of (B, C, H, W)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        mean = x.mean(1, keepdim=True)
        variance = (x - mean).pow(2).mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(variance + _EPS)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class GlobalLocalFilter(nn.Module):
    """Half of the channels through a 3x3 depthwise convolution, half through a filter in the Fourier domain."""

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        half = channels // 2
        self.dw = nn.Conv2d(half, half, 3, padding=1, groups=half, bias=False)
        self.complex_weight = nn.Parameter(0.02 * torch.randn(half, height, width // 2 + 1, 2))
        self.pre_norm = LayerNormChannelsFirst(channels)
        self.post_norm = LayerNormChannelsFirst(channels)

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        x = self.pre_norm(x)
        first, second = torch.chunk(x, 2, dim=1)
        first = self.dw(first)
        second = second.to(torch.float32)
        batch, half, height, width = second.shape
        spectrum = torch.fft.rfft2(second, dim=(2, 3), norm="ortho")
        weight = self.complex_weight
        if weight.shape[1:3] != spectrum.shape[2:4]:
            weight = F.interpolate(
                weight.permute(3, 0, 1, 2), size=spectrum.shape[2:4], mode="bilinear", align_corners=True
            ).permute(1, 2, 3, 0)
        weight = torch.view_as_complex(weight.contiguous())
        second = torch.fft.irfft2(spectrum * weight, s=(height, width), dim=(2, 3), norm="ortho")
        x = torch.cat([first.unsqueeze(2), second.unsqueeze(2)], dim=2).reshape(batch, 2 * half, height, width)
        return self.post_norm(x)


class GnConv(nn.Module):
    """Recursive gated convolution."""

    def __init__(self, dim: int, order: int, map_size: int | None) -> None:
        super().__init__()
        self.dims = [dim // 2 ** (order - 1 - i) for i in range(order)]
        gated = sum(self.dims)
        self.proj_in = nn.Conv2d(dim, 2 * dim, 1)
        if map_size is None:
            self.dwconv: nn.Module = nn.Conv2d(gated, gated, 7, padding=3, groups=gated)
        else:
            self.dwconv = GlobalLocalFilter(gated, map_size, map_size)
        self.proj_out = nn.Conv2d(dim, dim, 1)
        self.pws = nn.ModuleList(nn.Conv2d(self.dims[i], self.dims[i + 1], 1) for i in range(order - 1))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        p, q = torch.split(self.proj_in(x), (self.dims[0], sum(self.dims)), dim=1)
        gates = torch.split(self.dwconv(q) * _SCALE, self.dims, dim=1)
        y = p * gates[0]
        for i, pointwise in enumerate(self.pws):
            y = pointwise(y) * gates[i + 1]
        return self.proj_out(y)


class Block(nn.Module):
    """A gated convolution and a perceptron, each behind a norm, scaled and added."""

    def __init__(self, dim: int, order: int, map_size: int | None) -> None:
        super().__init__()
        self.norm1 = LayerNormChannelsFirst(dim)
        self.gnconv = GnConv(dim, order, map_size)
        self.norm2 = nn.LayerNorm(dim, eps=_EPS)
        self.pwconv1 = nn.Linear(dim, 4 * dim)
        self.act = nn.GELU()
        self.pwconv2 = nn.Linear(4 * dim, dim)
        self.gamma1 = nn.Parameter(1e-6 * torch.ones(dim))
        self.gamma2 = nn.Parameter(1e-6 * torch.ones(dim))

    def forward(self, x: Tensor) -> Tensor:
        """Same shape."""
        x = x + self.gamma1.view(1, -1, 1, 1) * self.gnconv(self.norm1(x))
        y = self.norm2(x.permute(0, 2, 3, 1))
        y = self.gamma2 * self.pwconv2(self.act(self.pwconv1(y)))
        return x + y.permute(0, 3, 1, 2)


class HorNet(nn.Module):
    """HorNet-T; `size`: pixels that the global filters are made for, None for 7x7 filters."""

    def __init__(self, size: int | None = None) -> None:
        super().__init__()
        dims, depths, orders = (64, 128, 256, 512), (2, 3, 18, 2), (2, 3, 4, 5)
        stem = nn.Sequential(nn.Conv2d(3, dims[0], 4, stride=4), LayerNormChannelsFirst(dims[0]))
        self.downsample_layers = nn.ModuleList([stem])
        for i in range(3):
            self.downsample_layers.append(
                nn.Sequential(LayerNormChannelsFirst(dims[i]), nn.Conv2d(dims[i], dims[i + 1], 2, stride=2))
            )
        self.stages = nn.ModuleList()
        for i in range(4):
            map_size = size // (4 * 2**i) if size is not None and i >= 2 else None
            self.stages.append(nn.Sequential(*(Block(dims[i], orders[i], map_size) for _ in range(depths[i]))))
        self.norm = nn.LayerNorm(dims[-1], eps=_EPS)
        self.head = nn.Linear(dims[-1], 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1000)."""
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return self.head(self.norm(x.mean([-2, -1])))
