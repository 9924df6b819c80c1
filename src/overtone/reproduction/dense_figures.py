"""Parameters and multiply-adds of the published detection and segmentation networks, counted as their authors counted.

mmcv's counter adds up modules, see `published.hornet_dense`; what our networks call as a function where the originals
had a module (ReLU after a batch norm, the products of a recursive convolution) is counted at the module around it.
"""

import functools
import math
from typing import Any

import torch
from torch import Tensor, nn

from overtone.heads import create_segmenter
from overtone.heads.mask_rcnn import MaskRcnn, build_detector
from overtone.heads.upernet import ConvBN, GnConvBN
from overtone.layers.gnconv import GnConv
from overtone.models.shapes_only import ShapesOnly
from overtone.published import PublishedDense

_BOXES, _MASKS = 1000, 100  # regions through each box stage and each mask stage
_CONVOLUTIONS = (nn.Conv2d, nn.ConvTranspose2d)


def parameters(row: PublishedDense) -> int:
    """Trainable values of the network, the auxiliary head's included."""
    return sum(parameter.numel() for parameter in _network(row).parameters() if parameter.requires_grad)


def multiply_adds(row: PublishedDense) -> int:
    """Multiply-adds of one image of the size that they were published for."""
    network, counter = _network(row), _Counter()
    with ShapesOnly(), torch.no_grad(), counter.hooked(network):
        images = torch.empty(1, *row.flops_input, device="meta")
        if isinstance(network, MaskRcnn):
            _detect(network, images, counter)
        else:
            network(images)
    return counter.total


@functools.cache  # without weights a network is small
def _network(row: PublishedDense) -> nn.Module:
    with torch.device("meta"), ShapesOnly():
        made = build_detector(row.name) if row.task == "detection" else create_segmenter(row.name, row.num_classes)
    return made.eval()


def _detect(network: MaskRcnn, images: Tensor, counter: "_Counter") -> None:
    """Every part once, on as many regions as there were."""
    levels = network.pyramid(images)
    with counter.without_activations():  # a function there
        network.rpn(levels)
    for heads, count, side in ((network.roi.box_heads, _BOXES, 7), (network.roi.mask_heads, _MASKS, 14)):
        for head in heads:
            head(torch.empty(count, network.neck.out_channels, side, side, device="meta"))


class _Counter:
    """Adds up what modules compute."""

    def __init__(self) -> None:
        self.total, self._with_activations = 0, True
        self._inside: set[nn.Module] = set()
        self._hooks: list[Any] = []

    def hooked(self, network: nn.Module) -> "_Counter":
        """Count what the network computes until the end of the context."""
        gated = [module for module in network.modules() if isinstance(module, GnConv)]
        self._inside = {part for module in gated for part in module.modules() if part is not module}
        self._hooks = [module.register_forward_hook(self._count) for module in network.modules()]
        return self

    def without_activations(self) -> "_Quiet":
        """Leave ReLUs out until the end of the context."""
        return _Quiet(self)

    def __enter__(self) -> "_Counter":
        return self

    def __exit__(self, *error: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _count(self, module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        if isinstance(module, GnConv):
            self.total += _gated(module, output)
        elif module in self._inside:
            return
        elif isinstance(module, _CONVOLUTIONS):
            self.total += _convolution(module, inputs[0], output)
        elif isinstance(module, nn.Linear):
            self.total += inputs[0].numel() * module.out_features
        elif isinstance(module, nn.AdaptiveAvgPool2d | nn.MaxPool2d):
            self.total += inputs[0].numel()
        if isinstance(module, nn.ReLU | ConvBN | GnConvBN) and self._with_activations:
            self.total += output.numel()


class _Quiet:
    def __init__(self, counter: _Counter) -> None:
        self._counter = counter

    def __enter__(self) -> None:
        self._counter._with_activations = False

    def __exit__(self, *error: object) -> None:
        self._counter._with_activations = True


def _convolution(module: Any, given: Tensor, output: Tensor) -> int:
    """Of a kernel at each place of the output, of a transposed one at each place of the input; and the bias."""
    places = (given if isinstance(module, nn.ConvTranspose2d) else output).shape
    products = math.prod(module.kernel_size) * module.in_channels * module.out_channels // module.groups
    bias = 0 if module.bias is None else output.numel()
    return products * places[0] * places[2] * places[3] + bias


def _gated(module: GnConv, output: Tensor) -> int:
    """Of all convolutions of a recursive one, which have the size of its output; FFT and products count nothing."""
    places = output.numel() // module.proj_out.out_channels
    convolutions = (part for part in module.modules() if isinstance(part, nn.Conv2d))
    return places * sum(parameter.numel() for part in convolutions for parameter in part.parameters(recurse=False))
