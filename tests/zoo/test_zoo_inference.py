"""The network of a state dict, inferred from its keys and shapes alone."""

from typing import Any

import pytest
import timm
import torch
from torch import nn

from overtone.models import list_architectures
from overtone.zoo import infer_architecture

# No shape shows a pool: the published net with these shapes is taken, or the one without a pool, and that is said.
SAME_SHAPES = {
    "harm0_resnet50_maxpool": "harm0_resnet50",
    "harm0_resnet101": "harm0_resnet101_maxpool",
    **{f"harm_resnet{depth}_{pool}pool": f"harm_resnet{depth}" for depth in (50, 101) for pool in ("avg", "max")},
}


def meta_net(name: str, **args: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **args)


def shapes_of(state: dict[str, torch.Tensor]) -> dict[str, tuple[int, ...]]:
    return {key: tuple(value.shape) for key, value in state.items()}


@pytest.mark.slow
@pytest.mark.parametrize("name", list_architectures())
def test_every_architecture_by_its_own_and_its_published_shapes(name: str) -> None:
    net = meta_net(name)
    for state in (net.state_dict(), net.published_state_dict()):
        inferred = infer_architecture(shapes_of(state))
        assert inferred is not None
        assert inferred.architecture == SAME_SHAPES.get(name, name)
        assert inferred.args == {"num_classes": net.num_classes}
        has_a_pool_to_tell = "resnet" in name or "resnext" in name
        assert ("pool" in inferred.assumed) == has_a_pool_to_tell


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mobilenetv2_x100", {"width_mult": 0.6, "num_classes": 7}),
        ("mobilenetv2_x100", {"width_mult": 1.4}),
        ("mobilenetv2_x100", {"width_mult": 0.333, "in_chans": 1}),
        ("mobilenetv2_x010", {"divisor": 8, "num_classes": 0}),
        ("hbonet_x100", {"width_mult": 0.6, "rates": "8x", "in_chans": 4}),
        ("hbonet_x100", {"width_mult": 0.737, "divisor": 4, "num_classes": 0}),
        ("hbonet_x050", {"rates": "4x"}),
        ("harm_resnet18", {"num_classes": 0}),
        ("harm_resnet50", {"levels": (None, 4, 3, 1), "in_chans": 1}),
        ("harm_resnet34", {"harm_root": False, "harm_res_blocks": False}),
        ("harm_resnet18", {"harm_root": False}),
        ("harm_resnet50_progressive", {"in_chans": 2, "num_classes": 3}),
        ("harm_se_resnext101_32x4d", {"in_chans": 1, "levels": (None, 3, 3, 2)}),
        ("harm_se_resnext101_32x4d", {"harm_root": False}),
        ("harm_vgg11", {"num_classes": 5, "in_chans": 2, "harm_root": False}),
        ("harm_vgg13_bn", {"num_classes": 0}),
        ("harm_vgg13_bn", {"num_classes": 0, "global_pool": ""}),
        ("harm_vgg19_bn", {"harm_res_blocks": False}),
        ("harm_wrn16_4", {"depth": 10, "width": 1, "level": 3}),
        ("harm_wrn16_4", {"depth": 22, "width": 2, "level": 1, "num_classes": 100}),
        ("harm_wrn16_4", {"harm_root": False, "in_chans": 1, "num_classes": 3}),
        ("hornet_tiny_gf", {"filter_size": (96, 160), "depths": (1, 1, 2, 1), "base_dim": 16}),
        ("hornet_tiny_gf", {"filter_size": 256, "layer_scale_init": 0.0}),
        ("hornet_small_7x7", {"depths": (1, 2, 3, 1), "num_classes": 0, "in_chans": 1}),
        ("hornet_tiny_7x7", {"orders": (1, 2, 3, 4)}),
        ("hornet_large_gf_img384", {"num_classes": 10459}),
    ],
)
def test_variants_outside_the_registry(name: str, args: dict[str, Any]) -> None:
    """What is inferred builds a net of exactly those shapes."""
    net = meta_net(name, **args)
    published = shapes_of(net.published_state_dict())
    inferred = infer_architecture(published)
    assert inferred is not None
    again = meta_net(inferred.architecture, **inferred.args)
    assert shapes_of(again.published_state_dict()) == published
    assert shapes_of(again.state_dict()) == shapes_of(net.state_dict())
    assert again.num_classes == net.num_classes and again.in_chans == net.in_chans


@pytest.mark.parametrize(
    "name", ["resnet50", "mobilenetv2_100", "convnext_tiny", "seresnext50_32x4d", "vit_tiny_patch16_224"]
)
def test_nets_of_others_are_not_taken_for_ours(name: str) -> None:
    inferred = infer_architecture(shapes_of(meta_net(name).state_dict()))
    if name == "resnet50":  # the plain baseline of the harmonic nets is the same network
        assert inferred is not None and inferred.architecture == "harm0_resnet50"
    else:
        assert inferred is None


@pytest.mark.parametrize("name", ["mobilenetv2_x010", "harm_wrn16_4", "hornet_tiny_gf"])
def test_incomplete_and_altered_state_dicts_do_not_break_the_inference(name: str) -> None:
    shapes = shapes_of(meta_net(name).published_state_dict())
    for key in [next(iter(shapes)), *list(shapes)[5::60], *list(shapes)[-2:]]:
        infer_architecture({key: shapes[key]})
        infer_architecture({other: shape for other, shape in shapes.items() if other != key})
        for wrong in ((), (1,), (0, 0, 0, 0)):
            infer_architecture(shapes | {key: wrong})
