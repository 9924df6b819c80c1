"""A deployed network in the form that suits compilers which choose the memory layout themselves, such as OpenVINO's.

Norms of maps become plain arithmetic. A family brings its own rewrites, in post-order:

- `channels_first()` of a deployed module returns one that computes the same on (B, C, H, W) inside;
- `for_logits_only()` of the network rewrites it in place, keeping its logits but not necessarily its maps.
"""

import copy

from timm.layers.norm import LayerNorm2d
from torch import nn

from overtone.deployment.rewrites.deploy import own_form
from overtone.layers.channel_norm import ChannelNorm


def with_channels_first(net: nn.Module) -> nn.Module:
    """A network with equal outputs and maps, whose layers work on (B, C, H, W); it shares the weights of `net`."""
    shared = {id(tensor): tensor for tensor in (*net.parameters(), *net.buffers())}
    net = copy.deepcopy(net, dict(shared))
    for name, module in list(net.named_modules()):
        form = own_form(module, "channels_first")
        if name and form is not None:
            net.set_submodule(name, form())
        elif name and type(module) is LayerNorm2d:
            net.set_submodule(name, ChannelNorm(module))
    return net


def keep_logits_only(net: nn.Module) -> None:
    """Let the network that computes the logits, `net` itself, change its maps where that is faster."""
    rewrite = own_form(net, "for_logits_only")
    if rewrite is not None:
        rewrite()
