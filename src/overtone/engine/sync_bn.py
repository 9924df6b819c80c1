"""Batch norm whose statistics are taken over the images of all processes, also where PyTorch's own is not: on the CPU.

The statistics of the processes are joined by the parallel formula of Chan et al. 1979 (mean and variance of a union
from those of its parts), so that a large mean costs no precision. One process alone computes in the same way: PyTorch's
own sums on the CPU lose digits (gradients that are wrong in the second place have been seen), which no number of
processes could agree with.
"""

from typing import Any

import torch
import torch.distributed as dist
import torch.nn.functional as F
from timm.layers import BatchNormAct2d, convert_sync_batchnorm  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn


def synchronise_batch_norm(network: nn.Module, device: torch.device) -> nn.Module:
    """Let every batch norm of a network take its statistics over all processes; the state dict stays as it is.

    Args:
        network: on its device; changed in place on the CPU.
        device: where it is.

    Returns:
        The network to use from now on.
    """
    if device.type == "cuda":
        return convert_sync_batchnorm(network)
    for module in network.modules():
        kind = _SYNCED.get(type(module))
        if kind is not None:
            module.__class__ = kind
    return network


class _NormOverProcesses(torch.autograd.Function):
    """y = (x - mean) / sqrt(var + eps) * weight + bias, mean and biased variance over all processes' images."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor, eps: float) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        dims = [dim for dim in range(x.ndim) if dim != 1]
        count = x.numel() // x.shape[1]
        precise = x if x.dtype == torch.float64 else x.float()
        if count:
            var, mean = (part.double() for part in torch.var_mean(precise, dims, correction=0))
        else:
            var = mean = x.new_zeros(x.shape[1], dtype=torch.float64)
        own = torch.cat([mean.new_full((1,), count), mean, var])
        parts = _of_all_processes(own)  # (processes, 1 + 2 C)
        counts, (means, variances) = parts[:, :1], parts[:, 1:].chunk(2, dim=1)
        total = counts.sum()
        mean = (counts * means).sum(0) / total
        var = (counts * (variances + (means - mean).square())).sum(0) / total
        inverse_std = (var + eps).rsqrt().to(precise.dtype)
        mean, var, total = mean.to(precise.dtype), var.to(precise.dtype), total.to(precise.dtype)
        ctx.save_for_backward(x, weight, mean, inverse_std, total)
        ctx.mark_non_differentiable(mean, var, total)
        return F.batch_norm(x, mean, var, weight, bias, training=False, eps=eps), mean, var, total

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor, Tensor, Tensor, None]:
        x, weight, mean, inverse_std, total = ctx.saved_tensors
        grad, dims = grads[0], [dim for dim in range(x.ndim) if dim != 1]
        shape = [1, -1] + [1] * (x.ndim - 2)
        centred = x - mean.view(shape)
        sums = torch.stack([grad.sum(dims), (grad * centred).sum(dims)])  # (2, C)
        grad_weight, grad_bias = sums[1] * inverse_std, sums[0].clone()
        if dist.is_initialized():
            dist.all_reduce(sums)
        mean_grad, mean_product = (sums / total).unbind()
        grad_x = grad - mean_grad.view(shape) - centred * (mean_product * inverse_std.square()).view(shape)
        return grad_x * (weight * inverse_std).view(shape), grad_weight, grad_bias, None


def _of_all_processes(own: Tensor) -> Tensor:
    if not dist.is_initialized():
        return own[None]
    gathered = [torch.empty_like(own) for _ in range(dist.get_world_size())]
    dist.all_gather(gathered, own)
    return torch.stack(gathered)


class _Synced(nn.BatchNorm2d):
    """What the synchronised classes share; in eval mode they are batch norms like any other."""

    def _normalised(self, x: Tensor) -> Tensor:
        weight = torch.ones(x.shape[1]) if self.weight is None else self.weight
        bias = torch.zeros(x.shape[1]) if self.bias is None else self.bias
        y, mean, var, total = _NormOverProcesses.apply(x, weight, bias, self.eps)  # type: ignore[misc]
        if self.track_running_stats and self.running_mean is not None and self.running_var is not None:
            assert self.num_batches_tracked is not None
            self.num_batches_tracked.add_(1)
            share = 1 / float(self.num_batches_tracked) if self.momentum is None else self.momentum
            with torch.no_grad():
                self.running_mean.lerp_(mean, share)
                self.running_var.lerp_(var * (total / (total - 1)), share)
        return y


class SyncedBatchNorm2d(_Synced):
    """`nn.BatchNorm2d` over the images of all processes."""

    def forward(self, input: Tensor) -> Tensor:
        """(B, C, H, W) -> the same; B may be 0 on some processes."""
        return self._normalised(input) if self.training else super().forward(input)


class SyncedBatchNormAct2d(_Synced, BatchNormAct2d):
    """timm's batch norm with its activation, over the images of all processes."""

    def forward(self, x: Tensor) -> Tensor:  # pyright: ignore[reportIncompatibleMethodOverride]
        """(B, C, H, W) -> the same; B may be 0 on some processes."""
        if not self.training:
            return BatchNormAct2d.forward(self, x)
        return self.act(self.drop(self._normalised(x)))  # pyright: ignore[reportCallIssue]


_SYNCED: dict[type, type] = {nn.BatchNorm2d: SyncedBatchNorm2d, BatchNormAct2d: SyncedBatchNormAct2d}
