"""Harmonious bottlenecks in a row, whose maps stay in the two halves that they are made in.

Each block ends by putting two halves together, and the next one begins by taking them apart; between the two only a
depthwise convolution sees the whole, which is one on each half. So the halves meet where there are a quarter of the
pixels. This is exact: the same numbers are multiplied and added.
"""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.layers.affine import set_affine


class ApartBottleneck(nn.Module):
    """A harmonious bottleneck of stride 1 and equal widths between maps in two halves.

    Args:
        block: what it replaces; its layers but the first are shared.
    """

    def __init__(self, block: Any) -> None:
        super().__init__()
        whole, *rest = block.conv
        assert isinstance(whole, nn.Conv2d)
        self.first, self.second = (
            _channels_of(whole, start, count)
            for start, count in ((0, block.half_chs), (block.half_chs, block.passed_chs))
        )
        self.conv, self.upconv, self.drop_path = nn.Sequential(*rest), block.upconv, block.drop_path

    def forward(self, first: Tensor, passed: Tensor) -> tuple[Tensor, Tensor]:
        """The two halves (B, C / 2, H, W) of the input -> those of the output."""
        y = self.conv(torch.cat([self.first(first), self.second(passed)], dim=1))
        y = self.drop_path(F.interpolate(y, size=first.shape[-2:], mode="nearest"))
        return passed, self.upconv(first + y)


class BottleneckChain(nn.Module):
    """Harmonious bottlenecks in a row.

    Args:
        blocks: each but the first has stride 1 and takes as its halves those of the one before.
    """

    def __init__(self, blocks: list[Any]) -> None:
        super().__init__()
        self.head, self.tail = blocks[0], nn.ModuleList(ApartBottleneck(block) for block in blocks[1:])

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> the output of the last block."""
        halves = self.head.halves(x)
        for block in self.tail.children():
            halves = block(*halves)
        return torch.cat(halves, dim=1)


def keep_halves_apart(net: nn.Module, kind: type[nn.Module]) -> None:
    """Replace, in place, every row of blocks of this kind in a sequence; the chain is where its last block was."""
    for sequence in [module for module in net.modules() if isinstance(module, nn.Sequential)]:
        for start, end in _rows(sequence, kind):
            chain = BottleneckChain(list(sequence[start:end].children()))
            for index in range(start, end - 1):
                sequence[index] = nn.Identity()
            sequence[end - 1] = chain


def _rows(sequence: nn.Sequential, kind: type[nn.Module]) -> list[tuple[int, int]]:
    """Where rows of at least two blocks begin and end."""
    rows, start = [], 0
    for index in range(1, len(sequence) + 1):
        if index == len(sequence) or not _follows(sequence[index - 1], sequence[index], kind):
            if index - start > 1:
                rows.append((start, index))
            start = index
    return rows


def _follows(before: Any, block: Any, kind: type) -> bool:
    """Whether a block can take the halves that the one before makes."""
    if type(before) is not kind or type(block) is not kind:
        return False
    whole = next(block.conv.children())
    return bool(
        (before.is_added and block.is_added and block.stride == 1)
        and (before.passed_chs, before.half_chs) == (block.half_chs, block.passed_chs)
        and (isinstance(whole, nn.Conv2d) and whole.in_channels == whole.groups == whole.out_channels)
    )


def _channels_of(conv: nn.Conv2d, start: int, count: int) -> nn.Conv2d:
    """The depthwise convolution of some of the channels."""
    part = nn.Conv2d(
        count,
        count,
        conv.kernel_size,  # pyright: ignore[reportArgumentType]
        conv.stride,  # pyright: ignore[reportArgumentType]
        conv.padding,  # pyright: ignore[reportArgumentType]
        groups=count,
        bias=conv.bias is not None,
        device="meta",
        dtype=conv.weight.dtype,
    )
    chosen = slice(start, start + count)
    set_affine(part, conv.weight[chosen], None if conv.bias is None else conv.bias[chosen])
    return part
