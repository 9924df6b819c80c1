"""Parameters and multiply-adds of the published detection and segmentation networks, counted as their authors counted.

mmcv's counter adds up modules, see `published.hornet_dense`; what our networks call as a function where the originals
had a module (ReLU after a batch norm, the products of a recursive convolution) is counted at the module around it.
"""

import contextlib
import functools
import math
from collections.abc import Iterator
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
    network = _network(row)
    with ShapesOnly(), torch.no_grad(), _counted(network) as counts:
        images = torch.empty(1, *row.flops_input, device="meta")
        if isinstance(network, MaskRcnn):
            _detect(network, images)
        else:
            network(images)
    return sum(counts)


@functools.cache  # without weights a network is small
def _network(row: PublishedDense) -> nn.Module:
    with torch.device("meta"), ShapesOnly():
        made = build_detector(row.name) if row.task == "detection" else create_segmenter(row.name, row.num_classes)
    return made.eval()


def _detect(network: MaskRcnn, images: Tensor) -> None:
    """Every part once, on as many regions as there were."""
    network.rpn(network.pyramid(images))
    for heads, count, side in ((network.roi.box_heads, _BOXES, 7), (network.roi.mask_heads, _MASKS, 14)):
        for head in heads:
            head(torch.empty(count, network.neck.out_channels, side, side, device="meta"))


@contextlib.contextmanager
def _counted(network: nn.Module) -> Iterator[list[int]]:
    """What the modules of a network compute until the end of the context, a number for each call."""
    gated = [module for module in network.modules() if isinstance(module, GnConv)]
    uncounted = {part for module in gated for part in module.modules() if part is not module}
    if isinstance(network, MaskRcnn):  # whose activation is a function there
        uncounted |= {module for module in network.rpn.modules() if isinstance(module, nn.ReLU)}
    counts: list[int] = []

    def count(module: nn.Module, inputs: tuple[Any, ...], output: Any) -> None:
        counts.append(_multiply_adds_of(module, inputs[0], output))

    hooks = [module.register_forward_hook(count) for module in network.modules() if module not in uncounted]
    try:
        yield counts
    finally:
        for hook in hooks:
            hook.remove()


def _multiply_adds_of(module: nn.Module, given: Any, output: Any) -> int:
    """Of one call of a module, without those within it; 0 for what the counter does not know."""
    activations = output.numel() if isinstance(module, nn.ReLU | ConvBN | GnConvBN) else 0
    if isinstance(module, GnConv):
        return activations + _gated(module, output)
    if isinstance(module, _CONVOLUTIONS):
        return _convolution(module, given, output)
    if isinstance(module, nn.Linear):
        return given.numel() * module.out_features
    return given.numel() if isinstance(module, nn.AdaptiveAvgPool2d | nn.MaxPool2d) else activations


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
