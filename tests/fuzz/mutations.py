"""Damage of every kind, a function of a seeded generator: bytes of files, numbers in headers, values in JSON."""

import io
import json
import random
import re
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
from PIL import Image

ABSURD = (0, 1, 2, 3, 255, 256, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF)
VALUES: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    5,
    2**31,
    2**70,
    1e9,
    1e400,
    float("nan"),
    "",
    "x",
    "../../etc/passwd",
    "/dev/zero",
    "https://localhost:9/x",
    "\x1b[2J\u202e\0",
    "a" * 5000,
    [],
    [[]],
    [1, 2, 3],
    ["a", "a"],
    {},
    {"a": {"b": []}},
)


def image_files(draw: random.Random) -> dict[str, bytes]:
    """One small file of every format and of the kinds of it that are decoded by other code."""
    values = np.random.default_rng(draw.randrange(1 << 30)).integers(0, 256, (23, 31, 3), dtype=np.uint8)
    image = Image.fromarray(values)
    deep = Image.fromarray(values[..., 0].astype(np.uint16) * 257)
    exif = Image.Exif()
    exif[0x0112] = 6
    kinds: dict[str, tuple[Image.Image, str, dict[str, Any]]] = {
        "jpeg": (image, "JPEG", {}),
        "jpeg progressive": (image, "JPEG", {"progressive": True, "exif": exif}),
        "jpeg grey": (image.convert("L"), "JPEG", {}),
        "jpeg cmyk": (image.convert("CMYK"), "JPEG", {}),
        "png": (image, "PNG", {"exif": exif}),
        "png palette": (image.convert("P"), "PNG", {"transparency": 3}),
        "png deep": (deep, "PNG", {}),
        "webp": (image, "WEBP", {"exif": exif}),
        "webp lossless": (image.convert("RGBA"), "WEBP", {"lossless": True}),
        "webp frames": (image, "WEBP", {"save_all": True, "append_images": [image.rotate(90)]}),
        "bmp": (image, "BMP", {}),
        "bmp palette": (image.convert("P"), "BMP", {}),
        "gif frames": (image.convert("P"), "GIF", {"save_all": True, "append_images": [image.convert("P").rotate(90)]}),
        "tiff": (image, "TIFF", {}),
        "tiff lzw": (image, "TIFF", {"compression": "tiff_lzw"}),
        "tiff deflate": (image, "TIFF", {"compression": "tiff_adobe_deflate"}),
        "tiff jpeg": (image, "TIFF", {"compression": "jpeg"}),
        "tiff fax": (image.convert("1"), "TIFF", {"compression": "group4"}),
        "tiff float": (Image.fromarray((values[..., 0] / 255).astype(np.float32)), "TIFF", {}),
        "tiff pages": (image, "TIFF", {"save_all": True, "append_images": [image.rotate(90)]}),
    }
    files = {}
    for name, (drawn, kind, settings) in kinds.items():
        file = io.BytesIO()
        drawn.save(file, kind, **settings)
        files[name] = file.getvalue()
    return files


def damaged(content: bytes, draw: random.Random) -> bytes:
    """A file with bits turned, bytes replaced, cut out, repeated, or numbers of its header replaced."""
    kind = draw.choice((_bits, _bytes, _cut, _repeated, _header, _header, _joined))
    found = kind(bytearray(content), draw)
    return _with_checksums(found) if draw.random() < 0.7 else bytes(found)


def _bits(content: bytearray, draw: random.Random) -> bytearray:
    for _ in range(draw.choice((1, 1, 3, 20))):
        content[draw.randrange(len(content))] ^= 1 << draw.randrange(8)
    return content


def _bytes(content: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(content))
    length = draw.choice((1, 4, 40))
    content[start : start + length] = draw.randbytes(length)
    return content


def _cut(content: bytearray, draw: random.Random) -> bytearray:
    start = draw.randrange(len(content))
    return content[:start] if draw.random() < 0.6 else content[:start] + content[start + draw.randrange(1, 50) :]


def _repeated(content: bytearray, draw: random.Random) -> bytearray:
    start, stop = sorted(draw.randrange(len(content)) for _ in range(2))
    return content[:stop] + content[start:stop] * draw.choice((1, 3, 50)) + content[stop:]


def _header(content: bytearray, draw: random.Random) -> bytearray:
    """A number of 2 or 4 bytes near the start (TIFF: also near the end) becomes an absurd one."""
    pattern = draw.choice(("<H", ">H", "<I", ">I"))
    size = struct.calcsize(pattern)
    start = draw.randrange(min(len(content) - size, 200))
    if content[:2] in (b"II", b"MM") and draw.random() < 0.7:
        start = max(0, len(content) - size - draw.randrange(200))
    content[start : start + size] = struct.pack(pattern, draw.choice(ABSURD) & ((1 << 8 * size) - 1))
    return content


def _joined(content: bytearray, draw: random.Random) -> bytearray:
    return content + content[draw.randrange(len(content)) :]


def with_other_numbers(content: bytes, draw: random.Random) -> bytes:
    """A text of which one to three numbers or words are replaced by absurd ones."""
    words = re.split(rb"([\w.-]+)", content)
    for _ in range(draw.choice((1, 1, 2, 3))):
        words[draw.randrange(len(words) // 2) * 2 + 1] = str(draw.choice((*VALUES, *ABSURD))).encode("utf-8")
    return b"".join(words)


def _with_checksums(content: bytearray) -> bytes:
    """A PNG file whose chunks have right checksums, so that the damage reaches the decoder; others as they are."""
    if not content.startswith(b"\x89PNG\r\n\x1a\n"):
        return bytes(content)
    at = 8
    while at + 12 <= len(content):
        (length,) = struct.unpack(">I", content[at : at + 4])
        if at + 12 + length > len(content):
            break
        content[at + 8 + length : at + 12 + length] = struct.pack(">I", zlib.crc32(content[at + 4 : at + 8 + length]))
        at += 12 + length
    return bytes(content)


def damaged_json(values: Any, draw: random.Random) -> str:
    """JSON of which one to three values are replaced, removed, added or nested a thousand times deep."""
    values = json.loads(json.dumps(values))
    text: Callable[[], str] = lambda: json.dumps(values)  # noqa: E731
    for _ in range(draw.choice((1, 1, 2, 3))):
        holder, key = _place(values, draw)
        if holder is None:
            values = draw.choice(VALUES)
            break
        kind = draw.randrange(6)
        if kind == 0:
            del holder[key]
            if not holder:
                break
        elif kind == 1 and isinstance(holder, dict):
            holder[draw.choice(("x", "format", "pretrained", "checkpoint_path", "__class__", ""))] = draw.choice(VALUES)
        elif kind == 2:
            holder[key] = "@deep@"
        else:
            holder[key] = draw.choice(VALUES)
    depth = draw.choice((200, 5000, 100_000))
    return text().replace('"@deep@"', "[" * depth + "]" * depth)


def _place(values: Any, draw: random.Random) -> tuple[Any, Any]:
    """Some place in nested values: what holds it, and the key or position there."""
    holder: Any = None
    key: Any = None
    while isinstance(values, (dict, list)) and values:
        holder = values
        key = draw.choice(list(values)) if isinstance(values, dict) else draw.randrange(len(values))
        values = values[key]
        if draw.random() < 0.4:
            break
    return holder, key
