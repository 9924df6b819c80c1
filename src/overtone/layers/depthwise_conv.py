"""Depthwise convolution that trains well on the CPU: on maps of a few pixels, with wide filters, in bfloat16.

PyTorch's gradients of a depthwise convolution are slow on the CPU in four cases, and here they are computed otherwise:

- Where the output is no larger than 2x2 the filter's takes ten times as long as the convolution. There each of its taps
  meets a handful of positions, so their products are summed tap by tap.
- oneDNN has its fast kernel for filters up to three columns wide, on x86; wider ones take two to five times as long. A
  5x5 or 7x7 filter is therefore cut into pieces of three columns, each a filter of its own on maps shifted sideways.
  The sums are as long as those of PyTorch's 3x3 filters, and as exact.
- Of a wide filter on a map of a few pixels the gradient takes several times as long, and in bfloat16 twenty times
  that. There all pairs of positions are multiplied at once.
- In bfloat16 the input's gradient at stride 2 takes twenty times as long as in float32, so it is computed in float32.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.layers.affine import set_affine
from overtone.layers.map_gradients import differentiates_on_cpu

_SIDE = 2  # of the largest output that is summed tap by tap
_COLUMNS = 3  # of the widest filter that oneDNN has its fast kernel for
_WIDTH = 4  # of the largest output on which a wide filter in pieces gains nothing
_HAS_FAST_KERNEL = torch.backends.mkldnn.is_available() and torch.backends.cpu.get_cpu_capability().startswith("AVX")


class DepthwiseConv2d(nn.Conv2d):
    """`nn.Conv2d` with as many groups as channels; the same parameters, the same result, another way to its gradient.

    Args:
        channels: of input and output.
        kernel_size: side of the filters, odd; the padding is `(kernel_size - 1) / 2`.
        stride: 1 or 2.
        dilation: distance between the taps; the padding grows with it.
    """

    def __init__(self, channels: int, kernel_size: int, stride: int = 1, dilation: int = 1) -> None:
        padding = dilation * (kernel_size - 1) // 2
        super().__init__(channels, channels, kernel_size, stride, padding, dilation, groups=channels, bias=False)

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, C, ceil(H / stride), ceil(W / stride))."""
        return depthwise_conv2d(input, self)

    def plain(self) -> nn.Conv2d:
        """PyTorch's convolution with these filters; only the computation of its gradient differs."""
        size, where = self.kernel_size[0], {"device": "meta", "dtype": self.weight.dtype}  # not initialised
        shape = {"groups": self.groups, "bias": self.bias is not None}
        spacing = self.stride[0], self.padding[0], self.dilation[0]
        plain = nn.Conv2d(self.in_channels, self.out_channels, size, *spacing, **shape, **where)
        set_affine(plain, self.weight, self.bias)
        return plain


def depthwise_conv2d(x: Tensor, conv: nn.Conv2d, scale: float = 1.0) -> Tensor:
    """What a depthwise convolution makes of a map: every channel through its own odd square filter.

    Args:
        x: (B, C, H, W).
        conv: has C groups, the stride 1 or 2 and the padding `dilation * (kernel_size // 2)`.
        scale: factor of the output. It is applied to the filters, which are far smaller than the maps.

    Returns:
        (B, C, ceil(H / stride), ceil(W / stride)).
    """
    weight, bias, stride = conv.weight, conv.bias, conv.stride[0]
    if scale != 1.0:
        weight, bias = weight * scale, None if bias is None else bias * scale
    if differentiates_on_cpu(x):
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), None if bias is None else bias.to(dtype)
        if conv.dilation[0] == 1 and _has_slow_gradient(x, weight, stride):
            return _DepthwiseConv2d.apply(x, weight, bias, stride)  # pyright: ignore[reportReturnType]
    return F.conv2d(x, weight, bias, conv.stride, conv.padding, conv.dilation, conv.groups)


def _has_slow_gradient(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether gradients will be asked for, and PyTorch's way to them is slow."""
    return (
        weight.requires_grad
        and x.ndim == 4
        and x.dtype == weight.dtype
        and (
            _is_small(x, stride)
            or _is_wide(x, weight, stride)
            or _is_narrow(x, weight, stride)
            or _skips_pixels_in_bfloat16(x, stride)
        )
    )


def _is_small(x: Tensor, stride: int) -> bool:
    return max(x.shape[2:]) <= _SIDE * stride


def _is_wide(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the filter is better taken in pieces."""
    is_fast = _HAS_FAST_KERNEL and x.dtype in (torch.float32, torch.bfloat16)
    return is_fast and weight.shape[-1] > _COLUMNS and x.shape[3] > _WIDTH * stride and x.numel() > 0


def _is_narrow(x: Tensor, weight: Tensor, stride: int) -> bool:
    """Whether the filter is wide, and the map so narrow that pieces of the filter gain nothing."""
    return weight.shape[-1] > _COLUMNS and max(x.shape[2:]) <= _WIDTH * stride and x.numel() > 0


def _skips_pixels_in_bfloat16(x: Tensor, stride: int) -> bool:
    return x.dtype == torch.bfloat16 and stride > 1


class _DepthwiseConv2d(torch.autograd.Function):
    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, 1, len(weight))

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, bias, ctx.stride = inputs
        ctx.has_bias = bias is not None
        ctx.save_for_backward(x, weight)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None, None]:
        x, weight = ctx.saved_tensors
        wanted = [ctx.needs_input_grad[0], ctx.needs_input_grad[1], ctx.has_bias and ctx.needs_input_grad[2]]
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for, or torch.func is at work
            return *_plain_backward(grads[0], x, weight, ctx.stride, wanted), None
        grad_x = grad_weight = grad_bias = None
        if wanted[0]:
            grad_x = _input_gradient(x, weight, grads[0], ctx.stride)
        if wanted[1]:
            grad_weight = _weight_gradient(x, weight, grads[0], ctx.stride)
            if grad_weight is not None and grad_weight.stride() != weight.stride():  # DDP wants them alike
                grad_weight = torch.empty_like(weight).copy_(grad_weight)
        if wanted[2]:  # PyTorch would compute the filter's gradient again with it
            grad_bias = grads[0].sum((0, 2, 3))
        return grad_x, grad_weight, grad_bias, None


def _input_gradient(x: Tensor, weight: Tensor, grad: Tensor, stride: int) -> Tensor | None:
    if _skips_pixels_in_bfloat16(x, stride):
        like = torch.empty_like(x, dtype=torch.float32)  # only its shape is read
        grad_x, _, _ = _plain_backward(grad.float(), like, weight.float(), stride, [True, False, False])
        return None if grad_x is None else grad_x.to(x.dtype)
    return _plain_backward(grad, x, weight, stride, [True, False, False])[0]


def _weight_gradient(x: Tensor, weight: Tensor, grad: Tensor, stride: int) -> Tensor | None:
    if _is_small(x, stride):
        dtype = torch.promote_types(x.dtype, torch.float32)
        return _filter_gradient(x.to(dtype), grad.to(dtype), weight.shape[-1], stride).to(weight.dtype)
    if _is_wide(x, weight, stride):
        return _wide_filter_gradient(x, grad, weight.shape[-1], stride)
    if _is_narrow(x, weight, stride):
        dtype = torch.promote_types(x.dtype, torch.float32)
        return _pairwise_filter_gradient(x.to(dtype), grad.to(dtype), weight.shape[-1], stride).to(weight.dtype)
    return _plain_backward(grad, x, weight, stride, [False, True, False])[1]


def _plain_backward(
    grad: Tensor, x: Tensor, weight: Tensor, stride: int, wanted: list[bool]
) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
    """PyTorch's gradients of x, weight and bias, where they are wanted."""
    channels, padding = len(weight), [side // 2 for side in weight.shape[2:]]
    bias_sizes, strides = [channels] if wanted[2] else None, [stride, stride]
    return torch.ops.aten.convolution_backward(
        grad, x, weight, bias_sizes, strides, padding, [1, 1], False, [0, 0], channels, wanted
    )


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


def _pairwise_filter_gradient(x: Tensor, grad: Tensor, size: int, stride: int) -> Tensor:
    """What `_filter_gradient` gives: first the products of every position of x with every one of the gradient, summed
    over the images by a product of matrices for each channel; then the sums over the pairs that share a tap.
    """
    channels, (height, width), (out_height, out_width) = x.shape[1], x.shape[2:], grad.shape[2:]
    positions = x.permute(1, 2, 3, 0).reshape(channels, height * width, -1)  # (C, H W, B)
    gradients = grad.permute(1, 2, 3, 0).reshape(channels, out_height * out_width, -1)
    products = torch.bmm(positions, gradients.transpose(1, 2)).view(channels, -1)  # (C, H W H' W')

    def meet(length: int, out_length: int) -> Tensor:  # (length, out_length, size): 1 where a tap joins two positions
        read = stride * torch.arange(out_length)[:, None] + torch.arange(size) - size // 2
        return (torch.arange(length)[:, None, None] == read).to(x)

    taps = torch.einsum("ipa,jqb->ijpqab", meet(height, out_height), meet(width, out_width))
    return (products @ taps.reshape(products.shape[1], -1)).view(channels, 1, size, size)


def _meeting(tap: int, size: int, stride: int, length: int, out_length: int) -> tuple[slice, slice]:
    """Which positions of input and output a tap joins, along one axis."""
    offset = tap - size // 2
    first = max(0, -(offset // stride))
    last = min(out_length - 1, (length - 1 - offset) // stride)
    if last < first:
        return slice(0, 0), slice(0, 0)
    return slice(offset + stride * first, offset + stride * last + 1, stride), slice(first, last + 1)


def _wide_filter_gradient(x: Tensor, grad: Tensor, size: int, stride: int) -> Tensor:
    """What `_filter_gradient` gives, from the gradients of filters of three columns.

    The pixels of x lie in one row after the other, with zeros between them; so the maps shifted sideways by any part of
    the filter's width are the same memory, read from another pixel on. The gradient has a column of zeros in front,
    which keeps the padding of the narrow convolutions away from what is not zero.
    """
    batch, channels, height, width = x.shape
    reach = size // 2
    margin = reach + stride - 1  # zeros between two rows, and pixels before the first
    wide, count = width + margin, batch * height * (width + margin)
    pixels = x.new_empty(max(margin, 2 * reach - 2) + count, channels)
    pixels[:margin], pixels[margin + count :] = 0, 0
    rows = pixels[margin : margin + count].view(batch, height, wide, channels)
    rows[:, :, :width], rows[:, :, width:] = x.permute(0, 2, 3, 1), 0
    out_height, out_width = grad.shape[2:]
    spread = grad.new_empty(batch, out_height, (wide - 1) // stride + 1, channels)
    spread[:, :, 0], spread[:, :, out_width + 1 :] = 0, 0
    spread[:, :, 1 : out_width + 1] = grad.permute(0, 2, 3, 1)
    spread = spread.permute(0, 3, 1, 2)
    total = x.new_empty(channels, 1, size, size)
    narrow = x.new_empty(channels, 1, size, _COLUMNS)  # only its shape is read
    for column in (*range(0, size - _COLUMNS, _COLUMNS), size - _COLUMNS):
        first = margin - reach - stride + 1 + column
        shifted = pixels[first : first + count].view(batch, height, wide, channels).permute(0, 3, 1, 2)
        _, part, _ = _plain_backward(spread, shifted, narrow, stride, [False, True, False])
        assert part is not None
        total[..., column : column + _COLUMNS] = part
    return total
