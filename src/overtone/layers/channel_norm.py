"""A layer norm over the channels of maps (B, C, H, W), for compilers."""

import torch
from torch import Tensor, nn


class ChannelNorm(nn.Module):
    """A layer norm over the channels of (B, C, H, W), in plain arithmetic: exporters transpose around the fused one.

    Args:
        norm: of the channels of (B, H, W, C).

    Attributes:
        is_centred: whether the mean over the channels of what comes is zero already.
    """

    def __init__(self, norm: nn.LayerNorm) -> None:
        super().__init__()
        self.eps, self.is_centred = norm.eps, False
        self.weight = _unless(norm.weight, 1.0)
        self.bias = _unless(norm.bias, 0.0)

    def forward(self, x: Tensor) -> Tensor:
        """Normalise each pixel."""
        x = x if self.is_centred else x - x.mean(1, keepdim=True)
        x = x * torch.rsqrt((x * x).mean(1, keepdim=True) + self.eps)
        x = x if self.weight is None else x * self.weight
        return x if self.bias is None else x + self.bias


def _unless(values: Tensor | None, trivial: float) -> nn.Parameter | None:
    """Values per channel (C, 1, 1); None where all are trivial."""
    if values is None or bool((values == trivial).all()):
        return None
    return nn.Parameter(values.detach()[:, None, None], requires_grad=False)
