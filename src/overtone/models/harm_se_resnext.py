"""Harmonic SE-ResNeXt-101 (Ulicny, Krylov, Dahyot, arXiv:2001.06570) and its plain baseline.

Weights: https://github.com/matej-ulicny/harmonic-networks, BSD-3-Clause. The parameters keep the published keys; the
fixed DCT banks, which the published files carry, are checked on load and put back by `published_state_dict`.
`harm_` is harmonic in the first layer and in every grouped 3x3, `harm0_` nowhere.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import register_model
from torch import Tensor, nn

from overtone.layers.harmonic_net import harmonic_or_plain
from overtone.models._cfg import Inferred, common_args, default_cfgs_of
from overtone.models._harmonic_shapes import infer_root_in_chans, infer_stages
from overtone.models.arguments import Rule, whole
from overtone.models.harm_resnet import ALL_LEVELS, STAGE_ARGUMENTS, ResidualStages, build_residual_net

__all__ = ["HarmSEResNeXt", "harm_se_resnext101"]  # register_model adds the architectures


class SqueezeExcite(nn.Module):
    """Channel gates from the spatial mean: 1x1, ReLU, 1x1, sigmoid (Hu et al., arXiv:1709.01507)."""

    def __init__(self, channels: int, hidden_channels: int) -> None:
        super().__init__()
        self.fc1 = nn.Conv2d(channels, hidden_channels, 1)
        self.fc2 = nn.Conv2d(hidden_channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        """The input (B, channels, H, W), gated."""
        gates = self.fc2(F.relu(self.fc1(x.mean((2, 3), keepdim=True)), inplace=True))
        return x * gates.sigmoid()


class SEResNeXtBottleneck(nn.Module):
    """The bottleneck of SE-ResNeXt: a grouped 3x3 with the stride, squeeze-and-excitation, a pooled shortcut."""

    expansion = 4

    def __init__(
        self,
        in_channels: int,
        channels: int,
        stride: int = 1,
        harmonic: bool = True,
        level: int | None = None,
        drop_path: float = 0.0,
        cardinality: int = 32,
        base_width: int = 4,
    ) -> None:
        super().__init__()
        width, out_channels = channels * base_width // 64 * cardinality, channels * self.expansion
        self.conv1 = nn.Conv2d(in_channels, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        shape = {"padding": 1, "groups": cardinality, "bias": False, "level": level}
        self.conv2 = harmonic_or_plain(harmonic, width, width, 3, stride, **shape)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, out_channels, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(out_channels)
        self.se = SqueezeExcite(out_channels, channels // 4)
        self.downsample: nn.Module = nn.Identity()
        if stride != 1 or in_channels != out_channels:
            self.downsample = nn.Sequential(
                nn.AvgPool2d(stride, stride, ceil_mode=True, count_include_pad=False) if stride != 1 else nn.Identity(),
                nn.Conv2d(in_channels, out_channels, 1, bias=False),
                nn.BatchNorm2d(out_channels),
            )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A (B, 4 * channels, H / stride, W / stride) map from x (B, in_channels, H, W)."""
        y = F.relu(self.bn1(self.conv1(x)), inplace=True)
        y = F.relu(self.bn2(self.conv2(y)), inplace=True)
        y = self.drop_path(self.se(self.bn3(self.conv3(y))))
        return F.relu(y.add_(self.downsample(x)), inplace=True)


class HarmSEResNeXt(ResidualStages):
    """Harmonic SE-ResNeXt-101 32x4d (max pool after the first layer) or 64x4d (stride 4 and no pool).

    Args:
        cardinality: groups of the 3x3 convolutions.
        base_width: channels a group at 64 planes.
        harm_root: whether the first layer is harmonic, with inner batch norm.
        harm_res_blocks: whether the grouped 3x3 convolutions are.
        levels: per stage, keep only the DCT filters with i + j < level; None keeps all nine.
        pool: "avg" or "max": stride 2 and a 3x3 pool; None: the first layer has stride 4.
        num_classes: classes; 0 for no classifier.
        in_chans: channels of the image.
        global_pool: as timm names it; "" for none.
        drop_rate: dropout before the classifier.
        drop_path_rate: stochastic depth at the last block, growing linearly from rate / N.

    Raises:
        OvertoneError: another pool, or not four levels.
    """

    def __init__(
        self,
        cardinality: int = 32,
        base_width: int = 4,
        harm_root: bool = True,
        harm_res_blocks: bool = True,
        levels: Sequence[int | None] = ALL_LEVELS,
        pool: str | None = "max",
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        args = {"cardinality": cardinality, "base_width": base_width}
        net = (harm_root, harm_res_blocks, levels, pool, num_classes, in_chans, global_pool, drop_rate, drop_path_rate)
        super().__init__(SEResNeXtBottleneck, (3, 4, 23, 3), args, "conv1", *net)
        for module in self.modules():
            if isinstance(module, SEResNeXtBottleneck):
                nn.init.zeros_(module.bn3.weight)  # each residual branch starts as nothing


def harm_se_resnext101(cardinality: int = 32, **kwargs: Any) -> HarmSEResNeXt:
    """A `HarmSEResNeXt` with its own arguments, outside timm's registry; 64x4d is published with `pool=None`."""
    return HarmSEResNeXt(cardinality, **kwargs)


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The SE-ResNeXt-101 that a state dict of these shapes belongs to; None where it is another net."""
    first, grouped = shapes.get("conv1.weight", ()), shapes.get("layer1.0.conv2.weight", ())
    if "layer1.0.se.fc1.weight" not in shapes or not first or len(grouped) < 3:
        return None
    depths, levels = infer_stages(shapes, "conv2")
    base_width = grouped[1]
    cardinality, rest = divmod(grouped[0], base_width)
    if depths != (3, 4, 23, 3) or rest:
        return None
    root, blocks = "conv1.bn.running_mean" in shapes, len(grouped) != 4
    args = {"cardinality": cardinality, "base_width": base_width, "harm_root": root, "harm_res_blocks": blocks}
    args = {key: value for key, value in args.items() if value is not True} | (
        {"levels": levels} if any(levels) else {}
    )
    name, pool = "harm_se_resnext101_32x4d", "a max pool"
    if args == {"cardinality": 32, "base_width": 4}:
        args = {}
    elif args == {"cardinality": 64, "base_width": 4}:
        name, pool, args = "harm_se_resnext101_64x4d", "none", {}
    elif args == {"cardinality": 32, "base_width": 4, "harm_root": False, "harm_res_blocks": False}:
        name, args = "harm0_se_resnext101_32x4d", {}
    assumed = (
        f"the pool after the first layer has no shape; {pool}, as published, is assumed (otherwise name the network)"
    )
    return Inferred(name, args | common_args(shapes, "fc", infer_root_in_chans(first, root, 49)), assumed)


# What a file, a recipe or the command line may choose.
ARGUMENTS: dict[str, Rule] = {**STAGE_ARGUMENTS, "cardinality": whole(1, 64), "base_width": whole(1, 16)}

default_cfgs = default_cfgs_of(
    ["harm_se_resnext101_32x4d", "harm_se_resnext101_64x4d", "harm0_se_resnext101_32x4d"],
    first_conv="conv1",
    classifier="fc",
    pool_size=(7, 7),
)


@register_model
def harm_se_resnext101_32x4d(pretrained: bool = False, **kwargs: Any) -> HarmSEResNeXt:
    """Harm-SE-ResNeXt-101 32x4d, max pool after the first layer."""
    args = {"pool": "max"}
    return build_residual_net(HarmSEResNeXt, "harm_se_resnext101_32x4d", pretrained, args, **kwargs)


@register_model
def harm_se_resnext101_64x4d(pretrained: bool = False, **kwargs: Any) -> HarmSEResNeXt:
    """Harm-SE-ResNeXt-101 64x4d, first layer of stride 4 and no pool."""
    args = {"cardinality": 64, "pool": None}
    return build_residual_net(HarmSEResNeXt, "harm_se_resnext101_64x4d", pretrained, args, **kwargs)


@register_model
def harm0_se_resnext101_32x4d(pretrained: bool = False, **kwargs: Any) -> HarmSEResNeXt:
    """The baseline SE-ResNeXt-101 32x4d, max pool after the first layer."""
    args = {"pool": "max", "harm_root": False, "harm_res_blocks": False}
    return build_residual_net(HarmSEResNeXt, "harm0_se_resnext101_32x4d", pretrained, args, **kwargs)
