"""Training an inverted bottleneck on the CPU: expand, filter depthwise, project, a few images at a time in the cache.

Layer by layer wide maps go to memory and back about forty times in a step. Here they do so a quarter as often, by two
exact rewrites:

- The statistics of y = W x follow from those of the narrow x: mean(y) = W mean(x), var(y) = diag(W cov(x) W^T). So the
  first batch norm is folded into its convolution before that runs; its gradient reaches x through the covariance.
- What lies between two statistics is computed for a few images before the next few begin. The second batch norm's
  statistics and the sums of its gradient are those of all images, joined by Chan's formula (Chan, Golub and LeVeque
  1979) and by addition. Its normalised map is computed anew in the backward pass.

What is kept is one wide map per side of the depthwise convolution, where PyTorch's layers keep two.
"""

from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch._C import _functorch  # pyright: ignore[reportAttributeAccessIssue]
from torch.nn import functional as F
from torch.nn.modules.module import _has_any_global_hook

from overtone.layers.map_gradients import differentiates_on_cpu

_LENGTH = 7  # layers: convolution, norm, activation, twice, and the projecting convolution
_LEAST_BYTES = 16 << 20  # of the widest map: smaller ones stay in the cache layer by layer
_CHUNK_BYTES = 5 << 18  # of a wide map, computed together; at least an image where a filter looks at neighbours
_GRAM_ROWS = 1 << 14  # products of float32 that are summed before float64 takes over
_LEAST_EXPANSION, _MOST_INPUTS = 3, 48  # beyond either the products take longer in parts than whole
_FAST = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


def run_bottleneck(sequence: nn.Sequential, x: Tensor) -> Tensor:
    """What a sequence makes of a map; fused up to its last norm where it is a bottleneck and that pays.

    Args:
        sequence: a bottleneck is a 1x1 convolution, a depthwise one and a 1x1 one, each with a norm, the first two with
            ReLU6.
        x: (B, C, H, W).
    """
    if not sequence.training or not differentiates_on_cpu(x) or len(sequence) != _LENGTH + 1:
        return sequence(x)
    layers: list[Any] = list(sequence)
    fused, last = layers[:-1], layers[-1]
    if not _is_hooked([sequence]) and _is_plain_bottleneck(fused) and _pays(fused, x):
        expand, norm1, _, depthwise, norm2, _, project = fused
        weights = (expand.weight, norm1.weight, norm1.bias, depthwise.weight, norm2.weight, norm2.bias, project.weight)
        if all(type(t) in (Tensor, nn.Parameter) and t.dtype == x.dtype for t in (x, *weights)):
            norms = tuple(_Norm(n.running_mean, n.running_var, n.momentum, n.eps) for n in (norm1, norm2))
            for norm in (norm1, norm2):
                norm.num_batches_tracked.add_(1)
            return last(_Bottleneck.apply(x, *weights, norms, depthwise.stride[0]))
    return sequence(x)


def _is_hooked(modules: list[Any]) -> bool:
    kinds = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")
    return bool(_has_any_global_hook()) or any(getattr(module, kind) for module in modules for kind in kinds)


def _is_plain_bottleneck(layers: list[Any]) -> bool:
    """Whether these are the layers that the fused computation stands for, and nothing looks at what is between."""
    expand, norm1, act1, depthwise, norm2, act2, project = layers
    points = all(
        type(conv) is nn.Conv2d and (conv.kernel_size, conv.stride, conv.groups, conv.bias) == ((1, 1), (1, 1), 1, None)
        for conv in (expand, project)
    )
    return (
        points
        and isinstance(depthwise, nn.Conv2d)
        and depthwise.groups == depthwise.in_channels == depthwise.out_channels
        and (depthwise.kernel_size, depthwise.dilation, depthwise.padding) == ((3, 3), (1, 1), (1, 1))
        and depthwise.bias is None
        and all(type(norm) is nn.BatchNorm2d and norm.training and norm.affine for norm in (norm1, norm2))
        and all(norm.running_mean is not None and norm.momentum is not None for norm in (norm1, norm2))
        and all(isinstance(act, nn.ReLU6) for act in (act1, act2))
        and not _is_hooked(layers)
    )


def _pays(layers: list[Any], x: Tensor) -> bool:
    """Whether maps are large enough, and nothing records or transforms the operations."""
    in_chs, hidden_chs = layers[0].in_channels, layers[0].out_channels
    return (
        x.dtype in (torch.float32, torch.float64)
        and in_chs <= _MOST_INPUTS
        and hidden_chs >= _LEAST_EXPANSION * in_chs
        and x.numel() // in_chs * hidden_chs * x.element_size() >= _LEAST_BYTES
        and x.is_contiguous(memory_format=torch.channels_last)
        and not torch.is_autocast_enabled("cpu")
        and not torch._C._len_torch_dispatch_stack()  # pyright: ignore[reportAttributeAccessIssue]
        and _functorch.maybe_current_level() is None
    )


class _Norm(NamedTuple):
    """Of a batch norm: its running statistics, how fast they run, and what is added to the variance."""

    running_mean: Tensor
    running_var: Tensor
    momentum: float
    eps: float

    def update(self, mean: Tensor, var: Tensor, count: int) -> None:
        self.running_mean.mul_(1 - self.momentum).add_(mean.to(self.running_mean), alpha=self.momentum)
        unbiased = var * (count / max(count - 1, 1))
        self.running_var.mul_(1 - self.momentum).add_(unbiased.to(self.running_var), alpha=self.momentum)


def _rows(maps: Tensor) -> Tensor:
    """(B, C, H, W), channels_last, as (B * H * W, C)."""
    return maps.permute(0, 2, 3, 1).reshape(-1, maps.shape[1])


def _maps(rows: Tensor, height: int, width: int) -> Tensor:
    """(B * H * W, C) as (B, C, H, W), channels_last."""
    return rows.view(-1, height, width, rows.shape[1]).permute(0, 3, 1, 2)


def _product(rows: Tensor, weight: Tensor) -> Tensor:
    """Rows x W^T. On such narrow matrices oneDNN takes two thirds of MKL's time."""
    if _FAST and rows.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(rows, weight, None, "none", [], "")
    return F.linear(rows, weight)


def _clamped_product(rows: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """Rows x W^T + b between 0 and 6, in one pass."""
    if _FAST and rows.dtype == torch.float32:
        return torch.ops.mkldnn._linear_pointwise(rows, weight, bias, "hardtanh", [0.0, 6.0], "")
    return F.linear(rows, weight, bias).clamp_(0, 6)


def _covariance(rows: Tensor) -> tuple[Tensor, Tensor]:
    """Mean (C,) and covariance (C, C) of (N, C), in float64; centred before the products, which would cancel."""
    mean = rows.mean(0)
    gram = rows.new_zeros(rows.shape[1], rows.shape[1], dtype=torch.float64)
    shift = rows.new_zeros(rows.shape[1], dtype=torch.float64)
    for part in rows.split(_GRAM_ROWS):
        centred = part - mean
        gram += centred.t() @ centred
        shift += centred.sum(0)
    shift /= len(rows)  # what rounding left of the mean
    return mean.double() + shift, gram / len(rows) - torch.outer(shift, shift)


class _Fold(NamedTuple):
    """A 1x1 convolution with the batch norm behind it, in float64."""

    mean: Tensor  # of the input (in,)
    cov: Tensor  # of the input (in, in)
    rate: Tensor  # 1 / sqrt(var + eps) of the output (out,)
    weight: Tensor  # (out, in)
    bias: Tensor  # (out,)


def _folded(x: Tensor, weight: Tensor, scale: Tensor, shift: Tensor, norm: _Norm) -> _Fold:
    rows, weight, scale = _rows(x), weight.flatten(1).double(), scale.double()
    mean, cov = _covariance(rows)
    output_mean, output_var = weight @ mean, ((weight @ cov) * weight).sum(1).clamp_min_(0)
    norm.update(output_mean, output_var, len(rows))
    rate = torch.rsqrt(output_var + norm.eps)
    factor = scale * rate
    return _Fold(mean, cov, rate, factor[:, None] * weight, shift - factor * output_mean)


def _unfolded(fold: _Fold, weight: Tensor, scale: Tensor, grad_weight: Tensor, grad_bias: Tensor, count: int) -> Any:
    """Gradients of weight, scale, and the two terms (C, C) and (C,) of the input's: M x + v."""
    weight, scale = weight.flatten(1).double(), scale.double()
    factor = scale * fold.rate
    grad_factor = (grad_weight * weight).sum(1) - (weight @ fold.mean) * grad_bias
    grad_var = -0.5 * grad_factor * scale * fold.rate**3
    grad_mean = -factor * grad_bias
    plain = factor[:, None] * grad_weight + torch.outer(grad_mean, fold.mean)
    grad = plain + 2 * grad_var[:, None] * (weight @ fold.cov)
    matrix = weight.t() @ (grad_var[:, None] * weight) * (2 / count)
    return grad, grad_factor * fold.rate, matrix, weight.t() @ grad_mean / count - matrix @ fold.mean


class _Bottleneck(torch.autograd.Function):
    """(x, weights and norms) to what the projecting convolution gives, (B, out, ceil(H / stride), ceil(W / stride))."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, *arguments: Any) -> Tensor:
        expand, scale1, shift1, depthwise, scale2, shift2, project, norms, stride = arguments
        fold = _folded(x, expand, scale1, shift1, norms[0])
        batch, hidden, (height, width) = len(x), len(expand), x.shape[2:]
        out_height, out_width = -(-height // stride), -(-width // stride)
        images = max(1, _CHUNK_BYTES // (hidden * height * width * x.element_size()))
        count, out_count = images * height * width, images * out_height * out_width
        first = x.new_empty(batch * height * width, hidden)
        second = x.new_empty(batch * out_height * out_width, hidden)
        weight, bias, statistics = fold.weight.to(x.dtype), fold.bias.to(x.dtype), []
        for rows, kept, out_kept in zip(
            _rows(x).split(count), first.split(count), second.split(out_count), strict=True
        ):
            # Computed where the cache is warm, then copied: depthwise kernels take three times as long elsewhere.
            wide = _clamped_product(rows, weight, bias)
            kept.copy_(wide)
            filtered = F.conv2d(_maps(wide, height, width), depthwise, None, stride, 1, 1, hidden)
            statistics.append((len(rows), *torch.batch_norm_update_stats(filtered, None, None, 0.0)))
            out_kept.copy_(_rows(filtered))
            del wide, filtered
        mean, var = _joined(statistics)
        norms[1].update(mean, var, len(second))
        rate = torch.rsqrt(var + norms[1].eps)
        factor = scale2 * rate
        normalise = [t.to(x.dtype) for t in (shift2 - factor * mean, factor, mean, rate)]
        tiles = second.split(_tile_rows(second))
        narrow = [_product(_activated(rows, *normalise[:2]), project.flatten(1)) for rows in tiles]
        ctx.stride, ctx.images, ctx.eps = stride, images, [norm.eps for norm in norms]
        ctx.save_for_backward(x, *arguments[:7], *fold, *normalise, first, second)
        return _maps(torch.cat(narrow), out_height, out_width)

    @staticmethod
    def backward(ctx: Any, *grads: Any) -> tuple[Tensor | None, ...]:
        x, *saved = ctx.saved_tensors
        weights, fold, normalise, first, second = saved[:7], _Fold(*saved[7:12]), saved[12:16], *saved[16:]
        if torch.is_grad_enabled():  # a gradient of the gradient is asked for
            return *_plain_gradients(ctx, grads[0], x, weights), None, None
        expand, scale1, _, depthwise, scale2, _, project = weights
        grad = grads[0].contiguous(memory_format=torch.channels_last)
        sums, inner = _through_projection(_rows(grad), second, project, scale2, normalise, ctx)
        factor, rate, mean = normalise[1], normalise[3], normalise[2]
        slope = -factor * rate * sums.scale / len(second)
        constants = factor, slope, -factor * sums.shift / len(second) - slope * mean
        size, out_size = x.shape[2:], grad.shape[2:]
        parts = _through_depthwise(inner, second, first, _rows(x), depthwise, constants, fold, (size, out_size), ctx)
        grad_expand, grad_scale1, matrix, constant = _unfolded(
            fold, expand, scale1, parts.weight.double().t(), parts.bias.double(), len(first)
        )
        grad_x = None
        if ctx.needs_input_grad[0]:
            rows = torch.addmm(parts.x.add_(constant.to(x.dtype)), _rows(x), matrix.to(x.dtype), out=parts.x)
            grad_x = _maps(rows, *size)
        found = (
            torch.empty_like(expand).copy_(grad_expand.view_as(expand)),  # DDP wants the strides of the weight
            grad_scale1.to(x.dtype),
            parts.bias,
            parts.depthwise,
            sums.scale,
            sums.shift,
            torch.empty_like(project).copy_(sums.project.view_as(project)),
        )
        return grad_x, *found, None, None


def _joined(statistics: list[tuple[int, Tensor, Tensor]]) -> tuple[Tensor, Tensor]:
    """Mean and biased variance of all from counts, means and variances of parts (Chan's formula), in float64."""
    counts, means, variances = zip(*statistics, strict=True)
    shares = torch.tensor(counts, dtype=torch.float64)[:, None] / sum(counts)
    means, variances = torch.stack(means).double(), torch.stack(variances).double()
    mean = (shares * means).sum(0)
    return mean, (shares * (variances + (means - mean).square())).sum(0)


def _tile_rows(wide: Tensor) -> int:
    return max(1, _CHUNK_BYTES // (wide.shape[1] * wide.element_size()))


def _activated(rows: Tensor, shift: Tensor, factor: Tensor) -> Tensor:
    return torch.addcmul(shift, rows, factor).clamp_(0, 6)


class _ProjectionSums(NamedTuple):
    project: Tensor  # gradient (out, hidden)
    scale: Tensor  # gradient of the second norm's weight (hidden,)
    shift: Tensor  # and of its bias


def _through_projection(
    grad: Tensor, second: Tensor, project: Tensor, scale: Tensor, normalise: list[Tensor], ctx: Any
) -> tuple[_ProjectionSums, Tensor]:
    """Back to before the second activation: the sums over all pixels, and the gradient (N, hidden) there."""
    shift, factor, mean, rate = normalise
    transposed = project.flatten(1).t().contiguous()
    inner, grad_project = torch.empty_like(second), grad.new_zeros(grad.shape[1], second.shape[1])
    grad_scale, grad_shift = torch.zeros_like(scale), torch.zeros_like(scale)
    count = _tile_rows(second)
    for rows, kept, out in zip(grad.split(count), second.split(count), inner.split(count), strict=True):
        active = _activated(kept, shift, factor)
        wide = _product(rows, transposed)
        grad_project.addmm_(rows.t(), active)
        torch.ops.aten.hardtanh_backward.grad_input(wide, active, 0.0, 6.0, grad_input=out)
        _, for_scale, for_shift = torch.ops.aten.native_batch_norm_backward(
            out[:, :, None, None], kept[:, :, None, None], scale, None, None, mean, rate, True, ctx.eps[1], _ONLY_SUMS
        )
        grad_scale += for_scale
        grad_shift += for_shift
        del active, wide
    return _ProjectionSums(grad_project, grad_scale, grad_shift), inner


_ONLY_SUMS = [False, True, True]


class _DepthwiseSums(NamedTuple):
    x: Tensor  # gradient (N, in) but for what goes through the statistics
    weight: Tensor  # of the folded convolution (in, hidden)
    bias: Tensor  # of the folded convolution (hidden,)
    depthwise: Tensor  # gradient of the filters


def _through_depthwise(
    inner: Tensor, second: Tensor, first: Tensor, x: Tensor, depthwise: Tensor, constants: Any, fold: _Fold, sizes: Any,
    ctx: Any,
) -> _DepthwiseSums:  # fmt: skip
    """Back through the second norm, given its constants, the filters, the first activation and the convolution."""
    factor, slope, constant = constants
    (height, width), (out_height, out_width) = sizes
    hidden, stride = first.shape[1], [ctx.stride, ctx.stride]
    count, out_count = ctx.images * height * width, ctx.images * out_height * out_width
    transposed = fold.weight.to(x.dtype).t().contiguous()
    grad_x, grad_weight = torch.empty_like(x), x.new_zeros(x.shape[1], hidden)
    grad_bias, grad_depthwise = x.new_zeros(hidden), torch.zeros_like(depthwise)
    pieces = (inner.split(out_count), second.split(out_count), first.split(count), x.split(count), grad_x.split(count))
    for masked, filtered, kept, rows, out in zip(*pieces, strict=True):
        grad = torch.addcmul(constant, masked, factor).addcmul_(filtered, slope)
        wide = kept.clone()  # in the cache, for the depthwise kernels
        moved, for_filters, _ = torch.ops.aten.convolution_backward(
            _maps(grad, out_height, out_width), _maps(wide, height, width), depthwise, None, stride, [1, 1], [1, 1],
            False, [0, 0], hidden, [True, True, False],
        )  # fmt: skip
        moved = _rows(moved)
        torch.ops.aten.hardtanh_backward.grad_input(moved, wide, 0.0, 6.0, grad_input=moved)
        grad_depthwise += for_filters
        out.copy_(_product(moved, transposed))
        grad_weight.addmm_(rows.t(), moved)
        grad_bias += moved.sum(0)
        del grad, wide, moved
    return _DepthwiseSums(grad_x, grad_weight, grad_bias, grad_depthwise)


def _plain_gradients(ctx: Any, grad: Tensor, x: Tensor, weights: list[Tensor]) -> tuple[Tensor | None, ...]:
    """The gradients by PyTorch's operations, which have gradients themselves."""
    expand, scale1, shift1, depthwise, scale2, shift2, project = weights
    y = F.batch_norm(F.conv2d(x, expand), None, None, scale1, shift1, True, 0.0, ctx.eps[0])
    y = F.conv2d(F.relu6(y), depthwise, None, ctx.stride, 1, 1, len(depthwise))
    y = F.conv2d(F.relu6(F.batch_norm(y, None, None, scale2, shift2, True, 0.0, ctx.eps[1])), project)
    inputs = [x, *weights]
    wanted = [t for t, needed in zip(inputs, ctx.needs_input_grad, strict=False) if needed]
    found = iter(torch.autograd.grad(y, wanted, grad, create_graph=True))
    return tuple(next(found) if needed else None for needed in ctx.needs_input_grad[: len(inputs)])
