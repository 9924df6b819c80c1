"""MobileNetV2 (arXiv:1801.04381) and HBONet (arXiv:1908.03888), width 1.0 and any other, as published."""

import math

import torch
from torch import Tensor, nn

# expansion, channels, repeats, stride of the first, kind of block
_MOBILENETV2 = (
    (1, 16, 1, 1, "inverted"),
    (6, 24, 2, 2, "inverted"),
    (6, 32, 3, 2, "inverted"),
    (6, 64, 4, 2, "inverted"),
    (6, 96, 3, 1, "inverted"),
    (6, 160, 3, 2, "inverted"),
    (6, 320, 1, 1, "inverted"),
)
_HBONET = (
    (1, 20, 1, 1, "inverted"),
    (2, 36, 1, 1, "harmonious"),
    (2, 72, 3, 2, "harmonious"),
    (2, 96, 4, 2, "harmonious"),
    (2, 192, 4, 2, "harmonious"),
    (2, 288, 1, 1, "harmonious"),
    (0, 144, 1, 1, "pointwise"),
    (6, 200, 2, 2, "inverted"),
    (6, 400, 1, 1, "inverted"),
)


def _rounded(channels: float, divisor: int) -> int:
    new = max(divisor, math.floor((channels + divisor / 2) / divisor) * divisor)
    return new + divisor if new < 0.9 * channels else new


def _pointwise(in_chs: int, out_chs: int) -> list[nn.Module]:
    return [nn.Conv2d(in_chs, out_chs, 1, bias=False), nn.BatchNorm2d(out_chs)]


def _depthwise(chs: int, kernel: int, stride: int = 1) -> list[nn.Module]:
    return [nn.Conv2d(chs, chs, kernel, stride, kernel // 2, groups=chs, bias=False), nn.BatchNorm2d(chs)]


class InvertedResidual(nn.Module):
    """Expand, filter, project."""

    def __init__(self, in_chs: int, out_chs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = in_chs * expansion
        expand = [*_pointwise(in_chs, hidden), nn.ReLU6(inplace=True)] if expansion > 1 else []
        filtered = [*_depthwise(hidden, 3, stride), nn.ReLU6(inplace=True)]
        self.conv = nn.Sequential(*expand, *filtered, *_pointwise(hidden, out_chs))
        self.identity = stride == 1 and in_chs == out_chs

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride)."""
        return x + self.conv(x) if self.identity else self.conv(x)


class HarmoniousBottleneck(nn.Module):
    """The block of rate 2."""

    def __init__(self, in_chs: int, out_chs: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden, self.half = in_chs * expansion, out_chs // 2
        self.passed, self.stride = out_chs - self.half, stride
        self.conv = nn.Sequential(
            *_depthwise(in_chs, 5, 2),
            *_pointwise(in_chs, hidden),
            nn.ReLU6(inplace=True),
            *_depthwise(hidden, 3),
            nn.ReLU6(inplace=True),
            *_pointwise(hidden, self.half),
        )
        if stride == 1:
            self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
            self.upconv = nn.Sequential(*_depthwise(self.half, 5))
        else:
            self.pool = nn.AvgPool2d(2, 2)

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, H / stride, W / stride); H and W divide by 2."""
        passed = x[:, -self.passed :]
        if self.stride == 2:
            return torch.cat((self.pool(passed), self.conv(x)), dim=1)
        return torch.cat((passed, self.upconv(x[:, : self.half] + self.upsample(self.conv(x)))), dim=1)


class MobileNet(nn.Module):
    """A sequence of blocks, a pointwise convolution, a pool and a linear."""

    def __init__(self, stages: tuple[tuple, ...], head_chs: int, width: float, divisor: int) -> None:
        super().__init__()
        in_chs = _rounded(32 * width, divisor)
        stem = [nn.Conv2d(3, in_chs, 3, 2, 1, bias=False), nn.BatchNorm2d(in_chs), nn.ReLU6(inplace=True)]
        layers: list[nn.Module] = [nn.Sequential(*stem)]
        for expansion, channels, repeats, first_stride, kind in stages:
            out_chs = _rounded(channels * width, divisor)
            for index in range(repeats):
                stride = first_stride if index == 0 else 1
                if kind == "pointwise":
                    layers.append(nn.Sequential(*_pointwise(in_chs, out_chs)))
                else:
                    block = InvertedResidual if kind == "inverted" else HarmoniousBottleneck
                    layers.append(block(in_chs, out_chs, stride, expansion))
                in_chs = out_chs
        self.features = nn.Sequential(*layers)
        head_chs = _rounded(head_chs * width, divisor) if width > 1 else head_chs
        self.conv = nn.Sequential(*_pointwise(in_chs, head_chs), nn.ReLU6(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(head_chs, 1000)

    def forward(self, x: Tensor) -> Tensor:
        """(B, 3, H, W) -> (B, 1000)."""
        x = self.avgpool(self.conv(self.features(x)))
        return self.classifier(x.flatten(1))


def mobilenetv2(width: float = 1.0) -> MobileNet:
    """MobileNetV2."""
    return MobileNet(_MOBILENETV2, 1280, width, 4 if width == 0.1 else 8)


def hbonet(width: float = 1.0) -> MobileNet:
    """HBONet of rate 2; sides of images divide by 32."""
    return MobileNet(_HBONET, 1600, width, {0.1: 4, 0.25: 2, 0.5: 2}.get(width, 8))
