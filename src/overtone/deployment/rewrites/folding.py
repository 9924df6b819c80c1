"""Scales and shifts per channel folded into the linear layer beside them, and dropout removed, in whole networks.

The functions read the record of a forward pass (`dataflow`) and rewrite only where the result is exact.
"""

from typing import Any

from timm.layers.conv2d_same import Conv2dSame
from timm.layers.drop import DropBlock2d, DropPath
from timm.layers.layer_scale import LayerScale, LayerScale2d
from timm.layers.norm import LayerNorm, LayerNorm2d
from timm.layers.norm_act import BatchNormAct2d, FrozenBatchNormAct2d, SyncBatchNormAct
from timm.models.convnext import ConvNeXtBlock
from torch import Tensor, nn
from torchvision.ops import FrozenBatchNorm2d

from overtone.deployment.rewrites.dataflow import Dataflow
from overtone.layers.affine import fold_batch_norm, fold_layer_norm, reads_padding, scale_output

# Exact types in a network: a subclass may do something else with its weight.
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, Conv2dSame)
_BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm, BatchNormAct2d, SyncBatchNormAct)
_BATCH_NORMS += (FrozenBatchNorm2d, FrozenBatchNormAct2d)
_DROPOUTS = (nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Dropout3d, nn.AlphaDropout, DropPath, DropBlock2d)


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
    """The scale and shift of layer norms that one linear layer, or convolution without padding, alone reads.

    The classifier is left alone: what it reads are the features that the network gives.
    """
    classifiers = list(_classifier(net).modules())
    for norm, linear, _ in _pairs(net, flow, (nn.LayerNorm, LayerNorm), (nn.Linear,)):
        fits = norm.weight is not None and tuple(norm.normalized_shape) == (linear.in_features,)
        if fits and not any(linear is one for one in classifiers):
            fold_layer_norm(norm, [linear])
    for norm, conv, _ in _pairs(net, flow, (LayerNorm2d,), (nn.Conv2d,)):
        if norm.weight is not None and not reads_padding(conv):
            fold_layer_norm(norm, [conv])


def _classifier(net: nn.Module) -> nn.Module:
    """What timm's networks call their classifier; those with several give a tuple."""
    found: Any = getattr(net, "get_classifier", nn.Identity)()
    return found if isinstance(found, nn.Module) else nn.ModuleList(found)


def _pairs(
    net: nn.Module, flow: Dataflow, producers: tuple[type, ...], consumers: tuple[type, ...]
) -> list[tuple[Any, Any, str]]:
    """Producer, consumer and the consumer's name, of the given types, where nothing else sees what passes between."""
    modules = dict(net.named_modules())
    found = ((modules.get(a), modules.get(b), b) for a, b in flow.exclusive_pairs())
    return [(a, b, name) for a, b, name in found if type(a) in producers and type(b) in consumers]
