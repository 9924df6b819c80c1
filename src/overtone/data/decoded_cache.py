"""Decoded samples kept in memory: small images take longer to decode than to be trained on."""

from typing import Any

import numpy as np
from PIL import Image
from torch import Tensor


class DecodedCache:
    """Keeps decoded samples until `num_bytes` are used; what has found room stays.

    A sample is an image (Pillow's or a tensor of pixels), or a tuple or dict of these and plain values. Anything else,
    such as a file that is decoded in part, is not kept.

    Args:
        num_bytes: of all samples together; 0 keeps nothing.
    """

    def __init__(self, num_bytes: int) -> None:
        self.room = num_bytes
        self._kept: dict[int, Any] = {}

    def get(self, position: int) -> Any:
        """The sample kept for a position of the source, or None.

        Pillow's images come in memory of their own; tensors are those that are kept, which nobody may change.
        """
        kept = self._kept.get(position)
        return None if kept is None else _unpacked(kept)

    def keep(self, position: int, decoded: Any) -> None:
        """Keep a sample if there is room and it can be kept."""
        num_bytes = _num_bytes(decoded) if self.room else None
        if num_bytes is not None and num_bytes <= self.room:
            self.room -= num_bytes
            self._kept[position] = _packed(decoded)


class _Packed(tuple):
    """Mode, size and bytes of one of Pillow's images."""


def _num_bytes(value: Any) -> int | None:
    """Bytes that a sample takes; None if it cannot be kept."""
    if isinstance(value, Image.Image):
        return len(value.getbands()) * value.width * value.height
    if isinstance(value, (Tensor, np.ndarray)):
        return value.nbytes
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        sizes = [_num_bytes(item) for item in value]
        return None if None in sizes else sum(size for size in sizes if size is not None)
    return 0 if value is None or isinstance(value, (int, float, str)) else None


def _packed(value: Any) -> Any:
    if isinstance(value, Image.Image):
        return _Packed((value.mode, value.size, value.tobytes()))
    if isinstance(value, dict):
        return {key: _packed(item) for key, item in value.items()}
    return type(value)(map(_packed, value)) if type(value) in (tuple, list) else value


def _unpacked(value: Any) -> Any:
    if isinstance(value, _Packed):
        return Image.frombytes(*value)
    if isinstance(value, dict):
        return {key: _unpacked(item) for key, item in value.items()}
    return type(value)(map(_unpacked, value)) if type(value) in (tuple, list) else value
