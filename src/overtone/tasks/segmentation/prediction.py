"""What a network says of the pixels of one image, and the files that show it."""

import io
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overtone.checkpoint import write_text, write_with
from overtone.data.decoding import decode_image
from overtone.data.mask_forms import MaskForm, hex_colour, png_text
from overtone.data.masks import Mask
from overtone.data.run_lengths import run_lengths
from overtone.tasks.segmentation.drawing import comparison, palette, tinted


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

    def masks_to_dict(self, values: dict[str, Any], form: MaskForm) -> dict[str, Any]:
        """`to_dict`'s values with a colour for each class, and the classes of all pixels.

        Args:
            values: what `to_dict` gave.
            form: `png`: `mask`, a PNG of class indices with a palette; `rle`: `segmentation` of each class.
        """
        colours = palette(len(self.labels))
        for one in values["predictions"]:
            one["colour"] = hex_colour(colours[one["index"]])
            if form == "rle":
                one["segmentation"] = run_lengths(self.classes == one["index"])
        return values | ({"mask": {"format": "png", "data": png_text(self.classes, colours)}} if form == "png" else {})

    def to_row(self) -> dict[str, Any]:
        """As `to_dict`, with the `mask`: a PNG file of class indices, as bytes."""
        content = io.BytesIO()
        Image.fromarray(self.classes).save(content, "PNG")
        return {**self.to_dict(), "mask": content.getvalue()}

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
        """The image, a path or Pillow's, with every pixel tinted by its class."""
        return tinted(self._shown(image), self.classes, len(self.labels))

    def beside(self, image: Any, truth: Mask) -> Image.Image:
        """The image, a path or Pillow's, its true mask, the predicted one, the wrong pixels and the classes' names."""
        return comparison(self._shown(image), truth.pixels(), self.classes, self.labels)

    def _shown(self, image: Any) -> Image.Image:
        """The image at the size of the prediction."""
        height, width = self.classes.shape
        if not isinstance(image, Image.Image):
            path, image = image, decode_image(image)
            if image.size != (width, height):
                image = decode_image(path, "apply")  # the network saw it turned
        if image.size != (width, height):
            image = image.resize((width, height))
        return image.convert("RGB")
