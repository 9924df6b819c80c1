"""Depthwise convolution that trains well on maps of a few pixels, too.

On the CPU PyTorch's gradient of a depthwise filter takes ten times as long as the convolution where the output is no
larger than 2x2. There each of the filter's taps meets a handful of positions, so their products are summed tap by tap.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd.function import once_differentiable
from torch.nn import functional as F

_SIDE = 2  # of the largest output that is summed tap by tap


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with as many groups as channels; the same parameters, the same result, another way to its gradient.

    Args:
        channels: of input and output.
        kernel_size: side of the filters, odd; the padding is `(kernel_size - 1) / 2`.
        stride: 1 or 2.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1) -> None:
        super().__init__(
            channels, channels, kernel_size, stride, padding=(kernel_size - 1) // 2, groups=channels, bias=False
        )

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        stride = self.stride[0]
        if (
            not torch.compiler.is_compiling()
            and torch.is_grad_enabled()
            and self.weight.requires_grad
            and input.device.type == "cpu"
            and input.ndim == 4
            and max(input.shape[2:]) <= _SIDE * stride
            and input.dtype == self.weight.dtype
            and not torch.is_autocast_enabled("cpu")
        ):
            return _OnFewPositions.apply(input, self.weight, stride)  # pyright: ignore[reportReturnType]
        return super().forward(input)


class _OnFewPositions(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride = stride
        return F.conv2d(x, weight, None, stride, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor, None]:
        x, weight = ctx.saved_tensors
        grad, stride, padding = grads[0], [ctx.stride] * 2, [weight.shape[-1] // 2] * 2
        grad_x = None
        if ctx.needs_input_grad[0]:
            grad_x, _, _ = torch.ops.aten.convolution_backward(
                grad, x, weight, None, stride, padding, [1, 1], False, [0, 0], len(weight), [True, False, False]
            )
        return grad_x, _filter_gradient(x, grad, weight.shape[-1], ctx.stride), None


def _filter_gradient(x: Tensor, grad: Tensor, size: int, stride: int) -> Tensor:
    """(B, C, H, W) and (B, C, H', W') -> (C, 1, size, size): sum over images and positions of input times gradient."""
    x, grad = x.permute(0, 2, 3, 1), grad.permute(0, 2, 3, 1)
    sums = x.new_zeros(size, size, x.shape[3])
    for row in range(size):
        above, out_rows = _meeting(row, size, stride, x.shape[1], grad.shape[1])
        for column in range(size):
            left, out_columns = _meeting(column, size, stride, x.shape[2], grad.shape[2])
            product = x[:, above, left] * grad[:, out_rows, out_columns]
            torch.sum(product, (0, 1, 2), out=sums[row, column])
    return sums.permute(2, 0, 1)[:, None]


def _meeting(tap: int, size: int, stride: int, length: int, out_length: int) -> tuple[slice, slice]:
    """Which positions of input and output a tap joins, along one axis."""
    offset = tap - size // 2
    first = max(0, -(offset // stride))
    last = min(out_length - 1, (length - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(offset + stride * first, offset + stride * last + 1, stride), slice(first, last + 1)
