"""Decoded samples kept for the epochs to come, in memory or in memory-mapped files: decoding takes most of the time.

A sample is kept as the pipeline's `decode` gave it, in uint8, so that what comes back is the same to the last bit, and
crops, flips and all that is drawn are drawn from it anew. It is one run of bytes: a description (JSON) and pixels.
"""

import json
from functools import lru_cache
from typing import Any, Protocol

import numpy as np
import torch
from PIL import Image
from torch import Tensor

_ALIGNED = 64  # bytes
_HEAD = 8  # bytes of the length of the description


class Store(Protocol):
    """Runs of bytes by number.

    Attributes:
        is_full: whether there is no room for anything more.
    """

    is_full: bool

    def get(self, number: int) -> np.ndarray | None:
        """What was put under a number, uint8 and writable, or None."""
        ...

    def put(self, number: int, size: int, pieces: list[Any]) -> None:
        """Keep pieces of bytes, `size` in all, if there is room."""
        ...


class Memory:
    """A store in the memory of this process.

    Args:
        num_bytes: of all that is kept; 0 keeps nothing.
    """

    def __init__(self, num_bytes: int) -> None:
        self._num_bytes, self._room, self.is_full = num_bytes, num_bytes, num_bytes == 0
        self._kept: dict[int, np.ndarray] = {}

    def get(self, number: int) -> np.ndarray | None:
        """See `Store`."""
        return self._kept.get(number)

    def put(self, number: int, size: int, pieces: list[Any]) -> None:
        """See `Store`."""
        self.is_full = size > self._room
        if not self.is_full:
            self._room -= size
            self._kept[number] = np.frombuffer(bytearray().join(pieces), np.uint8)

    def holds(self, count: int) -> bool:
        """Whether there is room for so many samples, by the size of those kept so far; not known before any is."""
        return 0 < (self._num_bytes - self._room) * count <= self._num_bytes * len(self._kept)


class DecodedCache:
    """Keeps decoded samples while there is room; what has found room stays.

    A sample is an image (Pillow's or a tensor of pixels), or a tuple, list or dict of these and plain values. Anything
    else, such as a file that is decoded in part, is not kept.

    Args:
        store: where they are kept.
        first: number of the first sample of the source in the store.
    """

    def __init__(self, store: Store, first: int = 0) -> None:
        self._store, self._first = store, first

    def holds(self, count: int) -> bool:
        """Whether so many samples will be in memory once they have been read; False where that is not known."""
        return isinstance(self._store, Memory) and self._store.holds(count)

    def get(self, position: int) -> Any:
        """The sample kept for a position of the source, or None.

        Pillow's images come in memory of their own; tensors share that of the store, which nobody may change.
        """
        kept = self._store.get(self._first + position)
        if kept is None:
            return None
        length = _HEAD + int.from_bytes(kept[:_HEAD].tobytes(), "little")
        return _rebuilt(_parsed(kept[_HEAD:length].tobytes()), kept, _aligned(length))

    def keep(self, position: int, decoded: Any) -> None:
        """Keep a sample if there is room and it can be kept."""
        if self._store.is_full:
            return
        pieces: list[Any] = []
        plan = _planned(decoded, pieces, [0])
        if plan is None:
            return
        text = json.dumps(plan).encode()
        start = _aligned(_HEAD + len(text))
        head = len(text).to_bytes(_HEAD, "little") + text.ljust(start - _HEAD)
        self._store.put(self._first + position, start + sum(map(len, pieces)), [head, *pieces])


@lru_cache(1024)  # images of one size and class have the same
def _parsed(description: bytes) -> Any:
    return json.loads(description)


def _aligned(size: int) -> int:
    return -(-size // _ALIGNED) * _ALIGNED


def _planned(value: Any, pieces: list[Any], end: list[int]) -> list[Any] | None:
    """What `_rebuilt` makes a sample from, beside the bytes that are added to `pieces`; None if it cannot be kept."""
    if isinstance(value, Image.Image):
        return ["image", value.mode, value.size, *_put(value.tobytes(), pieces, end)]
    if type(value) in (Tensor, np.ndarray):
        values = value.numpy() if isinstance(value, Tensor) else value
        order = sorted(range(values.ndim), key=lambda axis: -values.strides[axis])  # the order in memory
        laid = np.ascontiguousarray(values.transpose(order))
        place = _put(laid.reshape(-1).view(np.uint8).data, pieces, end)
        return [type(value).__name__, values.dtype.str, laid.shape, np.argsort(order).tolist(), *place]
    if type(value) in (tuple, list, dict):
        plans = [_planned(item, pieces, end) for item in (value.values() if isinstance(value, dict) else value)]
        if None in plans:
            return None
        return [type(value).__name__, list(value) if isinstance(value, dict) else None, plans]
    return ["value", value] if value is None or type(value) in (bool, int, float, str) else None


def _put(content: Any, pieces: list[Any], end: list[int]) -> tuple[int, int]:
    """Add a piece, and what aligns the next one; gives where it lies."""
    start, size = end[0], len(content)
    end[0] = start + _aligned(size)
    pieces += [content, bytes(end[0] - start - size)]
    return start, size


def _rebuilt(plan: list[Any], kept: np.ndarray, begin: int) -> Any:
    """A sample from its description and its run of bytes, of which the pixels begin at `begin`."""
    kind, *rest = plan
    if kind == "value":
        return rest[0]
    if kind in ("tuple", "list", "dict"):
        values = (_rebuilt(item, kept, begin) for item in rest[1])
        return (
            dict(zip(rest[0], values, strict=True)) if kind == "dict" else (tuple if kind == "tuple" else list)(values)
        )
    start, size = rest[-2:]
    if kind == "image":
        return Image.frombytes(rest[0], tuple(rest[1]), kept[begin + start : begin + start + size])
    dtype, shape, order = rest[:3]
    values = np.ndarray(shape, dtype, kept, begin + start).transpose(order) if size else np.empty(shape, dtype)
    return torch.from_numpy(values) if kind == "Tensor" else values
