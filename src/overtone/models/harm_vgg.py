"""Harmonic VGG (Ulicny, Krylov, Dahyot, arXiv:2001.06570) and the plain VGG-16 baseline.

The keys are torchvision's and the published ones. No weights were published; code BSD-3-Clause,
https://github.com/matej-ulicny/harmonic-networks. The architecture is Simonyan and Zisserman's, arXiv:1409.1556.

Deviation: in the published code the flag for the first layer has no effect (it is always harmonic); here it has.
"""

from collections.abc import Mapping
from typing import Any

from timm.models import build_model_with_cfg, checkpoint_seq, register_model
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.layers.harmonic_net import HarmonicNet, check_choice, harmonic_or_plain, init_weights
from overtone.models._cfg import Inferred, PublishedWeights, common_args, default_cfgs_of, unwrap_state_dict
from overtone.models._harmonic_shapes import infer_root_in_chans
from overtone.models.arguments import Rule, choice, flag

__all__ = ["HarmVGG", "harm_vgg"]  # register_model adds the architectures

DEPTHS = {11: (1, 1, 2, 2, 2), 13: (2, 2, 2, 2, 2), 16: (2, 2, 3, 3, 3), 19: (2, 2, 4, 4, 4)}
WIDTHS = (64, 128, 256, 512, 512)
POOLS = {"avg": nn.AdaptiveAvgPool2d, "max": nn.AdaptiveMaxPool2d}


class HarmVGG(PublishedWeights, HarmonicNet):
    """Harmonic VGG: five groups of 3x3 convolutions with max pools after them, and a classifier of three linears.

    Features: the five groups at strides 1 to 16, before their pools, and the last pool at stride 32.

    Args:
        depth: 11, 13, 16 or 19.
        batch_norm: whether a batch norm follows every convolution.
        harm_root: whether the first convolution is harmonic, with inner batch norm.
        harm_res_blocks: whether the other convolutions are (the name is that of the residual nets).
        num_classes: classes; 0 leaves the 4096 features before the last linear.
        in_chans: channels of the image.
        global_pool: "avg" or "max", the pool to 7x7 before the classifier; "" for a net without a head.
        drop_rate: dropout after the first and the second linear.

    Raises:
        OvertoneError: another depth or pool.
    """

    def __init__(
        self,
        depth: int = 16,
        batch_norm: bool = True,
        harm_root: bool = True,
        harm_res_blocks: bool = True,
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        drop_rate: float = 0.5,
    ) -> None:
        super().__init__(num_classes, drop_rate)
        check_choice("depth", depth, DEPTHS)
        self.feature_info, self.in_chans = [], in_chans
        layers: list[nn.Module] = []
        self._ends: list[int] = []  # where each stage ends in `features`
        in_channels = in_chans
        for group, (width, convolutions) in enumerate(zip(WIDTHS, DEPTHS[depth], strict=True)):
            if group:
                layers.append(nn.MaxPool2d(2, 2))
            for index in range(convolutions):
                first = not group and not index
                harmonic = harm_root if first else harm_res_blocks
                layers.append(harmonic_or_plain(harmonic, in_channels, width, 3, padding=1, inner_bn=first))
                layers += [nn.BatchNorm2d(width)] if batch_norm else []
                layers.append(nn.ReLU(inplace=True))
                in_channels = width
            self._end_stage(layers, width, 2**group)  # (B, width, H / 2**group, W / 2**group)
        layers.append(nn.MaxPool2d(2, 2))
        self._end_stage(layers, in_channels, 32)
        self.features = nn.Sequential(*layers)
        self.num_features, self.head_hidden_size = in_channels, 4096
        self._global_pool = ""
        self.reset_classifier(num_classes, global_pool)
        init_weights(self)

    def _end_stage(self, layers: list[nn.Module], width: int, stride: int) -> None:
        self._ends.append(len(layers))
        self.feature_info.append({"num_chs": width, "reduction": stride, "module": f"features.{len(layers) - 1}"})

    def forward_stage(self, index: int, x: Tensor) -> Tensor:
        """See `HarmonicNet`."""
        layers = list(self.features)[self._ends[index - 1] if index else 0 : self._ends[index]]
        if self.grad_checkpointing:
            return checkpoint_seq(layers, x, every=len(layers))
        for layer in layers:
            x = layer(x)
        return x

    def forward_head(self, x: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits (B, num_classes) from the last feature map; the (B, 4096) before the last linear if `pre_logits`."""
        if not self._global_pool:
            return x
        x = self.avgpool(x).flatten(1)
        layers = list(self.classifier)
        for layer in layers[:-2] if pre_logits else layers:  # the last two: dropout and linear
            x = layer(x)
        return x

    def drop_stages(self, last: int) -> None:
        """See `HarmonicNet`."""
        self.features = nn.Sequential(*list(self.features)[: self._ends[last]])

    def get_classifier(self) -> nn.Module:
        """The last linear."""
        return self.classifier[-1] if self._global_pool else nn.Identity()

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new last linear for `num_classes` classes, none where it is 0.

        Args:
            num_classes: classes.
            global_pool: "avg" or "max"; "" removes the whole head, so that the net gives its last feature map; None
                leaves it as it is.

        Raises:
            OvertoneError: another pool, or classes without a pool.
        """
        pool = self._global_pool if global_pool is None else global_pool
        check_choice("global_pool", pool, ("", *POOLS))
        if num_classes and not pool:
            raise OvertoneError(
                f"a VGG of {num_classes} classes needs a pool to 7x7: global_pool is '', take avg or max"
            )
        had_head, self.num_classes, self._global_pool = bool(self._global_pool), num_classes, pool
        self.avgpool = POOLS[pool]((7, 7)) if pool else nn.Identity()
        if not pool:
            self.classifier = nn.Sequential()
            return
        if not had_head:
            hidden = self.head_hidden_size
            steps = (nn.ReLU(inplace=True), nn.Dropout(self.drop_rate))
            self.classifier = nn.Sequential(nn.Linear(self.num_features * 49, hidden), *steps)
            self.classifier.extend(
                nn.Sequential(
                    nn.Linear(hidden, hidden), nn.ReLU(inplace=True), nn.Dropout(self.drop_rate), nn.Identity()
                )
            )
            for layer in self.classifier:
                _init_linear(layer)
        self.classifier[-1] = nn.Linear(self.head_hidden_size, num_classes) if num_classes else nn.Identity()
        _init_linear(self.classifier[-1])

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """Groups of parameters from the input to the output, for layer-wise learning rates."""
        return {"stem": r"^features\.0\.", "blocks": r"^features\.(\d+)"}


def _init_linear(layer: nn.Module) -> None:
    if isinstance(layer, nn.Linear):
        nn.init.normal_(layer.weight, std=0.01)
        nn.init.zeros_(layer.bias)


def harm_vgg(depth: int = 16, batch_norm: bool = True, **kwargs: Any) -> HarmVGG:
    """A `HarmVGG` with its own arguments, outside timm's registry."""
    return HarmVGG(depth, batch_norm, **kwargs)


def checkpoint_filter_fn(state_dict: dict[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """The tensors of a published file out of its wrappers; the layers themselves take the published shapes."""
    return unwrap_state_dict(state_dict)


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The VGG that a state dict of these shapes belongs to; None where it is another net."""
    convs = [s for k, s in shapes.items() if k.startswith("features.") and k.endswith(".weight") and len(s) >= 3]
    widths = tuple(shape[0] for shape in convs)
    expected = {
        depth: tuple(width for width, count in zip(WIDTHS, counts, strict=True) for _ in range(count))
        for depth, counts in DEPTHS.items()
    }
    depth = next((depth for depth, known in expected.items() if known == widths), None)
    if depth is None or "features.0.weight" not in shapes:
        return None
    root, blocks = "features.0.bn.running_mean" in shapes, len(convs[1]) != 4
    suffix = "_bn" if "features.1.running_mean" in shapes else ""
    args = common_args(shapes, "classifier.6", infer_root_in_chans(convs[0], root, 9))
    if (depth, suffix, root, blocks) == (16, "_bn", False, False):
        return Inferred("harm0_vgg16_bn", args)
    if "classifier.0.weight" not in shapes:
        args["global_pool"] = ""
    flags = ({} if root else {"harm_root": False}) | ({} if blocks else {"harm_res_blocks": False})
    return Inferred(f"harm_vgg{depth}{suffix}", flags | args)


# What a file, a recipe or the command line may choose.
ARGUMENTS: dict[str, Rule] = {
    "depth": choice(*DEPTHS),
    "batch_norm": flag(),
    "harm_root": flag(),
    "harm_res_blocks": flag(),
    "global_pool": choice("", *POOLS),
}


def _build(name: str, pretrained: bool, defaults: dict[str, Any], **kwargs: Any) -> HarmVGG:
    return build_model_with_cfg(
        HarmVGG,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        feature_cfg={"out_indices": tuple(range(6)), "feature_cls": "getter"},
        **{**defaults, **kwargs},
    )


default_cfgs = default_cfgs_of(
    [f"harm_vgg{depth}{suffix}" for depth in DEPTHS for suffix in ("", "_bn")] + ["harm0_vgg16_bn"],
    first_conv="features.0",
    classifier="classifier.6",
    pool_size=(7, 7),
)


@register_model
def harm_vgg11(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG11 without batch norm."""
    return _build("harm_vgg11", pretrained, {"depth": 11, "batch_norm": False}, **kwargs)


@register_model
def harm_vgg11_bn(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG11 with batch norm."""
    return _build("harm_vgg11_bn", pretrained, {"depth": 11, "batch_norm": True}, **kwargs)


@register_model
def harm_vgg13(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG13 without batch norm."""
    return _build("harm_vgg13", pretrained, {"depth": 13, "batch_norm": False}, **kwargs)


@register_model
def harm_vgg13_bn(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG13 with batch norm."""
    return _build("harm_vgg13_bn", pretrained, {"depth": 13, "batch_norm": True}, **kwargs)


@register_model
def harm_vgg16(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG16 without batch norm."""
    return _build("harm_vgg16", pretrained, {"depth": 16, "batch_norm": False}, **kwargs)


@register_model
def harm_vgg16_bn(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG16 with batch norm."""
    return _build("harm_vgg16_bn", pretrained, {"depth": 16, "batch_norm": True}, **kwargs)


@register_model
def harm_vgg19(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG19 without batch norm."""
    return _build("harm_vgg19", pretrained, {"depth": 19, "batch_norm": False}, **kwargs)


@register_model
def harm_vgg19_bn(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """Harm-VGG19 with batch norm."""
    return _build("harm_vgg19_bn", pretrained, {"depth": 19, "batch_norm": True}, **kwargs)


@register_model
def harm0_vgg16_bn(pretrained: bool = False, **kwargs: Any) -> HarmVGG:
    """The baseline VGG16-BN."""
    return _build("harm0_vgg16_bn", pretrained, {"harm_root": False, "harm_res_blocks": False}, **kwargs)
