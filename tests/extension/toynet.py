"""ToyNet: a family that nobody else knows, in one file. Everything that the package asks of a family is here."""

import sys
from collections.abc import Mapping
from typing import Any

import torch
from timm.models import build_model_with_cfg, register_model
from torch import Tensor, nn

from overtone.models import register_family
from overtone.models._cfg import Inferred, PublishedWeights, common_args, default_cfgs_of, unwrap_state_dict
from overtone.models.arguments import Rule, whole


class ToyNet(PublishedWeights, nn.Module):
    """Two convolutions of stride 2, a mean and a linear."""

    def __init__(self, width: int = 4, num_classes: int = 1000, in_chans: int = 3, drop_rate: float = 0.0) -> None:
        super().__init__()
        self.num_classes, self.num_features, self.in_chans = num_classes, 2 * width, in_chans
        self.stem = nn.Conv2d(in_chans, width, 3, 2, 1)
        self.body = nn.Conv2d(width, 2 * width, 3, 2, 1)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(2 * width, num_classes) if num_classes else nn.Identity()

    def forward(self, x: Tensor) -> Tensor:
        """Logits (B, num_classes) of images (B, in_chans, H, W)."""
        return self.head(self.drop(torch.relu(self.body(torch.relu(self.stem(x)))).mean((2, 3))))

    def get_classifier(self) -> nn.Module:
        """The linear."""
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None) -> None:
        """A new linear."""
        self.num_classes, self.head = num_classes, nn.Linear(self.num_features, num_classes)

    def published_state_dict(self) -> dict[str, Tensor]:
        """The state under the published keys."""
        return {f"toy/{key}": value for key, value in self.state_dict().items()}

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        for key in [key for key in state_dict if key.startswith("toy/")]:
            state_dict[key.removeprefix("toy/")] = state_dict.pop(key)
        super()._load_from_state_dict(state_dict, prefix, *args)


ARGUMENTS: dict[str, Rule] = {"width": whole(1, 64)}
VARIANTS: dict[str, dict[str, Any]] = {"toynet_small": {"width": 4}, "toynet_large": {"width": 8}}
default_cfgs = default_cfgs_of(VARIANTS, first_conv="stem", classifier="head", input_size=(3, 32, 32))


def foreign_layout(entries: Mapping[str, Any]) -> tuple[str, dict[str, Any]] | None:
    """A copy that somebody has published under upper-case keys."""
    if "TOY.STEM.WEIGHT" not in entries:
        return None
    return "shouted", {key.lower().replace("toy.", "toy/", 1): value for key, value in entries.items()}


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """A state dict as published or ours."""
    return unwrap_state_dict(state_dict)


def architecture_of(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The ToyNet that a state dict of these shapes belongs to."""
    shapes = {key.removeprefix("toy/"): shape for key, shape in shapes.items()}
    stem = shapes.get("stem.weight", ())
    if len(stem) != 4 or shapes.get("body.weight", ())[:2] != (2 * stem[0], stem[0]):
        return None
    common = common_args(shapes, "head", stem[1])
    name = next((name for name, variant in VARIANTS.items() if variant["width"] == stem[0]), None)
    return Inferred(name, common) if name else Inferred("toynet_small", {"width": stem[0]} | common)


def _build(name: str, pretrained: bool, given: dict[str, Any]) -> ToyNet:
    return build_model_with_cfg(ToyNet, name, pretrained, **(VARIANTS[name] | given))


@register_model
def toynet_small(pretrained: bool = False, **kwargs: Any) -> ToyNet:
    """ToyNet of width 4."""
    return _build("toynet_small", pretrained, kwargs)


@register_model
def toynet_large(pretrained: bool = False, **kwargs: Any) -> ToyNet:
    """ToyNet of width 8."""
    return _build("toynet_large", pretrained, kwargs)


register_family(sys.modules[__name__])
