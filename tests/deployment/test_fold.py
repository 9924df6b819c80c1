"""Deployed networks compute what the originals do: every architecture, and what `overtone.deploy` promises."""

import copy

import pytest
import timm
import torch
from nets_to_fold import fill, global_filter_in_float64, logits, reduced_net, relative_error
from torch import nn

import overtone
from overtone.errors import OvertoneError
from overtone.layers.dct_conv import HarmConv2d
from overtone.layers.depthwise_conv import DepthwiseConv2d
from overtone.layers.gnconv import GlobalLocalFilter, GnConv
from overtone.layers.test_time_pooling import TestTimePooling
from overtone.models import list_architectures

EXACT = 1e-9


@pytest.fixture(autouse=True)
def exact_reference(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GlobalLocalFilter, "global_filter", global_filter_in_float64)


def size_of(name: str) -> int:
    return 64 if name.startswith("hornet") else 16 if "_wrn" in name else 32


@pytest.mark.parametrize("name", list_architectures())
def test_every_architecture_computes_the_same(name: str) -> None:
    net, size = reduced_net(name), size_of(name)
    deployed = overtone.deploy(net, size)
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    assert relative_error(logits(deployed, images), logits(net, images)) < EXACT
    kinds = {type(module) for module in deployed.modules()}
    assert not kinds & {HarmConv2d, DepthwiseConv2d, GnConv, GlobalLocalFilter, nn.Dropout}
    if "_wrn" not in name:  # there a batch norm stands before its convolution, behind an addition
        assert nn.BatchNorm2d not in kinds


@pytest.mark.parametrize(
    ("name", "gone"),
    [
        ("resnet18", nn.BatchNorm2d),
        ("mobilenetv2_035", timm.layers.BatchNormAct2d),
        ("efficientnet_b0", timm.layers.BatchNormAct2d),
        ("tf_mobilenetv3_small_minimal_100", timm.layers.BatchNormAct2d),
        ("convnext_atto", None),
        ("vit_tiny_patch16_224", None),
        ("resnetv2_50", None),
    ],
)
def test_networks_of_timm_compute_the_same(name: str, gone: type | None) -> None:
    kwargs = {"img_size": 64, "depth": 2, "init_values": 0.1} if name.startswith("vit") else {}
    net = fill(timm.create_model(name, num_classes=7, **kwargs).double(), name).eval()
    deployed = overtone.deploy(net, 64)
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    assert relative_error(logits(deployed, images), logits(net, images)) < EXACT
    kinds = {type(module) for module in deployed.modules()}
    assert gone not in kinds and timm.layers.LayerScale not in kinds
    if name.startswith("convnext"):
        assert all(block.gamma is None for stage in deployed.stages for block in stage.blocks)


def test_pools_to_one_pixel_become_means() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.AdaptiveAvgPool2d(2)).double()
    images = torch.randn(2, 3, 8, 8, dtype=torch.float64)
    found = overtone.deploy(net, 8)
    assert [module.output_size for module in found.modules() if isinstance(module, nn.AdaptiveAvgPool2d)] == [2]
    torch.testing.assert_close(found(images), net(images), rtol=0, atol=1e-12)


def test_the_original_is_left_as_it_is() -> None:
    net = reduced_net("hornet_tiny_gf", drop_rate=0.1, drop_path_rate=0.1).train()
    before = copy.deepcopy(net)
    deployed = overtone.deploy(net, 64)
    assert net.training and all(p.requires_grad for p in net.parameters())
    assert str(net) == str(before)
    for key, value in net.state_dict().items():
        assert torch.equal(value, before.state_dict()[key]), key
    assert not deployed.training and not any(p.requires_grad for p in deployed.parameters())
    assert not {p.data_ptr() for p in net.parameters()} & {p.data_ptr() for p in deployed.parameters()}
    assert not any(module._forward_hooks or module._forward_pre_hooks for module in deployed.modules())


@pytest.mark.parametrize("name", ["mobilenetv2_x010", "harm_resnet18", "hornet_tiny_7x7"])
def test_without_global_filters_every_size_goes(name: str) -> None:
    net = reduced_net(name)
    deployed = overtone.deploy(net, 64)
    images = torch.randn(1, 3, 75, 97, dtype=torch.float64)
    assert relative_error(logits(deployed, images), logits(net, images)) < EXACT
    maps = logits(deployed.forward_features, images)
    assert relative_error(logits(deployed.forward_head, maps), logits(net, images)) < EXACT


def test_global_filters_are_for_one_size_and_say_so() -> None:
    net = reduced_net("hornet_tiny_gf")
    deployed = overtone.deploy(net, (96, 64))
    images = torch.randn(3, 3, 96, 64, dtype=torch.float64)
    assert relative_error(logits(deployed, images), logits(net, images)) < EXACT
    with pytest.raises(OvertoneError, match=r"6x4 maps and was given 4x6.*example_size"):
        deployed(images.transpose(2, 3))


def test_the_size_is_that_of_the_network_where_none_is_given() -> None:
    net = reduced_net("hornet_tiny_gf", pretrained_cfg_overlay={"input_size": (3, 96, 64)})
    assert net.pretrained_cfg["input_size"] == (3, 96, 64)
    overtone.deploy(net)(torch.randn(1, 3, 96, 64, dtype=torch.float64))


def test_gates_of_an_odd_number_of_channels() -> None:
    net = reduced_net("hornet_tiny_gf", base_dim=7, orders=(1, 1, 4, 2))
    assert net.stages[2][0].gnconv.dims == [3, 7, 14, 28]
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert relative_error(logits(overtone.deploy(net, 64), images), logits(net, images)) < EXACT


def test_without_layer_scale() -> None:
    net = reduced_net("hornet_tiny_7x7", layer_scale_init=0.0)
    images = torch.randn(1, 3, 64, 64, dtype=torch.float64)
    assert relative_error(logits(overtone.deploy(net, 64), images), logits(net, images)) < EXACT


def test_test_time_pooling_stays() -> None:
    net = TestTimePooling(reduced_net("harm_se_resnext101_32x4d"), kernel_size=2)
    images = torch.randn(1, 3, 96, 96, dtype=torch.float64)
    deployed = overtone.deploy(net, 96)
    assert isinstance(deployed, TestTimePooling)
    assert relative_error(logits(deployed, images), logits(net, images)) < EXACT


@pytest.mark.parametrize(("dtype", "bound"), [(torch.float32, 1e-5), (torch.bfloat16, 0.05)])
@pytest.mark.parametrize("name", ["hornet_tiny_gf", "harm_resnet18"])
def test_other_types(name: str, dtype: torch.dtype, bound: float) -> None:
    exact, images = reduced_net(name), torch.randn(1, 3, 64, 64, dtype=torch.float64)
    deployed = overtone.deploy(copy.deepcopy(exact).to(dtype), 64)
    assert {p.dtype for p in [*deployed.parameters(), *deployed.buffers()]} == {dtype}
    assert relative_error(logits(deployed, images.to(dtype)).double(), logits(exact, images)) < bound


@pytest.mark.parametrize("name", ["mobilenetv2_x010", "harm_wrn16_4_level2", "hornet_tiny_gf"])
def test_exports_with_an_open_batch_and_without_complex_numbers(name: str) -> None:
    net, size = reduced_net(name, drop_rate=0.2), size_of(name)
    deployed = overtone.deploy(net, size)
    images = torch.randn(2, 3, size, size, dtype=torch.float64)
    program = torch.export.export(deployed, (images,), dynamic_shapes=({0: torch.export.Dim("batch")},))
    values = [node.meta["val"] for node in program.graph.nodes if isinstance(node.meta.get("val"), torch.Tensor)]
    assert len(values) > 50 and not any(value.is_complex() for value in values)
    assert not [node for node in program.graph.nodes if "fft" in str(node.target) or "dropout" in str(node.target)]
    three = torch.randn(3, 3, size, size, dtype=torch.float64)
    assert relative_error(logits(program.module(), three), logits(net, three)) < EXACT


def test_compiles_whole() -> None:
    net = reduced_net("hornet_tiny_gf")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64)
    torch._dynamo.reset()
    compiled = torch.compile(overtone.deploy(net, 64), fullgraph=True, backend="eager")
    assert relative_error(logits(compiled, images), logits(net, images)) < EXACT
