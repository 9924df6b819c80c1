"""What a network says of the pixels of one image, and the files that show it."""

import colorsys
import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overtone.checkpoint import write_text, write_with
from overtone.data.decoding import decode_image

_TURN = 0.61803398875  # of the circle of hues from class to class: never the same, never near the last ones
_OPACITY = 0.55


@dataclass(frozen=True, eq=False)
class MaskPrediction:
    """The class of every pixel of one image.

    Attributes:
        classes: uint8 `(H, W)`.
        labels: names of all classes.
        most: classes to name at most.
        least: share of the pixels, 0 to 1, that a class must have.
    """

    classes: np.ndarray
    labels: tuple[str, ...]
    most: int = 5
    least: float = 0.0

    def shares(self) -> list[tuple[int, str, int, float]]:
        """Index, name, pixels and share, 0 to 1, of each class that is there, largest first."""
        counts, size = np.bincount(self.classes.ravel(), minlength=len(self.labels)), self.classes.size
        there = np.flatnonzero((counts > 0) & (counts >= self.least * size))
        order = sorted(there.tolist(), key=lambda index: -counts[index])
        return [(index, self.labels[index], int(counts[index]), float(counts[index] / size)) for index in order]

    def to_dict(self) -> dict[str, Any]:
        """Size and shares of the classes as JSON values."""
        keys = ("index", "label", "pixels", "share")
        height, width = self.classes.shape
        return {
            "width": width,
            "height": height,
            "predictions": [dict(zip(keys, values, strict=True)) for values in self.shares()],
        }

    def rows(self) -> list[tuple[Any, ...]]:
        """A line for each of the largest classes."""
        return [(name, f"{100 * share:.2f} %") for _, name, _, share in self.shares()[: self.most]]

    def write(self, image: Any, folder: Path, stem: str) -> list[Path]:
        """Write `<stem>.png` (class indices with a palette), `<stem>.overlay.png` and `<stem>.json`.

        Args:
            image: the image, a path or Pillow's.
            folder: is made where it is not there.
            stem: of the names.
        """
        folder.mkdir(parents=True, exist_ok=True)
        index, overlay, shares = (folder / f"{stem}{suffix}" for suffix in (".png", ".overlay.png", ".json"))
        coloured = Image.fromarray(self.classes)
        coloured.putpalette(palette(len(self.labels)).tobytes())
        write_with(index, lambda path: coloured.save(path, format="PNG"))
        drawn = self.overlay(image)
        write_with(overlay, lambda path: drawn.save(path, format="PNG"))
        write_text(shares, json.dumps(self.to_dict(), indent=2) + "\n")
        return [index, overlay, shares]

    def overlay(self, image: Any) -> Image.Image:
        """The image with every pixel tinted by its class."""
        height, width = self.classes.shape
        if not isinstance(image, Image.Image):
            path, image = image, decode_image(image)
            if image.size != (width, height):
                image = decode_image(path, "apply")  # the network saw it turned
        if image.size != (width, height):
            image = image.resize((width, height))
        colours = palette(len(self.labels))[self.classes]
        pixels = np.asarray(image.convert("RGB"), dtype=np.float32)
        return Image.fromarray(np.rint(_OPACITY * colours + (1 - _OPACITY) * pixels).astype(np.uint8))


def palette(num_classes: int) -> np.ndarray:
    """A colour for each class, uint8 `(num_classes, 3)`: hues far from each other, in three degrees of brightness."""
    rows: Sequence[tuple[float, float, float]] = [
        colorsys.hsv_to_rgb(index * _TURN % 1, (0.85, 0.6, 0.95)[index % 3], (0.95, 0.75, 0.55)[index // 3 % 3])
        for index in range(num_classes)
    ]
    return np.rint(255 * np.array(rows)).astype(np.uint8)
