"""The pixels of a JPEG file, from torchvision's decoder rather than Pillow's where both give the same ones.

Both call libjpeg-turbo, but Pillow stores four bytes a pixel, row by row, and they have to be copied out again:
torchvision's takes about a quarter less time. It has been deprecated since torchvision 0.29; where it is gone, or was
built with another library, Pillow decodes everything, to the same pixels.
"""

import io
from functools import cache

import numpy as np
import torch
import torchvision.io
from PIL import Image
from torch import Tensor

_decode_jpeg = getattr(torchvision.io, "decode_jpeg", None)
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
    """Decode a JPEG file in RGB; call it where warnings are ignored.

    Args:
        content: the file.
        size: its width and height as its header gives them.

    Returns:
        uint8 `(H, W, 3)`, or None where Pillow has to decode it: it then also says what is wrong with the file.
    """
    if not _gives_pillows_pixels():
        return None
    pixels = _decoded(content)
    return pixels if pixels is not None and pixels.shape == (size[1], size[0], 3) else None


def _decoded(content: bytes) -> Tensor | None:
    if _decode_jpeg is None:
        return None
    try:
        return _decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8)).permute(1, 2, 0)
    except RuntimeError:
        return None


@cache
def _gives_pillows_pixels() -> bool:
    """Whether the two decoders agree here, on noise with and without subsampled colours, also progressive."""
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (37, 51, 3), dtype=np.uint8))
    for subsampling, progressive in ((0, False), (1, False), (2, False), (2, True)):
        file = io.BytesIO()
        noise.save(file, "JPEG", quality=90, subsampling=subsampling, progressive=progressive)
        pixels = _decoded(file.getvalue())
        if pixels is None or not np.array_equal(pixels.numpy(), np.asarray(Image.open(file))):
            return False
    return True
