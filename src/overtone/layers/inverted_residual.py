"""What the mobile families are made of: widths rounded to a divisor, flat conv-BN-ReLU6 chains, inverted residuals.

Source: Sandler et al. 2018, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", arXiv:1801.04381.
"""

import math
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import torch
from timm.layers.drop import DropPath
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.errors import OvertoneError
from overtone.layers.depthwise_conv import DepthwiseConv2d
from overtone.layers.fused_bottleneck import run_bottleneck


class Layer(NamedTuple):
    """One entry of a net that is a plain sequence of layers, with what its output looks like."""

    module: nn.Module
    num_chs: int  # channels of the output
    stride: int  # of this layer alone, before `dilations` takes it away


def round_channels(channels: float, divisor: int) -> int:
    """Round a scaled width to the nearest multiple of `divisor`, but never by more than 10 % downwards.

    Args:
        channels: The scaled width, above 0.
        divisor: What the result is a multiple of, at least 1.

    Returns:
        A multiple of `divisor`, at least `divisor` and at least `0.9 * channels`.

    Raises:
        OvertoneError: One of the two is not positive.
    """
    if not (channels > 0 and divisor >= 1):
        raise OvertoneError(
            f"cannot round {channels} channels to a multiple of {divisor}: both must be positive; "
            "give a width multiplier above 0 and a divisor of 1 or more"
        )
    rounded = max(divisor, math.floor((channels + divisor / 2) / divisor) * divisor)
    return rounded if rounded >= 0.9 * channels else rounded + divisor


class _ReLU6FromResult(torch.autograd.Function):
    """ReLU6 in place, whose backward reads its result: 0 < result < 6 exactly where 0 < input < 6."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        result = x.clamp_(0, 6)
        ctx.mark_dirty(result)
        ctx.save_for_backward(result)
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> Tensor:
        (result,) = ctx.saved_tensors
        return torch.ops.aten.hardtanh_backward(grads[0], result, 0.0, 6.0)


class ReLU6(nn.ReLU6):
    """ReLU6 that overwrites its input; for use after a layer whose backward does not read its own output.

    torch's in-place ReLU6 keeps a copy of its input for the backward pass, its other one keeps the input; either holds
    a map more per activation than the mathematics needs. The next convolution keeps the result anyway.
    """

    def forward(self, input: Tensor) -> Tensor:
        """Any shape; without gradients or in training the result lies in `input`."""
        needs_grad = torch.is_grad_enabled() and input.requires_grad
        if torch.compiler.is_compiling() or (needs_grad and not self.training):
            return F.relu6(input)  # compilers and exporters take care of memory themselves
        if needs_grad:
            return _ReLU6FromResult.apply(input)  # pyright: ignore[reportReturnType]
        return F.relu6(input, inplace=True)


def conv_bn(
    in_chs: int,
    out_chs: int,
    kernel_size: int = 1,
    *,
    stride: int = 1,
    dilation: int = 1,
    depthwise: bool = False,
    act: bool = True,
) -> list[nn.Module]:
    """Convolution without bias, batch norm and, with `act`, ReLU6, as a flat list: the published keys number them so.

    The padding `(kernel_size - 1) / 2` makes an output of `ceil(n / stride)`.
    """
    conv: nn.Module
    if depthwise:
        conv = DepthwiseConv2d(in_chs, kernel_size, stride, dilation)
    else:
        conv = nn.Conv2d(in_chs, out_chs, kernel_size, stride, padding=(kernel_size - 1) // 2, bias=False)
    layers: list[nn.Module] = [conv, nn.BatchNorm2d(out_chs)]
    if act:
        layers.append(ReLU6())
    return layers


class InvertedResidual(nn.Module):
    """Narrow, wide, narrow: expand, filter depthwise, project linearly; with an identity where the shapes agree.

    Args:
        in_chs: Channels of the input.
        out_chs: Channels of the output.
        stride: Stride of the depthwise convolution, 1 or 2.
        dilation: Dilation of the depthwise convolution.
        keep_size: Leave out the stride, and nothing else: the block has an identity only where it had one with it.
        expand_ratio: Hidden width over `in_chs`; at 1 there is no expanding convolution.
        drop_path: Probability, in [0, 1), of dropping the residual of a sample in training.
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        *,
        stride: int = 1,
        dilation: int = 1,
        keep_size: bool = False,
        expand_ratio: float = 6,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_chs = round(in_chs * expand_ratio)
        actual_stride = 1 if keep_size else stride
        self.has_identity = stride == 1 and in_chs == out_chs
        self.conv = nn.Sequential(
            *(conv_bn(in_chs, hidden_chs) if expand_ratio != 1 else []),
            *conv_bn(hidden_chs, hidden_chs, 3, stride=actual_stride, dilation=dilation, depthwise=True),
            *conv_bn(hidden_chs, out_chs, act=False),
        )
        self.drop_path = DropPath(drop_path) if drop_path > 0 and self.has_identity else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, ceil(H / stride), ceil(W / stride)); the same size with `keep_size`."""
        y = run_bottleneck(self.conv, x)
        return x + self.drop_path(y) if self.has_identity else y


def drop_path_rates(drop_path_rate: float, num_blocks: int) -> Iterator[float]:
    """Drop-path probabilities that grow linearly over the blocks, from 0 to `drop_path_rate` (Huang et al. 2016)."""
    return iter(torch.linspace(0, drop_path_rate, num_blocks, dtype=torch.float64, device="cpu").tolist())


class Dilation(NamedTuple):
    """What becomes of a layer's stride and filter in a net of a smaller output stride."""

    keep_size: bool  # whether the layer's stride is left out
    dilation: int  # of its spatial filter


def dilations(strides: Iterable[int], output_stride: int) -> list[Dilation]:
    """How a net keeps its maps at `output_stride`: later strides become dilation (Yu and Koltun, arXiv:1511.07122).

    The layer that loses its stride still sees neighbours of the old map; only those after it are dilated.
    """
    plan, reduction, dilation = [], 1, 1
    for stride in strides:
        reduction *= stride
        keep_size = stride > 1 and reduction > output_stride
        plan.append(Dilation(keep_size, dilation))
        if keep_size:
            dilation *= stride
    return plan


def stage_ends(layers: Iterable[Layer], output_stride: int = 32) -> list[dict[str, int]]:
    """The last layer of every stage, as `dict(index, num_chs, reduction)`, in order.

    A stage ends where the next layer has a stride, even one that `output_stride` takes away.
    """
    ends: list[dict[str, int]] = []
    reduction = 1
    for index, layer in enumerate(layers):
        reduction *= layer.stride
        end = {"index": index, "num_chs": layer.num_chs, "reduction": reduction}
        if ends and ends[-1]["reduction"] == reduction:
            ends[-1] = end
        else:
            ends.append(end)
    for end in ends:
        end["reduction"] = min(end["reduction"], output_stride)
    return ends


def init_mobile_weights(module: nn.Module) -> None:
    """The published initialisation of both mobile families, one module at a time (for `Module.apply`).

    Convolutions: normal with std sqrt(2 / (k * k * out_channels)), depthwise ones too; batch norm: 1 and 0; linear:
    normal with std 0.01, bias 0.
    """
    if isinstance(module, nn.Conv2d):
        fan_out = math.prod(module.kernel_size) * module.out_channels
        nn.init.normal_(module.weight, 0.0, math.sqrt(2.0 / fan_out))
    elif isinstance(module, nn.BatchNorm2d):
        nn.init.ones_(module.weight)
        nn.init.zeros_(module.bias)
    elif isinstance(module, nn.Linear):
        nn.init.normal_(module.weight, 0.0, 0.01)
        nn.init.zeros_(module.bias)
