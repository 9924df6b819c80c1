"""Scales and shifts per channel folded into a single linear layer or convolution beside them.

All arithmetic is in float64 and is rounded once. The functions change the layers that they are given.
"""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from torch import Tensor, nn

Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d


def set_affine(layer: Linear | nn.LayerNorm, weight: Tensor, bias: Tensor | None) -> None:
    """Give a layer another weight and bias, rounded to the type of the weight it has; neither takes a gradient."""
    dtype = layer.weight.dtype
    layer.weight = nn.Parameter(weight.detach().to(dtype).contiguous(), requires_grad=False)
    rounded = None if bias is None else nn.Parameter(bias.detach().to(dtype).contiguous(), requires_grad=False)
    layer.register_parameter("bias", rounded)


def scale_output(linear: Linear, scale: Tensor, shift: Tensor | None = None) -> None:
    """Make a linear layer or convolution y(x) into scale * y(x) + shift, per output channel (out,)."""
    scale, weight = scale.double(), linear.weight.double()
    bias = None if linear.bias is None else linear.bias.double() * scale
    if shift is not None:
        bias = shift.double() if bias is None else bias + shift.double()
    set_affine(linear, weight * scale.reshape(-1, *[1] * (weight.ndim - 1)), bias)


def scale_input(linear: Linear, scale: Tensor, shift: Tensor | None = None) -> None:
    """Make a linear layer or convolution y(x) into y(scale * x + shift), per input channel (in,).

    With a shift this is exact only where no padding is read: see `reads_padding`.
    """
    weight, bias = linear.weight.double(), linear.bias
    groups = 1 if isinstance(linear, nn.Linear) else linear.groups

    def as_weight_sees(values: Tensor) -> Tensor:
        per_group = values.double().reshape(groups, -1)
        per_output = per_group.repeat_interleave(weight.shape[0] // groups, 0)
        return per_output.reshape(*per_output.shape, *[1] * (weight.ndim - 2))

    if shift is not None:
        moved = (weight * as_weight_sees(shift)).flatten(1).sum(1)
        bias = moved if bias is None else bias.double() + moved
    set_affine(linear, weight * as_weight_sees(scale), bias)


def reads_padding(conv: nn.Conv2d) -> bool:
    """Whether a convolution reads values beyond the edge of its input."""
    return type(conv) is Conv2dSame or isinstance(conv.padding, str) or any(conv.padding)


def fold_batch_norm(linear: Linear, norm: Any) -> None:
    """The batch norm with running statistics, in eval mode, that follows a linear layer, into that layer."""
    scale = torch.rsqrt(norm.running_var.double() + norm.eps)
    if norm.weight is not None:
        scale = scale * norm.weight.double()
    shift = -norm.running_mean.double() * scale
    scale_output(linear, scale, shift if norm.bias is None else shift + norm.bias.double())


def fold_layer_norm(norm: nn.LayerNorm, followers: list[Linear]) -> None:
    """The scale and shift of a layer norm into the layers that alone read it; it keeps ones and zeros.

    Ones and zeros, not None: PyTorch's CPU kernel takes twice as long without the two, and exporters write them anyway.
    """
    for follower in followers:
        scale_input(follower, norm.weight, norm.bias)
    set_affine(norm, torch.ones_like(norm.weight), None if norm.bias is None else torch.zeros_like(norm.bias))
