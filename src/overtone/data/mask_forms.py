"""Masks as JSON values: PNG files in base64, and COCO's run lengths."""

import base64
import io
from typing import Any, Literal

import numpy as np
from PIL import Image

MaskForm = Literal["png", "rle"]


def png_text(values: np.ndarray, palette: np.ndarray | None = None) -> str:
    """A PNG file in base64: of 1 bit from bool `(H, W)`; of indices with a palette, uint8 `(K, 3)`, from uint8."""
    image = Image.fromarray(values)
    if palette is not None:
        image.putpalette(palette.tobytes())
    file = io.BytesIO()
    image.save(file, format="PNG")
    return base64.b64encode(file.getvalue()).decode("ascii")


def run_lengths(mask: np.ndarray) -> dict[str, Any]:
    """COCO's uncompressed run lengths of bool `(H, W)`: by columns, the first run is of zeros."""
    values = mask.ravel(order="F")
    changes = np.flatnonzero(values[1:] != values[:-1]) + 1
    ends = np.concatenate([[0], changes, [values.size]])
    counts = np.diff(ends).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if values.size and values[0] else counts}


def hex_colour(colour: np.ndarray) -> str:
    """A colour, uint8 `(3,)`, as CSS writes it."""
    return "#" + bytes(colour.tolist()).hex()
