"""What is particular to MobileNetV2 and HBONet; what every architecture must do is tested over the registry."""

import copy
import math

import pytest
import timm
import torch
from timm.layers.drop import DropPath
from torch import nn
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

import overtone.models  # noqa: F401  (registers the architectures)
from overtone.errors import OvertoneError
from overtone.layers.inverted_residual import InvertedResidual, ReLU6, round_channels
from overtone.models.hbonet import HarmoniousBottleneck, HBONet, hbonet
from overtone.models.mobilenetv2 import MobileNetV2, checkpoint_filter_fn, mobilenetv2


def smallest(family: str, **kwargs) -> MobileNetV2 | HBONet:
    torch.manual_seed(0)
    return {"mobilenetv2": mobilenetv2, "hbonet": hbonet}[family](0.1, num_classes=10, **kwargs)


both_families = pytest.mark.parametrize("family", ["mobilenetv2", "hbonet"])


# Widths


@pytest.mark.parametrize(
    ("channels", "divisor", "rounded"),
    [
        (3.2, 4, 4),
        (1.6, 4, 4),  # never below the divisor
        (12.0, 8, 16),  # halfway goes up
        (11.2, 8, 16),  # 8 would be less than 90 %
        (35.0, 8, 32),  # 32 is within 90 %
        (36.0, 8, 40),
        (9.0, 2, 10),
    ],
)
def test_widths_are_rounded_to_the_divisor_but_not_more_than_a_tenth_down(channels, divisor, rounded):
    assert round_channels(channels, divisor) == rounded


@pytest.mark.parametrize(("channels", "divisor"), [(0.0, 8), (-1.0, 8), (math.nan, 8), (16.0, 0)])
def test_impossible_widths_are_refused(channels, divisor):
    with pytest.raises(OvertoneError, match="positive"):
        round_channels(channels, divisor)


@pytest.mark.parametrize(
    ("net", "stage_widths"),
    [
        # Stem, then the end of every stage.
        (lambda: mobilenetv2(0.1), [4, 4, 4, 4, 8, 12, 16, 32]),
        (lambda: mobilenetv2(0.1, divisor=8), [8, 8, 8, 8, 8, 16, 16, 32]),
        (lambda: hbonet(0.1), [4, 4, 4, 8, 12, 20, 28, 16, 20, 40]),
        (lambda: hbonet(0.25), [8, 6, 10, 18, 24, 48, 72, 36, 50, 100]),
        (lambda: hbonet(0.25, divisor=8), [8, 8, 16, 24, 24, 48, 72, 40, 48, 104]),
        (lambda: hbonet(0.5), [16, 10, 18, 36, 48, 96, 144, 72, 100, 200]),
        (lambda: hbonet(0.35), [16, 8, 16, 24, 32, 64, 104, 48, 72, 144]),
    ],
)
def test_the_divisor_follows_the_published_rule(net, stage_widths):
    with torch.device("meta"):
        layers = net().eval()
        widths, x = [], torch.empty(1, 3, 64, 64)
        for layer in layers.features:
            x = layer(x)
            widths.append(x.shape[1])
    ends = [0, 1, 3, 6, 10, 13, 16, 17] if isinstance(layers, MobileNetV2) else [0, 1, 2, 5, 9, 13, 14, 15, 17, 18]
    assert [widths[end] for end in ends] == stage_widths


@pytest.mark.parametrize("width_mult", [0.05, 0.457, 0.73, 1.4])
@pytest.mark.parametrize("divisor", [None, 1, 16])
def test_any_width_builds_and_runs(width_mult, divisor):
    with torch.device("meta"):
        image = torch.empty(1, 3, 96, 64)
        nets = [mobilenetv2(width_mult, divisor=divisor)]
        nets += [hbonet(width_mult, rates, divisor) for rates in ("2x", "4x", "8x")]
        for net in nets:
            assert net.eval()(image).shape == (1, 1000)


def test_a_stage_never_more_than_doubles_its_input():
    """Rounded apart, 96 w = 43.9 and 192 w = 87.7 become 40 and 88; a half of 44 is not in the input."""
    with torch.device("meta"):
        blocks = [m for m in hbonet(0.457).modules() if isinstance(m, HarmoniousBottleneck)]
    assert (40, 80) in [(block.conv[0].in_channels, block.half_chs + block.passed_chs) for block in blocks]


@both_families
def test_the_last_convolution_grows_only_above_width_one(family):
    build, width = {"mobilenetv2": (mobilenetv2, 1280), "hbonet": (hbonet, 1600)}[family]
    with torch.device("meta"):
        assert build(0.5).num_features == build(1.0).num_features == width
        assert build(1.5).num_features == 1.5 * width


def test_unknown_rates_are_refused_and_named():
    with pytest.raises(OvertoneError, match=r"'3x'.*2x, 4x, 8x"):
        hbonet(rates="3x")


# The harmonious bottleneck


def test_a_strided_block_passes_its_input_on_pooled_and_adds_nothing():
    block = HarmoniousBottleneck(6, 10, stride=2).eval()
    x = torch.randn(2, 6, 9, 7)
    y = block(x)
    assert y.shape == (2, 10, 5, 4)
    assert not hasattr(block, "upconv")
    torch.testing.assert_close(y[:, :5, :4, :3], F.avg_pool2d(x[:, 1:, :8, :6], 2))
    # In ceil mode the last window holds one value, and is its mean.
    torch.testing.assert_close(y[:, :5, 4, 3], x[:, 1:, 8, 6])
    torch.testing.assert_close(y[:, 5:], block.conv(x))


@pytest.mark.parametrize("num_halvings", [1, 2, 3])
@pytest.mark.parametrize("in_chs", [6, 8])
def test_a_block_of_stride_one_passes_on_the_end_and_filters_the_sum_at_the_beginning(num_halvings, in_chs):
    """With as many channels as before, and with more (the two halves then overlap)."""
    block = HarmoniousBottleneck(in_chs, 8, num_halvings=num_halvings).eval()
    x = torch.randn(2, in_chs, 16, 8)
    y = block(x)
    torch.testing.assert_close(y[:, :4], x[:, -4:])
    factor = 2**num_halvings
    up = block.conv(x).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    torch.testing.assert_close(y[:, 4:], block.upconv(x[:, :4] + up))


@pytest.mark.parametrize("num_halvings", [2, 3])
def test_a_deep_strided_block_adds_at_the_resolution_of_its_output(num_halvings):
    block = HarmoniousBottleneck(6, 8, stride=2, num_halvings=num_halvings).eval()
    x = torch.randn(2, 6, 16, 8)
    pooled = F.avg_pool2d(x, 2)
    factor = 2 ** (num_halvings - 1)
    up = block.conv(x).repeat_interleave(factor, dim=2).repeat_interleave(factor, dim=3)
    expected = torch.cat([pooled[:, 2:], block.upconv(pooled[:, :4] + up)], dim=1)
    torch.testing.assert_close(block(x), expected)


@pytest.mark.parametrize(("num_halvings", "activations"), [(1, 2), (2, 2), (3, 3)])
def test_only_the_shallow_block_has_an_activation_before_its_last_convolution(num_halvings, activations):
    conv = HarmoniousBottleneck(4, 4, num_halvings=num_halvings).conv
    assert sum(isinstance(m, ReLU6) for m in conv) == activations
    assert isinstance(conv[-3], ReLU6) == (num_halvings == 1)
    assert sum(m.stride == (2, 2) for m in conv if isinstance(m, nn.Conv2d)) == num_halvings


@pytest.mark.parametrize(
    ("rates", "halvings"),
    [("2x", [1] * 13), ("4x", [2] * 8 + [1] * 5), ("8x", [3] * 4 + [2] * 4 + [1] * 5)],
)
def test_the_rates_say_how_deep_every_block_goes(rates, halvings):
    with torch.device("meta"):
        blocks = [m for m in hbonet(0.1, rates).modules() if isinstance(m, HarmoniousBottleneck)]
    strided = [sum(m.stride == (2, 2) for m in block.conv if isinstance(m, nn.Conv2d)) for block in blocks]
    assert strided == halvings


# Sizes, features, heads


@both_families
@pytest.mark.parametrize("size", [(32, 32), (33, 47), (97, 131), (200, 200)])
def test_every_size_runs_and_features_have_the_strides(family, size):
    net = smallest(family).eval()
    with torch.no_grad():
        final, maps = net.forward_intermediates(torch.randn(1, 3, *size))
    assert [info["reduction"] for info in net.feature_info] == [2, 4, 8, 16, 32]
    for features, info in zip(maps, net.feature_info, strict=True):
        assert features.shape == (1, info["num_chs"], *(math.ceil(n / info["reduction"]) for n in size))
    assert final.shape == (1, net.num_features, *(math.ceil(n / 32) for n in size))


@pytest.mark.parametrize("rates", ["4x", "8x"])
def test_deep_rates_run_at_every_size(rates):
    net = hbonet(0.1, rates).eval()
    with torch.no_grad():
        for size in [(32, 32), (97, 131), (200, 200)]:
            assert net(torch.randn(1, 3, *size)).isfinite().all()


@pytest.mark.parametrize("name", ["mobilenetv2_x010", "hbonet_x010"])
def test_pruned_features_are_those_of_the_whole_net(name):
    torch.manual_seed(0)
    whole = timm.create_model(name).eval()
    pruned = timm.create_model(name, features_only=True, out_indices=(1, 2)).eval()
    pruned.model.load_state_dict({k: v for k, v in whole.state_dict().items() if k in pruned.model.state_dict()})
    x = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        expected = whole.forward_intermediates(x, [1, 2], intermediates_only=True, stop_early=True)
        maps = pruned(x)
    for ours, theirs in zip(maps, expected, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=0)
    assert pruned.feature_info.reduction() == [4, 8]
    assert len(pruned.model.features) == whole.stage_ends[2] + 1
    assert not list(pruned.model.conv.parameters())


@both_families
def test_a_new_head_is_initialised_as_published_and_a_classifier_needs_a_pool(family):
    net = smallest(family, global_pool="catavgmax").half()
    net.reset_classifier(7)
    assert net.classifier.weight.shape == (7, 2 * net.num_features)
    assert net.classifier.weight.dtype == torch.float16
    assert net.classifier.weight.float().std().item() == pytest.approx(0.01, rel=0.1)
    assert not net.classifier.bias.any()
    with pytest.raises(OvertoneError, match="needs a pool"):
        net.reset_classifier(7, "")


def test_an_entry_point_can_be_overridden():
    net = timm.create_model("hbonet_x025_4x", width_mult=0.1, rates="2x", divisor=4)
    assert [tuple(p.shape) for p in net.parameters()] == [tuple(p.shape) for p in hbonet(0.1).parameters()]


@both_families
def test_published_wrappers_come_off_and_keys_are_published(family):
    net = smallest(family)
    wrapped = {"state_dict": {f"module.{k}": v for k, v in net.published_state_dict().items()}, "epoch": 3}
    other = smallest(family)
    other.load_state_dict(checkpoint_filter_fn(wrapped, other), strict=True)
    assert list(other.published_state_dict()) == list(net.state_dict())


# Training


@both_families
def test_drop_path_grows_with_depth_and_sits_only_on_identities(family):
    net = smallest(family, drop_path_rate=0.4)
    rates = [m.drop_prob for m in net.modules() if isinstance(m, DropPath)]
    assert rates == sorted(rates) and 0 < rates[0] < rates[-1] < 0.4
    for block in net.features:
        added = getattr(block, "has_identity", getattr(block, "stride", None) == 1)
        if isinstance(block, InvertedResidual | HarmoniousBottleneck) and not added:
            assert isinstance(block.drop_path, nn.Identity)


@pytest.mark.parametrize("block_type", [InvertedResidual, HarmoniousBottleneck])
def test_a_dropped_residual_leaves_the_input(block_type):
    torch.manual_seed(0)
    block = block_type(8, 8, drop_path=0.999).train()
    x = torch.randn(2, 8, 8, 8)
    with torch.no_grad():
        y = block(x)
        expected = x if block_type is InvertedResidual else torch.cat([x[:, 4:], block.upconv(x[:, :4])], dim=1)
    torch.testing.assert_close(y, expected)


def test_relu6_overwrites_its_input_and_has_the_gradient_of_torchs():
    values = torch.tensor([-1.0, 0.0, 1e-6, 3.0, 5.999, 6.0, 7.0], dtype=torch.float64)
    gradient = torch.arange(1.0, 8.0, dtype=torch.float64)
    leaf, reference = (values.clone().requires_grad_() for _ in range(2))
    intermediate = leaf * 1
    result = ReLU6().train()(intermediate)
    assert result.data_ptr() == intermediate.data_ptr()
    expected = F.relu6(reference)
    result.backward(gradient)
    expected.backward(gradient)
    assert torch.equal(result, expected) and torch.equal(leaf.grad, reference.grad)


def test_relu6_works_out_of_place_in_evaluation_with_gradients():
    leaf = torch.tensor([-1.0, 7.0], requires_grad=True)
    ReLU6().eval()(leaf).sum().backward()
    assert leaf.tolist() == [-1.0, 7.0] and leaf.grad.tolist() == [0.0, 0.0]


@both_families
def test_checkpointing_changes_no_gradient(family):
    net = smallest(family)
    image, target = torch.randn(2, 3, 64, 64), torch.tensor([1, 2])
    gradients = []
    for enable in (False, True):
        trained = copy.deepcopy(net).train()
        trained.set_grad_checkpointing(enable)
        F.cross_entropy(trained(image), target).backward()
        gradients.append([p.grad for p in trained.parameters()])
    torch.testing.assert_close(*gradients)


def test_blocks_compiled_as_one_graph_have_the_same_gradients():
    torch.compiler.reset()
    torch.manual_seed(0)
    blocks = nn.Sequential(InvertedResidual(4, 4), HarmoniousBottleneck(4, 8, num_halvings=2)).double().train()
    image = torch.randn(2, 4, 9, 8, dtype=torch.float64)
    gradients = []
    for compiled in (False, True):
        trained = copy.deepcopy(blocks)
        run = torch.compile(trained, fullgraph=True, backend="eager") if compiled else trained
        run(image).square().sum().backward()
        gradients.append([p.grad for p in trained.parameters()])
    torch.testing.assert_close(*gradients)


def test_training_keeps_one_map_for_an_activation_and_its_convolution():
    """The result of ReLU6 is what the next convolution keeps; torch's own ReLU6 would keep a second map."""
    kept = set()

    def pack(tensor):
        if tensor.dim() == 4 and tensor.shape[0] == 2:
            kept.add(tensor.data_ptr())
        return tensor

    block = InvertedResidual(4, 4).train()
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        result = block(torch.randn(2, 4, 8, 8))
    # The input, what each of the three batch norms reads, and what the two activations leave.
    assert len(kept) == 6 and result.requires_grad


class _LayoutCheck(TorchDispatchMode):
    """Collects the operations that copy a map, or whose new map is not channels_last."""

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        result = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in ("clone", "copy_", "contiguous", "_to_copy"):
            self.found.append(name)
        is_map = isinstance(result, torch.Tensor) and result.dim() == 4 and min(result.shape[2:]) > 1
        if is_map and name != "slice" and not result.is_contiguous(memory_format=torch.channels_last):
            self.found.append(f"{name} {tuple(result.shape)}")
        return result


@pytest.mark.parametrize("rates", [None, "2x", "4x", "8x"])
@pytest.mark.parametrize("training", [False, True])
def test_channels_last_goes_through_without_a_copy(rates, training):
    net = (smallest("mobilenetv2") if rates is None else smallest("hbonet", rates=rates)).train(training)
    net.to(memory_format=torch.channels_last)
    image = torch.randn(2, 3, 65, 99).to(memory_format=torch.channels_last)
    with _LayoutCheck() as check:
        net(image)
    assert check.found == []
