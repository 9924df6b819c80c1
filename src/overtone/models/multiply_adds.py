"""Multiply-adds of convolutions and linears, as the papers count them (they call them FLOPs)."""

import copy
from typing import Any

import torch
from torch import Tensor, nn

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)


def count_multiply_adds(model: nn.Module, input_size: tuple[int, int, int]) -> int:
    """Multiply-adds of one image through the convolutions and linears of `model`.

    Bias, normalisation, pooling, upsampling, Fourier transforms and composing a kernel count nothing. A module with a
    method `multiply_adds(inputs, output)` answers for itself and its children: a convolution may count in its
    published form.

    Args:
        model: any network that takes (B, C, H, W); it is left as it is, and may lie on the meta device.
        input_size: (C, H, W).

    Returns:
        The count, an integer. No arithmetic is done: the shapes are followed on the meta device.
    """
    probe = copy.deepcopy(model).to("meta").eval()
    total = 0

    def add(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        nonlocal total
        total += _multiply_adds_of(module, inputs, output)

    hooks = [module.register_forward_hook(add) for module in _counted(probe)]
    with torch.no_grad():
        probe(torch.empty(1, *input_size, device="meta", dtype=_dtype_of(probe)))
    for hook in hooks:
        hook.remove()
    return total


def _counted(module: nn.Module) -> list[nn.Module]:
    """The modules that are counted; the children of one that answers for itself are left out."""
    if hasattr(module, "multiply_adds") or isinstance(module, (nn.Linear, *_CONVOLUTIONS)):
        return [module]
    return [found for child in module.children() for found in _counted(child)]


def _multiply_adds_of(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> int:
    own_count = getattr(module, "multiply_adds", None)
    if own_count is not None:
        return own_count(inputs, output)
    assert isinstance(output, Tensor)
    if isinstance(module, nn.Linear):
        return output.numel() * module.in_features
    assert isinstance(module, _CONVOLUTIONS)
    return output.numel() * module.weight[0].numel()


def _dtype_of(model: nn.Module) -> torch.dtype:
    return next((p.dtype for p in model.parameters()), torch.float32)
