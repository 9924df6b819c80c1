"""Linear layers through oneDNN, where PyTorch's own library (MKL) leaves vector units unused: AMD's AVX-512.

MKL runs AVX2 code on AMD. A processor that adds 512 bits at once (Zen 5) then works at half of its rate; one that takes
two steps for them (Zen 4) loses a tenth to a sixth, which `benchmarks/onednn_linear.py` measures. The product is the
same up to rounding, and so are its gradients, which are two such products.

The library is chosen by the processor, never by a measurement: a run that resumes must repeat its numbers bit by bit.
`OVERTONE_ONEDNN_LINEAR` set to 0 or 1 overrides the choice. Everything that records operations (`torch.export`,
`torch.compile`, `torch.jit.trace`, `torch.func`), and every other processor, device and type gets `F.linear`.
"""

import functools
import os
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn import functional as F

VARIABLE = "OVERTONE_ONEDNN_LINEAR"
_is_transformed = _functorch.is_functorch_wrapped_tensor  # by torch.func
_CPUINFO = Path("/proc/cpuinfo")  # Linux; elsewhere nothing changes
_PLAIN = (Tensor, nn.Parameter)  # not the tensors of tracers
# the smallest product that repays ten microseconds of preparation, and laying the weights out for oneDNN at every call
_ROWS, _MULTIPLY_ADDS = 32, 2**23


class OneDnnLinear(nn.Linear):
    """`nn.Linear` through `linear`; the same parameters.

    Attributes:
        gelu: Whether a GELU follows within the layer.
    """

    gelu = False

    def forward(self, input: Tensor) -> Tensor:
        """(..., in) to (..., out)."""
        return linear(input, self.weight, self.bias, self.gelu)


def linear(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """`F.linear` by the faster library: x W^T + b.

    Args:
        x: (..., in).
        weight: (out, in).
        bias: (out,).
        gelu: Apply the exact GELU too; where no gradient is wanted oneDNN does so within the product.

    Returns:
        (..., out).
    """
    if _is_recorded() or not (is_chosen() and _applies(x, weight)):
        y = F.linear(x, weight, bias)
    elif torch.is_grad_enabled() and (x.requires_grad or weight.requires_grad):
        y = _Linear.apply(x, weight, bias)
    else:
        return _product(x, weight, bias, gelu)
    return F.gelu(y) if gelu else y  # pyright: ignore[reportArgumentType, reportReturnType]


def is_chosen() -> bool:
    """Whether linear layers go through oneDNN on this processor."""
    wanted = os.environ.get(VARIABLE)
    return _is_available() if wanted == "1" else wanted != "0" and _is_faster()


@functools.cache
def _is_available() -> bool:
    return torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


@functools.cache
def _is_faster() -> bool:
    """An AMD processor with AVX-512, for which PyTorch has its kernels too."""
    if not _CPUINFO.is_file() or torch.backends.cpu.get_cpu_capability() != "AVX512":
        return False
    return _is_available() and "AuthenticAMD" in _CPUINFO.read_text(encoding="utf-8", errors="replace")


def _is_recorded() -> bool:
    return torch.compiler.is_compiling() or torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]


def _applies(x: Tensor, weight: Tensor) -> bool:
    return (
        type(x) in _PLAIN
        and type(weight) in _PLAIN
        and x.device.type == weight.device.type == "cpu"
        and x.dtype == weight.dtype == torch.float32
        and x.numel() >= _ROWS * x.shape[-1]
        and x.numel() * len(weight) >= _MULTIPLY_ADDS
        and not torch.is_autocast_enabled("cpu")
        and not any(map(_is_transformed, (x, weight)))
    )


def _product(x: Tensor, weight: Tensor, bias: Tensor | None = None, gelu: bool = False) -> Tensor:
    """The product x W^T + b by oneDNN; the operation that PyTorch's own compiler takes for linears."""
    kind = ("gelu", [], "none") if gelu else ("none", [], None)  # what follows, its numbers, its approximation
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, *kind)


class _Linear(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.has_bias = bias is not None
        return _product(x, weight, bias)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        (grad,), (x, weight) = grads, ctx.saved_tensors
        rows, inputs = grad.flatten(0, -2), x.flatten(0, -2)
        grad_x = grad_weight = None
        # a gradient of the gradient is asked for with grad enabled: then of PyTorch's operations, which have one
        differentiable = torch.is_grad_enabled()
        if ctx.needs_input_grad[0]:
            grad_x = grad @ weight if differentiable else _product(grad, weight.t().contiguous())
        if ctx.needs_input_grad[1]:
            grad_weight = rows.t() @ inputs if differentiable else _weight_gradient(rows, inputs)
        grad_bias = rows.sum(0) if ctx.has_bias and ctx.needs_input_grad[2] else None
        return grad_x, grad_weight, grad_bias


def _weight_gradient(grad: Tensor, x: Tensor) -> Tensor:
    """(N, out) and (N, in) to (out, in). oneDNN wants its left factor's rows dense: the narrower one is transposed."""
    if grad.shape[1] <= x.shape[1]:
        return _product(grad.t().contiguous(), x.t())
    return _product(x.t().contiguous(), grad.t()).t().contiguous()
