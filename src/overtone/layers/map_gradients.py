"""Gradients of maps as the CPU's kernels want them: dense, and with the channels innermost where the maps have them so.

PyTorch gives the gradient of a slice of channels as a view, or as a map of zeros in NCHW that is filled. Either costs
more than the arithmetic behind it: batch norm's backward takes thirty times as long on a gradient that is not dense.
"""

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def differentiates_on_cpu(x: Tensor) -> bool:
    """Whether a gradient may flow back to `x` on the CPU, and nothing records the operations one by one."""
    return (
        x.device.type == "cpu"
        and torch.is_grad_enabled()
        and not torch.compiler.is_compiling()
        and not torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
    )


def dense_gradient(x: Tensor) -> Tensor:
    """`x` itself, (B, C, H, W); its gradient will be dense in memory, whatever reads `x`."""
    return _DenseGradient.apply(x) if differentiates_on_cpu(x) else x  # pyright: ignore[reportReturnType]


class _DenseGradient(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor) -> Tensor:
        return x.view_as(x)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.channels_last = inputs[0].stride(1) == 1

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (grad,) = grads
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for, or torch.func is at work
            return grad
        return grad.contiguous(memory_format=torch.channels_last if ctx.channels_last else torch.contiguous_format)


def halve_resolution(x: Tensor, first: int = 0) -> Tensor:
    """Means over 2x2 pixels; where a side is odd, the last ones are over the pixels that are there.

    Args:
        x: (B, C, H, W).
        first: the channel to begin with.

    Returns:
        (B, C - first, ceil(H / 2), ceil(W / 2)), a slice of the means of all channels: pooling a slice would copy it.
    """
    if differentiates_on_cpu(x) and x.shape[2] % 2 == x.shape[3] % 2 == 0:
        return _Halved.apply(x, first)  # pyright: ignore[reportReturnType]
    return F.avg_pool2d(x, 2, ceil_mode=True, count_include_pad=False)[:, first:]


class _Halved(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, first: int) -> Tensor:
        return F.avg_pool2d(x, 2)[:, first:]

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.first = inputs[1]

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, None]:
        quarter = F.pad(grads[0] * 0.25, (0, 0, 0, 0, ctx.first, 0))
        return F.interpolate(quarter, scale_factor=2, mode="nearest"), None
