"""Which constructor arguments may be chosen by files, recipes and options (row 28 of the reliability table)."""

from types import ModuleType
from typing import Any

import pytest
import timm
import torch
from timm.models import list_modules

from overtone import recipes
from overtone.errors import OvertoneError
from overtone.models import families, list_architectures, register_family
from overtone.models.arguments import COMMON, MODEL_ARGS, checked_model_args
from overtone.models.building import build

FORBIDDEN: list[tuple[str, Any]] = [
    ("pretrained", True),
    ("pretrained_cfg", {"url": "http://127.0.0.1:9/evil.pth"}),
    ("pretrained_cfg_overlay", {"file": "evil.pth"}),
    ("pretrained_strict", False),
    ("checkpoint_path", "evil.pth"),
    ("cache_dir", "/tmp"),
    ("features_only", True),
    ("out_indices", [0]),
    ("device", "cuda"),
    ("block", print),
    ("unheard_of", 1),
]


@pytest.mark.parametrize("where", ["net.safetensors", MODEL_ARGS])
@pytest.mark.parametrize("architecture", ["hbonet_x100", "resnet18", "vit_tiny_patch16_224"])
@pytest.mark.parametrize(("name", "value"), FORBIDDEN, ids=[name for name, _ in FORBIDDEN])
def test_nothing_that_fetches_opens_or_calls(architecture: str, name: str, value: Any, where: str) -> None:
    with pytest.raises(OvertoneError) as caught:
        checked_model_args(architecture, {name: value}, where)
    message = str(caught.value)
    assert name in message and where in message and architecture in message and "\n" not in message


@pytest.mark.parametrize(
    ("architecture", "args"),
    [
        ("hbonet_x100", {"width_mult": 1e9}),
        ("hbonet_x100", {"width_mult": float("nan")}),
        ("hbonet_x100", {"width_mult": "1.0"}),
        ("mobilenetv2_x100", {"width_mult": 0}),
        ("mobilenetv2_x100", {"divisor": 10**9}),
        ("hbonet_x100", {"rates": "../2x"}),
        ("harm_resnet50", {"depth": 5000}),
        ("harm_resnet50", {"levels": [1] * 1000}),
        ("harm_resnet50", {"harm_root": "yes"}),
        ("harm_se_resnext101_32x4d", {"cardinality": 10**6}),
        ("harm_vgg16_bn", {"depth": 12}),
        ("harm_wrn16_4", {"width": 10**5}),
        ("harm_wrn16_4", {"depth": 11}),
        ("hornet_tiny_7x7", {"base_dim": 10**6}),
        ("hornet_tiny_7x7", {"depths": [10**6] * 4}),
        ("hornet_tiny_gf", {"filter_size": [10**6, 10**6]}),
        ("resnet18", {"base_width": 10**9}),
        ("resnet18", {"layers": [10**5] * 4}),
        ("resnet18", {"act_layer": "/etc/passwd"}),
        ("resnet18", {"act_layer": "http://127.0.0.1/a"}),
        ("resnet18", {"block_args": {"a": 1}}),
        ("vit_tiny_patch16_224", {"depth": 10**4}),
        ("resnet18", {"num_classes": 10**9}),
        ("hbonet_x100", {"in_chans": True}),
    ],
)
def test_values_are_bounded(architecture: str, args: dict[str, Any]) -> None:
    (name,) = args
    with pytest.raises(OvertoneError, match=rf"net\.safetensors: {name} of {architecture} is .*; it must be "):
        checked_model_args(architecture, args, "net.safetensors")


@pytest.mark.parametrize("args", [[1, 2], 5, "width_mult", None, {1: 2}])
def test_what_is_no_mapping_of_names(args: Any) -> None:
    with pytest.raises(OvertoneError, match=r"net\.safetensors: the arguments of hbonet_x100"):
        checked_model_args("hbonet_x100", args, "net.safetensors")


@pytest.mark.parametrize(
    ("args", "instead"),
    [
        ({"num_classes": 7}, "classes of the data"),
        ({"features_only": True}, "overtone.create_model"),
        ({"in_chans": 5}, "RGB"),
        ({"drop_rate": 0.1}, "--model.drop-rate"),
        ({"drop_path_rate": 0.1}, "--model.drop-path-rate"),
        ({"pretrained": True}, "--model.weights"),
    ],
)
@pytest.mark.parametrize("architecture", ["hbonet_x100", "resnet18"])
def test_options_say_what_to_use_instead(architecture: str, args: dict[str, Any], instead: str) -> None:
    with pytest.raises(OvertoneError, match=MODEL_ARGS) as caught:
        checked_model_args(architecture, args, MODEL_ARGS)
    assert instead in str(caught.value)


def test_sound_arguments_pass_and_build() -> None:
    sound: dict[str, dict[str, Any]] = {
        "hbonet_x100": {"width_mult": 0.7, "rates": "4x", "divisor": 8},
        "harm_resnet50": {"pool": "max", "levels": [None, 3, 3, 2]},
        "harm_wrn16_4": {"depth": 10, "width": 1, "level": 3, "block_drop_rate": 0.3},
        "hornet_tiny_gf": {"depths": [1, 1, 2, 1], "base_dim": 16, "filter_size": 64},
        "resnet18": {"stem_type": "deep", "stem_width": 16, "avg_down": True},
        "vit_tiny_patch16_224": {"img_size": [64, 64], "depth": 2, "act_layer": "relu"},
    }
    for name, args in sound.items():
        checked = checked_model_args(name, args, "net.safetensors")
        assert checked == {key: tuple(value) if isinstance(value, list) else value for key, value in args.items()}
        with torch.device("meta"):
            assert build(name, **checked).num_classes == 1000 or name.startswith("harm_wrn")


def test_every_family_declares_its_arguments() -> None:
    """Each of a family's own variants is within its ranges, and nothing common is declared twice."""
    for family in families():
        rules = family.ARGUMENTS
        assert rules and not rules.keys() & COMMON.keys()
        for variant in getattr(family, "VARIANTS", {}).values():
            assert all(rules[name].accepts(value) for name, value in variant.items()), variant


def test_the_arguments_of_every_recipe_pass() -> None:
    for name in recipes.list_recipes():
        model = recipes.load_recipe(name).model
        if recipes.load_recipe(name).task in ("classification", "multilabel"):  # of the others the task builds a head
            assert checked_model_args(model.name, model.args, MODEL_ARGS) == dict(model.args)


def test_a_family_without_arguments_or_architectures_is_refused() -> None:
    module = ModuleType("nothing")
    with pytest.raises(OvertoneError, match="architecture_of"):
        register_family(module)
    module.architecture_of = lambda shapes: None  # type: ignore[attr-defined]
    with pytest.raises(OvertoneError, match="registers no architecture"):
        register_family(module)
    assert "nothing" not in list_modules() and timm.is_model(list_architectures()[0])
