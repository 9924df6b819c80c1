"""The graph that XNNPACK gets computes what the network does, in operations that XNNPACK has."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from overtone.deployment.runtimes.executorch_graph import in_xnnpack_operations


class Parts(nn.Module):
    """Everything that is rewritten, for maps of any size."""

    def forward(self, x):
        first, second, rest = x.split([2, 3, 1], dim=1)
        pooled = F.avg_pool2d(first, 2, ceil_mode=True)
        pair = second[:, :2].chunk(2, dim=1)
        up = F.interpolate(pooled, size=first.shape[-2:], mode="nearest")
        return torch.cat([up, *pair, F.interpolate(rest, scale_factor=3)[..., : x.shape[2], : x.shape[3]]], dim=1)


def graph_of(net, *shape):
    x = torch.randn(shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    program = torch.export.export(net.eval(), (x,))
    module = in_xnnpack_operations(program)
    torch.testing.assert_close(module(x), net(x), rtol=0, atol=0)
    return [str(node.target) for node in module.graph.nodes if node.op == "call_function"], module


def test_maps_of_even_size_need_no_loop():
    targets, module = graph_of(Parts(), 1, 6, 8, 12)
    assert targets.count("aten.conv_transpose2d.input") == 2
    assert not {name for name in targets if "upsample" in name or "split" in name or "chunk" in name}
    (pool,) = (node for node in module.graph.nodes if "avg_pool2d" in str(node.target))
    assert pool.args[4] is False


def test_windows_that_hang_over_the_edge_stay_as_they_are():
    targets, module = graph_of(Parts(), 1, 6, 7, 9)
    (pool,) = (node for node in module.graph.nodes if "avg_pool2d" in str(node.target))
    assert pool.args[4] is True
    assert "aten.upsample_nearest2d.vec" in targets, "4x5 to 7x9 is no whole factor"


@pytest.mark.parametrize(("channels", "products"), [(512, 1), (513, 0)])
def test_very_wide_maps_are_not_multiplied_by_an_identity(channels, products):
    targets, _ = graph_of(nn.Upsample(scale_factor=2), 1, channels, 2, 2)
    assert targets.count("aten.conv_transpose2d.input") == products


def test_a_scale_that_is_no_whole_number_is_kept_to():
    """2.05 times ten pixels are twenty, but not the same ones."""
    targets, _ = graph_of(nn.Upsample(scale_factor=2.05), 1, 2, 10, 10)
    assert "aten.upsample_nearest2d.vec" in targets
