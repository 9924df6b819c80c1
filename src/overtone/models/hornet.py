"""HorNet: Efficient High-Order Spatial Interactions with Recursive Gated Convolutions (Rao et al., NeurIPS 2022).

Paper: arXiv:2207.14284. Published weights: raoyongming/HorNet (MIT), and OpenMMLab's copies of them under other keys.

The state dict has the published keys, shapes and order. Deviations, none of which changes a result by more than
rounding: activations flow as (B, H, W, C) from the stem to the pooled features, `proj_in` runs as two products, the
constant 1/3 multiplies the filter's parameters instead of its output, and layer scale carries the drop-path mask.
"""

from collections.abc import Callable, Sequence
from itertools import repeat
from typing import Any

import torch
import torch.nn.functional as F
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.layers.drop import DropPath
from timm.layers.norm import LayerNorm2d
from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn
from torch.nn.init import trunc_normal_

from overtone.errors import OvertoneError
from overtone.layers.gnconv import NORM_EPS, GnConv
from overtone.layers.onednn_linear import OneDnnLinear
from overtone.models._cfg import PublishedWeights, default_cfgs_of
from overtone.models._hornet_deployed import DeployedHorNetBlock, centre_maps
from overtone.models._hornet_files import ARGUMENTS as ARGUMENTS  # these, the zoo asks the family for
from overtone.models._hornet_files import VARIANTS, checkpoint_filter_fn, layer_decay_group, stage_group
from overtone.models._hornet_files import architecture_of as architecture_of
from overtone.models._hornet_files import foreign_layout as foreign_layout
from overtone.models._hornet_files import head_rows as head_rows

__all__ = ["HorNet", "HorNetBlock", "HorNetStage"]


class HorNetBlock(nn.Module):
    """One block on (B, H, W, C): gated convolution, then a perceptron per pixel, both normalised and scaled."""

    def __init__(self, dim: int, gnconv: GnConv, drop_path: float = 0.0, layer_scale_init: float = 1e-6) -> None:
        super().__init__()
        self.gamma1 = self.gamma2 = None
        if layer_scale_init > 0:
            self.gamma1 = nn.Parameter(torch.full((dim,), layer_scale_init))
            self.gamma2 = nn.Parameter(torch.full((dim,), layer_scale_init))
        self.norm1 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.gnconv = gnconv
        self.norm2 = nn.LayerNorm(dim, eps=NORM_EPS)
        self.pwconv1 = OneDnnLinear(dim, 4 * dim)
        self.pwconv2 = OneDnnLinear(4 * dim, dim)
        self.drop_path = DropPath(drop_path) if drop_path > 0 else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Map (B, H, W, C) to (B, H, W, C)."""
        x = self._add(x, self.gnconv(self.norm1(x)), self.gamma1)
        return self._add(x, self.pwconv2(F.gelu(self.pwconv1(self.norm2(x)))), self.gamma2)

    def deployed(self, shape: tuple[int, ...] | None) -> nn.Module:
        """The fastest exact form for inference on maps of `shape` (B, H, W, C)."""
        return self if shape is None else DeployedHorNetBlock(self, (shape[1], shape[2]))

    def _add(self, x: Tensor, branch: Tensor, gamma: Tensor | None) -> Tensor:
        if gamma is None:
            return x + self.drop_path(branch)
        # Dropping a path acts on the B x C factors, not on the maps: one pass over the maps in all.
        factors = self.drop_path(gamma.expand(x.shape[0], 1, 1, -1))
        return torch.addcmul(x, factors, branch)


class HorNetStage(nn.Sequential):
    """The blocks of one resolution. Takes and gives (B, C, H, W) in channels_last memory."""

    grad_checkpointing = False

    def forward(self, input: Tensor) -> Tensor:
        """Map (B, C, H, W) to (B, C, H, W)."""
        x = input.permute(0, 2, 3, 1).contiguous()
        x = checkpoint_seq(self, x) if self.grad_checkpointing else super().forward(x)
        return x.permute(0, 3, 1, 2)


class HorNet(PublishedWeights, nn.Module):
    """HorNet for images (B, in_chans, H, W) of any size from 32 pixels up.

    Args:
        in_chans: Channels of the image.
        num_classes: Outputs of the classifier; 0: no classifier.
        global_pool: `avg` (published), `max`, `avgmax`, or an empty string for no pooling.
        depths: Blocks per stage.
        base_dim: Channels C of the first stage; the others have 2C, 4C, 8C.
        orders: Order of the recursive convolution per stage.
        spatial_filter: `7x7`, or `gf` for global filters in the last two stages.
        filter_size: Image size in pixels, one side or (height, width), whose maps the global filters are stored for.
            The published models have 224 or 384; at run time any image size works.
        scale: Factor of the filter's output inside the recursive convolution.
        layer_scale_init: Initial layer scale; without layer scale where it is not positive.
        head_init_scale: Factor of the classifier's initial parameters.
        drop_rate: Dropout before the classifier.
        drop_path_rate: Drop-path rate of the last block; it grows linearly from 0.
    """

    def __init__(
        self,
        in_chans: int = 3,
        num_classes: int = 1000,
        global_pool: str = "avg",
        *,
        depths: Sequence[int] = (2, 3, 18, 2),
        base_dim: int = 64,
        orders: Sequence[int] = (2, 3, 4, 5),
        spatial_filter: str = "7x7",
        filter_size: int | tuple[int, int] = 224,
        scale: float = 1 / 3,
        layer_scale_init: float = 1e-6,
        head_init_scale: float = 1.0,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__()
        if spatial_filter not in ("7x7", "gf"):
            raise OvertoneError(f"HorNet has no spatial filter {spatial_filter!r}: choose '7x7' or 'gf'")
        self.num_classes = num_classes
        self.in_chans = in_chans
        self.head_init_scale = head_init_scale
        dims = [base_dim * 2**i for i in range(len(depths))]
        height, width = (filter_size, filter_size) if isinstance(filter_size, int) else filter_size
        rates = _linear_rates(drop_path_rate, depths)
        self.downsample_layers = nn.ModuleList()
        self.stages = nn.ModuleList()
        self.feature_info: list[dict[str, Any]] = []
        for i, (dim, order) in enumerate(zip(dims, orders, strict=True)):
            stride = 4 * 2**i
            kind = spatial_filter if i >= len(dims) - 2 else "7x7"
            map_size = height // stride, width // stride
            self.downsample_layers.append(_downsampling(dims[i - 1], dim) if i else _stem(in_chans, dim))
            gnconvs = [GnConv(dim, order, kind, map_size, scale) for _ in range(depths[i])]
            blocks = map(HorNetBlock, repeat(dim), gnconvs, rates[i], repeat(layer_scale_init))
            self.stages.append(HorNetStage(*blocks))
            self.feature_info.append({"num_chs": dim, "reduction": stride, "module": f"stages.{i}"})
        self.num_features = self.head_hidden_size = dims[-1]
        self.norm = nn.LayerNorm(dims[-1], eps=NORM_EPS)
        self.global_pool = _pooling(global_pool)
        self.head_drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(dims[-1], num_classes) if num_classes else nn.Identity()
        self.init_weights()

    def init_weights(self) -> None:
        """Convolutions and linears: truncated normal of std 0.02, bias 0; the head scaled by `head_init_scale`."""
        for module in self.modules():
            _init_weight(module)
        _scale(self.head, self.head_init_scale)

    int8_exempt = ("add", "bmm")
    """Operations that int8 leaves in float32: the sums, above all of the residual maps, lose the most and gain nothing
    (without them the logits are off by half as much), and not every processor's compiler takes global filters."""

    def for_logits_only(self) -> None:
        """Rewrite the form for compilers, in place, into one with equal logits whose maps may differ."""
        centre_maps(self)

    def no_weight_decay(self) -> set[str]:
        """No names beyond timm's rule, which spares parameters of one dimension as the published training did."""
        return set()

    def group_matcher(self, coarse: bool = False) -> Callable[[str], int]:
        """The published groups of layer-wise learning-rate decay, 0 to 13, or with `coarse` one group a stage."""
        return stage_group if coarse else layer_decay_group

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            assert isinstance(stage, HorNetStage)
            stage.grad_checkpointing = enable

    def get_classifier(self) -> nn.Module:
        """The linear classifier, or an identity where there is none."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """Replace the classifier by a fresh one (none with 0 classes), and the pooling where it is given."""
        self.num_classes = num_classes
        if global_pool is not None:
            self.global_pool = _pooling(global_pool)
        like = next(self.parameters())
        self.head = nn.Identity()
        if num_classes:
            self.head = nn.Linear(self.num_features, num_classes, device=like.device, dtype=like.dtype)
            _init_weight(self.head)
            _scale(self.head, self.head_init_scale)

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> list[Tensor] | tuple[Tensor, list[Tensor]]:
        """The maps after each stage.

        Args:
            x: Images (B, in_chans, H, W).
            indices: Stages to return; an integer: the last so many; None: all.
            norm: Without effect: the final norm works on pooled features.
            stop_early: Do not compute the stages after the last one asked for.
            output_fmt: `NCHW` or `NHWC`.
            intermediates_only: Leave out the final features.

        Returns:
            The maps, or the final features (B, C, H, W) and the maps.
        """
        if output_fmt not in ("NCHW", "NHWC"):
            raise OvertoneError(f"HorNet gives maps as NCHW or NHWC, not as {output_fmt!r}")
        taken, last = feature_take_indices(len(self.stages), indices)
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            if stop_early and i > last:
                break
            x = stage(downsample(x))
            if i in taken:
                maps.append(x if output_fmt == "NCHW" else x.permute(0, 2, 3, 1))
        return maps if intermediates_only else (x, maps)

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Drop the stages after the last of `indices`, and the final norm and head where asked or left without use."""
        taken, last = feature_take_indices(len(self.stages), indices)
        shortened = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        self.downsample_layers = self.downsample_layers[: last + 1]
        if shortened:
            self.num_features = self.head_hidden_size = self.feature_info[last]["num_chs"]
        if prune_norm or shortened:
            self.norm = nn.Identity()
        if prune_head or shortened:
            self.reset_classifier(0, "")
        return taken

    def forward_features(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to maps (B, 8C, H // 32, W // 32), not normalised."""
        # The only copy for the layout, of the image: the stem then writes channels_last, and so does all that follows.
        x = x.contiguous(memory_format=torch.channels_last)
        for downsample, stage in zip(self.downsample_layers, self.stages, strict=True):
            x = stage(downsample(x))
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Maps (B, 8C, H, W) to logits (B, num_classes), or to the normalised pooled features with `pre_logits`.

        Without pooling the norm and the classifier act on every pixel: (B, 8C or num_classes, H, W).
        """
        x = self.head_drop(self.norm(self.global_pool(x.permute(0, 2, 3, 1))))
        if not pre_logits:
            x = self.head(x)
        return x.permute(0, 3, 1, 2) if self.global_pool.is_identity() else x

    def forward(self, x: Tensor) -> Tensor:
        """Images (B, in_chans, H, W) to logits (B, num_classes)."""
        return self.forward_head(self.forward_features(x))

    def published_state_dict(self) -> dict[str, Tensor]:
        """The state dict under its published keys, in the published order; it is the native one."""
        return dict(self.state_dict())


def _init_weight(module: nn.Module) -> None:
    if isinstance(module, nn.Conv2d | nn.Linear):
        trunc_normal_(module.weight, std=0.02)
        if module.bias is not None:
            nn.init.zeros_(module.bias)


@torch.no_grad()
def _scale(head: nn.Module, factor: float) -> None:
    for parameter in head.parameters():
        parameter.mul_(factor)


def _stem(in_chans: int, dim: int) -> nn.Sequential:
    return nn.Sequential(nn.Conv2d(in_chans, dim, 4, stride=4), LayerNorm2d(dim, eps=NORM_EPS))


def _downsampling(narrow: int, wide: int) -> nn.Sequential:
    return nn.Sequential(LayerNorm2d(narrow, eps=NORM_EPS), nn.Conv2d(narrow, wide, 2, stride=2))


def _pooling(name: str) -> SelectAdaptivePool2d:
    if name not in ("avg", "max", "avgmax", ""):
        raise OvertoneError(f"HorNet has no pooling {name!r}: choose 'avg', 'max', 'avgmax' or '' (none)")
    return SelectAdaptivePool2d(pool_type=f"fast{name}" if name else "", flatten=bool(name), input_fmt="NHWC")


def _linear_rates(last: float, depths: Sequence[int]) -> list[list[float]]:
    """Drop-path rates per stage and block, from 0 for the first block to `last`."""
    steps = max(sum(depths) - 1, 1)
    rates = [last * step / steps for step in range(sum(depths))]
    return [rates[sum(depths[:i]) : sum(depths[: i + 1])] for i in range(len(depths))]


_LAYERS = {"first_conv": "downsample_layers.0.0", "classifier": "head", "interpolation": "bicubic"}
_SQUASHED = {"input_size": (3, 384, 384), "crop_pct": 1.0, "crop_mode": "squash"}
default_cfgs = {
    **default_cfgs_of([name for name in VARIANTS if not name.endswith("_img384")], **_LAYERS),
    **default_cfgs_of([name for name in VARIANTS if name.endswith("_img384")], **_LAYERS, **_SQUASHED),
}


def _create(variant: str, pretrained: bool, given: dict[str, Any]) -> HorNet:
    built_with = dict(VARIANTS[variant])
    if not pretrained and given.get("pretrained_cfg") is None:
        # The only files of the large nets have 10,459 classes; that says nothing about a net without them.
        built_with["num_classes"] = 1000
    return build_model_with_cfg(
        HorNet,
        variant,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2, 3), "feature_cls": "getter"},
        **(built_with | given),
    )


@register_model
def hornet_tiny_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with 7x7 depthwise filters."""
    return _create("hornet_tiny_7x7", pretrained, kwargs)


@register_model
def hornet_tiny_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with global filters."""
    return _create("hornet_tiny_gf", pretrained, kwargs)


@register_model
def hornet_tiny_gf_img384(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-T with global filters stored for 384-pixel images."""
    return _create("hornet_tiny_gf_img384", pretrained, kwargs)


@register_model
def hornet_small_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S with 7x7 depthwise filters."""
    return _create("hornet_small_7x7", pretrained, kwargs)


@register_model
def hornet_small_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S with global filters."""
    return _create("hornet_small_gf", pretrained, kwargs)


@register_model
def hornet_small_gf_img384(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-S with global filters stored for 384-pixel images."""
    return _create("hornet_small_gf_img384", pretrained, kwargs)


@register_model
def hornet_base_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B with 7x7 depthwise filters."""
    return _create("hornet_base_7x7", pretrained, kwargs)


@register_model
def hornet_base_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B with global filters."""
    return _create("hornet_base_gf", pretrained, kwargs)


@register_model
def hornet_base_gf_img384(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-B with global filters stored for 384-pixel images."""
    return _create("hornet_base_gf_img384", pretrained, kwargs)


@register_model
def hornet_large_7x7(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L with 7x7 depthwise filters."""
    return _create("hornet_large_7x7", pretrained, kwargs)


@register_model
def hornet_large_gf(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L with global filters."""
    return _create("hornet_large_gf", pretrained, kwargs)


@register_model
def hornet_large_gf_img384(pretrained: bool = False, **kwargs: Any) -> HorNet:
    """HorNet-L with global filters stored for 384-pixel images."""
    return _create("hornet_large_gf_img384", pretrained, kwargs)
