"""Muon with the orthogonalisation that a CPU is fast at.

timm's computes in bfloat16, which is fast on a GPU: on a processor without such instructions a step of ResNet-10 takes
ten seconds of a core. Here the matrices are float32, and the iteration is one of small square matrices.
"""

from collections.abc import Callable
from typing import Any

import timm.optim.muon
import torch
from timm.optim.muon import _is_suitable_for_muon, get_lr_scale  # pyright: ignore[reportPrivateUsage]
from torch import Tensor

_Coefficients = list[tuple[float, float, float]]
QUINTIC: _Coefficients = [
    (4.0848, -6.8946, 2.9270),
    (3.9505, -6.3029, 2.6377),
    (3.7418, -5.5913, 2.3037),
    (2.8769, -3.1427, 1.2046),
    (2.8366, -3.0525, 1.2012),
]
"""a, b, c of timm's five steps x -> a x + b x^3 + c x^5 of a singular value, by F. L. Cesista."""
_WIDE = 1.5  # columns a row from which the iteration of the square matrices has fewer multiply-adds


def orthogonalized(matrix: Tensor) -> Tensor:
    """The Newton-Schulz iteration of Muon in float32: all singular values near 1 (Jordan 2024).

    With X scaled to Frobenius norm 1, a step is X <- (a + b G + c G^2) X where G = X X^T. As these factors are
    polynomials of the first G, they commute: a wide X is multiplied once, by their product Q, and G <- P G P.

    Args:
        matrix: (M, N).

    Returns:
        (M, N), float32.
    """
    x = matrix.float()
    if x.shape[0] > x.shape[1]:
        return orthogonalized(x.mT).mT
    x = x / x.norm().clamp_min(1e-7)
    if x.shape[1] < _WIDE * x.shape[0]:
        for a, b, c in QUINTIC:
            gram = x @ x.mT
            x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=b, alpha=c), x, beta=a)
        return x
    gram, product = x @ x.mT, None
    for a, b, c in QUINTIC:
        factor = torch.addmm(gram, gram, gram, beta=b, alpha=c)
        factor.diagonal().add_(a)
        is_last = product is not None and (a, b, c) == QUINTIC[-1]
        product = factor if product is None else factor @ product
        if not is_last:
            gram = factor @ gram @ factor
    assert product is not None
    return product @ x


class Muon(timm.optim.muon.Muon):
    """timm's Muon, whose settings and state it has, with `orthogonalized` for the matrices of a CPU."""

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step: here for the matrices and filters on a CPU, timm's for the rest."""
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        grads = {}
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None and parameter.device.type == "cpu" and _is_suitable_for_muon(parameter):
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
        matrix = orthogonalized(update.flatten(1))
        parameter.mul_(1 - group["lr"] * group["weight_decay"])
        scale = get_lr_scale(matrix.shape, group["adjust_lr_fn"])
        parameter.add_(matrix.view(parameter.shape), alpha=-group["lr"] * scale)
