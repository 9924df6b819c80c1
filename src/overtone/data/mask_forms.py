"""Masks and their colours as JSON values."""

import base64
import io
from typing import Literal

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


def hex_colour(colour: np.ndarray) -> str:
    """A colour, uint8 `(3,)`, as CSS writes it."""
    return "#" + bytes(colour.tolist()).hex()
