"""HBONet: inverted residuals and harmonious bottlenecks, which trade resolution against channels inside a block.

Paper: Li, Zhou, Yao, "HBONet: Harmonious Bottleneck on Two Orthogonal Dimensions", ICCV 2019, arXiv:1908.03888.
Published weights: d-li14/HBONet, Apache-2.0. The state dict has the published keys.

Kept from the published code although the paper's figure shows it otherwise: the block of stride 2 pools the slices of
its input, and with one reduction it has neither an addition nor an `upconv`. The checkpoints need this.
Deviation: pools work in ceil mode (padding not counted) and the upsampling takes the size of the other operand. Where
the published code runs this is the same; it also runs at every other size.
"""

from collections.abc import Mapping
from typing import Any

import torch
from timm.layers.drop import DropPath
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.errors import OvertoneError
from overtone.layers.inverted_residual import (
    InvertedResidual,
    Layer,
    conv_bn,
    dilations,
    drop_path_rates,
    round_channels,
)
from overtone.layers.map_gradients import dense_gradient, differentiates_on_cpu, halve_resolution
from overtone.models._cfg import Inferred, common_args, default_cfgs_of, unwrap_state_dict
from overtone.models._hbonet_deployed import keep_halves_apart
from overtone.models.arguments import Rule, choice
from overtone.models.mobilenetv2 import ARGUMENTS as WIDTH_ARGUMENTS
from overtone.models.mobilenetv2 import MobileNet, check_output_stride, fitting_width, infer_channels

__all__ = ["HBONet", "HarmoniousBottleneck", "hbonet"]

STEM_CHS = 32
HEAD_CHS = 1600
# Table 1 of the paper, as published: expansion t, channels c, repeats n, stride s of the first, kind of block.
# A, B and C stand for the harmonious bottlenecks whose depth depends on the rate.
STAGES = (
    (1, 20, 1, 1, "inverted"),
    (2, 36, 1, 1, "A"),
    (2, 72, 3, 2, "B"),
    (2, 96, 4, 2, "C"),
    (2, 192, 4, 2, "D"),
    (2, 288, 1, 1, "D"),
    (0, 144, 1, 1, "pointwise"),
    (6, 200, 2, 2, "inverted"),
    (6, 400, 1, 1, "inverted"),
)
# Table 6: how many times a bottleneck halves the resolution inside.
RATES = {
    "2x": {"A": 1, "B": 1, "C": 1, "D": 1},
    "4x": {"A": 2, "B": 2, "C": 2, "D": 1},
    "8x": {"A": 3, "B": 3, "C": 2, "D": 1},
}
PUBLISHED_DIVISORS = {0.1: 4, 0.25: 2, 0.5: 2}  # width multiplier -> divisor; 8 elsewhere


class HarmoniousBottleneck(nn.Module):
    """Half of the output is computed at reduced resolution, the other half is passed on from the input.

    Args:
        in_chs: Channels of the input.
        out_chs: Channels of the output, at most `2 * in_chs`: both halves take their share of the input.
        stride: 1 or 2.
        expand_ratio: Hidden width over `in_chs`.
        num_halvings: How often the main path halves the resolution: 1, 2 or 3 for the rates 2, 4 and 8.
        drop_path: Probability, in [0, 1), of dropping the main path of a sample in training, where it is added to the
            input itself (stride 1).
    """

    def __init__(
        self,
        in_chs: int,
        out_chs: int,
        *,
        stride: int = 1,
        expand_ratio: int = 2,
        num_halvings: int = 1,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        hidden_chs = in_chs * expand_ratio
        self.stride = stride
        self.half_chs = out_chs // 2
        self.passed_chs = out_chs - self.half_chs
        main: list[nn.Module] = []
        for chs in [in_chs] + [hidden_chs] * (num_halvings - 1):
            main += [*conv_bn(chs, chs, 5, stride=2, depthwise=True, act=False), *conv_bn(chs, hidden_chs)]
        # Published: only the shallow block has an activation between its last two convolutions.
        main += conv_bn(hidden_chs, hidden_chs, 3, depthwise=True, act=num_halvings == 1)
        main += conv_bn(hidden_chs, self.half_chs, act=False)
        self.conv = nn.Sequential(*main)
        self.is_added = num_halvings > 1 or stride == 1
        if self.is_added:
            self.upconv = nn.Sequential(*conv_bn(self.half_chs, self.half_chs, 5, depthwise=True, act=False))
        self.drop_path = DropPath(drop_path) if drop_path > 0 and stride == 1 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """(B, in_chs, H, W) -> (B, out_chs, ceil(H / stride), ceil(W / stride))."""
        if self.is_added:
            return torch.cat(self.halves(x), dim=1)
        y = self.conv(x)
        return torch.cat([halve_resolution(x, x.shape[1] - self.passed_chs), dense_gradient(y)], dim=1)

    def halves(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The channels passed on and those computed, of a block with an addition."""
        y = self.conv(x)
        if self.stride == 2:
            x = halve_resolution(x)
        first, passed = self._slices(x)
        y = self.drop_path(F.interpolate(y, size=x.shape[-2:], mode="nearest"))
        # A map less to be allocated; the exported graph stays one without a change in place.
        y = y.add_(first) if differentiates_on_cpu(x) else first + y
        return passed, dense_gradient(self.upconv(y))

    def _slices(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """The channels that the main path is added to, and those passed on; they overlap where the block widens."""
        num_chs = x.shape[1]
        num_shared = self.half_chs + self.passed_chs - num_chs
        if num_shared == num_chs:
            return x, x
        if num_shared == 0:
            # The backward of one split is one concatenation in the memory format of the gradients; that of two
            # slices is two maps of zeros in NCHW, filled and added.
            first, passed = x.split([self.half_chs, self.passed_chs], dim=1)
            return first, passed
        if num_shared > 0 and differentiates_on_cpu(x):
            before, shared, after = x.split([num_chs - self.passed_chs, num_shared, num_chs - self.half_chs], dim=1)
            return torch.cat([before, shared], dim=1), torch.cat([shared, after], dim=1)
        return x[:, : self.half_chs], x[:, -self.passed_chs :]


class HBONet(MobileNet):
    """HBONet of any width, at any input size; features at the strides 2, 4, 8, 16, 32.

    Args:
        width_mult: Multiplier of all widths, above 0; the last convolution grows with it only above 1.
        rates: "2x" (the main model), "4x" or "8x": how far the harmonious bottlenecks reduce the resolution (Table 6).
        divisor: What every width is a multiple of; None: 4 at `width_mult` 0.1, 2 at 0.25 and 0.5, otherwise 8, as
            published.
        in_chans: Channels of the image.
        drop_path_rate: Drop-path probability of the last block, growing linearly from 0; in [0, 1).
        output_stride: 32, or 16 for dense prediction: the last stride becomes dilation, and the weights still fit. Not
            8: the stride before it belongs to a harmonious bottleneck, which halves the resolution inside.
        **head: `num_classes`, `global_pool` and `drop_rate` of `MobileNet`.

    Raises:
        OvertoneError: `width_mult` or `divisor` is not positive, `rates` is unknown, or the output stride is another.
    """

    def __init__(
        self,
        width_mult: float = 1.0,
        *,
        rates: str = "2x",
        divisor: int | None = None,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        **head: Any,
    ) -> None:
        check_output_stride(output_stride, (16, 32), "HBONet")
        if rates not in RATES:
            raise OvertoneError(f"unknown rates {rates!r} of HBONet: use one of {', '.join(RATES)}")
        in_chs, *widths, head_chs = layer_channels(width_mult, divisor)
        layers = [Layer(nn.Sequential(*conv_bn(in_chans, in_chs, 3, stride=2)), in_chs, 2)]
        drop_rates = drop_path_rates(drop_path_rate, sum(repeats for _, _, repeats, _, _ in STAGES))
        blocks = [
            (expand_ratio, stride, kind)
            for expand_ratio, _, repeats, first_stride, kind in STAGES
            for stride in [first_stride] + [1] * (repeats - 1)
        ]
        plan = dilations([2, *(stride for _, stride, _ in blocks)], output_stride)[1:]
        for (expand_ratio, stride, kind), out_chs, dilated in zip(blocks, widths, plan, strict=True):
            arguments: dict[str, Any] = {"stride": stride, "expand_ratio": expand_ratio, "drop_path": next(drop_rates)}
            if kind == "pointwise":
                block: nn.Module = nn.Sequential(*conv_bn(in_chs, out_chs, act=False))
            elif kind == "inverted":
                block = InvertedResidual(in_chs, out_chs, **arguments, **dilated._asdict())
            else:
                block = HarmoniousBottleneck(in_chs, out_chs, num_halvings=RATES[rates][kind], **arguments)
            layers.append(Layer(block, out_chs, stride))
            in_chs = out_chs
        super().__init__(layers, head_chs, in_chans=in_chans, output_stride=output_stride, **head)

    def deployed(self, shape: tuple[int, ...] | None) -> "HBONet":
        """This network, changed in place: bottlenecks in a row pass on their maps in halves; equal for any size."""
        keep_halves_apart(self, HarmoniousBottleneck)
        return self


def layer_channels(width_mult: float, divisor: int | None = None) -> list[int]:
    """Channels after the stem, after each block and after the last convolution."""
    if divisor is None:
        divisor = PUBLISHED_DIVISORS.get(width_mult, 8)
    inferred = [round_channels(STEM_CHS * width_mult, divisor)]
    for _, channels, repeats, _, kind in STAGES:
        for _ in range(repeats):
            out_chs = round_channels(channels * width_mult, divisor)
            # Rounding can more than double a stage at widths between the published ones: the halves of a harmonious
            # bottleneck are slices of its input, so they end there.
            inferred.append(min(out_chs, 2 * inferred[-1]) if kind in "ABCD" else out_chs)
    return [*inferred, round_channels(HEAD_CHS * width_mult, divisor) if width_mult > 1 else HEAD_CHS]


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """A state dict as published, out of whatever wraps it."""
    return unwrap_state_dict(state_dict)


def hbonet(width_mult: float = 1.0, rates: str = "2x", divisor: int | None = None, **kwargs: Any) -> HBONet:
    """HBONet of any width, as in the published README; the arguments are those of `HBONet`."""
    return HBONet(width_mult, rates=rates, divisor=divisor, **kwargs)


# What a file, a recipe or the command line may choose.
ARGUMENTS: dict[str, Rule] = {**WIDTH_ARGUMENTS, "rates": choice(*RATES)}

# What each registered architecture is built with.
VARIANTS: dict[str, dict[str, Any]] = {
    "hbonet_x100": {"width_mult": 1.0},
    "hbonet_x080": {"width_mult": 0.8},
    "hbonet_x060": {"width_mult": 0.6},
    "hbonet_x050": {"width_mult": 0.5},
    "hbonet_x035": {"width_mult": 0.35},
    "hbonet_x025": {"width_mult": 0.25},
    "hbonet_x010": {"width_mult": 0.1},
    "hbonet_x050_div8": {"width_mult": 0.5, "divisor": 8},
    "hbonet_x025_div8": {"width_mult": 0.25, "divisor": 8},
    "hbonet_x025_4x": {"width_mult": 0.25, "rates": "4x", "divisor": 8},
    "hbonet_x025_8x": {"width_mult": 0.25, "rates": "8x", "divisor": 8},
}
default_cfgs = default_cfgs_of(VARIANTS, first_conv="features.0.0", classifier="classifier")


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The HBONet that a state dict of these shapes belongs to; None where it is another net."""
    inferred, rates = infer_channels(shapes), _infer_rates(shapes)
    if inferred is None or rates is None or len(inferred) != len(layer_channels(1.0)):
        return None
    common = common_args(shapes, "classifier", shapes["features.0.0.weight"][1])
    for name, variant in VARIANTS.items():
        width = variant["width_mult"], variant.get("divisor")
        if variant.get("rates", "2x") == rates and layer_channels(*width) == inferred:
            return Inferred(name, common)
    width = fitting_width(inferred, layer_channels)
    return None if width is None else Inferred("hbonet_x100", width | {"rates": rates} | common)


def _infer_rates(shapes: Mapping[str, tuple[int, ...]]) -> str | None:
    """The rates of Table 6 by how many 5x5 convolutions the first block of each kind has."""
    halvings, index = {}, 1
    for _, _, repeats, _, kind in STAGES:
        main = f"features.{index}.conv."
        if kind in "ABCD":
            fives = sum(key.startswith(main) and shape[2:] == (5, 5) for key, shape in shapes.items())
            halvings.setdefault(kind, fives)
        index += repeats
    return next((rates for rates, known in RATES.items() if known == halvings), None)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> HBONet:
    return build_model_with_cfg(
        HBONet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3, 4), "feature_cls": "getter"},
        **(VARIANTS[variant] | kwargs),
    )


@register_model
def hbonet_x100(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 1.0: 4.56 M parameters, 306 M multiply-adds."""
    return _create("hbonet_x100", pretrained, **kwargs)


@register_model
def hbonet_x080(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.8."""
    return _create("hbonet_x080", pretrained, **kwargs)


@register_model
def hbonet_x060(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.6."""
    return _create("hbonet_x060", pretrained, **kwargs)


@register_model
def hbonet_x050(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.5, widths divisible by 2."""
    return _create("hbonet_x050", pretrained, **kwargs)


@register_model
def hbonet_x050_div8(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.5, widths divisible by 8."""
    return _create("hbonet_x050_div8", pretrained, **kwargs)


@register_model
def hbonet_x035(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.35."""
    return _create("hbonet_x035", pretrained, **kwargs)


@register_model
def hbonet_x025(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.25, widths divisible by 2."""
    return _create("hbonet_x025", pretrained, **kwargs)


@register_model
def hbonet_x025_div8(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.25, widths divisible by 8."""
    return _create("hbonet_x025_div8", pretrained, **kwargs)


@register_model
def hbonet_x025_4x(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.25, the first bottlenecks reduce four times; widths divisible by 8."""
    return _create("hbonet_x025_4x", pretrained, **kwargs)


@register_model
def hbonet_x025_8x(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.25, the first bottlenecks reduce eight times; widths divisible by 8."""
    return _create("hbonet_x025_8x", pretrained, **kwargs)


@register_model
def hbonet_x010(pretrained: bool = False, **kwargs: Any) -> HBONet:
    """HBONet 0.1, widths divisible by 4."""
    return _create("hbonet_x010", pretrained, **kwargs)
