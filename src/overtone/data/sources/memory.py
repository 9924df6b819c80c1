"""Images that are in memory already: Pillow's, arrays and tensors, beside files."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor

from overtone.data.sources.source import Record
from overtone.errors import OvertoneError

ImageLike = str | Path | Image.Image | np.ndarray | Tensor
"""A path, Pillow's image, uint8 `(H, W)` or `(H, W, 3)`, or a tensor `(3, H, W)`: uint8, or floating in 0..1."""


class MemoryImages:
    """Images of any of these kinds, without labels: a source of records with `image`.

    Args:
        images: the images.
        labels: names of a network's outputs.

    Raises:
        OvertoneError: something that is no image.
    """

    origin = "images in memory"

    def __init__(self, images: Sequence[ImageLike], labels: Sequence[str]) -> None:
        self.labels = tuple(labels)
        self._images = [_image(image, position) for position, image in enumerate(images)]

    def __len__(self) -> int:
        """Number of images."""
        return len(self._images)

    def name(self, position: int) -> str:
        """The path, or the position."""
        image = self._images[position]
        return str(image) if isinstance(image, Path) else f"image {position}"

    def read(self, position: int) -> Record:
        """The image."""
        return {"image": self._images[position]}


def _image(image: Any, position: int) -> Path | Image.Image:
    if isinstance(image, (str, Path)):
        return Path(image)
    if isinstance(image, Image.Image):
        return image
    values = _pixels(image, position)
    if values.ndim not in (2, 3) or (values.ndim == 3 and values.shape[2] != 3) or 0 in values.shape:
        raise OvertoneError(
            f"image {position} has shape {tuple(np.shape(image))}; give an array (H, W, 3) or (H, W), or a tensor "
            "(3, H, W)"
        )
    return Image.fromarray(np.ascontiguousarray(values))


def _pixels(image: Any, position: int) -> np.ndarray:
    """An array or tensor as uint8 with channels last."""
    values = image
    if isinstance(image, Tensor):
        values = image.detach().cpu().numpy()
        values = np.moveaxis(values, 0, -1) if values.ndim == 3 else values
    if not isinstance(values, np.ndarray):
        raise OvertoneError(
            f"image {position} is a {type(image).__name__}; give a path, Pillow's image, an array or a tensor"
        )
    if values.dtype == np.uint8:
        return values
    if np.issubdtype(values.dtype, np.floating) and values.size and values.min() >= 0 and values.max() <= 1:
        return np.rint(values * 255).astype(np.uint8)
    raise OvertoneError(
        f"image {position} has values of type {values.dtype} that are not uint8 and not floating in 0..1; "
        "give pixels as they are in the file, without normalisation"
    )
