"""Each rewrite of a network against what it replaces, in float64, and the cases in which it must keep its hands off."""

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from nets_to_fold import fill, global_filter_in_float64, logits, relative_error
from timm.layers import BatchNormAct2d, DropPath, LayerNorm2d, LayerScale, LayerScale2d
from torch import Tensor, nn
from torch.nn import functional as F

from overtone.deployment.rewrites.dataflow import observe
from overtone.deployment.rewrites.deploy import deploy, lay_out_channels_last, make_plain
from overtone.deployment.rewrites.folding import (
    fold_batch_norms,
    fold_layer_norms,
    fold_layer_scales,
    remove_dropout,
)
from overtone.errors import OvertoneError
from overtone.layers.affine import fold_batch_norm, scale_input, scale_output
from overtone.layers.circular_conv import CircularConv, SeparableCircularConv, WholeMapCircularConv, circular_kernel
from overtone.layers.dct_conv import HarmConv2d
from overtone.layers.depthwise_conv import DepthwiseConv2d
from overtone.layers.gnconv import DeployedGnConv, GlobalLocalFilter, GnConv
from overtone.models._hornet_deployed import DeployedHorNetBlock
from overtone.models.hornet import HorNetBlock

EXACT = 1e-9
IMAGES = (1, 8, 12, 12)
Rewrite = Callable[[nn.Module, Any], None]


class Net(nn.Module):
    """Some layers and a function that says how they are used."""

    def __init__(self, use: Callable[["Net", Tensor], Tensor], **layers: nn.Module) -> None:
        super().__init__()
        self.use = use
        for name, layer in layers.items():
            self.add_module(name, layer)
        fill(self.double(), "net").eval()

    def forward(self, x: Tensor) -> Tensor:
        return self.use(self, x)


def chain(*layers: nn.Module) -> nn.Module:
    return fill(nn.Sequential(*layers).double(), "chain").eval()


def rewritten(net: nn.Module, rewrite: Rewrite, shape: tuple[int, ...] = IMAGES) -> nn.Module:
    """A copy after the rewrite, found equal."""
    result = copy.deepcopy(net)
    rewrite(result, observe(result, shape))
    x = torch.randn(2, *shape[1:], dtype=torch.float64)
    assert relative_error(logits(result, x), logits(net, x)) < EXACT
    return result


def kinds(net: nn.Module) -> list[type]:
    return [type(module) for module in net.modules()]


@pytest.mark.parametrize(
    "layers",
    [
        (nn.Conv2d(8, 6, 3, padding=1, bias=False), nn.BatchNorm2d(6), nn.ReLU6()),
        (nn.Conv2d(8, 6, 3, stride=2, groups=2), nn.Dropout(0.5), nn.BatchNorm2d(6, affine=False)),
        (nn.Conv2d(8, 8, 5, padding=2, groups=8, padding_mode="circular"), nn.Identity(), nn.BatchNorm2d(8)),
        (nn.Conv2d(8, 6, 1, bias=False), nn.SyncBatchNorm(6)),
        (nn.Conv2d(8, 6, 3), BatchNormAct2d(6, act_layer=nn.SiLU)),
        (nn.Flatten(), nn.Linear(1152, 6, bias=False), nn.BatchNorm1d(6), nn.GELU()),
        (nn.Flatten(2), nn.Conv1d(8, 6, 3), nn.BatchNorm1d(6)),
    ],
)
def test_batch_norm_into_the_layer_before(layers: tuple[nn.Module, ...]) -> None:
    result = rewritten(chain(*layers), fold_batch_norms)
    assert not any(isinstance(module, nn.modules.batchnorm._BatchNorm) for module in result.modules())
    if any(isinstance(layer, BatchNormAct2d) for layer in layers):
        assert nn.SiLU in kinds(result)


class OtherConv(nn.Conv2d):
    def forward(self, input: Tensor) -> Tensor:
        return F.conv2d(input, self.weight.abs())


def conv() -> nn.Conv2d:
    return nn.Conv2d(8, 8, 1)


@pytest.mark.parametrize(
    "net",
    [
        # the convolution twice, the norm twice, a branch, something in place, a slice, a weight read elsewhere,
        # a subclass, no running statistics, channels that are not the linear's, a weight with other axes
        Net(lambda n, x: n.norm(n.conv(n.conv(x))), conv=conv(), norm=nn.BatchNorm2d(8)),
        Net(lambda n, x: n.norm(n.norm(n.conv(x))), conv=conv(), norm=nn.BatchNorm2d(8)),
        Net(lambda n, x: n.norm(y := n.conv(x)) + y, conv=conv(), norm=nn.BatchNorm2d(8)),
        Net(lambda n, x: n.norm(F.relu_(n.conv(x))), conv=conv(), norm=nn.BatchNorm2d(8)),
        Net(lambda n, x: n.norm(n.conv(x)[:, :4]), conv=conv(), norm=nn.BatchNorm2d(4)),
        Net(lambda n, x: n.norm(n.conv(x)) + n.conv.weight.sum(), conv=conv(), norm=nn.BatchNorm2d(8)),
        Net(lambda n, x: n.norm(n.conv(x)), conv=OtherConv(8, 8, 1, bias=False), norm=nn.BatchNorm2d(8)),
        Net(lambda n, x: n.norm(n.conv(x)), conv=conv(), norm=nn.BatchNorm2d(8, track_running_stats=False)),
        Net(lambda n, x: n.norm(n.linear(x.flatten(2))), linear=nn.Linear(144, 8), norm=nn.BatchNorm1d(8)),
        Net(lambda n, x: n.norm(n.conv(x)), conv=nn.ConvTranspose2d(8, 8, 2), norm=nn.BatchNorm2d(8)),
    ],
)
def test_batch_norm_stays_where_folding_would_not_be_exact(net: nn.Module) -> None:
    result = rewritten(net, fold_batch_norms)
    assert result.norm.__class__ is net.norm.__class__


def test_hooked_and_shared_modules_stay() -> None:
    net = chain(conv(), nn.BatchNorm2d(8))
    net[0].register_forward_hook(lambda module, inputs, output: output + 1)
    assert nn.BatchNorm2d in kinds(rewritten(net, fold_batch_norms))
    shared = conv()
    net = Net(lambda n, x: n.norm(n.conv(x)), conv=shared, norm=nn.BatchNorm2d(8), same=shared)
    assert nn.BatchNorm2d in kinds(rewritten(net, fold_batch_norms))


def test_what_the_network_returns_is_not_folded_away() -> None:
    net = Net(lambda n, x: (y := n.conv(x), n.norm(y)), conv=conv(), norm=nn.BatchNorm2d(8))  # type: ignore[arg-type]
    x = torch.randn(IMAGES, dtype=torch.float64)
    before = net(x)
    fold_batch_norms(net, observe(net, IMAGES))
    assert all(torch.equal(a, b) for a, b in zip(net(x), before, strict=True))


def test_layer_scales_into_the_layer_before() -> None:
    net = chain(nn.Conv2d(8, 6, 3), LayerScale2d(6), nn.Linear(10, 5), LayerScale(5))
    result = rewritten(net, fold_layer_scales)
    assert not {LayerScale, LayerScale2d} & set(kinds(result))


@pytest.mark.parametrize(
    ("layers", "folded"),
    [
        ((nn.LayerNorm(12), nn.Linear(12, 5)), True),
        ((nn.LayerNorm(12, bias=False), nn.Linear(12, 5, bias=False)), True),
        ((LayerNorm2d(8), nn.Conv2d(8, 4, 2, stride=2)), True),
        ((LayerNorm2d(8), nn.Conv2d(8, 4, 2, groups=4, bias=False)), True),
        ((LayerNorm2d(8), nn.Conv2d(8, 4, 3, padding=1)), False),
        ((nn.LayerNorm((12, 12)), nn.Linear(12, 5)), False),
        ((nn.LayerNorm(12), nn.GELU(), nn.Linear(12, 5)), False),
    ],
)
def test_layer_norm_into_the_layer_after(layers: tuple[nn.Module, ...], folded: bool) -> None:
    result = rewritten(chain(*layers), fold_layer_norms)
    assert torch.equal(result[0].weight, torch.ones_like(result[0].weight)) == folded


def test_dropout_goes() -> None:
    net = chain(nn.Dropout(0.5), nn.Conv2d(8, 6, 3), nn.Dropout2d(0.2), DropPath(0.3))
    net.drop_rate = 0.3
    result = rewritten(net, remove_dropout)
    assert kinds(result) == [nn.Sequential, nn.Identity, nn.Conv2d, nn.Identity, nn.Identity]
    assert result.drop_rate == 0.0
    # Attention asks the dropout that it does not call for its rate.
    uncalled = Net(lambda n, x: n.conv(x) + n.drop.p, conv=conv(), drop=nn.Dropout(0.5))
    assert nn.Dropout in kinds(rewritten(uncalled, remove_dropout))


def test_single_layers() -> None:
    scale, shift, out = (torch.rand(n, dtype=torch.float64) + 0.5 for n in (8, 8, 6))
    x = torch.randn(IMAGES, dtype=torch.float64)
    for groups in (1, 2):
        net = chain(nn.Conv2d(8, 6, 3, groups=groups))
        expected = net(x * scale[:, None, None] + shift[:, None, None]) * out[:, None, None]
        scale_input(net[0], scale, shift)
        scale_output(net[0], out)
        assert relative_error(net(x), expected) < EXACT
    net = chain(nn.Conv2d(8, 6, 3, bias=False), nn.BatchNorm2d(6))
    expected = net(x)
    fold_batch_norm(net[0], net[1])
    assert relative_error(net[0](x), expected) < EXACT


@pytest.mark.parametrize("inner_bn", [False, True])
@pytest.mark.parametrize("groups", [1, 2])
def test_harmonic_convolutions_become_plain(inner_bn: bool, groups: int) -> None:
    layer = HarmConv2d(8, 6, 3, 2, 1, groups=groups, level=None if inner_bn else 3, inner_bn=inner_bn)
    net = chain(layer, nn.BatchNorm2d(6))
    x = torch.randn(IMAGES, dtype=torch.float64)
    result = deploy(net, 12)
    assert kinds(result) == [nn.Sequential, nn.Conv2d, nn.Identity]
    assert relative_error(logits(result, x), logits(net, x)) < EXACT
    assert type(make_plain(layer.eval())) is nn.Conv2d


@pytest.mark.parametrize("stride", [1, 2])
def test_our_depthwise_convolutions_become_plain(stride: int) -> None:
    net = chain(DepthwiseConv2d(8, 5, stride), nn.BatchNorm2d(8))
    x = torch.randn(IMAGES, dtype=torch.float64)
    result = deploy(net, 12)
    assert kinds(result) == [nn.Sequential, nn.Conv2d, nn.Identity]
    assert relative_error(logits(result, x), logits(net, x)) < EXACT


def test_a_harmonic_convolution_that_cannot_be_folded_stays() -> None:
    net = chain(HarmConv2d(8, 6, 3, inner_bn=True))
    net[0].bn = nn.SyncBatchNorm(72, affine=False).double().eval()
    assert type(deploy(net, 12)[0]) is HarmConv2d


@pytest.mark.parametrize("size", [(14, 14), (7, 7), (24, 24), (5, 8), (8, 5), (2, 3), (1, 1)])
@pytest.mark.parametrize("form", [SeparableCircularConv, WholeMapCircularConv])
def test_global_filter_as_real_matrix_products(form: type[CircularConv], size: tuple[int, int]) -> None:
    layer = fill(GlobalLocalFilter(12, (14, 14)).double(), "filter")
    x = torch.randn(2, *size, 6, dtype=torch.float64)
    circular = form(circular_kernel(layer.complex_weight, *size), torch.float64)
    assert relative_error(circular(x), global_filter_in_float64(layer, x).detach()) < EXACT
    assert not any(buffer.is_complex() for buffer in circular.buffers())
    with pytest.raises(OvertoneError, match="deploy it again with the example_size"):
        circular(torch.randn(2, size[0] + 1, size[1], 6, dtype=torch.float64))


@pytest.mark.parametrize("kind", ["7x7", "gf"])
@pytest.mark.parametrize(("dim", "order"), [(24, 1), (24, 2), (14, 3)])
def test_hornet_blocks(monkeypatch: pytest.MonkeyPatch, kind: str, dim: int, order: int) -> None:
    monkeypatch.setattr(GlobalLocalFilter, "global_filter", global_filter_in_float64)
    gnconv = fill(GnConv(dim, order, kind, (7, 5), 0.7).double(), "gnconv").eval()
    x = torch.randn(2, 7, 5, dim, dtype=torch.float64)
    assert relative_error(logits(DeployedGnConv(gnconv, (7, 5)), x), logits(gnconv, x)) < EXACT
    block = fill(HorNetBlock(dim, gnconv, drop_path=0.3).double(), "block").eval()
    assert relative_error(logits(DeployedHorNetBlock(block, (7, 5)), x), logits(block, x)) < EXACT


def test_recursive_convolutions_in_other_networks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GlobalLocalFilter, "global_filter", global_filter_in_float64)
    net = Net(lambda n, x: n.mix(x.permute(0, 2, 3, 1)), mix=GnConv(8, 2, "gf", (12, 12)))
    x = torch.randn(IMAGES, dtype=torch.float64)
    result = deploy(net, 12)
    assert type(result.mix) is DeployedGnConv
    assert relative_error(logits(result, x), logits(net, x)) < EXACT


def test_convolutions_are_laid_out_channels_last() -> None:
    net = chain(nn.Conv2d(8, 8, 3), nn.Conv2d(8, 8, 3, groups=8), nn.Conv2d(8, 4, 3, groups=2)).float()
    lay_out_channels_last(net)
    layouts = [conv.weight.is_contiguous(memory_format=torch.channels_last) for conv in net]
    assert layouts[0] and layouts[2]
    assert net[1].weight.is_contiguous()
    assert net[0](torch.randn(IMAGES)).is_contiguous(memory_format=torch.channels_last)
