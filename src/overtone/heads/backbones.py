"""Backbones for dense heads: HorNet as published for dense prediction, and the maps of any other network of timm.

A backbone here maps images (B, in_chans, H, W) to a list of maps (B, channels[i], H_i, W_i) from fine to coarse, H_i
being about H / reductions[i], and says `channels` and `reductions`.
"""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import timm
import torch
from timm.layers.format import Format
from timm.layers.norm import LayerNorm2d
from timm.models._features import FeatureGetterNet
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.errors import OvertoneError, did_you_mean
from overtone.layers.circular_conv import resize_complex_weight
from overtone.layers.gnconv import NORM_EPS
from overtone.models.hornet import HorNet, HorNetStage

NUM_MAPS = 4  # at most, as every head of the field takes them: strides 4, 8, 16, 32
_ODD_SIZE = (70, 53)
# Arguments that let transformers take images of any size, each of some families; convolutional nets need none.
_ANY_SIZE: tuple[dict[str, Any], ...] = ({"dynamic_img_size": True}, {"strict_img_size": False})
_REFUSALS = (TypeError, RuntimeError, AssertionError, NotImplementedError)


class HorNetMaps(nn.Module):
    """HorNet as the published detection and segmentation networks have it, under their keys.

    Every stage's map passes a layer norm of its own, `norm0` to `norm3`, on its way out; the next stage takes the map
    before that norm. There is neither final norm nor classifier.

    Args:
        net: Its stem and stages become parts of this network.
    """

    def __init__(self, net: HorNet) -> None:
        super().__init__()
        self.channels = [int(info["num_chs"]) for info in net.feature_info]
        self.reductions = [int(info["reduction"]) for info in net.feature_info]
        self.downsample_layers = net.downsample_layers
        self.stages = net.stages
        for i, chs in enumerate(self.channels):
            self.add_module(f"norm{i}", LayerNorm2d(chs, eps=NORM_EPS))

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute every block in the backward pass instead of keeping its activations."""
        for stage in self.stages:
            assert isinstance(stage, HorNetStage)
            stage.grad_checkpointing = enable

    def stage_of(self, name: str) -> int | None:
        """The group of a parameter when layers are grouped by stage, as published.

        All downsampling layers are in group 0 with the stem, stage i in group i + 1, the norms of the maps in none.
        """
        part, _, rest = name.partition(".")
        if part == "downsample_layers":
            return 0
        return int(rest.partition(".")[0]) + 1 if part == "stages" else None

    def forward(self, x: Tensor) -> list[Tensor]:
        """The normalised map of every stage."""
        x = x.contiguous(memory_format=torch.channels_last)
        maps = []
        for i, (downsample, stage) in enumerate(zip(self.downsample_layers, self.stages, strict=True)):
            x = stage(downsample(x))
            maps.append(self.get_submodule(f"norm{i}")(x))
        return maps


class TimmMaps(nn.Module):
    """The maps of a network that timm has built with `features_only=True`.

    Args:
        features: That network.
        size_divisor: Images are padded with zeros on the right and below to sides that this divides, and the maps cut
            to what the image itself fills.

    Attributes:
        model: timm's network, pruned to what the maps need.
    """

    def __init__(self, features: nn.Module, size_divisor: int = 1) -> None:
        super().__init__()
        info: Any = features.feature_info
        channels, reductions = info.channels(), info.reduction()
        coarse = [i for i, reduction in enumerate(reductions) if reduction >= 4]
        self.taken = (coarse if len(coarse) > 1 else list(range(len(channels))))[-NUM_MAPS:]
        self.channels = [int(channels[i]) for i in self.taken]
        self.reductions = [int(reductions[i]) for i in self.taken]
        self.getter: dict[str, Any] = {}
        self.model: nn.Module = features
        self.is_channels_last = getattr(features, "output_fmt", Format.NCHW) == Format.NHWC
        if isinstance(features, FeatureGetterNet):
            # Without timm's wrapper the keys are those of the architecture.
            self.model = features.model
            indices = list(range(-features.out_indices, 0)) if isinstance(features.out_indices, int) else None
            self.getter = {"indices": indices or list(features.out_indices), "norm": features.norm}  # type: ignore[arg-type]
            self.is_channels_last = False  # asked for below
        self.size_divisor = size_divisor

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Recompute activations in the backward pass where timm's network can."""
        self.model.set_grad_checkpointing(enable)  # type: ignore[operator]  # timm's contract

    def forward(self, x: Tensor) -> list[Tensor]:
        """The maps, (B, C, H, W) whatever the network's own format."""
        height, width = x.shape[-2:]
        if self.size_divisor > 1:
            x = F.pad(x, (0, -width % self.size_divisor, 0, -height % self.size_divisor))
        if self.getter:
            every = self.model.forward_intermediates(  # type: ignore[operator]  # timm's contract
                x, output_fmt="NCHW", intermediates_only=True, **self.getter
            )
        else:
            every = self.model(x)
        maps = [every[i].permute(0, 3, 1, 2) if self.is_channels_last else every[i] for i in self.taken]
        if self.size_divisor > 1:
            maps = [
                y[:, :, : -(-height // reduction), : -(-width // reduction)]
                for y, reduction in zip(maps, self.reductions, strict=True)
            ]
        return maps


def build_backbone(
    name: str,
    *,
    pretrained: bool = False,
    size_divisor: int | None = None,
    arguments: Mapping[str, Any] | None = None,
) -> HorNetMaps | TimmMaps:
    """The backbone of an architecture of ours or of timm's.

    Args:
        name: `architecture` or `architecture.tag`.
        pretrained: Load the published weights of that tag.
        size_divisor: See `TimmMaps`. None: the least one with which the network takes an odd size, such as the patch
            size of a transformer; networks that take only one size get that one. Ours take every size.
        arguments: Of the architecture's constructor, such as `in_chans`, `drop_path_rate`, and `output_stride` 16 or 8
            for maps that stay at that stride by dilation. MobileNetV2 has 8 and 16, HBONet has 16; HorNet and the
            harmonic networks have none; of timm's, those whose constructor takes it (ResNet and what is built like it,
            EfficientNet, MobileNetV2 and V3, ConvNeXt, RegNet, NFNet, Xception, …).

    Raises:
        OvertoneError: no such architecture, no maps of it, or arguments that it does not take.
    """
    architecture = name.partition(".")[0]
    if not timm.is_model(name):
        hint = did_you_mean(architecture, timm.list_models(), "`overtone models` lists them")
        raise OvertoneError(f"there is no backbone {name!r}; {hint}")
    given = dict(arguments or {})
    if timm.model_entrypoint(architecture).__module__ == HorNet.__module__:
        return HorNetMaps(_create(name, given, num_classes=0, pretrained=pretrained))  # type: ignore[arg-type]
    is_ours = timm.model_entrypoint(architecture).__module__.startswith("overtone.")
    features = _create_features(name, given, pretrained=pretrained, any_size=() if is_ours else _ANY_SIZE)
    backbone = TimmMaps(features, size_divisor or 1)
    if size_divisor is None and not is_ours:
        backbone.size_divisor = _size_divisor_of(backbone, given.get("in_chans", 3))
    return backbone


def _create_features(
    name: str, given: Mapping[str, Any], *, pretrained: bool, any_size: Sequence[Mapping[str, Any]]
) -> nn.Module:
    """The feature network of timm, built to take images of any size where one of the arguments `any_size` does that."""
    for extra in any_size:
        try:
            return timm.create_model(name, pretrained=pretrained, features_only=True, **{**extra, **given})
        except TypeError:  # an argument of another family
            continue
        except _REFUSALS:  # which ends here, with its message
            break
    return _create(name, given, pretrained=pretrained, features_only=True)


def _create(name: str, given: Mapping[str, Any], **arguments: Any) -> nn.Module:
    try:
        return timm.create_model(name, **arguments, **given)
    except _REFUSALS as error:
        spelled = ", ".join(f"{key}={value!r}" for key, value in given.items()) or "its own arguments"
        raise OvertoneError(
            f"{name} cannot be built as a backbone with {spelled}: {error}; change the arguments, or choose another"
        ) from error


def _size_divisor_of(backbone: TimmMaps, in_chans: int) -> int:
    """The least divisor of image sides, of some, with which the network takes an odd size; 1 where none helps."""
    config = getattr(backbone.model, "pretrained_cfg", None) or {}
    default_side = max(config.get("input_size", (3, 224, 224))[1:])
    embedding = getattr(backbone.model, "patch_embed", None)
    patch = getattr(embedding, "patch_size", 1)
    patch = max(patch) if isinstance(patch, Sequence) else int(patch)
    probe = copy.deepcopy(backbone).to("meta").eval()  # only shapes are followed
    images = torch.empty(1, in_chans, *_ODD_SIZE, device="meta")
    return next((n for n in sorted({1, patch, 32, default_side}) if _takes(probe, images, n)), 1)


def _takes(backbone: TimmMaps, images: Tensor, size_divisor: int) -> bool:
    """Whether the network runs on images that are padded so."""
    backbone.size_divisor = size_divisor
    try:
        with torch.no_grad():
            maps = backbone(images)
        return all(x.shape[1] == chs for x, chs in zip(maps, backbone.channels, strict=True))
    except (RuntimeError, AssertionError, ValueError, NotImplementedError):
        return False


def load_backbone_weights(backbone: HorNetMaps | TimmMaps, state: Mapping[str, Tensor]) -> None:
    """Load a classifier's state dict into its backbone.

    Every tensor of the backbone has to be there but for the norms that HorNet has in dense prediction only, which stay
    as they are. What the backbone does without (classifier, final norm) is left aside. Global filters of another size
    are resized, as the published training did.

    Args:
        backbone: Of `build_backbone`.
        state: Under the architecture's own keys.

    Raises:
        OvertoneError: tensors are missing or have other shapes.
    """
    net = backbone if isinstance(backbone, HorNetMaps) else backbone.model
    own, loaded = net.state_dict(), {}
    for key, value in state.items():
        # timm's feature networks may hold a model as `body`, or its first two levels of names joined.
        target = next((name for name in (key, f"body.{key}", key.replace(".", "_", 1)) if name in own), None)
        if target is None:
            continue
        if target.endswith(".complex_weight") and value.shape != own[target].shape:
            value = resize_complex_weight(value.float(), *own[target].shape[1:3])
        loaded[target] = value
    fresh = tuple(f"norm{i}." for i in range(NUM_MAPS)) if isinstance(backbone, HorNetMaps) else ()
    missing = [key for key in own if key not in loaded and not key.startswith(fresh)] if fresh else own.keys() - loaded
    other = [key for key, value in loaded.items() if value.shape != own[key].shape]
    if missing or other:
        names = ", ".join(sorted([*missing, *other])[:4])
        raise OvertoneError(
            f"these weights are of another backbone: {len(missing)} tensors are missing and {len(other)} have other "
            f"shapes ({names}, …); build the backbone that they were trained with"
        )
    net.load_state_dict(loaded, strict=False)
