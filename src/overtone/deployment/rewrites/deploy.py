"""The fastest exact form of a network for inference: `overtone.deploy`.

`deploy` composes rewrites. Those for layers that every network has are in `folding` and here; a layer or a family
brings its own as a method:

- `plain()`: the module that computes the same without what only training needs; asked for first, so that the rewrites
  below apply to what it returns (a harmonic convolution returns an `nn.Conv2d`).
- `deployed(shape)`: the fastest exact form for an input of `shape`, which is None if the module itself was not called;
  the module may return itself. Asked for last, the outermost module first.

A subclass with a forward of its own does not inherit either. Rewrites change modules, not a traced graph: the result is
still the network, with its methods and the names of its layers, which every exporter and `torch.compile` take. Which
layers are adjacent is not guessed from names: see `dataflow`.
"""

import copy
from collections.abc import Callable
from typing import Any

import torch
from timm.layers.activations import GELU
from timm.layers.adaptive_avgmax_pool import FastAdaptiveAvgPool
from torch import nn

from overtone.deployment.rewrites.dataflow import Dataflow, observe
from overtone.deployment.rewrites.folding import (
    fold_batch_norms,
    fold_layer_norms,
    fold_layer_scales,
    remove_dropout,
)
from overtone.layers.onednn_linear import OneDnnLinear, is_chosen

DEFAULT_SIZE = 224


def deploy(model: nn.Module, example_size: int | tuple[int, int] | None = None, *, any_size: bool = False) -> nn.Module:
    """Rewrite a network into the fastest form that computes the same.

    Batch norms are folded into the convolutions before them, constant factors and layer scales into the weights beside
    them, dropout is removed, layers take the forms that their families give for inference, convolutions are laid out
    channels_last, and linear layers use oneDNN on the processors where it is faster (`layers.onednn_linear`). All else
    is left unchanged. The arithmetic of folding is in float64 and is rounded once.

    Args:
        model: any network that takes images (B, C, H, W); it is not changed.
        example_size: pixels, one side or (height, width), of the images to come; None: what the network was made
            for (`pretrained_cfg`), or 224. A network with global filters takes images of this size only, and says so;
            every other one takes what it took before.
        any_size: leave the layers unchanged whose form takes one size, so that every size goes as before.

    Returns:
        A new network in eval mode and without gradients, with the methods of the old one. Its state dict is its own.
    """
    net = copy.deepcopy(model).eval().requires_grad_(False)
    net = make_plain(net)
    flow = observe(net, (1, *_image_shape(net, example_size)))
    remove_dropout(net, flow)
    fold_batch_norms(net, flow)
    fold_layer_scales(net, flow)
    fold_layer_norms(net, flow)
    net = take_deployed_forms(net, flow, any_size=any_size)
    make_global_pools_means(net)
    lay_out_channels_last(net)
    choose_linears(net, flow)
    return net.eval().requires_grad_(False)


def make_plain(net: nn.Module) -> nn.Module:
    """Replace every module in eval mode that has a `plain()` by what it returns; returns the network."""
    for name, module in list(net.named_modules(remove_duplicate=False)):
        plain = own_form(module, "plain")
        if plain is not None:
            net = _replaced(net, name, plain())
    return net


def take_deployed_forms(net: nn.Module, flow: Dataflow, *, any_size: bool = False) -> nn.Module:
    """Replace every module that has a `deployed(shape)` by what it returns; returns the network.

    With `any_size`, not by a form of which a module has a true `takes_one_size`.
    """
    for name, module in list(net.named_modules()):
        deployed = own_form(module, "deployed")
        # A module inside of one that was replaced is gone; one that is hooked or read elsewhere stays.
        if deployed is None or name in flow.borrowed or not any(found is module for found in net.modules()):
            continue
        form = deployed(flow.input_shapes.get(name))
        if not (any_size and any(getattr(part, "takes_one_size", False) for part in form.modules())):
            net = _replaced(net, name, form)
    return net


def own_form(module: nn.Module, method: str) -> Callable[..., Any] | None:
    """A module's method that gives another form of it; None if it has none, or inherits one for another forward."""
    kind = type(module)
    if not hasattr(kind, method):
        return None
    of_method, of_forward = (next(c for c in kind.__mro__ if name in vars(c)) for name in (method, "forward"))
    return getattr(module, method) if issubclass(of_method, of_forward) else None


def _replaced(net: nn.Module, name: str, form: nn.Module) -> nn.Module:
    if not name:
        return form
    net.set_submodule(name, form)
    return net


def make_global_pools_means(net: nn.Module) -> None:
    """Replace adaptive average pools to one pixel by means, which exporters need not take apart."""
    for name, module in list(net.named_modules(remove_duplicate=False)):
        if name and isinstance(module, nn.AdaptiveAvgPool2d) and module.output_size in (1, (1, 1)):
            net.set_submodule(name, FastAdaptiveAvgPool())


def lay_out_channels_last(net: nn.Module) -> None:
    """Lay the weights of convolutions out channels_last; depthwise ones, which gain nothing, stay.

    A convolution with such a weight gives a map of that layout whatever the layout of its input, so the images need no
    conversion. In eager mode on a CPU inverted residuals take half the time then; no network was slower.
    """
    for module in net.modules():
        if isinstance(module, nn.Conv2d) and module.groups < module.in_channels:
            module.weight.data = module.weight.data.contiguous(memory_format=torch.channels_last)


def choose_linears(net: nn.Module, flow: Dataflow) -> None:
    """Make linear layers use the faster library, on processors where that is not PyTorch's own choice.

    A GELU that alone reads a layer becomes part of it.
    """
    if not is_chosen():
        return
    modules = dict(net.named_modules())
    for module in modules.values():
        if type(module) is nn.Linear:
            module.__class__ = OneDnnLinear  # everything but `forward` stays: names, hooks, parameters that are shared
    for producer, consumer in flow.exclusive_pairs():
        layer, activation = modules.get(producer), modules.get(consumer)
        is_gelu = type(activation) in (nn.GELU, GELU) and getattr(activation, "approximate", "none") == "none"
        if is_gelu and isinstance(layer, OneDnnLinear):
            layer.gelu = True
            net.set_submodule(consumer, nn.Identity())


def _image_shape(net: nn.Module, size: int | tuple[int, int] | None) -> tuple[int, int, int]:
    """Channels, height and width of the images."""
    made_for: Any = net if hasattr(net, "pretrained_cfg") else getattr(net, "model", net)  # net may be a wrapper
    cfg = getattr(made_for, "pretrained_cfg", None) or {}
    channels, *made_for_size = cfg.get("input_size") or (3, DEFAULT_SIZE, DEFAULT_SIZE)
    first = next((m for m in net.modules() if isinstance(m, nn.Conv2d) or hasattr(type(m), "plain")), None)
    if first is not None:
        channels = getattr(first, "in_channels", channels)
    height, width = (size, size) if isinstance(size, int) else size or made_for_size
    return channels, height, width
