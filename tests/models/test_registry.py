"""What every architecture must do, whatever its family: timm's contract.

Shapes and names are checked for every architecture on the meta device, where a net costs neither memory nor arithmetic.
What needs numbers is checked on representatives, one per structural variant.
"""

import copy
import io
import pickle
from dataclasses import dataclass
from typing import Any

import pytest
import timm
import torch
from timm.models import group_parameters, list_modules
from torch import Tensor, nn

from overtone.config import Optim
from overtone.engine.optim import parameter_groups
from overtone.models import list_architectures

ARCHITECTURES = list_architectures()

REDUCED_HORNET = {"depths": (1, 1, 2, 1), "base_dim": 16, "filter_size": 64}
REPRESENTATIVES: dict[str, dict[str, Any]] = {
    "mobilenetv2_x010": {},
    "hbonet_x010": {},
    "hbonet_x025_4x": {},
    "hbonet_x025_8x": {},
    "harm0_resnet50_maxpool": {},
    "harm1_resnet50": {},
    "harm_resnet18": {},
    "harm_resnet50_progressive": {},
    "harm_se_resnext101_32x4d": {},
    "harm_vgg11_bn": {"drop_rate": 0.0},
    "harm_wrn16_4_level2": {},
    "hornet_tiny_7x7": REDUCED_HORNET,
    "hornet_tiny_gf": REDUCED_HORNET,
}
# Tracing takes seconds a net: these have every kind of layer, and in training mode those that differ there.
TRACED = {
    "mobilenetv2_x010": ("eval",),
    "hbonet_x025_8x": ("eval",),
    "harm_resnet18": ("eval", "train"),
    "harm_vgg11_bn": ("eval",),
    "harm_wrn16_4_level2": ("train",),
    "harm_se_resnext101_32x4d": ("eval",),
    "hornet_tiny_7x7": ("eval",),
    "hornet_tiny_gf": ("eval", "train"),
}


def meta_net(name: str, **kwargs: Any) -> nn.Module:
    with torch.device("meta"):
        return timm.create_model(name, **kwargs).eval()


def meta_images(net: nn.Module) -> Tensor:
    """Two images of the net's own size: global filters then need no resizing, which is slow even without numbers."""
    cfg = net.pretrained_cfg
    return torch.empty(2, net.in_chans, *cfg["input_size"][1:], device="meta")


def strides_of(name: str) -> list[int]:
    """The strides of a family's feature maps."""
    if name.startswith("harm_vgg") or name == "harm0_vgg16_bn":
        return [1, 2, 4, 8, 16, 32]
    if "_wrn" in name:
        return [1, 2, 4]
    has_stride_2 = name.startswith(("mobilenetv2", "hbonet")) or name.endswith(("pool", "progressive", "32x4d"))
    return [2, 4, 8, 16, 32] if has_stride_2 else [4, 8, 16, 32]


# Every architecture, on the meta device


def test_no_name_is_one_of_timms() -> None:
    for name in ARCHITECTURES:
        assert timm.model_entrypoint(name).__module__.startswith("overtone.models."), name
    families = {timm.model_entrypoint(name).__module__.rpartition(".")[2] for name in ARCHITECTURES}
    timms = {name for module in list_modules() if module not in families for name in timm.list_models(module=module)}
    assert len(timms) > 500
    assert not timms & set(ARCHITECTURES)
    for module in families:
        assert set(timm.list_models(module=module)) <= set(ARCHITECTURES), "a family shares a module name with timm"


def test_the_architectures_of_the_four_families_are_there() -> None:
    expected = {f"mobilenetv2_x{w}" for w in ("100", "075", "050", "035", "025", "010")}
    expected |= {f"hbonet_x{w}" for w in ("100", "080", "060", "050", "035", "025", "010")}
    expected |= {"hbonet_x050_div8", "hbonet_x025_div8", "hbonet_x025_4x", "hbonet_x025_8x"}
    expected |= {f"harm_resnet{depth}" for depth in (18, 34, 50, 101, 152)} | {"harm1_resnet50", "harm1_resnet101"}
    expected |= {f"harm_resnet{d}_{v}" for d in (50, 101) for v in ("avgpool", "maxpool", "progressive")}
    expected |= {f"harm_vgg{depth}{bn}" for depth in (11, 13, 16, 19) for bn in ("", "_bn")}
    expected |= {"harm_se_resnext101_32x4d", "harm_se_resnext101_64x4d", "harm1_wrn28_10"}
    expected |= {"harm_wrn28_10", "harm_wrn16_8", "harm_wrn16_4", "harm_wrn16_4_level2", "harm_wrn16_4_level3"}
    expected |= {f"hornet_{s}_{f}" for s in ("tiny", "small", "base", "large") for f in ("7x7", "gf", "gf_img384")}
    assert expected <= set(ARCHITECTURES)


@dataclass
class Bare:
    """An architecture on the meta device, and what its body makes of two images."""

    name: str
    net: nn.Module
    images: Tensor
    maps: Tensor


@pytest.fixture(scope="module", params=ARCHITECTURES)
def bare(request: pytest.FixtureRequest) -> Bare:
    net = meta_net(request.param)
    images = meta_images(net)
    return Bare(request.param, net, images, net.forward_features(images))


def test_shapes_of_features_and_logits(bare: Bare) -> None:
    net, maps = bare.net, bare.maps
    assert maps.shape[:2] == (2, net.num_features)
    assert net.forward_head(maps).shape == (2, net.num_classes)
    assert net.forward_head(maps, pre_logits=True).shape == (2, net.head_hidden_size)


def test_feature_maps_are_what_feature_info_says(bare: Bare) -> None:
    net = meta_net(bare.name, features_only=True)
    maps = net(bare.images)
    assert [m.shape[1] for m in maps] == net.feature_info.channels()
    strides = net.feature_info.reduction()
    height, width = bare.images.shape[2:]
    assert [m.shape[2:] for m in maps] == [(height // s, width // s) for s in strides]
    assert strides == strides_of(bare.name)


def test_features_up_to_a_stage_leave_out_the_rest(bare: Bare) -> None:
    net = meta_net(bare.name, features_only=True, out_indices=(0, 1))
    assert net.feature_info.channels() == [info["num_chs"] for info in bare.net.feature_info[:2]]
    assert sum(p.numel() for p in net.parameters()) < 0.5 * sum(p.numel() for p in bare.net.parameters())


def test_head_is_replaced_taken_off_and_put_back(bare: Bare) -> None:
    net = copy.deepcopy(bare.net)
    width = net.head_hidden_size
    for num_classes in (7, 0, 3):
        with torch.device("meta"):
            net.reset_classifier(num_classes)
        assert net.num_classes == num_classes
        assert net.forward_head(bare.maps).shape == (2, num_classes or width)
    assert net.get_classifier().out_features == 3
    assert meta_net(bare.name, num_classes=0).forward_head(bare.maps).shape == (2, width)


def test_images_of_one_and_four_channels(bare: Bare) -> None:
    for in_chans in (1, 4):
        net = meta_net(bare.name, in_chans=in_chans)
        first = net.forward_intermediates(meta_images(net), indices=[0], stop_early=True, intermediates_only=True)
        assert first[0].shape[1] == net.feature_info[0]["num_chs"]


def test_layer_decay_groups_cover_all_parameters_from_stem_to_head(bare: Bare) -> None:
    net = bare.net
    names = dict(net.named_parameters())
    for coarse in (False, True):
        grouped = group_parameters(net, net.group_matcher(coarse=coarse))
        assert sorted(key for keys in grouped.values() for key in keys) == sorted(names)
    groups = parameter_groups(net, Optim(layer_decay=0.5))
    scale = {id(p): group["lr_scale"] for group in groups for p in group["params"]}
    assert set(scale) == {id(p) for p in names.values()}
    scales = [scale[id(p)] for p in names.values()]
    stem = next(p for key, p in names.items() if key.startswith(net.pretrained_cfg["first_conv"]))
    assert scale[id(stem)] == min(scales) < 0.2
    assert scale[id(net.get_classifier().weight)] == max(scales) == 1.0
    assert net.no_weight_decay() <= set(names)


def test_pretrained_cfg_names_the_first_layer_and_the_classifier(bare: Bare) -> None:
    cfg = bare.net.pretrained_cfg
    assert cfg["architecture"] == bare.name
    assert bare.net.get_submodule(cfg["classifier"]) is bare.net.get_classifier()
    assert next(bare.net.get_submodule(cfg["first_conv"]).parameters()).shape[0] > 0
    assert cfg["input_size"][0] == 3 and cfg["interpolation"] in ("bilinear", "bicubic")


# Representatives, with numbers


@dataclass
class Case:
    """A small net in eval mode whose every parameter matters, and images for it."""

    name: str
    net: nn.Module
    images: Tensor

    def copy(self) -> nn.Module:
        return copy.deepcopy(self.net)


def build(name: str, **kwargs: Any) -> nn.Module:
    """The architecture with 7 classes, without most of the equal blocks and of the VGG's hidden units."""
    net = timm.create_model(name, num_classes=7, **(REPRESENTATIVES[name] | kwargs))
    backbone = net.model if "features_only" in kwargs else net
    if len(getattr(backbone, "layer3", ())) > 2:
        backbone.layer3 = backbone.layer3[:2]
    if "vgg" in name and backbone is net:
        net.classifier[0], net.classifier[3], net.classifier[6] = (
            nn.Linear(25088, 16),
            nn.Linear(16, 16),
            nn.Linear(16, 7),
        )
        net.head_hidden_size = 16
    return net


@pytest.fixture(scope="module", params=REPRESENTATIVES)
def case(request: pytest.FixtureRequest) -> Case:
    torch.manual_seed(0)
    name = request.param
    net = build(name)
    with torch.no_grad():  # a zero norm or layer scale would hide the branch behind it
        for parameter in net.parameters():
            if parameter.ndim <= 1:
                parameter.add_(torch.rand_like(parameter), alpha=0.3)
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        for _ in range(3):  # running statistics that fit, so that no activation explodes
            net.train()(torch.randn(8, 3, 64, 64))
    return Case(name, net.eval(), images)


@torch.no_grad()
def logits(net: nn.Module, images: Tensor) -> Tensor:
    return net(images)


def gradients(net: nn.Module, images: Tensor) -> dict[str, Tensor]:
    net.zero_grad()
    out = net(images)
    (out * torch.linspace(-1, 1, out.numel()).view_as(out)).sum().backward()
    return {key: parameter.grad for key, parameter in net.named_parameters()}


def relative_error(a: Tensor, b: Tensor) -> float:
    return ((a - b).norm() / b.norm()).item()


def test_every_parameter_gets_a_gradient(case: Case) -> None:
    for key, gradient in gradients(case.copy().train(), case.images).items():
        assert gradient is not None, key
        assert gradient.isfinite().all() and gradient.any(), key


def test_head_follows_features(case: Case) -> None:
    maps = logits(case.net.forward_features, case.images)
    assert torch.equal(logits(case.net.forward_head, maps), logits(case.net, case.images))
    final, intermediates = logits(case.net.forward_intermediates, case.images)
    assert torch.equal(final, maps)
    assert [m.shape[1] for m in intermediates] == [info["num_chs"] for info in case.net.feature_info]
    early = case.net.forward_intermediates(case.images, indices=[0, 1], stop_early=True, intermediates_only=True)
    for a, b in zip(early, intermediates, strict=False):
        torch.testing.assert_close(a, b)


def test_features_only_gives_the_nets_own_maps(case: Case) -> None:
    backbone = build(case.name, features_only=True).eval()
    backbone.model.load_state_dict(case.net.state_dict(), strict=False)
    own = case.net.forward_intermediates(case.images, intermediates_only=True)
    for a, b in zip(backbone(case.images), own, strict=True):
        torch.testing.assert_close(a, b)
    backbone = build(case.name, features_only=True, out_indices=(0, 2)).eval()
    backbone.model.load_state_dict(case.net.state_dict(), strict=False)
    for a, b in zip(backbone(case.images), (own[0], own[2]), strict=True):
        torch.testing.assert_close(a, b)


@pytest.mark.parametrize("size", [(75, 97), (97, 75), (33, 64)])
def test_sizes_that_no_stride_divides(case: Case, size: tuple[int, int]) -> None:
    out = logits(case.net, torch.randn(1, 3, *size))
    assert out.shape == (1, 7) and out.isfinite().all()


def test_channels_last_changes_nothing(case: Case) -> None:
    net = case.copy().to(memory_format=torch.channels_last)
    images = case.images.to(memory_format=torch.channels_last)
    assert relative_error(logits(net, images), logits(case.net, case.images)) < 1e-4
    for gradient in gradients(net.train(), images).values():
        assert gradient.isfinite().all()


def test_bfloat16_autocast_stays_near_float32(case: Case) -> None:
    with torch.autocast("cpu", torch.bfloat16):
        rough = logits(case.net, case.images).float()
    assert relative_error(rough, logits(case.net, case.images)) < 0.1
    net = case.copy().train()
    with torch.autocast("cpu", torch.bfloat16):
        loss = net(case.images).float().square().mean()
    loss.backward()
    assert all(parameter.grad.isfinite().all() for parameter in net.parameters())


def test_copies_are_equal(case: Case) -> None:
    expected = logits(case.net, case.images)
    assert torch.equal(logits(case.copy(), case.images), expected)
    buffer = io.BytesIO()
    pickle.dump(case.net, buffer)
    buffer.seek(0)
    assert torch.equal(logits(pickle.load(buffer), case.images), expected)


def test_checkpointing_changes_no_gradient(case: Case) -> None:
    expected = gradients(case.copy().train(), case.images)
    recomputed = 0

    def count(*_: Any) -> None:
        nonlocal recomputed
        recomputed += 1

    net = case.copy().train()
    net.set_grad_checkpointing(True)
    hooks = [module.register_forward_hook(count) for module in net.modules() if not list(module.children())]
    found = gradients(net, case.images)
    with_checkpointing, recomputed = recomputed, 0
    for key, value in found.items():
        assert torch.allclose(value, expected[key], rtol=1e-3, atol=1e-5 * expected[key].abs().max().item() + 1e-6), key
    net.set_grad_checkpointing(False)
    gradients(net, case.images)
    assert with_checkpointing > recomputed, "nothing was computed a second time"
    for hook in hooks:
        hook.remove()


def test_published_state_goes_round(case: Case) -> None:
    published = case.net.published_state_dict()
    other = build(case.name).eval()
    other.load_state_dict({key: value.clone() for key, value in published.items()}, strict=True)
    again = other.published_state_dict()
    assert list(again) == list(published)
    for key, value in published.items():
        assert torch.equal(again[key], value), key
    assert torch.equal(logits(other, case.images), logits(case.net, case.images))
    with pytest.raises(RuntimeError, match="Missing key"):
        other.load_state_dict(dict(list(published.items())[:-1]), strict=True)


@pytest.mark.parametrize("case", TRACED, indirect=True)
def test_compiles_whole(case: Case) -> None:
    modes = TRACED[case.name]
    torch._dynamo.reset()
    compiled = torch.compile(case.copy(), fullgraph=True, backend="eager")
    if "eval" in modes:
        assert relative_error(logits(compiled, case.images), logits(case.net, case.images)) < 1e-5
    if "train" in modes:  # in float64: what differs then is not rounding, but for the float32 inside a global filter
        images, bound = case.images.double(), 1e-5 if case.name.endswith("_gf") else 1e-9
        expected = gradients(case.copy().double().train(), images)
        compiled = torch.compile(case.copy().double().train(), fullgraph=True, backend="eager")
        for key, value in gradients(compiled, images).items():
            assert relative_error(value, expected[key.removeprefix("_orig_mod.")]) < bound, key
