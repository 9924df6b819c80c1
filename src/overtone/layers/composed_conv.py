"""A convolution by a kernel composed from a filter bank, which does not keep that kernel for the backward pass."""

import contextlib
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor


class KernelForm(NamedTuple):
    """The type and the memory format in which a convolution wants its kernel."""

    dtype: torch.dtype
    channels_last: bool


class Geometry(NamedTuple):
    """How a convolution moves: the arguments of `torch.nn.functional.conv2d` after the bias."""

    stride: int
    padding: int
    dilation: int
    groups: int


def autocasts(device_type: str) -> bool:
    """Whether autocast is on for a type of device; the meta device has none."""
    return device_type != "meta" and torch.is_autocast_enabled(device_type)


def without_autocast(x: Tensor) -> contextlib.AbstractContextManager[Any]:
    """Autocast off for the device of x; nothing at all where it is off already."""
    if autocasts(x.device.type):
        return torch.autocast(x.device.type, enabled=False)
    return contextlib.nullcontext()


def compose_kernel(weight: Tensor, bank: Tensor, form: KernelForm) -> Tensor:
    """K[o, c] = sum_f weight[o, c, f] * bank[f], summed in the type of the bank and rounded once.

    Args:
        weight: (out, in / groups, F).
        bank: (F, k, k).
        form: what the kernel shall be.

    Returns:
        The kernel, (out, in / groups, k, k).
    """
    size = tuple(bank.shape[1:])
    with without_autocast(weight):
        weight = weight.to(bank.dtype)
        if form.channels_last:  # (out, k * k, in) in memory, without a copy
            kernel = torch.matmul(bank.flatten(1).T, weight.transpose(1, 2)).unflatten(1, size).permute(0, 3, 1, 2)
        else:
            kernel = _rows_times(weight, bank.flatten(1)).unflatten(2, size)
        return kernel.to(form.dtype)


def _weight_grad(kernel_grad: Tensor, bank: Tensor, form: KernelForm) -> Tensor:
    """The transpose of `compose_kernel`: (out, in / groups, F) from (out, in / groups, k, k)."""
    with without_autocast(kernel_grad):
        kernel_grad = kernel_grad.to(bank.dtype)
        if form.channels_last:
            by_tap = kernel_grad.permute(0, 2, 3, 1).flatten(1, 2)  # (out, k * k, in)
            return torch.matmul(bank.flatten(1), by_tap).transpose(1, 2).contiguous()
        return _rows_times(kernel_grad.flatten(2), bank.flatten(1).T)


def _rows_times(rows: Tensor, matrix: Tensor) -> Tensor:
    """Rows (A, B, M) times a small matrix (M, N).

    On the CPU two rows go at a time, through the matrix twice on a diagonal: a product only nine wide leaves most of a
    vector register empty, and takes 2.5 times as long.
    """
    if rows.is_cpu and rows.shape[1] % 2 == 0 and matrix.shape[1] < 16 and not torch.compiler.is_compiling():
        return torch.matmul(rows.unflatten(1, (-1, 2)).flatten(2), torch.block_diag(matrix, matrix)).view(
            *rows.shape[:2], matrix.shape[1]
        )
    return torch.matmul(rows, matrix)


class ComposedConv2d(torch.autograd.Function):
    """conv2d(x, compose_kernel(weight, bank), bias); the backward pass composes the kernel anew.

    What is kept is the input and the weight, as for an ordinary convolution: autograd alone would also keep the kernel,
    which is as large as the weight. Twice differentiable, and usable under `torch.func`.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor, weight: Tensor, bias: Tensor | None, bank: Tensor, form: KernelForm, geometry: Geometry
    ) -> Tensor:
        """Shapes as in `compose_kernel`; x (B, in, H, W) and bias (out,) are of the type of `form`."""
        return F.conv2d(x, compose_kernel(weight, bank, form), bias, *geometry)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        """Keep what the backward pass needs."""
        x, weight, bias, bank, ctx.form, ctx.geometry = inputs
        ctx.bias_sizes = None if bias is None else list(bias.shape)
        ctx.save_for_backward(x, weight, bank)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        """Gradients of x, weight and bias."""
        x, weight, bank = ctx.saved_tensors
        stride, padding, dilation, groups = ctx.geometry
        wanted = [bool(needed) for needed in ctx.needs_input_grad[:3]]
        x_grad, kernel_grad, bias_grad = torch.ops.aten.convolution_backward(
            grads[0],
            x,
            compose_kernel(weight, bank, ctx.form),
            ctx.bias_sizes,
            [stride, stride],
            [padding, padding],
            [dilation, dilation],
            False,
            [0, 0],
            groups,
            wanted,
        )
        weight_grad = _weight_grad(kernel_grad, bank, ctx.form).to(weight.dtype) if wanted[1] else None
        return x_grad, weight_grad, bias_grad, None, None, None
