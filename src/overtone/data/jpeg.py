"""The pixels of a JPEG file, from a faster decoder than Pillow's where both give the same ones.

All call libjpeg-turbo, but Pillow stores four bytes a pixel, row by row, and they have to be copied out again:
torchvision's takes about a quarter less time, and simplejpeg's, where it is installed, a third
(`benchmarks/decoding.py`). Torchvision's has been deprecated since torchvision 0.29; where neither is there, or was
built with another library, Pillow decodes everything, to the same pixels.
"""

import importlib
import io
import sys
import threading
from collections.abc import Callable
from functools import cache
from typing import Any

import numpy as np
import torch
import torchvision.io
from PIL import Image
from torch import Tensor

from overtone.data.silent_codecs import silent_codecs

_decode_jpeg = getattr(torchvision.io, "decode_jpeg", None)
_kept = threading.local()
_MOST_KEPT = 1 << 24  # bytes
_START = b"\xff\xd8\xff"
_FRAMES = (0xC0, 0xC1, 0xC2)  # baseline, extended, progressive
_SEGMENTS = frozenset((0xC4, 0xDB, 0xDD, *range(0xE0, 0xF0), 0xFE))  # tables, restarts, applications' own, comments


def frame_size(content: bytes) -> tuple[int, int] | None:
    """Width and height of a plain JPEG file: three colours of 8 bits, and nothing odd before its frame.

    Pillow reads all of the header, which takes a tenth of the time that decoding takes; None leaves the file to it.
    """
    if not content.startswith(_START):
        return None
    position = len(_START) - 1
    while position + 10 <= len(content) and content[position] == 0xFF:
        marker = content[position + 1]
        if marker in _FRAMES:
            bits, colours = content[position + 4], content[position + 9]
            height, width = (int.from_bytes(content[position + at : position + at + 2], "big") for at in (5, 7))
            return (width, height) if bits == 8 and colours == 3 else None
        if marker not in _SEGMENTS:
            return None
        position += 2 + int.from_bytes(content[position + 2 : position + 4], "big")
    return None


def jpeg_pixels(content: bytes, size: tuple[int, int]) -> Tensor | None:
    """Decode a JPEG file in RGB.

    Args:
        content: the file.
        size: its width and height as its header gives them.

    Returns:
        uint8 `(H, W, 3)`, or None where Pillow has to decode it: it then also says what is wrong with the file.
    """
    for decode in _decoders():
        pixels = decode(content, 3 * size[0] * size[1])
        if pixels is not None:
            return pixels if pixels.shape == (size[1], size[0], 3) else None
    return None


def _by_torchvision(content: bytes, size: int) -> Tensor | None:
    if _decode_jpeg is None:
        return None
    try:
        with silent_codecs():
            return _decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0)
    except RuntimeError:
        return None


def _by_simplejpeg(content: bytes, size: int) -> Tensor | None:
    """Decode with simplejpeg, which takes no file that libjpeg would warn of, and writes nothing about it."""
    try:
        return torch.from_numpy(_simplejpeg().decode_jpeg(content, buffer=_room(size)))
    except (ImportError, ValueError):
        return None


def _room(size: int) -> np.ndarray:
    """Memory for so many bytes: this thread's last, if nobody looks at it any more.

    New memory comes from the system page by page, which takes a seventh of the time that decoding takes.
    """
    if not hasattr(_kept, "room"):
        _kept.room = np.empty(0, np.uint8)
        _kept.unused = _references(_kept)  # how many there are of one's own differs between versions of Python
    if len(_kept.room) >= size and _references(_kept) == _kept.unused:
        return _kept.room
    room = np.empty(size, np.uint8)
    if size <= _MOST_KEPT:
        _kept.room = room
    return room


def _references(kept: Any) -> int:
    room = kept.room
    return sys.getrefcount(room)


@cache
def _simplejpeg() -> Any:
    return importlib.import_module("simplejpeg")


@cache
def _decoders() -> tuple[Callable[[bytes, int], Tensor | None], ...]:
    """The fastest decoder that agrees with Pillow here, if there is one."""
    decoders = (_by_simplejpeg, _by_torchvision)
    return next(((decode,) for decode in decoders if _gives_pillows_pixels(decode)), ())


def _gives_pillows_pixels(decode: Callable[[bytes, int], Tensor | None]) -> bool:
    """Whether a decoder agrees with Pillow on noise with and without subsampled colours, also progressive, and RGB."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8))
    cases = ({"subsampling": 0}, {"subsampling": 1}, {"subsampling": 2}, {"subsampling": 2, "progressive": True})
    for case in (*cases, {"keep_rgb": True}):
        file = io.BytesIO()
        noise.save(file, "JPEG", quality=90, **case)
        pixels = decode(file.getvalue(), 3 * noise.width * noise.height)
        if pixels is None or not np.array_equal(pixels.numpy(), np.asarray(Image.open(file).convert("RGB"))):
            return False
    return True
