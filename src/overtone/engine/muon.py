"""Muon in blocks of rows, with the orthogonalisation that a CPU is fast at.

timm's Muon computes in bfloat16, which is fast on a GPU. On a processor without bfloat16 products, a step of ResNet-10
takes ten seconds of a core. Here a CPU computes in float32, and iterates on small square matrices. On every device a
matrix of many rows is orthogonalised in blocks of them (Khaled et al. 2025, arXiv:2510.16981).
"""

from collections.abc import Callable
from typing import Any

import timm.optim.muon
import torch
from timm.optim.muon import (
    _COEFFICIENTS,  # pyright: ignore[reportPrivateUsage]
    _is_suitable_for_muon,  # pyright: ignore[reportPrivateUsage]
    get_lr_scale,
    zeropower_via_newtonschulz,
)
from torch import Tensor

QUINTIC: list[tuple[float, float, float]] = _COEFFICIENTS["quintic"]
"""a, b, c of timm's steps x -> a x + b x^3 + c x^5 of a singular value."""
_ROWS = 128  # of a block at most: measured to train as well, in a fraction of the time (docs/recipes.md)
_WIDE = 1.5  # columns a row from which iterating on the square matrices takes fewer multiply-adds


def orthogonalized(matrices: Tensor) -> Tensor:
    """The Newton-Schulz iteration of Muon in float32: all singular values near 1 (Jordan 2024).

    With X scaled to Frobenius norm 1, a step is X <- (a + b G + c G^2) X where G = X X^T. As these factors are
    polynomials of the first G, they commute: a wide X is multiplied once, by their product Q, and G <- P G P.

    Args:
        matrices: (..., M, N).

    Returns:
        (..., M, N), float32.
    """
    x = matrices.float()
    if x.shape[-2] > x.shape[-1]:
        return orthogonalized(x.mT).mT
    gram = x @ x.mT
    squares = gram.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None].clamp_min(1e-14)
    gram, scale = gram / squares, squares.rsqrt()
    if x.shape[-1] < _WIDE * x.shape[-2]:
        x = x * scale
        for step, (a, b, c) in enumerate(QUINTIC):
            gram = x @ x.mT if step else gram
            x = a * x + (b * gram + c * gram @ gram) @ x
        return x
    product = None
    for step, (a, b, c) in enumerate(QUINTIC, 1):
        factor = b * gram + c * gram @ gram
        factor.diagonal(dim1=-2, dim2=-1).add_(a)
        product = scale * factor if product is None else factor @ product
        if step < len(QUINTIC):
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x


class Muon(timm.optim.muon.Muon):
    """timm's Muon, with its settings and state; tall matrices are blocks, and a CPU's iteration is `orthogonalized`."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step: here for matrices and filters, in timm's for the rest."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and _is_suitable_for_muon(parameter):
                    grads[parameter] = parameter.grad
                    self._take(parameter, group)
                    parameter.grad = None  # timm's step leaves it out
        super().step()
        for parameter, grad in grads.items():
            parameter.grad = grad
        return loss

    def _take(self, parameter: Tensor, group: dict[str, Any]) -> None:
        """A step of a matrix or filter, which is a matrix of a row per output channel."""
        state, grad, momentum = self.state[parameter], parameter.grad, group["momentum"]
        assert grad is not None
        if "momentum_buffer" not in state:
            state["use_muon"] = True
            state["momentum_buffer"] = torch.zeros_like(parameter, memory_format=torch.preserve_format)
        average = state["momentum_buffer"].lerp_(grad, 1 - momentum)
        update = grad.lerp(average, momentum) if group["nesterov"] else average
        rows = update.movedim(1, -1).flatten(1)  # any order of columns: this one is a view in channels_last
        blocks = rows.unflatten(0, (_blocks(len(rows)), -1))
        on_cpu = blocks.device.type == "cpu"
        blocks = orthogonalized(blocks) if on_cpu else zeropower_via_newtonschulz(blocks, len(QUINTIC), QUINTIC)
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = get_lr_scale(blocks.shape, group["adjust_lr_fn"])
        step = blocks.reshape(update.movedim(1, -1).shape).movedim(-1, 1)
        parameter.add_(step, alpha=-group["lr"] * scale)


def _blocks(rows: int) -> int:
    """Equal blocks of at most `_ROWS` rows; 1 where there are none."""
    return next((count for count in range(1, rows // 2 + 1) if rows % count == 0 and rows // count <= _ROWS), 1)
