"""Weights of a first layer for images of another number of channels."""

import torch
from torch import Tensor


def spread_channels(weight: Tensor, wanted: int) -> Tensor:
    """A weight (out, given, ...) for `wanted` channels: summed for one, else repeated in turn with the same sum."""
    given = weight.shape[1]
    if wanted == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(wanted) % given] * (given / wanted)
