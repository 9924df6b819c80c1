"""Harmonic wide ResNets for small images (Ulicny, Krylov, Dahyot, BMVC 2019; arXiv:2001.06570).

A pre-activation wide ResNet (Zagoruyko and Komodakis, arXiv:1605.07146) of depth 6n + 4. No weights were published;
code BSD-3-Clause, https://github.com/matej-ulicny/harmonic-networks. The published code keeps its parameters in a flat
dictionary: `load_state_dict` takes those keys, `published_state_dict` gives them.
"""

import re
from collections.abc import Mapping
from typing import Any

import torch.nn.functional as F
from timm.layers.drop import DropPath
from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.layers.harmonic_net import HarmonicNet, harmonic_or_plain, init_weights, published_state_dict
from overtone.models._cfg import Inferred, PublishedWeights, common_args, default_cfgs_of, unwrap_state_dict
from overtone.models._harmonic_shapes import LEVEL, infer_level, infer_root_in_chans
from overtone.models.arguments import RATE, Rule, choice, flag, whole

__all__ = ["HarmWRN", "harm_wrn"]  # register_model adds the architectures

CIFAR_MEAN = (125.3 / 255, 123.0 / 255, 113.9 / 255)
CIFAR_STD = (63.0 / 255, 62.1 / 255, 66.7 / 255)


class PreActivationBlock(nn.Module):
    """Batch norm, ReLU and a 3x3, twice; the shortcut is the input, or a 1x1 of its activation where widths differ."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        stride: int,
        harmonic: bool,
        level: int | None,
        block_drop_rate: float,
        drop_path: float,
    ) -> None:
        super().__init__()
        kind, self.block_drop_rate = ("harmonic" if harmonic else "conv"), block_drop_rate
        self.names = (f"{kind}0", f"{kind}1")
        shape = {"padding": 1, "bias": False, "level": level}
        self.add_module(self.names[0], harmonic_or_plain(harmonic, in_channels, out_channels, 3, stride, **shape))
        self.add_module(self.names[1], harmonic_or_plain(harmonic, out_channels, out_channels, 3, **shape))
        self.bn0 = nn.BatchNorm2d(in_channels)
        self.bn1 = nn.BatchNorm2d(out_channels)
        self.convdim = None
        if in_channels != out_channels:
            self.convdim = nn.Conv2d(in_channels, out_channels, 1, stride, bias=False)
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """A (B, out_channels, H / stride, W / stride) map from x (B, in_channels, H, W)."""
        activation = F.relu(self.bn0(x), inplace=True)
        y = F.relu(self.bn1(getattr(self, self.names[0])(activation)), inplace=True)
        if self.block_drop_rate:
            y = F.dropout(y, self.block_drop_rate, self.training)
        y = self.drop_path(getattr(self, self.names[1])(y))
        return y.add_(x if self.convdim is None else self.convdim(activation))


class HarmWRN(PublishedWeights, HarmonicNet):
    """Harmonic wide ResNet.

    Features: the three groups, at strides 1, 2 and 4, before the last batch norm.

    Args:
        depth: 6n + 4, with n blocks a group.
        width: the groups have 16, 32 and 64 channels times this.
        level: keep only the DCT filters with i + j < level in the blocks; None keeps all nine.
        harm_root: whether the first layer is harmonic, with inner batch norm.
        harm_res_blocks: whether the 3x3 convolutions of the blocks are.
        num_classes: classes; 0 for no classifier.
        in_chans: channels of the image.
        global_pool: as timm names it; "" for none.
        drop_rate: dropout before the classifier.
        block_drop_rate: dropout between the two convolutions of a block (0.3 in the published recipe).
        drop_path_rate: stochastic depth at the last block, growing linearly from rate / N.

    Raises:
        OvertoneError: the depth is not 6n + 4.
    """

    def __init__(
        self,
        depth: int = 16,
        width: int = 4,
        level: int | None = None,
        harm_root: bool = True,
        harm_res_blocks: bool = True,
        num_classes: int = 10,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.0,
        block_drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        if depth < 10 or (depth - 4) % 6:
            raise OvertoneError(f"depth is {depth}; a wide ResNet has 6n + 4 layers: 10, 16, 22, 28 and so on")
        blocks, self.in_chans = (depth - 4) // 6, in_chans
        self.root = "harmonic0" if harm_root else "conv0"
        first = harmonic_or_plain(harm_root, in_chans, 16, 3, padding=1, bias=False, inner_bn=True)
        self.add_module(self.root, first)  # (B, 16, H, W)
        self.feature_info, in_channels = [], 16
        for group in range(3):  # strides 1, 2, 4
            channels, layers = 16 * 2**group * width, []
            for index in range(blocks):
                stride = 2 if group and not index else 1
                drop_path = drop_path_rate * (group * blocks + index + 1) / (3 * blocks)
                args = (in_channels, channels, stride, harm_res_blocks, level, block_drop_rate, drop_path)
                layers.append((f"block{index}", PreActivationBlock(*args)))
                in_channels = channels
            self.add_module(f"group{group}", _named_sequence(layers))
            self.feature_info.append({"num_chs": channels, "reduction": 2**group, "module": f"group{group}"})
        self.bn: nn.Module = nn.BatchNorm2d(in_channels)
        self.num_features = self.head_hidden_size = in_channels
        self.reset_classifier(num_classes, global_pool)
        init_weights(self)

    def forward_stage(self, index: int, x: Tensor) -> Tensor:
        """See `HarmonicNet`."""
        x = getattr(self, self.root)(x) if index == 0 else x
        layer = getattr(self, f"group{index}")
        return checkpoint_seq(layer, x) if self.grad_checkpointing else layer(x)

    def forward_norm(self, x: Tensor) -> Tensor:
        """The last batch norm and ReLU."""
        return x if isinstance(self.bn, nn.Identity) else F.relu(self.bn(x), inplace=True)

    def drop_stages(self, last: int) -> None:
        """See `HarmonicNet`."""
        for group in range(last + 1, 3):
            delattr(self, f"group{group}")

    def drop_norm(self) -> None:
        """See `HarmonicNet`."""
        self.bn = nn.Identity()

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters from the input to the output, for layer-wise learning rates."""
        blocks = r"^group(\d+)" if coarse else r"^group(\d+)\.block(\d+)"
        return {"stem": rf"^{self.root}", "blocks": [(blocks, None), (r"^bn\.", (99999,))]}

    def published_state_dict(self) -> dict[str, Tensor]:
        """The state under the keys and in the order of the published flat dictionary; it has no `dct` entries."""
        published: dict[str, Tensor] = {}
        pending: dict[str, Tensor] = {}  # weight and bias of a batch norm, which stand after its statistics there
        for key, value in published_state_dict(self).items():
            owner, _, leaf = key.rpartition(".")
            name = owner.rpartition(".")[2]
            if leaf in ("dct", "num_batches_tracked"):
                continue
            if name.startswith("bn") and leaf in ("weight", "bias"):
                pending[key] = value
            elif name.startswith("harmonic"):
                published[f"{owner}.conv"] = value
            elif name.startswith("conv"):
                published[owner] = value
            else:
                published[key] = value
                if leaf == "running_var":
                    published.update(pending)
                    pending = {}
        return published

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith(prefix)]:  # the flat dictionary's keys become ours
            owner, _, leaf = key.rpartition(".")
            if leaf == "conv":
                state_dict[f"{owner}.weight"] = state_dict.pop(key)
            elif leaf in ("convdim", "conv0", "conv1"):
                state_dict[f"{key}.weight"] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


def _named_sequence(layers: list[tuple[str, nn.Module]]) -> nn.Sequential:
    sequence = nn.Sequential()
    for name, layer in layers:
        sequence.add_module(name, layer)
    return sequence


def harm_wrn(depth: int = 16, width: int = 4, level: int | None = None, **kwargs: Any) -> HarmWRN:
    """A `HarmWRN` with its own arguments, outside timm's registry."""
    return HarmWRN(depth, width, level, **kwargs)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a file out of its wrappers; the net itself takes the published keys and shapes."""
    return unwrap_state_dict(state_dict)


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The wide ResNet that a state dict of these shapes belongs to, published keys or ours; None: another net."""
    shapes = {re.sub(r"(\.|^)(harmonic\d)\.conv$|(\.|^)(conv\d)$", r"\1\2\3\4.weight", k): s for k, s in shapes.items()}
    root, blocks = "harmonic0.weight" in shapes, "group0.block0.harmonic0.weight" in shapes
    first = shapes.get("harmonic0.weight" if root else "conv0.weight", ())
    inner = shapes.get(f"group0.block0.{'harmonic0' if blocks else 'conv0'}.weight", ())
    if len(first) < 3 or len(inner) < 3 or inner[0] % 16:
        return None
    depth = 6 * len({key.split(".")[1] for key in shapes if key.startswith("group0.")}) + 4
    level, width = (infer_level(inner) if blocks else None), inner[0] // 16
    common = common_args(shapes, "fc", infer_root_in_chans(first, root, 9))
    if root and not blocks and (depth, width) == (28, 10):
        return Inferred("harm1_wrn28_10", common)
    flags = ({} if root else {"harm_root": False}) | ({} if blocks else {"harm_res_blocks": False})
    if (depth, width) not in ((28, 10), (16, 8), (16, 4)):
        return Inferred("harm_wrn16_4", {"depth": depth, "width": width, "level": level} | flags | common)
    if level in (2, 3):
        return Inferred(f"harm_wrn{depth}_{width}_level{level}", flags | common)
    return Inferred(f"harm_wrn{depth}_{width}", ({"level": level} if level else {}) | flags | common)


# What a file, a recipe or the command line may choose.
ARGUMENTS: dict[str, Rule] = {
    "depth": whole(10, 100, step=6),
    "width": whole(1, 20),
    "level": LEVEL,
    "harm_root": flag(),
    "harm_res_blocks": flag(),
    "global_pool": choice("avg", "max", "avgmax", "catavgmax", ""),
    "block_drop_rate": RATE,
}


def _build(name: str, pretrained: bool, defaults: dict[str, Any], **kwargs: Any) -> HarmWRN:
    return build_model_with_cfg(
        HarmWRN,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": (0, 1, 2), "feature_cls": "getter"},
        **{**defaults, **kwargs},
    )


default_cfgs = default_cfgs_of(
    [f"harm_wrn{size}{level}" for size in ("28_10", "16_8", "16_4") for level in ("", "_level2", "_level3")]
    + ["harm1_wrn28_10"],
    first_conv="harmonic0",
    classifier="fc",
    num_classes=10,
    input_size=(3, 32, 32),
    pool_size=(8, 8),
    crop_pct=1.0,
    mean=CIFAR_MEAN,
    std=CIFAR_STD,
)


@register_model
def harm_wrn28_10(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-28-10."""
    return _build("harm_wrn28_10", pretrained, {"depth": 28, "width": 10}, **kwargs)


@register_model
def harm_wrn28_10_level2(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-28-10 with the DCT filters of level 2."""
    return _build("harm_wrn28_10_level2", pretrained, {"depth": 28, "width": 10, "level": 2}, **kwargs)


@register_model
def harm_wrn28_10_level3(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-28-10 with the DCT filters of level 3."""
    return _build("harm_wrn28_10_level3", pretrained, {"depth": 28, "width": 10, "level": 3}, **kwargs)


@register_model
def harm_wrn16_8(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-16-8."""
    return _build("harm_wrn16_8", pretrained, {"depth": 16, "width": 8}, **kwargs)


@register_model
def harm_wrn16_8_level2(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-16-8 with the DCT filters of level 2."""
    return _build("harm_wrn16_8_level2", pretrained, {"depth": 16, "width": 8, "level": 2}, **kwargs)


@register_model
def harm_wrn16_8_level3(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-16-8 with the DCT filters of level 3."""
    return _build("harm_wrn16_8_level3", pretrained, {"depth": 16, "width": 8, "level": 3}, **kwargs)


@register_model
def harm_wrn16_4(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-16-4."""
    return _build("harm_wrn16_4", pretrained, {"depth": 16, "width": 4}, **kwargs)


@register_model
def harm_wrn16_4_level2(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-16-4 with the DCT filters of level 2."""
    return _build("harm_wrn16_4_level2", pretrained, {"depth": 16, "width": 4, "level": 2}, **kwargs)


@register_model
def harm_wrn16_4_level3(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm-WRN-16-4 with the DCT filters of level 3."""
    return _build("harm_wrn16_4_level3", pretrained, {"depth": 16, "width": 4, "level": 3}, **kwargs)


@register_model
def harm1_wrn28_10(pretrained: bool = False, **kwargs: Any) -> HarmWRN:
    """Harm1-WRN-28-10: only the first layer is harmonic."""
    return _build("harm1_wrn28_10", pretrained, {"depth": 28, "width": 10, "harm_res_blocks": False}, **kwargs)
