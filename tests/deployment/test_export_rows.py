"""Every kind of layer of every published row in ONNX Runtime.

Exporting all 38 architectures of the 51 rows takes minutes (`benchmarks/export_every_row.py` does it). Many of them are
one network of different widths: once folded, MobileNetV2 x1.0 and x0.1 have the same layers in the same order. Here as
many are exported as it takes to have every kind of layer after every other that it follows, cut to at most two equal
blocks a stage.
"""

from collections import defaultdict
from itertools import pairwise

import pytest
from exported_nets import needs, net_of, origin
from torch import nn

from overtone.deployment.export import Request, export
from overtone.layers.dct_conv import HarmConv2d
from overtone.published import PUBLISHED

ARCHITECTURES = tuple(dict.fromkeys(row.architecture for row in PUBLISHED))


def kinds_of_layers(net: nn.Module) -> tuple[str, ...]:
    """The layers in their order without their widths; a harmonic convolution counts as the plain one it folds into."""
    kinds = []
    for module in net.modules():
        if isinstance(module, (nn.Conv2d, HarmConv2d)):
            numbers = (module.kernel_size, module.stride, module.padding)
            sides = [number[0] if isinstance(number, tuple) else number for number in numbers]
            kinds.append(f"convolution {sides} {'grouped' if module.groups > 1 else ''}")
        elif not isinstance(module, (nn.BatchNorm2d, nn.Identity)):
            kinds.append(type(module).__name__)
    return tuple(kinds)


@pytest.mark.slow
def test_every_kind_of_published_network_agrees_in_onnx_runtime(tmp_path):
    needs("onnx")
    groups = defaultdict(list)
    for architecture in ARCHITECTURES:
        net = net_of(architecture)
        groups[kinds_of_layers(net)].append((sum(p.numel() for p in net.parameters()), architecture))
    assert sum(len(group) for group in groups.values()) == len(ARCHITECTURES) == 38
    chosen, seen = [], set()
    pairs = {min(group)[1]: set(pairwise(kinds)) for kinds, group in groups.items()}
    while len(seen) < len(set.union(*pairs.values())):
        chosen.append(max(pairs, key=lambda name: len(pairs[name] - seen)))
        seen |= pairs[chosen[-1]]
    assert {architecture.split("_")[0] for architecture in chosen} >= {"mobilenetv2", "hbonet", "hornet"}
    assert 6 <= len(chosen) <= 12, chosen
    for architecture in chosen:
        request = Request("onnx", dynamic_batch=True, checked=2)
        about = export(net_of(architecture), origin(architecture), request, tmp_path / architecture)
        assert about.parity["largest"] <= 1e-4 and about.parity["same_decisions"] == 1, architecture
