"""From images to probabilities of every pixel: whole images, sliding windows, averages over scales and mirrors.

Everything here is a function of a network in eval mode, any callable from images (B, C, H, W) to logits
(B, num_classes, h, w) at whatever stride. Devices and types follow the images; logits in half precision are added up in
float32. The arithmetic is the published one (UPerNet with HorNet, arXiv:2207.14284, as evaluated on ADE20K).
"""

from collections.abc import Callable, Iterable, Sequence

import torch
from torch import Tensor

from overtone.errors import OvertoneError
from overtone.heads.upernet import resize

Network = Callable[[Tensor], Tensor]


def whole_image_logits(network: Network, images: Tensor, size: Sequence[int] | None = None) -> Tensor:
    """Logits of whole images.

    Args:
        network: See the module.
        images: (B, C, H, W).
        size: Height and width of the result; None: those of the images.

    Returns:
        (B, num_classes, height, width). Logits are resized to the images first and to `size` from there.
    """
    logits = _at_image_size(network, images)
    return logits if size is None else resize(logits, size)


def window_starts(length: int, window: int, stride: int) -> list[int]:
    """Where the windows along one side begin; the last one is moved back to end where the side ends.

    A side no longer than the window has one, which is then as short as the side.

    Raises:
        OvertoneError: the stride is not between 1 and the window, so that pixels would be left out.
    """
    if not 1 <= stride <= window:
        raise OvertoneError(
            f"windows of {window} pixels every {stride} pixels leave pixels out; choose a stride from 1 to {window}"
        )
    count = max(length - window + stride - 1, 0) // stride + 1
    return [max(min(i * stride, length - window), 0) for i in range(count)]


def sliding_window_logits(
    network: Network,
    images: Tensor,
    window: int | Sequence[int],
    stride: int | Sequence[int],
    size: Sequence[int] | None = None,
    windows_at_once: int = 1,
) -> Tensor:
    """Logits averaged over overlapping windows.

    Args:
        network: See the module.
        images: (B, C, H, W).
        window: Side of the windows in pixels, or (height, width) (published: 512, or 640 for the large networks).
        stride: Distance of two windows, in the same way (published: 341, 426).
        size: Height and width of the result; None: those of the images.
        windows_at_once: Windows that go through the network as one batch; it changes only memory and speed.

    Returns:
        (B, num_classes, height, width): the sum of the logits of all windows over a pixel divided by their number,
        then resized to `size`.

    Raises:
        OvertoneError: the stride would leave pixels out.
    """
    height, width = images.shape[-2:]
    window_height, window_width = _pair(window)
    stride_height, stride_width = _pair(stride)
    corners = [
        (top, left)
        for top in window_starts(height, window_height, stride_height)
        for left in window_starts(width, window_width, stride_width)
    ]
    window_height, window_width = min(window_height, height), min(window_width, width)
    total, count = None, images.new_zeros((1, 1, height, width), dtype=torch.float32)
    for first in range(0, len(corners), windows_at_once):
        places = [
            (slice(top, top + window_height), slice(left, left + window_width))
            for top, left in corners[first : first + windows_at_once]
        ]
        crops = torch.cat([images[:, :, rows, columns] for rows, columns in places])
        logits = _at_image_size(network, crops)
        if total is None:
            total = logits.new_zeros((len(images), logits.shape[1], height, width))
        for (rows, columns), part in zip(places, logits.split(len(images)), strict=True):
            total[:, :, rows, columns] += part
            count[:, :, rows, columns] += 1
    assert total is not None
    averaged = total / count.to(total.dtype)
    return averaged if size is None else resize(averaged, size)


def mean_probabilities(
    logits_of: Callable[[Tensor], Tensor], inputs: Iterable[Tensor], size: Sequence[int], *, mirrored: bool = False
) -> Tensor:
    """Probabilities averaged over several forms of the same images.

    Args:
        logits_of: Images to logits at `size`, such as `sliding_window_logits` with its other arguments bound.
        inputs: The same images at several sizes, each (B, C, H_i, W_i).
        size: Height and width of the result.
        mirrored: Add a pass over the images mirrored left to right, mirrored back.

    Returns:
        (B, num_classes, height, width), the mean of the softmax of every pass.

    Raises:
        OvertoneError: no input.
    """
    total, count = None, 0
    for images in inputs:
        passes = [probabilities(resize(logits_of(images), size))]
        if mirrored:
            passes.append(probabilities(resize(logits_of(images.flip(-1)), size)).flip(-1))
        for one in passes:
            total, count = one if total is None else total + one, count + 1
    if total is None:
        raise OvertoneError("there is no image to average over; give the images at one size or more")
    return total / count


def probabilities(logits: Tensor) -> Tensor:
    """Softmax over the classes of logits (B, num_classes, H, W)."""
    return logits.softmax(dim=1)


def labels_of(scores: Tensor) -> Tensor:
    """The best class of every pixel, (B, H, W), of logits or probabilities (B, num_classes, H, W)."""
    return scores.argmax(dim=1)


def _at_image_size(network: Network, images: Tensor) -> Tensor:
    logits = network(images)
    if not isinstance(logits, Tensor):
        raise OvertoneError(
            f"inference needs logits, the network gives a {type(logits).__name__}: call its eval() first"
        )
    return resize(logits.to(torch.promote_types(logits.dtype, torch.float32)), images.shape[-2:])


def _pair(value: int | Sequence[int]) -> tuple[int, int]:
    return (value, value) if isinstance(value, int) else (value[0], value[1])
