"""What is particular to HorNet; the contract that it shares with the other families is tested in test_registry.py."""

import re
from collections import Counter

import pytest
import timm
import torch
import torch.nn.functional as F
from timm.optim import param_groups_layer_decay
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from overtone.errors import OvertoneError
from overtone.layers.gnconv import DepthwiseFilter, GlobalLocalFilter, GnConv
from overtone.models.hornet import HorNet, HorNetBlock, checkpoint_filter_fn
from overtone.models.multiply_adds import count_multiply_adds
from overtone.published import PUBLISHED

SIZES = ("tiny", "small", "base", "large")
PUBLISHED_ROWS = [row for row in PUBLISHED if row.family == "hornet"]


def small_hornet(**kwargs) -> HorNet:
    """A HorNet with global filters for 64-pixel images, small enough for a second on one core."""
    arguments = {"base_dim": 16, "depths": (1, 1, 2, 1), "num_classes": 5, "spatial_filter": "gf", "filter_size": 64}
    net = HorNet(**(arguments | kwargs))
    with torch.no_grad():
        for name, parameter in net.named_parameters():
            if re.search(r"gamma[12]$", name):
                parameter.uniform_(0.5, 1.0)  # at the initial 1e-6 a broken branch would not show
    return net


def meta_hornet(name: str, **kwargs) -> HorNet:
    with torch.device("meta"):
        return timm.create_model(name, **kwargs)


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def norm_over_channels(x: Tensor, norm: nn.LayerNorm) -> Tensor:
    mean, var = x.mean(1, keepdim=True), x.var(1, keepdim=True, correction=0)
    return (x - mean) / (var + 1e-6).sqrt() * norm.weight[:, None, None] + norm.bias[:, None, None]


def filter_by_definition(filter_: nn.Module, q: Tensor) -> Tensor:
    if isinstance(filter_, DepthwiseFilter):
        return F.conv2d(q, filter_.weight, filter_.bias, padding=3, groups=q.shape[1])
    x = norm_over_channels(q, filter_.pre_norm)
    half = q.shape[1] // 2
    out = torch.empty_like(x)
    out[:, 0::2] = F.conv2d(x[:, :half], filter_.dw.weight, padding=1, groups=half)
    spectrum = torch.fft.rfft2(x[:, half:], norm="ortho") * torch.complex(*filter_.complex_weight.unbind(-1))
    out[:, 1::2] = torch.fft.irfft2(spectrum, s=q.shape[2:], norm="ortho")
    return norm_over_channels(out, filter_.post_norm)


def gnconv_by_definition(conv: GnConv, x: Tensor, order: int) -> Tensor:
    """The specification word for word on (B, C, H, W)."""
    dim = x.shape[1]
    dims = [dim // 2 ** (order - 1 - i) for i in range(order)]
    p, q = F.conv2d(x, conv.proj_in.weight, conv.proj_in.bias).split([dims[0], sum(dims)], dim=1)
    gates = (filter_by_definition(conv.dwconv, q) / 3).split(dims, dim=1)
    y = p * gates[0]
    for i in range(order - 1):
        y = F.conv2d(y, conv.pws[i].weight, conv.pws[i].bias) * gates[i + 1]
    return F.conv2d(y, conv.proj_out.weight, conv.proj_out.bias)


@pytest.mark.parametrize("order", [1, 2, 3, 5])
@pytest.mark.parametrize("spatial_filter", ["7x7", "gf"])
def test_gnconv_and_its_gradients_follow_the_definition(order: int, spatial_filter: str) -> None:
    conv = GnConv(32, order, spatial_filter, map_size=(9, 6)).double()
    with torch.no_grad():
        for parameter in conv.parameters():
            parameter.normal_()
    x = torch.randn(2, 9, 6, 32, dtype=torch.float64, requires_grad=True)
    y = conv(x)
    expected = gnconv_by_definition(conv, x.permute(0, 3, 1, 2), order).permute(0, 2, 3, 1)
    # Even a float64 model casts the input of its Fourier transforms to float32; the definition above does not.
    bound = 1e-12 if spatial_filter == "7x7" else 1e-6
    assert (y - expected).norm() <= bound * expected.norm()
    inputs = [x, *conv.parameters()]
    direction = torch.randn_like(y)
    ours = torch.autograd.grad((y * direction).sum(), inputs)
    theirs = torch.autograd.grad((expected * direction).sum(), inputs)
    for a, b in zip(ours, theirs, strict=True):
        assert (a - b).norm() <= bound * b.norm()


def test_a_filter_of_ones_leaves_the_global_half_as_it_is() -> None:
    filter_ = GlobalLocalFilter(4, (5, 7))
    with torch.no_grad():
        filter_.complex_weight.copy_(torch.tensor([1.0, 0.0]).expand_as(filter_.complex_weight))
    for size in [(5, 7), (1, 1), (4, 9)]:
        x = torch.randn(2, *size, 2)
        torch.testing.assert_close(filter_.global_filter(x), x)


def test_global_filter_is_resized_with_aligned_corners_and_stays_stored_as_it_was() -> None:
    filter_ = GlobalLocalFilter(2, (3, 4))  # W: 3 x 3
    with torch.no_grad():
        filter_.complex_weight[0, :, :, 0] = torch.tensor([[0.0, 1, 2], [10, 11, 12], [20, 21, 22]])
        filter_.complex_weight[0, :, :, 1] = -filter_.complex_weight[0, :, :, 0]
    resized = filter_.spectrum_filter(5, 8)  # W: 5 x 5, every second value a stored one
    ramp = torch.arange(0, 21, 5)[:, None] + torch.arange(5) / 2
    torch.testing.assert_close(resized, torch.complex(ramp, -ramp)[None])
    assert filter_.complex_weight.shape == (1, 3, 3, 2)


@pytest.mark.parametrize("mode", ["autocast", "bfloat16 model", "float64 model"])
def test_fourier_transforms_are_computed_in_float32(mode: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    rfft2 = torch.fft.rfft2
    monkeypatch.setattr(torch.fft, "rfft2", lambda x, **kwargs: seen.append(x.dtype) or rfft2(x, **kwargs))
    dtype = {"autocast": torch.float32, "bfloat16 model": torch.bfloat16, "float64 model": torch.float64}[mode]
    net = small_hornet().to(dtype)
    with torch.autocast("cpu", torch.bfloat16, enabled=mode == "autocast"):
        logits = net(torch.randn(2, 3, 75, 64, dtype=dtype))
    assert logits.isfinite().all()
    logits.float().sum().backward()
    assert seen == [torch.float32] * 3  # two blocks in the third stage, one in the fourth


def test_autocast_stays_close_to_float32() -> None:
    net = small_hornet().eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        exact = net(x)
        with torch.autocast("cpu", torch.bfloat16):
            rough = net(x).float()
    assert (rough - exact).norm() < 0.05 * exact.norm()


class CopyCounter(TorchDispatchMode):
    """Counts the operations that only move data of at least `minimum` elements."""

    MOVES = ("clone", "copy_", "_to_copy", "contiguous")

    def __init__(self, minimum: int) -> None:
        super().__init__()
        self.minimum = minimum
        self.moves: Counter[str] = Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        out = func(*args, **(kwargs or {}))
        name = func.overloadpacket.__name__
        if name in self.MOVES and out.numel() >= self.minimum:
            self.moves[name] += 1
        return out


def test_the_7x7_net_copies_no_map_and_gives_channels_last() -> None:
    net = small_hornet(spatial_filter="7x7").eval()
    x = torch.randn(2, 3, 64, 64)
    with torch.no_grad(), CopyCounter(2 * 16 * 2 * 2) as counter:
        maps = net.forward_features(x)
    assert maps.is_contiguous(memory_format=torch.channels_last)
    assert counter.moves == {"clone": 1}, "one copy, of the image into channels_last"


def test_filter_sizes_of_the_named_architectures() -> None:
    for size in SIZES:
        for suffix, expected in [("", [(14, 8), (7, 4)]), ("_img384", [(24, 13), (12, 7)])]:
            shapes = meta_hornet(f"hornet_{size}_gf{suffix}").state_dict()
            found = [tuple(shapes[f"stages.{i}.0.gnconv.dwconv.complex_weight"].shape[1:3]) for i in (2, 3)]
            assert found == expected
            assert not any("stages.0" in key or "stages.1" in key for key in shapes if "complex_weight" in key)


@pytest.mark.parametrize("row", PUBLISHED_ROWS, ids=lambda row: row.full_name)
def test_size_and_cost_are_the_published_ones(row) -> None:
    net = meta_hornet(row.full_name)
    assert net.num_classes == row.num_classes
    assert sum(p.numel() for p in net.parameters()) / 1e6 == pytest.approx(row.params_m, abs=0.6)
    cost = count_multiply_adds(net, (3, row.resolution, row.resolution)) / 1e6
    assert cost == pytest.approx(row.macs_m, rel=0.01)


def test_a_bare_name_has_1000_classes_and_a_published_one_its_files_classes() -> None:
    assert meta_hornet("hornet_large_gf").num_classes == 1000
    assert meta_hornet("hornet_large_gf.rao_in22k").num_classes == 10459
    assert meta_hornet("hornet_large_gf", num_classes=7).num_classes == 7


def expected_group(name: str) -> int:
    """The table of the published training code, as the specification lists it."""
    fixed = {
        "downsample_layers.0": 0,
        "downsample_layers.1": 2,
        "downsample_layers.2": 3,
        "downsample_layers.3": 12,
        "stages.0": 1,
        "stages.1": 2,
        "stages.3": 12,
    }
    third_stage = [3, 3, 4, 4, 5, 5, 6, 6, 7, 7, 8, 8, 9, 9, 10, 10, 11, 11]
    parts = name.split(".")
    if parts[:2] == ["stages", "2"]:
        return third_stage[int(parts[2])]
    return fixed.get(".".join(parts[:2]), 13)


@pytest.mark.parametrize("name", ["hornet_tiny_7x7", "hornet_large_gf_img384"])
def test_layer_decay_groups_are_the_published_ones(name: str) -> None:
    net = meta_hornet(name)
    names = {id(parameter): key for key, parameter in net.named_parameters()}
    groups = param_groups_layer_decay(net, weight_decay=0.05, layer_decay=0.7)
    assert sum(len(group["params"]) for group in groups) == len(names)
    for group in groups:
        for parameter in group["params"]:
            key = names[id(parameter)]
            assert group["lr_scale"] == pytest.approx(0.7 ** (13 - expected_group(key))), key
            assert group["weight_decay"] == (0.05 if parameter.ndim > 1 else 0.0), key
    assert {expected_group(key) for key in names.values()} == set(range(14))


def test_drop_path_rates_grow_linearly_from_zero_over_all_blocks() -> None:
    net = small_hornet(depths=(2, 3, 18, 2), base_dim=16, drop_path_rate=0.48)
    rates = [getattr(m.drop_path, "drop_prob", 0.0) for m in net.modules() if isinstance(m, HorNetBlock)]
    assert rates == pytest.approx([0.02 * i for i in range(25)])


@pytest.mark.parametrize("layer_scale_init", [0.3, 0.0])
def test_drop_path_drops_whole_branches_of_single_images(layer_scale_init: float) -> None:
    block = HorNetBlock(8, GnConv(8, 2), drop_path=0.5, layer_scale_init=layer_scale_init)
    x = torch.randn(64, 3, 3, 8)
    branch = torch.randn(64, 3, 3, 8)
    kept = block._add(x, branch, block.gamma1) - x
    scale = layer_scale_init or 1.0
    dropped = kept.flatten(1).abs().amax(1) < 1e-6
    assert 10 < dropped.sum() < 54
    torch.testing.assert_close(kept[~dropped], 2 * scale * branch[~dropped], rtol=1e-4, atol=1e-5)
    block.eval()
    torch.testing.assert_close(block._add(x, branch, block.gamma1), x + scale * branch)


def test_no_layer_scale_where_its_initial_value_is_not_positive() -> None:
    assert not any("gamma" in key for key in small_hornet(layer_scale_init=0.0).state_dict())
    net = HorNet(base_dim=16, depths=(1, 1, 1, 1), num_classes=5)
    assert net.stages[0][0].gamma1.tolist() == pytest.approx([1e-6] * 16)


def test_initial_values() -> None:
    net = small_hornet(num_classes=400, head_init_scale=0.001)
    for name, parameter in net.named_parameters():
        if name.startswith("head.weight"):
            assert parameter.std().item() == pytest.approx(0.02e-3, rel=0.05)
        elif parameter.ndim > 1 and parameter.numel() > 4000:
            assert parameter.std().item() == pytest.approx(0.02, rel=0.1), name
        elif name.endswith("bias"):
            assert not parameter.any(), name


def to_openmmlab(state: dict[str, Tensor]) -> dict[str, Tensor]:
    """The keys as OpenMMLab's copies have them."""
    renamed = {}
    for key, value in state.items():
        if key.startswith("head."):
            renamed[key.replace("head.", "head.fc.")] = value
            continue
        key = re.sub(r"^norm\.", "norm3.", key).replace("gnconv.pws.", "gnconv.projs.")
        renamed["backbone." + re.sub(r"(gamma[12])$", r"\1.weight", key)] = value
    return renamed


@pytest.mark.parametrize(
    "wrap",
    [
        lambda state: state,
        lambda state: {"model": state},
        lambda state: {"model": {f"module.{key}": value for key, value in state.items()}},
        lambda state: {"state_dict": to_openmmlab(state), "meta": {}},
    ],
    ids=["bare", "model", "model with module.", "OpenMMLab"],
)
def test_every_published_layout_loads(wrap) -> None:
    source, target = small_hornet(), small_hornet()
    state = source.published_state_dict()
    converted = checkpoint_filter_fn(wrap(state), target)
    assert set(converted) == set(state)
    target.load_state_dict(converted, strict=True)
    for key, value in target.published_state_dict().items():
        assert torch.equal(value, state[key]), key


def test_filters_resized_on_loading_compute_what_the_run_time_resize_computes() -> None:
    source, target = small_hornet(filter_size=64).eval(), small_hornet(filter_size=(96, 128)).eval()
    with pytest.raises(RuntimeError, match="complex_weight"):
        target.load_state_dict(source.state_dict())
    target.load_state_dict(checkpoint_filter_fn(source.state_dict(), target), strict=True)
    x = torch.randn(1, 3, 96, 128)
    with torch.no_grad():
        torch.testing.assert_close(target(x), source(x))


def test_unpooled_head_gives_a_map() -> None:
    net = small_hornet(global_pool="").eval()
    x = torch.randn(1, 3, 70, 96)
    assert net(x).shape == (1, 5, 2, 3)
    assert net.forward_head(net.forward_features(x), pre_logits=True).shape == (1, 128, 2, 3)


@pytest.mark.parametrize(
    ("arguments", "said"),
    [({"spatial_filter": "5x5"}, "5x5"), ({"global_pool": "catavgmax"}, "catavgmax"), ({"base_dim": 1}, "order 2")],
)
def test_wrong_arguments_are_named(arguments: dict, said: str) -> None:
    with pytest.raises(OvertoneError, match=said):
        small_hornet(**arguments)
