"""HorNet's blocks as convolutions."""

import copy

import pytest
import torch
from nets_to_fold import global_filter_in_float64, reduced_net
from timm.layers.norm import LayerNorm2d
from torch import nn

import overtone
from overtone.deployment.rewrites.compiler_form import keep_logits_only, with_channels_first
from overtone.layers.channel_norm import ChannelNorm
from overtone.layers.gnconv import GlobalLocalFilter
from overtone.models._hornet_deployed import ChannelsFirstBlock


@pytest.mark.parametrize("name", ["hornet_tiny_7x7", "hornet_tiny_gf"])
def test_the_same_logits(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(GlobalLocalFilter, "global_filter", global_filter_in_float64)
    net = reduced_net(name).double().eval()
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    deployed = overtone.deploy(net, 64)
    found = with_channels_first(deployed)
    assert any(isinstance(module, ChannelsFirstBlock) for module in found.modules())
    assert not any(isinstance(module, ChannelsFirstBlock) for module in deployed.modules())
    centred = copy.deepcopy(found)
    keep_logits_only(centred)
    assert sum(norm.is_centred for norm in centred.modules() if isinstance(norm, ChannelNorm)) > 2 * len(net.stages)
    with torch.inference_mode():
        expected = net(images)
        assert expected.std() > 1e-3
        for rewritten in (found, centred):
            torch.testing.assert_close(rewritten(images), expected, rtol=0, atol=1e-9 * float(expected.abs().max()))
        maps, centred_maps = found.forward_features(images), centred.forward_features(images)
        torch.testing.assert_close(centred_maps, maps - maps.mean(1, keepdim=True), rtol=0, atol=1e-9)


def test_norms_of_maps_of_other_networks() -> None:
    net = nn.Sequential(LayerNorm2d(6), LayerNorm2d(6, affine=False)).double()
    nn.init.normal_(net[0].weight)
    found = with_channels_first(net)
    assert all(isinstance(norm, ChannelNorm) for norm in found)
    images = torch.randn(2, 6, 5, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(found(images), net(images), rtol=1e-9, atol=1e-9)


def test_maps_that_are_asked_for_stay() -> None:
    """A wrapper that gives maps, rather than logits, is no network to be centred."""
    net = nn.Sequential(with_channels_first(overtone.deploy(reduced_net("hornet_tiny_7x7"), 64)))
    before = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    keep_logits_only(net)
    torch.testing.assert_close(net.state_dict(), before, rtol=0, atol=0)


def test_a_maximum_over_the_map_is_not_centred() -> None:
    net = reduced_net("hornet_tiny_7x7").double().eval()
    net.reset_classifier(7, "max")
    images = torch.randn(2, 3, 64, 64, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    found = with_channels_first(overtone.deploy(net, 64))
    keep_logits_only(found)
    with torch.inference_mode():
        torch.testing.assert_close(found(images), net(images), rtol=1e-9, atol=1e-9)


def test_other_networks_stay() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 1), nn.ReLU())
    found = with_channels_first(net)
    assert found is not net and found[0].weight is net[0].weight
