"""MobileNetV2, and the plain sequence of layers that it shares with HBONet.

Paper: Sandler, Howard, Zhu, Zhmoginov, Chen, "MobileNetV2: Inverted Residuals and Linear Bottlenecks", CVPR 2018,
arXiv:1801.04381. Published weights: d-li14/mobilenetv2.pytorch, Apache-2.0. The state dict has the published keys.

Deviation: none. The strongest published checkpoint was trained with dropout 0.2 before the classifier (`drop_rate`).
"""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models import build_model_with_cfg, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.checkpoint import checkpoint

from overtone.errors import OvertoneError
from overtone.layers.inverted_residual import (
    InvertedResidual,
    Layer,
    conv_bn,
    dilations,
    drop_path_rates,
    init_mobile_weights,
    round_channels,
    stage_ends,
)
from overtone.layers.map_gradients import dense_gradient
from overtone.models._cfg import Inferred, PublishedWeights, common_args, default_cfgs_of, unwrap_state_dict
from overtone.models.arguments import NONE, Rule, choice, either, number, whole

__all__ = ["MobileNet", "MobileNetV2", "mobilenetv2"]

# Table 2 of the paper: expansion t, channels c, repeats n, stride s of the first.
STAGES = (
    (1, 16, 1, 1),
    (6, 24, 2, 2),
    (6, 32, 3, 2),
    (6, 64, 4, 2),
    (6, 96, 3, 1),
    (6, 160, 3, 2),
    (6, 320, 1, 1),
)
STEM_CHS = 32
HEAD_CHS = 1280


class MobileNet(PublishedWeights, nn.Module):
    """A sequence of layers, one pointwise convolution, a pool and a linear classifier, under timm's contract.

    Args:
        layers: The layers from the image on; their strides multiply to the reduction of the last one.
        head_chs: Width of the pointwise convolution before the pool.
        num_classes: Classes; 0 leaves the classifier out.
        in_chans: Channels of the image.
        global_pool: A pool of timm ("avg", "max", "avgmax", ...); "" keeps the map, only without a classifier.
        drop_rate: Dropout before the classifier, in [0, 1).
        output_stride: Reduction at which the layers keep their maps.
    """

    def __init__(
        self,
        layers: list[Layer],
        head_chs: int,
        *,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        output_stride: int = 32,
    ) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.num_features = self.head_hidden_size = head_chs
        self.drop_rate = drop_rate
        self.grad_checkpointing = False

        ends = stage_ends(layers, output_stride)
        self.stage_ends = [end.pop("index") for end in ends]
        self.feature_info: list[dict[str, Any]] = [
            {**end, "module": f"features.{index}"} for index, end in zip(self.stage_ends, ends, strict=True)
        ]
        self.features = nn.Sequential(*(layer.module for layer in layers))
        self.conv = nn.Sequential(*conv_bn(layers[-1].num_chs, head_chs))
        self.global_pool, self.classifier = self._pool_and_classifier(num_classes, global_pool)
        self.apply(init_mobile_weights)

    def _pool_and_classifier(self, num_classes: int, pool_type: str) -> tuple[SelectAdaptivePool2d, nn.Module]:
        if num_classes and not pool_type:
            raise OvertoneError("a classifier needs a pool: give global_pool='avg', or num_classes=0 to leave both out")
        pool = SelectAdaptivePool2d(pool_type=pool_type, flatten=bool(pool_type))
        num_pooled = self.num_features * pool.feat_mult()
        return pool, nn.Linear(num_pooled, num_classes) if num_classes else nn.Identity()

    def no_weight_decay(self) -> set[str]:
        """Names of parameters that never get weight decay: none beyond what the optimiser's rules leave out."""
        return set()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Layers in the order of depth for layer-wise decay: by block, or by stride with `coarse`."""
        if not coarse:
            blocks: list[tuple[str, Any]] = [(r"^features\.(\d+)", None)]
        else:
            starts = [1, *(end + 1 for end in self.stage_ends[:-1])]
            blocks = [
                (rf"^features\.(?:{'|'.join(map(str, range(start, end + 1)))})\.", (stage,))
                for stage, (start, end) in enumerate(zip(starts, self.stage_ends, strict=True))
            ]
        # 99999 is timm's mark for "with the group before".
        return {"stem": r"^features\.0\.", "blocks": [*blocks, (r"^conv\.", (99999,))]}

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every layer in the backward pass instead of keeping its activations."""
        self.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The linear classifier, or an identity where there is none."""
        return self.classifier

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Put a new classifier for `num_classes` classes (0: none), initialised as published; None keeps the pool."""
        self.num_classes = num_classes
        pool_type = self.global_pool.pool_type if global_pool is None else global_pool
        like = next(self.features.parameters())
        self.global_pool, classifier = self._pool_and_classifier(num_classes, pool_type)
        self.classifier = classifier.apply(init_mobile_weights).to(like.device, like.dtype)

    def _run_layer(self, layer: nn.Module, x: Tensor) -> Tensor:
        if self.grad_checkpointing and torch.is_grad_enabled():
            return checkpoint(layer, x, use_reentrant=False)  # pyright: ignore[reportReturnType]
        return layer(x)

    def forward_features(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> (B, num_features, ceil(H / 32), ceil(W / 32))."""
        for layer in self.features:
            x = self._run_layer(layer, x)
        return self.conv(x)

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Features (B, num_features, h, w) -> logits (B, num_classes); with `pre_logits` what the classifier sees."""
        x = self.global_pool(dense_gradient(x))
        if self.drop_rate > 0:
            x = F.dropout(x, self.drop_rate, self.training)
        return x if pre_logits else self.classifier(x)

    def forward(self, x: Tensor) -> Tensor:
        """Image (B, in_chans, H, W) -> logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps at the strides of `feature_info` and, unless `intermediates_only`, the final features before them.

        Args:
            x: Image (B, in_chans, H, W).
            indices: Which maps: the last n, the listed ones (negative: from the end), or all with None.
            norm: Without effect: no layer outside the blocks normalises.
            stop_early: Compute nothing after the last map asked for; only with `intermediates_only`.
            output_fmt: "NCHW".
            intermediates_only: Return the list of maps alone.
        """
        if output_fmt != "NCHW":
            raise ValueError(f"output_fmt {output_fmt!r}: only 'NCHW' is available")
        if stop_early and not intermediates_only:
            raise ValueError("stop_early needs intermediates_only: the final features come after the last map")
        taken, last = feature_take_indices(len(self.stage_ends), indices)
        wanted = {self.stage_ends[index] for index in taken}
        intermediates = []
        for index, layer in enumerate(self.features):
            x = self._run_layer(layer, x)
            if index in wanted:
                intermediates.append(x)
            if stop_early and index == self.stage_ends[last]:
                break
        return intermediates if intermediates_only else (self.conv(x), intermediates)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Remove the layers that no map of `indices` needs, and the head; returns the indices from the start."""
        taken, last = feature_take_indices(len(self.stage_ends), indices)
        end = self.stage_ends[last] + 1
        shortened = end < len(self.features)
        self.features = self.features[:end]
        if shortened or prune_head:
            # The head is sized for the last layer: without that one it has nothing to stand on.
            self.conv = nn.Sequential()
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
            self.reset_classifier(0, "")
        return taken

    def published_state_dict(self) -> dict[str, Tensor]:
        """The state under the published keys, in the published order; here that is the net's own."""
        return dict(self.state_dict())


class MobileNetV2(MobileNet):
    """MobileNetV2 of any width; features at the strides 2, 4, 8, 16, 32.

    Args:
        width_mult: Multiplier of all widths, above 0; the last convolution grows with it only above 1.
        divisor: What every width is a multiple of; None: 4 at `width_mult` 0.1, otherwise 8, as published.
        in_chans: Channels of the image.
        drop_path_rate: Drop-path probability of the last block, growing linearly from 0; in [0, 1).
        output_stride: 32, or 16 or 8 for dense prediction: later strides become dilation, and the weights still fit.
        **head: `num_classes`, `global_pool` and `drop_rate` of `MobileNet`.

    Raises:
        OvertoneError: `width_mult` or `divisor` is not positive, or the output stride is another.
    """

    def __init__(
        self,
        width_mult: float = 1.0,
        *,
        divisor: int | None = None,
        in_chans: int = 3,
        drop_path_rate: float = 0.0,
        output_stride: int = 32,
        **head: Any,
    ) -> None:
        check_output_stride(output_stride, (8, 16, 32), "MobileNetV2")
        in_chs, *widths, head_chs = layer_channels(width_mult, divisor)
        layers = [Layer(nn.Sequential(*conv_bn(in_chans, in_chs, 3, stride=2)), in_chs, 2)]
        rates = drop_path_rates(drop_path_rate, sum(repeats for _, _, repeats, _ in STAGES))
        blocks = [
            (expand_ratio, stride)
            for expand_ratio, _, repeats, first_stride in STAGES
            for stride in [first_stride] + [1] * (repeats - 1)
        ]
        plan = dilations([2, *(stride for _, stride in blocks)], output_stride)[1:]
        for (expand_ratio, stride), out_chs, (keep_size, dilation) in zip(blocks, widths, plan, strict=True):
            block = InvertedResidual(
                in_chs,
                out_chs,
                stride=stride,
                dilation=dilation,
                keep_size=keep_size,
                expand_ratio=expand_ratio,
                drop_path=next(rates),
            )
            layers.append(Layer(block, out_chs, stride))
            in_chs = out_chs
        super().__init__(layers, head_chs, in_chans=in_chans, output_stride=output_stride, **head)


def check_output_stride(output_stride: int, possible: Sequence[int], family: str) -> None:
    """Refuse an output stride that a family does not have."""
    if output_stride not in possible:
        choice = ", ".join(map(str, possible))
        raise OvertoneError(f"{family} has no output stride {output_stride!r}: choose one of {choice}")


def layer_channels(width_mult: float, divisor: int | None = None) -> list[int]:
    """Channels after the stem, after each block and after the last convolution."""
    if divisor is None:
        divisor = 4 if width_mult == 0.1 else 8
    scaled = [STEM_CHS] + [channels for _, channels, repeats, _ in STAGES for _ in range(repeats)]
    head_chs = round_channels(HEAD_CHS * width_mult, divisor) if width_mult > 1 else HEAD_CHS
    return [round_channels(channels * width_mult, divisor) for channels in scaled] + [head_chs]


def infer_channels(shapes: Mapping[str, tuple[int, ...]]) -> list[int] | None:
    """What `layer_channels` gives, read off the shapes of a mobile net's state dict; None for another kind of net."""
    if not {"features.0.0.weight", "features.1.conv.0.weight", "conv.0.weight"} <= shapes.keys():
        return None
    inferred = []
    for index in range(1, 1 + max(int(key.split(".")[1]) for key in shapes if key.startswith("features."))):
        shape = shapes.get(f"features.{index}.conv.0.weight") or shapes.get(f"features.{index}.0.weight")
        if shape is None or len(shape) != 4:
            return None
        inferred.append(shape[0] if shape[1] == 1 else shape[1])  # depthwise, or pointwise
    return [*inferred, *reversed(shapes["conv.0.weight"][:2])]


def fitting_width(
    inferred: Sequence[int], channels_of: Callable[[float, int], list[int]], divisors: Iterable[int] = (8, 4, 2, 1)
) -> dict[str, Any] | None:
    """The roundest `width_mult` below 4 and the `divisor` that give the channels; None where none does."""
    for steps in (4, 20, 100, 1000):
        for divisor in divisors:
            for step in range(1, 4 * steps):
                if channels_of(step / steps, divisor) == inferred:
                    return {"width_mult": step / steps, "divisor": divisor}
    return None


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """A state dict as published, out of whatever wraps it."""
    return unwrap_state_dict(state_dict)


def mobilenetv2(width_mult: float = 1.0, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 of any width, as in the published README; further arguments as of `MobileNetV2`."""
    return MobileNetV2(width_mult, **kwargs)


# What a file, a recipe or the command line may choose.
ARGUMENTS: dict[str, Rule] = {
    "width_mult": number(0.001, 4),
    "divisor": either(whole(1, 64), NONE),
    "global_pool": choice("avg", "max", "avgmax", "catavgmax", ""),
}

# What each registered architecture is built with.
VARIANTS: dict[str, dict[str, Any]] = {
    "mobilenetv2_x100": {"width_mult": 1.0},
    "mobilenetv2_x075": {"width_mult": 0.75},
    "mobilenetv2_x050": {"width_mult": 0.5},
    "mobilenetv2_x035": {"width_mult": 0.35},
    "mobilenetv2_x025": {"width_mult": 0.25},
    "mobilenetv2_x010": {"width_mult": 0.1},
}
default_cfgs = default_cfgs_of(VARIANTS, first_conv="features.0.0", classifier="classifier")


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The MobileNetV2 that a state dict of these shapes belongs to; None where it is another net."""
    inferred = infer_channels(shapes)
    if inferred is None or len(inferred) != len(layer_channels(1.0)) or any(".upconv." in key for key in shapes):
        return None
    common = common_args(shapes, "classifier", shapes["features.0.0.weight"][1])
    for name, variant in VARIANTS.items():
        if layer_channels(**variant) == inferred:
            return Inferred(name, common)
    width = fitting_width(inferred, layer_channels)
    return None if width is None else Inferred("mobilenetv2_x100", width | common)


def _create(variant: str, pretrained: bool, **kwargs: Any) -> MobileNetV2:
    return build_model_with_cfg(
        MobileNetV2,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3, 4), "feature_cls": "getter"},
        **(VARIANTS[variant] | kwargs),
    )


@register_model
def mobilenetv2_x100(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 1.0: 3.50 M parameters, 301 M multiply-adds."""
    return _create("mobilenetv2_x100", pretrained, **kwargs)


@register_model
def mobilenetv2_x075(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 0.75."""
    return _create("mobilenetv2_x075", pretrained, **kwargs)


@register_model
def mobilenetv2_x050(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 0.5."""
    return _create("mobilenetv2_x050", pretrained, **kwargs)


@register_model
def mobilenetv2_x035(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 0.35."""
    return _create("mobilenetv2_x035", pretrained, **kwargs)


@register_model
def mobilenetv2_x025(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 0.25."""
    return _create("mobilenetv2_x025", pretrained, **kwargs)


@register_model
def mobilenetv2_x010(pretrained: bool = False, **kwargs: Any) -> MobileNetV2:
    """MobileNetV2 0.1, widths divisible by 4."""
    return _create("mobilenetv2_x010", pretrained, **kwargs)
