"""Harmonic networks: their published state, their contract with timm, their sizes."""

import pytest
import timm
import torch
from torch import nn

from overtone.errors import OvertoneError
from overtone.layers.dct_bank import dct_bank
from overtone.layers.dct_conv import HarmConv2d
from overtone.models import harm_resnet, harm_vgg, harm_wrn
from overtone.models.harm_se_resnext import harm_se_resnext101

# --- published state -------------------------------------------------------------------------------------------------

NETS = {
    "resnet18": lambda: harm_resnet(18, num_classes=5),
    "resnet50 progressive": lambda: harm_resnet(50, levels=[None, None, 3, 2], pool="avg", num_classes=5),
    "wrn": lambda: harm_wrn(10, 1, 2),
    "harm1 wrn": lambda: harm_wrn(10, 1, harm_res_blocks=False, in_chans=1),
    "plain wrn": lambda: harm_wrn(10, 1, harm_root=False, harm_res_blocks=False),
    "vgg11": lambda: harm_vgg(11, False, num_classes=0, global_pool=""),
    "vgg11_bn": lambda: harm_vgg(11, harm_root=False, num_classes=0, global_pool=""),
}


@pytest.mark.parametrize("build", NETS.values(), ids=NETS)
def test_published_state_round_trip(build):
    source, target = build(), build()
    for buffer in source.buffers():
        if buffer.is_floating_point() and buffer.ndim == 1:
            nn.init.uniform_(buffer)
    published = source.published_state_dict()
    target.load_state_dict(published, strict=True)
    again = target.published_state_dict()
    assert list(again) == list(published)
    assert all(torch.equal(again[key], published[key]) for key in published)
    target.load_state_dict(source.state_dict(), strict=True)
    dropped = [key for key in published if key.endswith(("dct", "num_batches_tracked"))]
    owned = [key for key in source.state_dict() if not key.endswith("num_batches_tracked")]
    assert len(published) - len(dropped) == len(owned)


def test_published_state_within_a_larger_module():
    net = harm_wrn(10, 1)
    wrapped = nn.ModuleDict({"backbone": net})
    wrapped.load_state_dict({f"backbone.{key}": value + 1 for key, value in net.published_state_dict().items()})


def broken_states():
    def damaged(state):
        state["layer2.0.harm1.dct"] = state["layer2.0.harm1.dct"] + 1e-3

    def not_a_number(state):
        state["harm1.dct"] = state["harm1.dct"] * float("nan")

    def wrong_bank_shape(state):
        state["harm1.dct"] = state["harm1.dct"][:49]

    def other_level(state):
        state["layer1.0.harm2.weight"] = state["layer1.0.harm2.weight"][:, :, :6]

    def missing(state):
        del state["layer3.1.harm2.weight"]

    def unexpected(state):
        state["layer3.1.harm2.extra"] = torch.zeros(1)

    return {
        "harm1.dct differs from the DCT formula by nan": not_a_number,
        "layer2.0.harm1.dct differs from the DCT formula by 1.0e-03": damaged,
        r"harm1.dct is \(49, 1, 7, 7\), expected": wrong_bank_shape,
        r"layer1.0.harm2.weight .*\(64, 64, 6, 1, 1\).*build the net with": other_level,
        'Missing key.*"layer3.1.harm2.weight"': missing,
        'Unexpected key.*"layer3.1.harm2.extra"': unexpected,
    }


@pytest.mark.parametrize(("message", "harm"), broken_states().items())
def test_broken_published_states_are_refused(message, harm):
    net = harm_resnet(18)
    state = net.published_state_dict()
    harm(state)
    with pytest.raises(RuntimeError, match=message):
        net.load_state_dict(state, strict=True)


def test_bank_may_be_rounded_as_the_file_was():
    layer = HarmConv2d(3, 4, 7, inner_bn=True)
    for dtype in (torch.float64, torch.float32, torch.float16, torch.bfloat16):
        state = {**layer.state_dict(), "dct": dct_bank(7).repeat(3, 1, 1)[:, None].to(dtype)}
        layer.load_state_dict(state, strict=True)
    state["dct"] = dct_bank(7).repeat(3, 1, 1)[:, None] + 2e-7
    with pytest.raises(RuntimeError, match="damaged"):
        layer.load_state_dict(state)


# --- the nets --------------------------------------------------------------------------------------------------------

ARCHITECTURES = [
    *(f"harm_resnet{depth}" for depth in (18, 34, 50, 101, 152)),
    *(f"harm_resnet{depth}_{pool}" for depth in (50, 101) for pool in ("avgpool", "maxpool", "progressive")),
    *("harm1_resnet50", "harm1_resnet101"),
    *("harm0_resnet50", "harm0_resnet50_maxpool", "harm0_resnet101", "harm0_resnet101_maxpool"),
    *(f"harm_vgg{depth}{suffix}" for depth in (11, 13, 16, 19) for suffix in ("", "_bn")),
    *("harm0_vgg16_bn", "harm1_wrn28_10"),
    *("harm_se_resnext101_32x4d", "harm_se_resnext101_64x4d", "harm0_se_resnext101_32x4d"),
    *(f"harm_wrn{size}{level}" for size in ("28_10", "16_8", "16_4") for level in ("", "_level2", "_level3")),
]
MILLIONS = {  # the published figures
    **{"harm_resnet50": 25.6, "harm_resnet50_progressive": 19.7, "harm1_resnet50": 25.6, "harm_resnet101": 44.5},
    **{"harm_vgg16_bn": 138.4, "harm0_vgg16_bn": 138.4, "harm0_resnet50": 25.6, "harm0_resnet101_maxpool": 44.5},
    **{"harm_se_resnext101_32x4d": 49.0, "harm_se_resnext101_64x4d": 88.2, "harm0_se_resnext101_32x4d": 49.0},
    **{"harm_wrn28_10_level3": 24.4, "harm_wrn28_10_level2": 12.3},
}


@pytest.mark.parametrize("name", ARCHITECTURES)
def test_names_say_where_the_net_is_harmonic(name):
    with torch.device("meta"):
        net = timm.create_model(name)
    harmonic = [m for m in net.modules() if isinstance(m, HarmConv2d)]
    plain = [m for m in net.modules() if isinstance(m, nn.Conv2d) and m.kernel_size[0] > 1]
    assert bool(harmonic) == (not name.startswith("harm0_")) and bool(plain) == (not name.startswith("harm_"))
    if name in MILLIONS:
        assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(MILLIONS[name], abs=0.1)


def test_vgg_loses_and_regains_its_head():
    with torch.device("meta"):
        net, x = harm_vgg(11, False, num_classes=3).eval(), torch.empty(2, 3, 33, 47)
        size = sum(p.numel() for p in net.parameters())
        net.reset_classifier(0, "")
        assert net(x).shape == (2, 512, 1, 1) and not list(net.classifier.parameters())
        with pytest.raises(OvertoneError, match="needs a pool"):
            net.reset_classifier(3)
        net.reset_classifier(3, "max")
        assert net(x).shape == (2, 3) and sum(p.numel() for p in net.parameters()) == size


def test_pool_and_stem_of_the_published_variants():
    assert isinstance(harm_resnet(18, pool="avg").pool, nn.AvgPool2d)
    assert isinstance(harm_resnet(18, pool="max").pool, nn.MaxPool2d)
    for pool, stride in ((None, 4), ("avg", 2)):
        net = harm_resnet(18, harm_root=False, pool=pool)
        assert net.conv1.stride == (stride, stride)


def test_se_resnext_starts_with_empty_branches_and_linear_drop_path():
    net = harm_se_resnext101(num_classes=2, drop_path_rate=0.1)
    rates = [m.drop_prob for m in net.modules() if type(m).__name__ == "DropPath"]
    assert rates == pytest.approx([0.1 * (i + 1) / 33 for i in range(33)])
    residual = [m.bn3 for m in net.modules() if hasattr(m, "bn3")]
    assert len(residual) == 33 and not any(bn.weight.any() for bn in residual)


@pytest.mark.parametrize(
    ("build", "message"),
    [
        (lambda: harm_resnet(20), "depth is 20"),
        (lambda: harm_resnet(18, pool="sum"), "pool is 'sum'"),
        (lambda: harm_resnet(18, levels=(None, 3)), "takes four"),
        (lambda: harm_wrn(17), "6n"),
        (lambda: harm_vgg(12), "depth is 12"),
    ],
)
def test_unknown_arguments_are_clear_errors(build, message):
    with pytest.raises(OvertoneError, match=message):
        build()
