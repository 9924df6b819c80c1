"""From an image file to an image in RGB, 8 bits a channel, by rules that do not depend on what else is installed.

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

import io
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Literal

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps, UnidentifiedImageError
from torch import Tensor

from overtone.data.jpeg import frame_size, jpeg_pixels
from overtone.data.opening import read_file
from overtone.data.silent_codecs import silent_codecs

Exif = Literal["ignore", "apply"]
Encoded = Path | bytes
"""An encoded image: a file, or its bytes."""

# Pillow can open many more, among them formats that start other programs (EPS).
_FORMATS = ("JPEG", "PNG", "WEBP", "BMP", "GIF", "TIFF")
MAX_PIXELS = 178_956_970
"""Images with more pixels than this are refused: Pillow's own limit against decompression bombs."""
_SCALES = (2, 4, 8)  # by which libjpeg, as Pillow calls it, can divide an image's sides while it decodes


_BAND = 1 << 20  # pixels whose values are scaled at a time


class BadImage(Exception):
    """An image file that cannot be read.

    Attributes:
        path: the file; None where only its pixels are known.
        reason: why, in a few words; the same ones every time.
    """

    def __init__(self, path: Path | None, reason: str) -> None:
        super().__init__(path, reason)
        self.path, self.reason = path, reason

    def __str__(self) -> str:
        return self.reason if self.path is None else f"{self.path}: {self.reason}"


class StoredJpeg:
    """A JPEG file of which a part is decoded, at 1/2, 1/4 or 1/8 of its size where that leaves enough pixels.

    Decoding at a smaller size happens in the domain of the DCT: it takes less time than decoding whole and resizing,
    and gives other pixels.

    Attributes:
        size: width and height of the whole image, pixels.
    """

    def __init__(self, path: Path | None, content: bytes, size: tuple[int, int]) -> None:
        self.path, self.content, self.size = path, content, size

    def part(self, top: int, left: int, height: int, width: int, least: int) -> Tensor:
        """The pixels of a part of the image.

        Args:
            top: first row of the part, as `left`, `height` and `width` in pixels of the whole image.
            left: first column of the part.
            height: rows of the part.
            width: columns of the part.
            least: how many rows and columns it must have at the smaller size; smaller parts come as they are.

        Returns:
            uint8 `(H, W, 3)`; at a smaller size the borders lie at the nearest whole pixel.

        Raises:
            BadImage: see `decode_image`.
        """
        scale = max((scale for scale in _SCALES if min(height, width) >= scale * least), default=1)
        with _explained(self.path), silent_codecs():
            if scale == 1:
                return _pixels(self.content, "ignore")[top : top + height, left : left + width]
            with _opened(io.BytesIO(self.content)) as image:
                drafted = image.draft(None, (image.width // scale, image.height // scale))
                scale = 1 if drafted is None else round(self.size[0] / drafted[1][2])
                pixels = as_pixels(_decoded(image, "ignore"))
        (first, last), (begin, end) = (
            ((2 * start + scale) // (2 * scale), (2 * stop + scale) // (2 * scale))
            for start, stop in ((top, top + height), (left, left + width))
        )
        return pixels[first:last, begin:end]


def decode_image(source: Encoded, exif: Exif = "ignore") -> Image.Image:
    """Read an image file as an image in RGB (the table in this module says how).

    Args:
        source: the file or its bytes; the content decides on the format, not the name.
        exif: `ignore` leaves the pixels as they are stored, as the published loaders do; `apply` turns the image as
            its EXIF orientation says. TIFF files are always turned, because Pillow does it while it reads them.

    Raises:
        BadImage: the file is missing, empty, cut off, damaged, no image, or holds more than `MAX_PIXELS` pixels.
    """
    with _explained(source), silent_codecs(), _opened(io.BytesIO(_content(source))) as image:
        return _decoded(image, exif)


def decode_pixels(source: Encoded, exif: Exif = "ignore") -> Tensor:
    """The pixels of `decode_image`, uint8 `(H, W, 3)`, sooner.

    Raises:
        BadImage: see `decode_image`.
    """
    with _explained(source):
        return _pixels(_content(source), exif)


def decode_stored(source: Encoded) -> tuple[np.ndarray, np.ndarray | None]:
    """The values that an image file stores rather than the colours that they stand for: what masks are read with.

    Returns:
        Integers `(H, W)` of a grey, 1-bit, 16-bit or palette image, else uint8 `(H, W, 3)`; and a palette image's
        palette, uint8 `(colours, 3)`.

    Raises:
        BadImage: see `decode_image`; or values that are not integers.
    """
    with _explained(source), silent_codecs(), _opened(io.BytesIO(_content(source))) as image:
        image.load()
        if image.mode == "P":
            palette = np.asarray(image.getpalette("RGB") or (), dtype=np.uint8).reshape(-1, 3)
            return np.array(image), palette
        if image.mode in ("1", "L") or image.mode.startswith("I"):
            return np.array(image).astype(np.uint8 if image.mode in ("1", "L") else np.int64), None
        if image.mode == "F":
            raise ValueError("its values are not integers")
        return np.array(image.convert("RGB")), None


@contextmanager
def opened_header(source: Encoded) -> Iterator[Image.Image]:
    """An image file of which only the header has been read.

    Raises:
        BadImage: see `decode_image`.
    """
    with _explained(source), silent_codecs(), _opened(io.BytesIO(_content(source))) as image:
        yield image


def open_scaled(source: Encoded, exif: Exif = "ignore") -> StoredJpeg | Tensor:
    """A JPEG file to decode in part and at a smaller size, or the pixels (`decode_pixels`) of another file.

    Raises:
        BadImage: see `decode_image`; of a JPEG file only the header is looked at.
    """
    with _explained(source), silent_codecs():
        content = _content(source)
        with _opened(io.BytesIO(content)) as image:
            if _is_upright_jpeg(image, exif):
                return StoredJpeg(_path(source), content, image.size)
        return _pixels(content, exif)


def as_rgb(image: Image.Image, exif: Exif = "ignore") -> Image.Image:
    """One of Pillow's images, opened elsewhere, in RGB by the same rules.

    Raises:
        BadImage: it cannot be decoded.
    """
    with _explained(None), silent_codecs():
        return _decoded(image, exif)


def as_pixels(image: Image.Image) -> Tensor:
    """An image in RGB as uint8 `(H, W, 3)`."""
    return torch.from_numpy(np.array(image))


def _content(source: Encoded) -> bytes:
    return source if isinstance(source, bytes) else read_file(source)


def _path(source: Encoded | None) -> Path | None:
    return None if source is None or isinstance(source, bytes) else Path(source)


@contextmanager
def _explained(source: Encoded | None) -> Iterator[None]:
    """Whatever fails in the block is a `BadImage`."""
    try:
        yield
    except MemoryError as error:
        raise BadImage(_path(source), "not enough memory to decode it") from error
    except Exception as error:  # Pillow's readers let nearly every kind of exception through
        raise BadImage(_path(source), _reason(error)) from error


def _opened(source: IO[bytes]) -> Image.Image:
    """An image file whose header has been read."""
    if not source.read(1):
        raise ValueError("empty file")
    source.seek(0)
    image = Image.open(source, formats=_FORMATS)
    if image.width * image.height > MAX_PIXELS:
        image.close()
        raise Image.DecompressionBombError
    return image


def _decoded(image: Image.Image, exif: Exif) -> Image.Image:
    image.load()
    return _to_rgb(_upright(image) if exif == "apply" else image)


def _pixels(content: bytes, exif: Exif) -> Tensor:
    """The pixels of a file, which Pillow decodes where it is no plain JPEG."""
    size = frame_size(content) if exif == "ignore" else None
    pixels = None if size is None or size[0] * size[1] > MAX_PIXELS else jpeg_pixels(content, size)
    if pixels is not None:
        return pixels
    with silent_codecs(), _opened(io.BytesIO(content)) as image:
        if exif == "apply" and image.mode == "RGB" and _is_upright_jpeg(image, exif):
            pixels = jpeg_pixels(content, image.size)
        return as_pixels(_decoded(image, exif)) if pixels is None else pixels


def _is_upright_jpeg(image: Image.Image, exif: Exif) -> bool:
    """Whether the file is a JPEG (MPO begins as one) whose image is not to be turned."""
    if image.format not in ("JPEG", "MPO"):
        return False
    try:
        return exif == "ignore" or image.getexif().get(ExifTags.Base.Orientation, 1) == 1
    except Exception:  # as in `_upright`
        return True


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
    is_rgb_already = image.mode == "RGB" and image.format in ("JPEG", "PNG", "BMP")  # no need for a copy
    return image if is_rgb_already else image.convert("RGB")


def _scaled(
    image: Image.Image, scale: Callable[[np.ndarray], tuple[np.ndarray, bool | np.bool_]], span: str
) -> Image.Image:
    values = np.asarray(image)
    levels = np.empty(values.shape, dtype=np.uint8)
    rows = max(1, _BAND // max(1, values.shape[1]))
    for top in range(0, len(values), rows):  # a band at a time: doubles take eight times the memory
        scaled, within = scale(values[top : top + rows].astype(np.float64))
        if not within:
            raise ValueError(f"its values of mode {image.mode} are not all in {span}")
        levels[top : top + rows] = np.rint(scaled)
    return Image.fromarray(levels).convert("RGB")


def _reason(error: Exception) -> str:
    """Why a file could not be read, without what differs from run to run."""
    if isinstance(error, Image.DecompressionBombError):
        return f"more than {MAX_PIXELS} pixels"
    if isinstance(error, OSError) and error.strerror:
        return error.strerror.lower()
    if isinstance(error, UnidentifiedImageError):
        return "not an image of a known format"
    return " ".join(str(error).split()) or type(error).__name__
