"""The fastest exact form of a network for inference: `overtone.deploy`.

Every rewrite is a function of its own (in `affine`, `gated_conv`, `global_filter`, `harmonious` and here); `deploy`
composes them. They change modules, not a traced graph: what comes out is still the network, with its methods and the
names of its layers, which every exporter and `torch.compile` take. Which layers stand beside each other is not guessed
from names: see `dataflow`.
"""

import copy
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool
from torch import nn

from overtone.deployment.affine import (
    fold_batch_norms,
    fold_layer_norms,
    fold_layer_scales,
    remove_dropout,
    set_affine,
)
from overtone.deployment.dataflow import observe
from overtone.deployment.gated_conv import fold_hornet_blocks
from overtone.deployment.harmonious import keep_halves_apart
from overtone.layers.dct_conv import HarmConv2d
from overtone.layers.depthwise_conv import DepthwiseConv2d

DEFAULT_SIZE = 224


def deploy(model: nn.Module, example_size: int | tuple[int, int] | None = None) -> nn.Module:
    """Rewrite a network into the fastest form that computes the same.

    Batch norms go into the convolutions before them, harmonic convolutions become plain ones, global filters become
    real matrix products of one size, constant factors and layer scales go into the weights beside them, dropout goes,
    convolutions are laid out channels_last. What none of this applies to stays as it is. The arithmetic of folding is
    in float64 and is rounded once.

    Args:
        model: any network that takes images (B, C, H, W); it is left as it is.
        example_size: pixels, one side or (height, width), of the images to come; None: what the network was made
            for (`pretrained_cfg`), or 224. A network with global filters takes images of this size only, and says so;
            every other one takes what it took before.

    Returns:
        A new network in eval mode and without gradients, with the methods of the old one. Its state dict is its own.
    """
    net = copy.deepcopy(model).eval().requires_grad_(False)
    shape = _image_shape(net, example_size)
    net = make_convolutions_plain(net)
    flow = observe(net, (1, *shape))
    remove_dropout(net, flow)
    fold_batch_norms(net, flow)
    fold_layer_scales(net, flow)
    fold_layer_norms(net, flow)
    fold_hornet_blocks(net, flow)
    keep_halves_apart(net)
    make_global_pools_means(net)
    lay_out_channels_last(net)
    return net.eval().requires_grad_(False)


def make_convolutions_plain(net: nn.Module) -> nn.Module:
    """Replace our convolutions, in eval mode, by PyTorch's: harmonic ones with their inner batch norm, and depthwise.

    Returns:
        `net`, or what replaces it where it is such a convolution itself.
    """
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if not isinstance(module, HarmConv2d | DepthwiseConv2d):
            continue
        try:
            plain = module.folded() if isinstance(module, HarmConv2d) else _plain_depthwise(module)
        except ValueError:  # an inner norm of another kind, or without statistics: it works as it is
            continue
        if not name:
            return plain
        net.set_submodule(name, plain)
    return net


def _plain_depthwise(conv: DepthwiseConv2d) -> nn.Conv2d:
    """The convolution that it is; what differs is only the way to its gradient."""
    size, where = conv.kernel_size[0], {"device": "meta", "dtype": conv.weight.dtype}  # not initialised
    shape = {"groups": conv.groups, "bias": conv.bias is not None}
    spacing = conv.stride[0], conv.padding[0], conv.dilation[0]
    plain = nn.Conv2d(conv.in_channels, conv.out_channels, size, *spacing, **shape, **where)
    set_affine(plain, conv.weight, conv.bias)
    return plain


def make_global_pools_means(net: nn.Module) -> None:
    """Replace adaptive average pools to one pixel by means, which exporters need not take apart."""
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if name and isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            net.set_submodule(name, FastAdaptiveAvgPool())


def lay_out_channels_last(net: nn.Module) -> None:
    """Lay the weights of convolutions out channels_last; depthwise ones, which gain nothing, stay.

    A convolution with such a weight gives a map of that layout whatever the layout of its input, so the images need no
    conversion. In eager mode on a CPU MobileNetV2 takes half the time then, and no network was slower.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups < module.in_channels:
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def _image_shape(net: nn.Module, size: int | tuple[int, int] | None) -> tuple[int, int, int]:
    """Channels, height and width of the images."""
    made_for: Any = net if hasattr(net, "pretrained_cfg") else getattr(net, "model", net)  # net may be a wrapper
    cfg = getattr(made_for, "pretrained_cfg", None) or {}
    channels, *made_for_size = cfg.get("input_size") or (3, DEFAULT_SIZE, DEFAULT_SIZE)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d | HarmConv2d)), None)
    if first is not None:
        channels = first.in_channels
    height, width = (size, size) if isinstance(size, int) else size or made_for_size
    return channels, height, width
