"""Small networks of every architecture in float64 with parameters and statistics that all matter."""

import zlib
from typing import Any

import timm
import torch
from torch import Tensor, nn

from overtone.layers.gnconv import GlobalLocalFilter
from overtone.models.hornet import VARIANTS as HORNETS


def reduced_net(name: str, **kwargs: Any) -> nn.Module:
    """The architecture in eval mode, with at most two equal blocks a stage and without most of its hidden units."""
    if name in HORNETS:
        kwargs = {"base_dim": HORNETS[name]["base_dim"] // 4} | kwargs
    with torch.device("meta"):  # no time for an initialisation that is replaced
        net = timm.create_model(name, num_classes=7, **kwargs)
        if "vgg" in name:
            net.classifier[0], net.classifier[3] = nn.Linear(25088, 16), nn.Linear(16, 16)
            net.classifier[6] = nn.Linear(16, 7)
    for stage in [*(f"layer{i}" for i in range(1, 5)), *(f"group{i}" for i in range(3))]:
        if hasattr(net, stage):
            setattr(net, stage, getattr(net, stage)[:2])
    if hasattr(net, "features") and "vgg" not in name:
        net.features = without_repeats(net.features)
    if name in HORNETS:
        net.stages[2] = net.stages[2][:2]
    return fill(net.double().to_empty(device="cpu"), name).eval()


def without_repeats(blocks: nn.Sequential) -> nn.Sequential:
    """Of equal blocks in a row the first alone."""
    kept = [blocks[0]]
    for block in blocks[1:]:
        if repr(block) != repr(kept[-1]):
            kept.append(block)
    return nn.Sequential(*kept)


@torch.no_grad()
def fill(net: nn.Module, seed: str) -> nn.Module:
    """Random values of a scale at which activations neither vanish nor explode, none of them the initial one."""
    generator = torch.Generator().manual_seed(zlib.crc32(seed.encode()))
    for key, tensor in [*net.named_parameters(), *net.named_buffers()]:
        leaf = key.rpartition(".")[2]
        if not tensor.is_floating_point() or leaf == "bank":
            continue
        low, high = -0.1, 0.1
        if "gamma" in leaf:
            low, high = 0.1, 0.2
        elif leaf == "running_var":
            low, high = 0.5, 1.5
        elif leaf == "complex_weight":
            low, high = -0.5, 0.5
        elif tensor.ndim == 1 and leaf == "weight":
            low, high = 0.75, 1.25
        elif tensor.ndim > 1:
            high = (3 / tensor[0].numel()) ** 0.5
            low = -high
        tensor.uniform_(low, high, generator=generator)
    return net


def global_filter_in_float64(self: GlobalLocalFilter, x: Tensor) -> Tensor:
    """The formula of `GlobalLocalFilter.global_filter`, which itself works in float32: too rough a reference."""
    size = x.shape[1], x.shape[2]
    spectrum = torch.fft.rfft2(x.permute(0, 3, 1, 2).double().contiguous(), norm="ortho") * self.spectrum_filter(*size)
    return torch.fft.irfft2(spectrum, s=size, norm="ortho").permute(0, 2, 3, 1)


@torch.no_grad()
def logits(net: nn.Module, images: Tensor) -> Tensor:
    return net(images)


def relative_error(a: Tensor, b: Tensor) -> float:
    assert b.abs().max() > 0
    return ((a - b).abs().max() / b.abs().max()).item()
