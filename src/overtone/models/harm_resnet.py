"""Harmonic ResNets (Ulicny, Krylov, Dahyot, BMVC 2019; arXiv:2001.06570), and their plain baselines.

Weights: https://github.com/matej-ulicny/harmonic-networks, BSD-3-Clause. The parameters keep the published keys; the
fixed DCT banks, which the published files carry, are checked on load and put back by `published_state_dict`.

Names: `harm_` harmonic throughout, `harm1_` harmonic in the first layer only, `harm0_` not at all (the baselines, whose
plain names timm owns). No suffix: the first layer has stride 4 and no pool follows.

Deviations: the basic block of depths 18 and 34 cannot run as published; here both of its convolutions are harmonic.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.layers.harmonic_net import HarmonicNet, check_choice, harmonic_or_plain, init_weights
from overtone.models._cfg import Inferred, PublishedWeights, common_args, default_cfgs_of, unwrap_state_dict
from overtone.models._harmonic_shapes import LEVEL, infer_root_in_chans, infer_stages
from overtone.models.arguments import Rule, choice, flag, several

__all__ = ["HarmResNet", "harm_resnet"]  # register_model adds the architectures

ALL_LEVELS = (None, None, None, None)
PROGRESSIVE_LEVELS = (None, None, 3, 2)


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a shortcut."""

    expansion = 1

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        harmonic: bool = True,
        level: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        self.names = ("harm1", "harm2") if harmonic else ("conv1", "conv2")
        shape = {"padding": 1, "bias": False, "level": level}
        self.add_module(self.names[0], harmonic_or_plain(harmonic, in_channels, channels, 3, stride, **shape))
        self.bn1 = nn.BatchNorm2d(channels)
        self.add_module(self.names[1], harmonic_or_plain(harmonic, channels, channels, 3, **shape))
        self.bn2 = nn.BatchNorm2d(channels)
        self.downsample = _downsample(in_channels, channels, stride)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A (B, channels, H / stride, W / stride) map from x (B, in_channels, H, W)."""
        first, second = getattr(self, self.names[0]), getattr(self, self.names[1])
        y = F.relu(self.bn1(first(x)), inplace=True)
        y = self.drop_path(self.bn2(second(y)))
        return F.relu(y.add_(self.downsample(x)), inplace=True)


class Bottleneck(nn.Module):
    """1x1, 3x3 with the stride, 1x1, and a shortcut; the 3x3 may be harmonic."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        harmonic: bool = True,
        level: int | None = None,
        drop_path: float = 0.0,
    ) -> None:
        super().__init__()
        out_channels = channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, channels, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(channels)
        self.middle = "harm2" if harmonic else "conv2"
        shape = {"padding": 1, "bias": False, "level": level}
        self.add_module(self.middle, harmonic_or_plain(harmonic, channels, channels, 3, stride, **shape))
        self.bn2 = nn.BatchNorm2d(channels)
        self.conv3 = nn.Conv2d(channels, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.downsample = _downsample(in_channels, out_channels, stride)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A (B, 4 * channels, H / stride, W / stride) map from x (B, in_channels, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(getattr(self, self.middle)(y)), inplace=True)
        y = self.drop_path(self.bn3(self.conv3(y)))
        return F.relu(y.add_(self.downsample(x)), inplace=True)


def _downsample(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    if stride == 1 and in_channels == out_channels:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels))


class ResidualStages(PublishedWeights, HarmonicNet):
    """A first 7x7 layer, four stages of residual blocks, and a linear classifier.

    Features: the first layer (stride 2) where a pool follows it, then the four stages at strides 4, 8, 16 and 32.
    """

    def __init__(
        self,
        block: type[nn.Module],
        depths: Sequence[int],
        block_args: dict[str, Any],
        root: str,
        harm_root: bool,
        harm_res_blocks: bool,
        levels: Sequence[int | None],
        pool: str | None,
        num_classes: int,
        in_chans: int,
        global_pool: str,
        drop_rate: float,
        drop_path_rate: float,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        check_choice("pool", pool, (None, "avg", "max"))
        if len(levels) != 4:
            raise OvertoneError(f"levels are {tuple(levels)}; a harmonic ResNet takes four, one a stage, None for all")
        self.root, self.in_chans = root, in_chans
        stride = 4 if pool is None else 2
        first = harmonic_or_plain(harm_root, in_chans, 64, 7, stride, padding=3, bias=False, inner_bn=True)
        self.add_module(root, first)  # (B, 64, H / stride, W / stride)
        self.bn1 = nn.BatchNorm2d(64)
        self.pool = {"avg": nn.AvgPool2d(3, 2, 1), "max": nn.MaxPool2d(3, 2, 1), None: nn.Identity()}[pool]
        self.feature_info = [] if pool is None else [{"num_chs": 64, "reduction": 2, "module": "bn1"}]
        expansion, in_channels, done = getattr(block, "expansion", 1), 64, 0
        for stage, depth in enumerate(depths):  # strides 4, 8, 16, 32
            channels, blocks = 64 * 2**stage, []
            for index in range(depth):
                done += 1
                stride = 2 if stage and not index else 1
                drop_path = drop_path_rate * done / sum(depths)
                args = (in_channels, channels, stride, harm_res_blocks, levels[stage], drop_path)
                blocks.append(block(*args, **block_args))
                in_channels = channels * expansion
            name = f"layer{stage + 1}"
            self.add_module(name, nn.Sequential(*blocks))
            self.feature_info.append({"num_chs": in_channels, "reduction": 4 * 2**stage, "module": name})
        self.num_features = self.head_hidden_size = in_channels
        self.reset_classifier(num_classes, global_pool)
        init_weights(self)

    def forward_stage(self, index: int, x: Tensor) -> Tensor:
        """See `HarmonicNet`."""
        stage = index + 5 - len(self.feature_info)  # 0: the first layer, 1 to 4: the stages
        if index == 0:
            x = F.relu(self.bn1(getattr(self, self.root)(x)), inplace=True)
        if stage == 0:
            return x
        x = self.pool(x) if stage == 1 else x
        layer = getattr(self, f"layer{stage}")
        return checkpoint_seq(layer, x) if self.grad_checkpointing else layer(x)

    def drop_stages(self, last: int) -> None:
        """See `HarmonicNet`."""
        for stage in range(last + 6 - len(self.feature_info), 5):
            delattr(self, f"layer{stage}")

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters from the input to the output, for layer-wise learning rates."""
        return {"stem": rf"^{self.root}|bn1", "blocks": r"^layer(\d+)" if coarse else r"^layer(\d+)\.(\d+)"}


DEPTHS = {18: (2, 2, 2, 2), 34: (3, 4, 6, 3), 50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}


# What a file, a recipe or the command line may choose.
STAGE_ARGUMENTS: dict[str, Rule] = {
    "harm_root": flag(),
    "harm_res_blocks": flag(),
    "levels": several(LEVEL, 4, 4),
    "pool": choice("avg", "max", None),
    "global_pool": choice("avg", "max", "avgmax", "catavgmax", ""),
}
ARGUMENTS: dict[str, Rule] = {**STAGE_ARGUMENTS, "depth": choice(*DEPTHS)}


class HarmResNet(ResidualStages):
    """Harmonic ResNet; the stride of a bottleneck sits on its 3x3.

    Args:
        depth: 18, 34, 50, 101 or 152.
        harm_root: whether the first layer is harmonic, with inner batch norm.
        harm_res_blocks: whether the 3x3 convolutions of the blocks are.
        levels: per stage, keep only the DCT filters with i + j < level; None keeps all nine.
        pool: "avg" or "max": stride 2 and a 3x3 pool; None: the first layer has stride 4.
        num_classes: classes; 0 for no classifier.
        in_chans: channels of the image.
        global_pool: as timm names it; "" for none.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth at the last block, growing linearly from rate / N.

    Raises:
        OvertoneError: another depth or pool, or not four levels.
    """

    def __init__(
        self,
        depth: int = 50,
        harm_root: bool = True,
        harm_res_blocks: bool = True,
        levels: Sequence[int | None] = ALL_LEVELS,
        pool: str | None = None,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        check_choice("depth", depth, DEPTHS)
        block, root = (BasicBlock if depth < 50 else Bottleneck), ("harm1" if harm_root else "conv1")
        net = (harm_root, harm_res_blocks, levels, pool, num_classes, in_chans, global_pool, drop_rate, drop_path_rate)
        super().__init__(block, DEPTHS[depth], {}, root, *net)


def harm_resnet(depth: int = 50, **kwargs: Any) -> HarmResNet:
    """A `HarmResNet` with its own arguments, outside timm's registry."""
    return HarmResNet(depth, **kwargs)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a published file out of its wrappers; the layers themselves take the published shapes."""
    return unwrap_state_dict(state_dict)


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The harmonic or plain ResNet that a state dict of these shapes belongs to; None where it is another net."""
    is_bottleneck = "layer1.0.bn3.weight" in shapes
    harmonic, plain = ("layer1.0.harm2", "layer1.0.conv2")
    root, blocks = ("harm1.weight" in shapes), (f"{harmonic}.weight" in shapes)
    middle = shapes.get(f"{harmonic if blocks else plain}.weight", ())
    first = shapes.get("harm1.weight" if root else "conv1.weight", ())
    if middle[:2] != (64, 64) or not first or any(".se." in key for key in shapes):
        return None
    depths, levels = infer_stages(shapes, "harm2")
    depth = next((d for d, known in DEPTHS.items() if known == depths and (d >= 50) == is_bottleneck), None)
    if depth is None:
        return None
    name, args, pool = _named(depth, root, blocks, levels)
    in_chans = infer_root_in_chans(first, root, 49)
    assumed = f"the pool after the first layer has no shape; {pool} is assumed (otherwise name the network)"
    return Inferred(name, args | common_args(shapes, "fc", in_chans), assumed)


def _named(depth: int, root: bool, blocks: bool, levels: tuple[int | None, ...]) -> tuple[str, dict[str, Any], str]:
    """Architecture, arguments and, in words, the pool: as published, else the plain name without a pool."""
    if blocks and root and levels == PROGRESSIVE_LEVELS and depth in (50, 101):
        return f"harm_resnet{depth}_progressive", {}, "an average pool, as published,"
    if (root, blocks, depth) == (False, False, 101):
        return "harm0_resnet101_maxpool", {}, "a max pool, as published,"
    if (root, blocks, depth) == (False, False, 50):
        return "harm0_resnet50", {}, "none, as published,"
    if root and not blocks and depth in (50, 101):
        return f"harm1_resnet{depth}", {}, "none, as published,"
    flags = {} if root else {"harm_root": False}
    flags |= {} if blocks else {"harm_res_blocks": False}
    flags |= {"levels": levels} if any(levels) else {}
    return f"harm_resnet{depth}", flags, "none, as published,"


def build_residual_net(
    net: type[nn.Module], name: str, pretrained: bool, defaults: dict[str, Any], **kwargs: Any
) -> Any:
    """Build a registered net with timm; `kwargs` override the `defaults` of its entry point."""
    args = {**defaults, **kwargs}
    num_features = 4 if args.get("pool") is None else 5
    return build_model_with_cfg(
        net,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": tuple(range(num_features)), "feature_cls": "getter"},
        **args,
    )


def _progressive(depth: int) -> dict[str, Any]:
    return {"depth": depth, "pool": "avg", "levels": PROGRESSIVE_LEVELS}


def _root_only(depth: int) -> dict[str, Any]:
    return {"depth": depth, "harm_res_blocks": False}


def _plain(depth: int, pool: str | None) -> dict[str, Any]:
    return {"depth": depth, "pool": pool, "harm_root": False, "harm_res_blocks": False}


_HARMONIC = [f"harm_resnet{depth}" for depth in (18, 34, 50, 101, 152)]
_HARMONIC += [
    f"harm_resnet{depth}_{variant}" for depth in (50, 101) for variant in ("avgpool", "maxpool", "progressive")
]
_HARMONIC += ["harm1_resnet50", "harm1_resnet101"]
_PLAIN = ["harm0_resnet50", "harm0_resnet50_maxpool", "harm0_resnet101", "harm0_resnet101_maxpool"]
default_cfgs = {
    **default_cfgs_of(_HARMONIC, first_conv="harm1", classifier="fc", pool_size=(7, 7)),
    **default_cfgs_of(_PLAIN, first_conv="conv1", classifier="fc", pool_size=(7, 7)),
}


@register_model
def harm_resnet18(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-18, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm_resnet18", pretrained, {"depth": 18}, **kwargs)


@register_model
def harm_resnet34(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-34, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm_resnet34", pretrained, {"depth": 34}, **kwargs)


@register_model
def harm_resnet50(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-50, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm_resnet50", pretrained, {"depth": 50}, **kwargs)


@register_model
def harm_resnet101(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-101, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm_resnet101", pretrained, {"depth": 101}, **kwargs)


@register_model
def harm_resnet152(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-152, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm_resnet152", pretrained, {"depth": 152}, **kwargs)


@register_model
def harm_resnet50_avgpool(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-50, average pool after the first layer."""
    return build_residual_net(HarmResNet, "harm_resnet50_avgpool", pretrained, {"depth": 50, "pool": "avg"}, **kwargs)


@register_model
def harm_resnet50_maxpool(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-50, max pool after the first layer."""
    return build_residual_net(HarmResNet, "harm_resnet50_maxpool", pretrained, {"depth": 50, "pool": "max"}, **kwargs)


@register_model
def harm_resnet50_progressive(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-50, fewer DCT filters in the later stages, average pool."""
    return build_residual_net(HarmResNet, "harm_resnet50_progressive", pretrained, _progressive(50), **kwargs)


@register_model
def harm_resnet101_avgpool(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-101, average pool after the first layer."""
    return build_residual_net(HarmResNet, "harm_resnet101_avgpool", pretrained, {"depth": 101, "pool": "avg"}, **kwargs)


@register_model
def harm_resnet101_maxpool(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-101, max pool after the first layer."""
    return build_residual_net(HarmResNet, "harm_resnet101_maxpool", pretrained, {"depth": 101, "pool": "max"}, **kwargs)


@register_model
def harm_resnet101_progressive(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm-ResNet-101, fewer DCT filters in the later stages, average pool."""
    return build_residual_net(HarmResNet, "harm_resnet101_progressive", pretrained, _progressive(101), **kwargs)


@register_model
def harm1_resnet50(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm1-ResNet-50: only the first layer is harmonic; no pool."""
    return build_residual_net(HarmResNet, "harm1_resnet50", pretrained, _root_only(50), **kwargs)


@register_model
def harm1_resnet101(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """Harm1-ResNet-101: only the first layer is harmonic; no pool."""
    return build_residual_net(HarmResNet, "harm1_resnet101", pretrained, _root_only(101), **kwargs)


@register_model
def harm0_resnet50(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """The baseline ResNet-50, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm0_resnet50", pretrained, _plain(50, None), **kwargs)


@register_model
def harm0_resnet50_maxpool(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """The baseline ResNet-50 with max pool."""
    return build_residual_net(HarmResNet, "harm0_resnet50_maxpool", pretrained, _plain(50, "max"), **kwargs)


@register_model
def harm0_resnet101(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """The baseline ResNet-101, first layer of stride 4 and no pool."""
    return build_residual_net(HarmResNet, "harm0_resnet101", pretrained, _plain(101, None), **kwargs)


@register_model
def harm0_resnet101_maxpool(pretrained: bool = False, **kwargs: Any) -> HarmResNet:
    """The baseline ResNet-101 with max pool."""
    return build_residual_net(HarmResNet, "harm0_resnet101_maxpool", pretrained, _plain(101, "max"), **kwargs)
