"""How authors counted, where they did not count convolutions and linears alone.

A published figure that our count does not give may still be right under another rule. Each rule here is computed, and
accepted only if it gives every figure of its system's table (see `figures`); `System.counting` names it.
"""

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from overtone.layers.gnconv import GlobalLocalFilter

_OPERATIONS_OF_A_NORMALISED_VALUE = 5  # fvcore's rule for an affine layer norm


def batch_norm_weights(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Count each weight of a batch norm once: torchsummaryX adds the size of every weight but a convolution's."""
    norms = (module for module in model.modules() if isinstance(module, nn.BatchNorm2d))
    return sum(norm.weight.numel() for norm in norms if norm.affine)


def norms_and_transforms(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Count layer norms as fvcore does, and the Fourier transforms of the global filters as GFNet's authors do.

    fvcore sees the layer norms that are PyTorch's own in the published code, which are those before the MLPs and before
    the classifier. A transform of N points and C channels counts N * C * ceil(log2(N)), there and back; the published
    formula reads the axes as (batch, height, width, channels), and the maps of HorNet are (batch, C, H, W), so that
    the logarithm is that of C * H.
    """
    total = 0

    def norm(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        total += _OPERATIONS_OF_A_NORMALISED_VALUE * output.numel()

    def transforms(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        nonlocal total
        _, height, width, channels = inputs[0].shape
        rows = channels // 2 * height
        total += rows * (width + width // 2 + 1) * math.ceil(math.log2(rows))

    hooks: list[Any] = []
    for name, module in model.named_modules():
        if isinstance(module, nn.LayerNorm) and (name == "norm" or name.endswith(".norm2")):
            hooks.append(module.register_forward_hook(norm))
        elif isinstance(module, GlobalLocalFilter):
            hooks.append(module.register_forward_hook(transforms))
    try:
        with torch.no_grad():
            model.eval()(torch.empty(1, *input_size, device="meta"))
    finally:
        for hook in hooks:
            hook.remove()
    return total


RULES: Mapping[str, Callable[[nn.Module, tuple[int, int, int]], int]] = {
    rule.__name__: rule for rule in (batch_norm_weights, norms_and_transforms)
}
"""By the name in `Counting.rule`: the count to add for one image, from a network on the meta device and (C, H, W)."""
