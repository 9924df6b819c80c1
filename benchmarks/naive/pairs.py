"""Each naive network beside ours, with the same weights and, verified, the same outputs."""

import math
from collections.abc import Callable

import torch
from torch import Tensor, nn

import overtone
from naive.harmonic import HarmResNet50
from naive.hornet import HorNet
from naive.mobile import hbonet, mobilenetv2

_BUILDERS: dict[str, Callable[[], nn.Module]] = {
    "mobilenetv2_x100": mobilenetv2,
    "hbonet_x100": hbonet,
    "harm_resnet50": HarmResNet50,
    "hornet_tiny_7x7": HorNet,
    "hornet_tiny_gf": lambda: HorNet(224),
}
NAMES = tuple(_BUILDERS)
BOUND = 1e-4
"""The largest difference of logits between a pair, as a share of their scale, in float32."""


def naive_net(name: str) -> nn.Module:
    """A network in its published formulation, in eval mode, with weights of its own."""
    return _BUILDERS[name]().eval()


def proved_pair(name: str, size: int = 224) -> tuple[nn.Module, nn.Module]:
    """The naive network and ours, with the same weights, in eval mode.

    Args:
        name: one of `NAMES`.
        size: pixels, the side of the images on which they are compared.

    Raises:
        AssertionError: their logits differ by more than `BOUND`.
    """
    torch.manual_seed(0)
    ours, naive = overtone.create_model(name).eval(), naive_net(name)
    enliven(ours)
    naive.load_state_dict(ours.published_state_dict())
    images = torch.randn(1, 3, size, size, generator=torch.Generator().manual_seed(1))
    found = difference(naive, ours, images)
    assert found <= BOUND, f"{name}: the naive network differs from ours by {found:.1e} of the logits' scale"
    return naive, ours


@torch.no_grad()
def difference(naive: nn.Module, ours: nn.Module, images: Tensor) -> float:
    """The largest difference of the logits over their standard deviation."""
    expected = ours(images)
    return float((naive(images) - expected).abs().max() / expected.std())


@torch.no_grad()
def enliven(net: nn.Module) -> None:
    """Give every layer a say: as initialised, layer scales of 1e-6 hide the blocks, and norms do nothing."""
    generator = torch.Generator().manual_seed(0)

    def uniform(low: float, high: float, like: Tensor) -> Tensor:
        return low + (high - low) * torch.rand(like.shape, generator=generator)

    state = net.state_dict()
    # Rectifiers halve the variance: in their networks (those with batch norm) weights twice as strong make up for it.
    strength = 6 if any(name.endswith("running_var") for name in state) else 3
    for name, values in state.items():
        leaf = name.rpartition(".")[2]
        if leaf in ("running_mean", "bias"):
            values.copy_(uniform(-0.1, 0.1, values))
        elif leaf in ("gamma1", "gamma2"):
            values.copy_(uniform(0.1, 0.2, values))
        elif leaf == "running_var" or (leaf == "weight" and values.dim() == 1):
            values.copy_(uniform(0.75, 1.25, values))
        elif leaf == "complex_weight":
            values.copy_(uniform(-0.5, 0.5, values))
        elif leaf == "weight":
            limit = math.sqrt(strength / values[0].numel())
            values.copy_(uniform(-limit, limit, values))
