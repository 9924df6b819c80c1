"""Harmonious bottlenecks whose halves stay apart."""

import pytest
import torch
from nets_to_fold import fill
from torch import nn

import overtone
from overtone.deployment.rewrites.deploy import make_plain
from overtone.models._hbonet_deployed import BottleneckChain, keep_halves_apart
from overtone.models.hbonet import HarmoniousBottleneck


@pytest.mark.parametrize(
    ("name", "rows"), [("hbonet_x100", [2, 3, 3]), ("hbonet_x010", [2, 3, 3]), ("hbonet_x025_8x", [3, 4, 3])]
)
@pytest.mark.parametrize("size", [64, 75])
def test_the_same_logits_and_features(name: str, rows: list[int], size: int) -> None:
    net = overtone.create_model(name).eval().double()
    fill(net, name)
    apart = overtone.create_model(name).eval().double()
    apart.load_state_dict(net.state_dict())
    make_plain(apart)
    assert apart.deployed(None) is apart
    found = [1 + len(module.tail) for module in apart.modules() if isinstance(module, BottleneckChain)]
    assert found == rows
    images = torch.randn(2, 3, size, size, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        expected, result = net.forward_intermediates(images), apart.forward_intermediates(images)
        assert net(images).std() > 1e-6
        torch.testing.assert_close(apart(images), net(images), rtol=1e-9, atol=1e-12)
    for one, other in zip(expected[1], result[1], strict=True):
        torch.testing.assert_close(other, one, rtol=1e-9, atol=1e-12)


def test_other_sequences_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.ReLU()))
    before = [type(module) for module in net.modules()]
    keep_halves_apart(net, HarmoniousBottleneck)
    assert [type(module) for module in net.modules()] == before
