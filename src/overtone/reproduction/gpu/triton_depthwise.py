"""A depthwise convolution of channels-last maps as a Triton kernel, forward only.

A program computes a row's stretch of pixels for a block of channels: it adds up the taps in float32, and what it reads
again for the next tap is in the cache. PyTorch gives such convolutions to kernels made for NCHW.
"""

# pyright: reportArgumentType=false, reportOperatorIssue=false
# (what is a constant of the kernel is a number where it is called)

import torch
import triton
import triton.language as tl
from torch import Tensor

_PIXELS, _CHANNELS = 8, 64


@triton.jit
def _kernel(
    x, weight, bias, y, height, width, channels, SIDE: tl.constexpr, BLOCK_W: tl.constexpr, BLOCK_C: tl.constexpr
):
    row = tl.program_id(0)
    image, top = row // height, row % height
    across = tl.program_id(1) * BLOCK_W + tl.arange(0, BLOCK_W)
    channel = tl.program_id(2) * BLOCK_C + tl.arange(0, BLOCK_C)
    is_channel = channel < channels
    total = tl.full((BLOCK_W, BLOCK_C), 0.0, tl.float32)
    for tap in range(SIDE * SIDE):
        # a block, as the interpreter makes no mask of a scalar and a block
        down = across * 0 + top + tap // SIDE - SIDE // 2
        right = across + tap % SIDE - SIDE // 2
        inside = (down >= 0) & (down < height) & (right >= 0) & (right < width)
        place = ((image * height + down) * width + right)[:, None] * channels + channel[None, :]
        values = tl.load(x + place, mask=inside[:, None] & is_channel[None, :], other=0.0)
        factors = tl.load(weight + tap * channels + channel, mask=is_channel, other=0.0)
        total += values.to(tl.float32) * factors.to(tl.float32)[None, :]
    total += tl.load(bias + channel, mask=is_channel, other=0.0).to(tl.float32)[None, :]
    place = (row * width + across)[:, None] * channels + channel[None, :]
    tl.store(y + place, total.to(y.dtype.element_ty), mask=(across < width)[:, None] & is_channel[None, :])


def depthwise(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """What `F.conv2d(x, weight, bias, padding=side // 2, groups=C)` computes, of fewer than 2**31 values.

    Args:
        x: (B, C, H, W), channels_last.
        weight: (C, 1, side, side), side odd.
        bias: (C,).
    """
    batch, channels, height, width = x.shape
    side = weight.shape[-1]
    x, y = x.contiguous(memory_format=torch.channels_last), torch.empty_like(x, memory_format=torch.channels_last)
    taps = weight.view(channels, side * side).T.contiguous()
    grid = (batch * height, triton.cdiv(width, _PIXELS), triton.cdiv(channels, _CHANNELS))
    _kernel[grid](x, taps, bias, y, height, width, channels, SIDE=side, BLOCK_W=_PIXELS, BLOCK_C=_CHANNELS)
    return y
