"""Scales and shifts per channel folded into the linear layer beside them, and dropout taken out.

All arithmetic is in float64 and rounded once. The functions on single layers change the layers they are given; those on
whole networks read the record of a forward pass (`dataflow`) and touch only what is exact.
"""

from typing import Any

import torch
from timm.layers.conv2d_same import Conv2dSame
from timm.layers.drop import DropBlock2d, DropPath
from timm.layers.layer_scale import LayerScale, LayerScale2d
from timm.layers.norm import LayerNorm, LayerNorm2d
from timm.layers.norm_act import BatchNormAct2d, SyncBatchNormAct
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn

from overtone.deployment.dataflow import Dataflow

Linear = nn.Linear | nn.Conv1d | nn.Conv2d | nn.Conv3d

# Exact types in a network: a subclass may do something else with its weight.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, DropPath, DropBlock2d)


# --- single layers ----------------------------------------------------------------------------------------------------


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


# --- whole networks ---------------------------------------------------------------------------------------------------


def remove_dropout(net: nn.Module, flow: Dataflow) -> None:
    """Take every form of dropout out of a network in eval mode, where it does nothing."""
    for name, module in list(net.named_modules()):
        # One that is not called may still be asked for its rate, by attention that drops inside its kernel.
        if name and type(module) in _DROPOUTS and flow.calls[name]:
            net.set_submodule(name, nn.Identity())
        for rate in ("drop_rate", "block_drop_rate"):  # dropout by a function call, which exporters would record
            if isinstance(getattr(module, rate, None), float):
                setattr(module, rate, 0.0)


def fold_batch_norms(net: nn.Module, flow: Dataflow) -> None:
    """Every batch norm that alone reads a convolution or linear layer, into that layer; its activation stays."""
    convolutions = _pairs(net, flow, _CONVOLUTIONS, _BATCH_NORMS)
    # After a linear layer the channels are last; of (B, N, C) a batch norm would take the second dimension.
    linears = [p for p in _pairs(net, flow, (nn.Linear,), _BATCH_NORMS) if len(flow.input_shapes[p[2]]) == 2]
    for linear, norm, name in convolutions + linears:
        if norm.running_mean is not None and norm.running_var is not None:
            fold_batch_norm(linear, norm)
            net.set_submodule(name, getattr(norm, "act", nn.Identity()))


def fold_layer_scales(net: nn.Module, flow: Dataflow) -> None:
    """Layer scales of timm that alone read a linear layer or convolution, into it; ConvNeXt's own parameter too."""
    pairs = _pairs(net, flow, (nn.Linear,), (LayerScale,)) + _pairs(net, flow, _CONVOLUTIONS, (LayerScale2d,))
    for linear, layer_scale, name in pairs:
        scale_output(linear, layer_scale.gamma)
        net.set_submodule(name, nn.Identity())
    for name, block in net.named_modules():
        if type(block) is ConvNeXtBlock and isinstance(block.gamma, Tensor) and name not in flow.borrowed:
            last: Any = block.mlp.fc2
            if f"{name}.mlp.fc2" not in flow.borrowed and flow.calls[f"{name}.mlp.fc2"] == 1:
                scale_output(last, block.gamma)
                block.gamma = None


def fold_layer_norms(net: nn.Module, flow: Dataflow) -> None:
    """The scale and shift of layer norms that one linear layer, or convolution without padding, alone reads."""
    for norm, linear, _ in _pairs(net, flow, (nn.LayerNorm, LayerNorm), (nn.Linear,)):
        if norm.weight is not None and tuple(norm.normalized_shape) == (linear.in_features,):
            fold_layer_norm(norm, [linear])
    for norm, conv, _ in _pairs(net, flow, (LayerNorm2d,), (nn.Conv2d,)):
        if norm.weight is not None and not reads_padding(conv):
            fold_layer_norm(norm, [conv])


def _pairs(
    net: nn.Module, flow: Dataflow, producers: tuple[type, ...], consumers: tuple[type, ...]
) -> list[tuple[Any, Any, str]]:
    """Producer, consumer and the consumer's name, of the given types, where nothing else sees what passes between."""
    modules = dict(net.named_modules())
    found = ((modules.get(a), modules.get(b), b) for a, b in flow.exclusive_pairs())
    return [(a, b, name) for a, b, name in found if type(a) in producers and type(b) in consumers]
