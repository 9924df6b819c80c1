"""A network on its way to another process, as plain bytes.

As they are, PyTorch's tensors travel in shared memory, each with a file descriptor of its own, of which a process has
only so many; and their memory stays of another kind, which would be timed.
"""

import copy
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor, nn


@dataclass(frozen=True, eq=False)
class _Bytes:
    """A tensor's values in the order in which they lie in memory."""

    values: np.ndarray
    dtype: torch.dtype
    shape: torch.Size
    channels_last: bool
    parameter: bool
    requires_grad: bool


class Shipped:
    """A network whose parameters and buffers are bytes; `unpacked` gives the network again.

    Args:
        net: on the CPU; it is left as it is.
    """

    def __init__(self, net: nn.Module) -> None:
        places = {id(tensor): _packed(tensor) for _, _, tensor in _places(net)}
        self._net = copy.deepcopy(net, dict(places))

    def unpacked(self) -> nn.Module:
        """The network, once: it is the skeleton itself."""
        made: dict[int, Tensor] = {}
        for holder, name, packed in list(_places(self._net)):
            if isinstance(packed, _Bytes):
                holder[name] = made.setdefault(id(packed), _unpacked(packed))
        return self._net


def _places(net: nn.Module) -> Iterator[tuple[dict, str, Tensor]]:
    """Where a network's modules keep their tensors."""
    for module in net.modules():
        for holder in (module._parameters, module._buffers):
            for name, tensor in holder.items():
                if tensor is not None:
                    yield holder, name, tensor


def _packed(tensor: Tensor) -> _Bytes:
    last = tensor.dim() == 4 and not tensor.is_contiguous() and tensor.is_contiguous(memory_format=torch.channels_last)
    values = tensor.detach().permute(0, 2, 3, 1) if last else tensor.detach().contiguous()
    return _Bytes(
        values.reshape(-1).view(torch.uint8).numpy(),
        tensor.dtype,
        tensor.shape,
        last,
        isinstance(tensor, nn.Parameter),
        tensor.requires_grad,
    )


def _unpacked(packed: _Bytes) -> Tensor:
    values = torch.from_numpy(packed.values.copy()).view(packed.dtype)
    if packed.channels_last:
        batch, channels, height, width = packed.shape
        values = values.view(batch, height, width, channels).permute(0, 3, 1, 2)
    else:
        values = values.view(packed.shape)
    return nn.Parameter(values, packed.requires_grad) if packed.parameter else values
