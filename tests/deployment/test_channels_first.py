"""HorNet's blocks as convolutions."""

import pytest
import torch
from nets_to_fold import global_filter_in_float64, reduced_net
from torch import nn

import overtone
from overtone.deployment.channels_first import ChannelsFirstBlock, with_channels_first
from overtone.layers.gnconv import GlobalLocalFilter


@pytest.mark.parametrize("name", ["hornet_tiny_7x7", "hornet_tiny_gf"])
def test_the_same_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GlobalLocalFilter, "global_filter", global_filter_in_float64)
    net = reduced_net(name).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    deployed = overtone.deploy(net, 64)
    found = with_channels_first(deployed)
    assert any(isinstance(module, ChannelsFirstBlock) for module in found.modules())
    assert not any(isinstance(module, ChannelsFirstBlock) for module in deployed.modules())
    with torch.inference_mode():
        expected = net(images)
        assert expected.std() > 1e-3
        torch.testing.assert_close(found(images), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))


def test_other_networks_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    found = with_channels_first(net)
    assert found is not net and found[0].weight is net[0].weight
