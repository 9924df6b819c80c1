"""The harmonic convolution: a convolution whose kernels are weighted sums of fixed DCT filters.

Ulicny, Krylov and Dahyot, "Harmonic Networks: Integrating Spectral Information into CNNs", BMVC 2019, and "Harmonic
convolutional networks based on discrete cosine transform", arXiv:2001.06570. The published code applies every DCT
filter to every channel and mixes the responses with a 1x1 convolution; here the same linear map is composed into one
k x k kernel first, so that a layer costs what an ordinary convolution costs.
"""

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.layers.composed_conv import (
    ComposedConv2d,
    Geometry,
    KernelForm,
    autocasts,
    compose_kernel,
    without_autocast,
)
from overtone.layers.dct_bank import dct_bank
from overtone.layers.input_channels import spread_channels
from overtone.layers.kernel_cache import KeptKernel, sample_of, stamps_of, still_holds


class HarmConv2d(nn.Module):
    """A harmonic convolution, run as one ordinary convolution.

    Without inner batch norm the kernel is K[o, c] = sum_f weight[o, c, f] * bank[f]. With it (`inner_bn=True`, the
    first layer of the published nets) every DCT response is normalised, without affine parameters, before the responses
    are mixed; the batch statistics do not depend on anything that is learnt, so they are measured without gradient
    and the normalisation is folded into the kernel and the bias. Both are exact, zero padding included.

    In training the kernel is composed once per forward. In eval mode it is kept until a tensor it was made from is
    replaced or written in place, until `train()`, `eval()`, `load_state_dict()` or a conversion (`to()` and the like).
    It is never kept while a gradient may be asked for, nor while tracing or compiling. Writes that go around autograd's
    version counter (`weight.data.mul_(2)`) are noticed on the CPU by comparing a sample of the entries; on other
    devices, where a look would stall the queue, call `eval()` after such a write.

    The weight is held as (out_channels, in_channels / groups, F): a 5-D parameter could not be moved to channels_last.
    `load_state_dict` takes the published shapes too, checks a published `dct` entry against the formula and drops it.

    Args:
        in_channels: channels of the input.
        out_channels: channels of the output.
        kernel_size: k; kernels are square.
        stride: of the convolution.
        padding: zeros added on each side.
        dilation: of the convolution.
        groups: of the convolution.
        bias: whether a bias is learnt.
        level: keep only the DCT filters with i + j < level; None keeps all k * k.
        inner_bn: normalise the DCT responses before they are mixed.
        device: of the parameters.
        dtype: of the parameters.

    Shape:
        input (B, in_channels, H, W), output (B, out_channels, H', W'), as `torch.nn.Conv2d`.

    Raises:
        ValueError: the channels are no multiples of `groups`, or the level is below 1.
    """

    bank: Tensor
    bn: nn.Module | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        stride: int = 1,
        padding: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
        level: int | None = None,
        inner_bn: bool = False,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"{in_channels} and {out_channels} channels do not divide into {groups} groups")
        self.in_channels, self.out_channels, self.kernel_size = in_channels, out_channels, kernel_size
        self.stride, self.padding, self.dilation, self.groups, self.level = stride, padding, dilation, groups, level
        values = dct_bank(kernel_size, level, dtype=torch.float64, device="cpu")
        self.num_filters = values.shape[0]
        self.weight = nn.Parameter(
            torch.empty(out_channels, in_channels // groups, self.num_filters, device=device, dtype=dtype)
        )
        if bias:
            self.bias = nn.Parameter(torch.empty(out_channels, device=device, dtype=dtype))
        else:
            self.register_parameter("bias", None)
        width = in_channels * self.num_filters
        self.bn = nn.BatchNorm2d(width, affine=False, device=device, dtype=dtype) if inner_bn else None
        self.register_buffer("bank", values.to(self.weight.device, self._bank_dtype()), persistent=False)
        self._composed: KeptKernel | None = None
        self.reset_parameters()

    @property
    def _geometry(self) -> Geometry:
        return Geometry(self.stride, self.padding, self.dilation, self.groups)

    @property
    def published_shape(self) -> tuple[int, ...]:
        """The shape of `weight` in published checkpoints: 4-D with inner batch norm, otherwise 5-D."""
        out_channels, in_channels, filters = self.weight.shape
        if self.bn is not None:
            return (out_channels, in_channels * filters, 1, 1)
        return (out_channels, in_channels, filters, 1, 1)

    def reset_parameters(self) -> None:
        """Kaiming normal weights over the fan-out of the published shape, gain of ReLU; zero bias."""
        fan_out = self.published_shape[0] * math.prod(self.published_shape[2:])
        nn.init.normal_(self.weight, std=math.sqrt(2.0 / fan_out))
        if self.bias is not None:
            nn.init.zeros_(self.bias)

    def published_bank(self) -> Tensor:
        """The `dct` entry of a published checkpoint: (1, F, k, k), or (in_channels * F, 1, k, k) with inner BN."""
        bank = self._bank(self._bank_dtype()).to(self.weight.dtype)
        return bank[None] if self.bn is None else bank[:, None].repeat(self.in_channels, 1, 1, 1)

    # --- the forward pass -------------------------------------------------------------------------------------------

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (B, in_channels, H, W)."""
        form = self._form(x)
        if self.bn is None:
            if self._composes_within_autograd():
                bias = None if self.bias is None else self.bias.to(form.dtype)
                x = x.to(form.dtype) if autocasts(x.device.type) else x
                return ComposedConv2d.apply(x, self.weight, bias, self._bank(self._bank_dtype()), form, self._geometry)
            kernel, bias = self._kernel(form)
        elif type(self.bn) is not nn.BatchNorm2d or self.bn.affine:
            return self._forward_literally(x)
        elif self.bn.training or self.bn.running_mean is None:
            kernel, bias = self._compose(form, *self._batch_statistics(x))
        else:
            kernel, bias = self._kernel(form)
        return F.conv2d(x, kernel, bias, *self._geometry)

    def _composes_within_autograd(self) -> bool:
        """Whether a gradient may flow to the weight, and nothing records the operations one by one."""
        if torch.compiler.is_compiling() or _is_tracing():
            return False
        return torch.is_grad_enabled() and self.weight.requires_grad and not self.weight.is_meta

    def _forward_literally(self, x: Tensor) -> Tensor:
        """The published order of operations, for an inner norm that is not the plain one (SyncBatchNorm, say)."""
        assert self.bn is not None
        weight = self.weight.reshape(self.published_shape)
        return F.conv2d(self.bn(self._responses(x, x.dtype)), weight, self.bias, groups=self.groups)

    def _responses(self, x: Tensor, dtype: torch.dtype) -> Tensor:
        """Every channel of x through every DCT filter: (B, in_channels * F, H', W'), channel-major."""
        batch, channels, height, width = x.shape
        planes = x.to(dtype).reshape(batch * channels, 1, height, width)  # one dense convolution, not many groups
        z = F.conv2d(planes, self._bank(dtype).unsqueeze(1), None, self.stride, self.padding, self.dilation)
        return z.reshape(batch, channels * self.num_filters, *z.shape[2:])

    def _batch_statistics(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Mean and biased variance of the DCT responses over the batch; updates the running statistics."""
        bn = self.bn
        assert isinstance(bn, nn.BatchNorm2d)
        with without_autocast(x), torch.set_grad_enabled(torch.is_grad_enabled() and x.requires_grad):
            z = self._responses(x, torch.promote_types(x.dtype, torch.float32))
            count = z.numel() // z.shape[1]
            if count <= 1:
                raise ValueError(f"batch statistics need more than 1 value per channel, got input {tuple(x.shape)}")
            mean = z.mean((0, 2, 3))  # two passes: as exact as var_mean, and many times faster on the CPU
            var = (z - mean[:, None, None]).square().mean((0, 2, 3))
        if bn.training and bn.running_mean is not None and bn.running_var is not None:
            with torch.no_grad():
                rate: float | Tensor = 0.0 if bn.momentum is None else bn.momentum
                if bn.num_batches_tracked is not None:
                    bn.num_batches_tracked.add_(1)
                    if bn.momentum is None:  # the mean over all batches so far
                        rate = 1.0 / bn.num_batches_tracked.to(mean.dtype)
                for running, now in (bn.running_mean, mean), (bn.running_var, var * (count / (count - 1))):
                    running.add_((now.detach() - running) * rate)
        return mean, var

    # --- the composed kernel ----------------------------------------------------------------------------------------

    def _form(self, x: Tensor) -> KernelForm:
        """The type and the memory format (is it channels_last?) in which the convolution wants its kernel."""
        dtype, device_type = self.weight.dtype, x.device.type
        if autocasts(device_type) and dtype != torch.float64:
            dtype = torch.get_autocast_dtype(device_type)
        return KernelForm(dtype, x.is_contiguous(memory_format=torch.channels_last) and not x.is_contiguous())

    def _compose(
        self, form: KernelForm, mean: Tensor | None = None, var: Tensor | None = None
    ) -> tuple[Tensor, Tensor | None]:
        """The k x k kernel (out, in / groups, k, k), and the bias with the inner normalisation folded in."""
        with without_autocast(self.weight):
            bank = self._bank(self._bank_dtype())
            weight, bias = self.weight.to(bank.dtype), self.bias
            if mean is not None and var is not None:
                assert isinstance(self.bn, nn.BatchNorm2d)
                scale = torch.rsqrt(var.to(bank.dtype) + self.bn.eps)
                weight = weight * self._per_output(scale)
                shift = -(weight * self._per_output(mean.to(bank.dtype))).sum((1, 2))
                bias = shift if bias is None else shift + bias
            return compose_kernel(weight, bank, form), None if bias is None else bias.to(form.dtype)

    def _running_statistics(self) -> tuple[Tensor, ...]:
        mean, var = getattr(self.bn, "running_mean", None), getattr(self.bn, "running_var", None)
        return (mean, var) if isinstance(mean, Tensor) and isinstance(var, Tensor) else ()

    def _per_output(self, statistics: Tensor) -> Tensor:
        """Per-response values (in * F) as each output channel sees them: (out or 1, in / groups, F)."""
        per_group = statistics.reshape(self.groups, -1, self.num_filters)
        return per_group if self.groups == 1 else per_group.repeat_interleave(self.out_channels // self.groups, 0)

    def _kernel(self, form: KernelForm) -> tuple[Tensor, Tensor | None]:
        """The kernel and bias outside batch statistics, from the cache where that is safe."""
        statistics = self._running_statistics()
        if torch.compiler.is_compiling() or self.training or _is_tracing():
            return self._compose(form, *statistics)
        sources = tuple(t for t in (self.weight, self.bias, *statistics) if isinstance(t, Tensor))
        stamps = stamps_of(sources)
        if stamps is None:
            return self._compose(form, *statistics)
        kept = self._composed
        if kept is None or kept.form != form or not still_holds(kept, sources, stamps):
            with torch.inference_mode(False), torch.no_grad():
                kernel, bias = self._compose(form, *statistics)
                samples = tuple(sample_of(t).clone() for t in sources if t.device.type == "cpu")
                aliases = tuple(t.detach() for t in sources)
            self._composed = kept = KeptKernel(kernel, bias, form, sources, aliases, stamps, samples)
        return kept.kernel, kept.bias

    def folded(self) -> nn.Conv2d:
        """The ordinary convolution that this layer is in eval mode, as a new module with its own parameters.

        Raises:
            ValueError: the inner normalisation keeps no running statistics, or is not a plain batch norm.
        """
        statistics = self._running_statistics()
        if self.bn is not None and (type(self.bn) is not nn.BatchNorm2d or self.bn.affine or not statistics):
            raise ValueError(f"only an inner BatchNorm2d with running statistics can be folded, not {self.bn}")
        with torch.no_grad():
            kernel, bias = self._compose(KernelForm(self.weight.dtype, False), *statistics)
        size, where = self.kernel_size, {"device": kernel.device, "dtype": kernel.dtype}
        shape = {"stride": self.stride, "padding": self.padding, "dilation": self.dilation, "groups": self.groups}
        conv = nn.Conv2d(self.in_channels, self.out_channels, size, bias=bias is not None, **shape, **where)
        conv.weight = nn.Parameter(kernel, self.weight.requires_grad)
        if bias is not None:
            conv.bias = nn.Parameter(bias.clone(), self.weight.requires_grad)
        return conv.train(self.training)

    def plain(self) -> nn.Module:
        """What `folded` returns, or this layer itself where its inner normalisation cannot be folded."""
        try:
            return self.folded()
        except ValueError:
            return self

    def adapt_input_channels(self, entries: dict[str, Tensor]) -> tuple[dict[str, Tensor], int] | None:
        """This layer's entries of a state dict, ours or published, for the number of input channels that it has.

        With inner batch norm each DCT response (channel-major) is normalised by itself. For one channel each response
        then gets the mean of the channels' statistics, and the weights make up for the difference of the deviations
        exactly; that of the means goes into the bias, where the layer has one.

        Returns:
            The entries, and the number of channels they were for; None where there is nothing to adapt.
        """
        key = "weight" if "weight" in entries else "conv"  # the latter in the published wide ResNets
        stored, wanted, filters = entries.get(key), self.in_channels, self.num_filters
        if stored is None or stored.ndim < 3:
            return None
        given, rest = divmod(stored.shape[1], filters if stored.ndim == 4 else 1)
        if given in (0, wanted) or rest:
            return None
        if self.bn is None:
            return {**entries, key: spread_channels(stored, wanted)}, given
        entries = {name: value for name, value in entries.items() if name != "dct"}  # of as many channels as there were
        weight = stored.reshape(-1, given, filters)
        names = ("bn.running_mean", "bn.running_var")
        mean, var = (entries[name].reshape(given, filters) for name in names)
        if wanted == 1:
            eps = self.bn.eps
            assert isinstance(eps, float)
            deviation, new_mean, new_var = (var + eps).sqrt(), mean.mean(0, keepdim=True), var.mean(0, keepdim=True)
            if "bias" in entries:
                entries["bias"] = entries["bias"] + (weight * ((new_mean - mean) / deviation)).sum((1, 2))
            weight = (weight * ((new_var + eps).sqrt() / deviation)).sum(1, keepdim=True)
        else:
            turn = torch.arange(wanted) % given
            new_mean, new_var, weight = mean[turn], var[turn], spread_channels(weight, wanted)
        entries[key] = weight.reshape(weight.shape[0], -1, 1, 1) if stored.ndim == 4 else weight
        return entries | dict(zip(names, (new_mean.flatten(), new_var.flatten()), strict=True)), given

    # --- the bank, and what nn.Module asks for ----------------------------------------------------------------------

    def _bank_dtype(self) -> torch.dtype:
        return torch.promote_types(self.weight.dtype, torch.float32)  # kernels of half-precision nets are rounded once

    def _bank(self, dtype: torch.dtype) -> Tensor:
        if self.bank.dtype == dtype and self.bank.device == self.weight.device:
            return self.bank
        return dct_bank(self.kernel_size, self.level, device=self.weight.device, dtype=dtype)

    def _refresh(self) -> None:
        self._composed = None
        self.bank = dct_bank(self.kernel_size, self.level, device=self.weight.device, dtype=self._bank_dtype())

    def _apply(self, fn: Any, recurse: bool = True) -> "HarmConv2d":
        self._composed = None  # first: a conversion may want to be the only owner of the parameters
        super()._apply(fn, recurse)
        self._refresh()  # the formula again: never a float32 bank cast to float64, nor to_empty()'s noise
        return self

    def train(self, mode: bool = True) -> "HarmConv2d":
        """As `nn.Module.train`; also forgets the cached kernel."""
        self._composed = None
        return super().train(mode)

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_composed": None}

    def _load_from_state_dict(
        self,
        state_dict: dict[str, Any],
        prefix: str,
        local_metadata: dict[str, Any],
        strict: bool,
        missing_keys: list[str],
        unexpected_keys: list[str],
        error_msgs: list[str],
    ) -> None:
        bank, weight = state_dict.pop(f"{prefix}dct", None), state_dict.get(f"{prefix}weight")
        if bank is not None:
            problem = self._mistake_in(bank)
            if problem:
                error_msgs.append(f"{prefix}dct {problem}")
        if isinstance(weight, Tensor) and weight.ndim in (4, 5):
            if tuple(weight.shape) == self.published_shape:
                state_dict[f"{prefix}weight"] = weight.reshape(self.weight.shape)
            else:
                error_msgs.append(
                    f"{prefix}weight has the published shape {tuple(weight.shape)}, this layer needs "
                    f"{self.published_shape}: {self.num_filters} DCT filters (level {self.level}); "
                    "build the net with the checkpoint's own levels, width and groups"
                )
        super()._load_from_state_dict(
            state_dict, prefix, local_metadata, strict, missing_keys, unexpected_keys, error_msgs
        )
        self._composed = None
        if self.bank.device != self.weight.device or self.bank.dtype != self._bank_dtype():
            self._refresh()  # load_state_dict(assign=True) may bring another type or leave the meta device

    def _mistake_in(self, bank: Any) -> str | None:
        """Why a published `dct` entry is not our bank; None where it is."""
        shape = (1, self.num_filters) if self.bn is None else (self.in_channels * self.num_filters, 1)
        shape = (*shape, self.kernel_size, self.kernel_size)
        if not isinstance(bank, Tensor) or not bank.is_floating_point() or tuple(bank.shape) != shape:
            found = tuple(bank.shape) if isinstance(bank, Tensor) else type(bank).__name__
            return f"is {found}, expected a float tensor {shape} (level {self.level})"
        if bank.is_meta:
            return None
        expected = dct_bank(self.kernel_size, self.level).repeat(self.in_channels if self.bn is not None else 1, 1, 1)
        error = (bank.detach().to("cpu", torch.float64).reshape(expected.shape) - expected).abs().max().item()
        # 1e-7 is what the published float32 banks differ by; a file in half precision is rounded more coarsely
        bound = max(1e-7, torch.finfo(bank.dtype).eps * expected.abs().max().item())
        if not error <= bound:  # also true of NaN
            return f"differs from the DCT formula by {error:.1e} (at most {bound:.0e} is rounding): the file is damaged"
        return None

    def multiply_adds(self, inputs: tuple[Tensor, ...], output: Tensor) -> int:
        """Multiply-adds for one image in the published form: a k x k; with inner BN a depthwise DCT and a 1x1."""
        positions, area = output.shape[-2] * output.shape[-1], self.kernel_size**2
        if self.bn is None:
            return self.out_channels * self.weight.shape[1] * area * positions
        return (self.in_channels * self.num_filters * area + self.weight.numel()) * positions

    def extra_repr(self) -> str:
        """The arguments, in the style of `nn.Conv2d`."""
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={self.kernel_size}, stride={self.stride}"
        text += f", padding={self.padding}" + (f", dilation={self.dilation}" if self.dilation != 1 else "")
        text += (f", groups={self.groups}" if self.groups != 1 else "") + (", bias=False" if self.bias is None else "")
        return text + f", level={self.level}, num_filters={self.num_filters}"


def _is_tracing() -> bool:
    return torch.jit.is_tracing()  # pyright: ignore[reportPrivateImportUsage]
