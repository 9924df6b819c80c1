"""HorNet's slow layers in every form that computes the same: the depthwise 7x7 and the global filter."""

import functools
import importlib
import importlib.util
import os
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.layers.circular_conv import SeparableCircularConv, WholeMapCircularConv, circular_kernel
from overtone.reproduction.gpu.place import Cases, Place, Row, Skipped, difference

_DEPTHWISE = ((56, 96), (28, 224), (14, 480), (7, 992))  # map, channels: the stages of HorNet-T at 224
_GLOBAL = ((14, 240), (7, 496))
_DRY = (3, 6)
_BOUND = 0.02  # of the largest output, in bfloat16
Form = Callable[[], Tensor]


def filters(place: Place) -> Cases:
    """Milliseconds of 64 maps in bfloat16, forward, and with the gradients of input and filters.

    The ratio is to the first form: convolutions in NCHW, and the Fourier transform (float32 in it, as published).
    `whole map` is the dense product that deployed networks use up to 64 pixels, `separable` the one above.
    """
    cases: dict[str, Callable[[], list[Row]]] = {}
    for size, channels in (_DRY,) if place.is_dry else _DEPTHWISE:
        cases[f"depthwise 7x7, {size}x{size}x{channels}"] = functools.partial(_depthwise, place, size, channels)
        cases[f"depthwise 7x7, {size}x{size}x{channels}, Triton"] = functools.partial(_triton, place, size, channels)
    for size, channels in (_DRY,) if place.is_dry else _GLOBAL:
        cases[f"global filter, {size}x{size}x{channels}"] = functools.partial(_global, place, size, channels)
    return cases


def _depthwise(place: Place, size: int, channels: int) -> list[Row]:
    x, weight, bias = _inputs(place, size, channels)
    conv = functools.partial(F.conv2d, weight=weight, bias=bias, padding=3, groups=channels)
    last = x.contiguous(memory_format=torch.channels_last)
    rows = _timed(place, {"NCHW": lambda: conv(x), "channels_last": lambda: conv(last)})
    wanted = x.requires_grad_(), last.requires_grad_(), weight.requires_grad_()

    def gradients(maps: Tensor) -> Tensor:
        output = conv(maps)
        return torch.autograd.grad(output, (maps, wanted[2]), output.detach())[0]

    calls = [functools.partial(gradients, maps) for maps in wanted[:2]]
    for call in calls:
        call()
    for row, timing in zip(rows, place.race(calls), strict=True):
        row["training_ms"] = timing.median
    return rows


def _triton(place: Place, size: int, channels: int) -> list[Row]:
    if importlib.util.find_spec("triton") is None:
        raise Skipped("needs Triton")
    if place.is_dry:
        os.environ["TRITON_INTERPRET"] = "1"
    kernel = importlib.import_module("overtone.reproduction.gpu.triton_depthwise")
    x, weight, bias = _inputs(place, size, channels)
    last = x.contiguous(memory_format=torch.channels_last)
    plain = functools.partial(F.conv2d, last, weight, bias, padding=3, groups=channels)
    forms = {"channels_last": plain, "Triton": lambda: kernel.depthwise(last, weight, bias)}
    return _timed(place, forms)


def _global(place: Place, size: int, channels: int) -> list[Row]:
    complex_weight = place.noise(channels, size, size // 2 + 1, 2)
    kernel = circular_kernel(complex_weight, size, size)
    weight, x = torch.view_as_complex(complex_weight), _inputs(place, size, channels)[0].permute(0, 2, 3, 1)
    x = x.contiguous()  # (B, H, W, C)

    def fourier() -> Tensor:
        spectrum = torch.fft.rfft2(x.permute(0, 3, 1, 2).float(), norm="ortho") * weight
        return torch.fft.irfft2(spectrum, s=x.shape[1:3], norm="ortho").permute(0, 2, 3, 1)

    forms: dict[str, Form] = {"Fourier": fourier}
    for name, form in (("separable", SeparableCircularConv), ("whole map", WholeMapCircularConv)):
        forms[name] = functools.partial(form(kernel, torch.bfloat16), x)
    return _timed(place, forms)


def _inputs(place: Place, size: int, channels: int) -> tuple[Tensor, Tensor, Tensor]:
    """Maps in NCHW, filters and biases."""
    half = functools.partial(place.noise, dtype=torch.bfloat16)
    return half(1 if place.is_dry else 64, channels, size, size), half(channels, 1, 7, 7), half(channels)


def _timed(place: Place, forms: dict[str, Form]) -> list[Row]:
    outputs = [form() for form in forms.values()]
    timings = place.race(list(forms.values()))
    rows: list[Row] = []
    for name, timing, output in zip(forms, timings, outputs, strict=True):
        far = difference(output, outputs[0])
        ratio = timings[0].median / timing.median
        rows.append({"form": name, "ms": timing.median, "ratio": ratio, "difference": far, "passed": far <= _BOUND})
    return rows
