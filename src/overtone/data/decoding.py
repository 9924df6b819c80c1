"""One image file to a picture in RGB, 8 bits a channel, by rules that do not depend on what else is installed.

| file | becomes |
|---|---|
| 8 bits: grey, palette, CMYK, YCbCr, 1-bit | Pillow's `convert("RGB")`, as the published loaders do |
| transparency (LA, RGBA, palette) | the same: dropped, not blended; the colour that is stored stays |
| 16-bit grey | value / 257, rounded: 0..65535 to 0..255, not clipped |
| 16-bit colour | the high byte of each value (that is how Pillow reads them) |
| floating point (TIFF) | must lie in 0..1; value * 255, rounded |
| several frames or pages | the first one |

Anything that cannot be read so is a `BadImage` with the reason.
"""

import os
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

# Pillow can open many more, among them formats that start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 178_956_970
"""Pictures with more pixels than this are refused: Pillow's own limit against decompression bombs."""


class BadImage(Exception):
    """An image file that cannot be read.

    Attributes:
        path: the file.
        reason: why, in a few words; the same ones every time.
    """

    def __init__(self, path: Path, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return f"{self.path}: {self.reason}"


def decode_image(path: Path, exif: Literal["ignore", "apply"] = "ignore") -> Image.Image:
    """Read an image file as a picture in RGB (the table in this module says how).

    Args:
        path: the file; its content decides on the format, not its name.
        exif: `ignore` leaves the pixels as they are stored, as the published loaders do; `apply` turns the picture as
            its EXIF orientation says. TIFF files are always turned, because Pillow does it while it reads them.

    Raises:
        BadImage: the file is missing, empty, cut off, damaged, no image, or holds more than `MAX_PIXELS` pixels.
    """
    try:
        # Pillow warns of large pictures, odd EXIF blocks and palettes with transparency: all of them are decided here.
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            with Image.open(path, formats=_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise Image.DecompressionBombError
                image.load()
                return _to_rgb(_upright(image) if exif == "apply" else image)
    except MemoryError:
        raise
    except Exception as error:  # Pillow's readers let nearly every kind of exception through
        raise BadImage(Path(path), _reason(Path(path), error)) from error


def _upright(image: Image.Image) -> Image.Image:
    try:
        return ImageOps.exif_transpose(image)
    except Exception:  # the pixels are good (they are loaded): an EXIF block that cannot be read says nothing
        return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        return _scaled(image, lambda values: (values / 257, values.min() >= 0 and values.max() <= 65535), "0..65535")
    if image.mode == "F":
        return _scaled(image, lambda values: (values * 255, values.min() >= 0 and values.max() <= 1), "0..1")
    return image.convert("RGB")


def _scaled(
    image: Image.Image, scale: Callable[[np.ndarray], tuple[np.ndarray, bool | np.bool_]], span: str
) -> Image.Image:
    scaled, within = scale(np.asarray(image).astype(np.float64))
    if not within:
        raise ValueError(f"its values of mode {image.mode} are not all in {span}")
    return Image.fromarray(np.rint(scaled).astype(np.uint8)).convert("RGB")


def _reason(path: Path, error: Exception) -> str:
    """Why a file could not be read, without what differs from run to run."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnidentifiedImageError):
        return "empty file" if os.path.getsize(path) == 0 else "not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__
