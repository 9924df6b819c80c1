"""Where the tensors of an ONNX file lie: within it, or in files that it names.

ONNX Runtime opens whatever path a tensor names. This reads the names before it does, without the package `onnx`, which
is not needed to run a file: a walk over the fields of the messages that can hold a tensor (onnx.proto, IR version 13),
which skips all others unread.
"""

import mmap
from collections.abc import Iterator
from pathlib import Path

from overtone.errors import OvertoneError

_TENSOR, _ENTRY = "tensor", "entry"
# message -> field number -> message; what is not named here holds no tensor
_MESSAGES = {
    "model": {7: "graph", 20: "training", 25: "function"},
    "training": {1: "graph", 2: "graph"},
    "function": {7: "node", 11: "attribute"},
    "graph": {1: "node", 5: _TENSOR, 15: "sparse"},
    "node": {5: "attribute"},
    "attribute": {5: _TENSOR, 6: "graph", 10: _TENSOR, 11: "graph", 22: "sparse", 23: "sparse"},
    "sparse": {1: _TENSOR, 2: _TENSOR},
    _TENSOR: {13: _ENTRY},
}
_DEEPEST = 100
_VARINT, _FIXED64, _BYTES, _FIXED32 = 0, 1, 2, 5


def external_files(path: Path) -> set[str]:
    """The locations that tensors of an ONNX file name.

    Raises:
        OvertoneError: the file is not one of ONNX.
    """
    try:
        with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
            view = memoryview(content)
            try:
                return set(_locations(view, "model", _DEEPEST))
            finally:
                view.release()
    except (ValueError, IndexError, UnicodeDecodeError) as error:
        raise OvertoneError(f"{path} is not a whole ONNX file ({error}); export again") from error


def _locations(message: memoryview, kind: str, depth: int) -> Iterator[str]:
    if depth == 0:
        raise ValueError("nested too deeply")
    for number, value in _fields(message):
        inner = _MESSAGES[kind].get(number)
        if inner is None:
            continue
        if inner == _ENTRY:
            entry = {key: bytes(text).decode() for key, text in _fields(value)}
            if entry.get(1) == "location":
                yield entry.get(2, "")
        else:
            yield from _locations(value, inner, depth - 1)


def _fields(message: memoryview) -> Iterator[tuple[int, memoryview]]:
    """Number and content of each field that is a message, a text or bytes; numbers are skipped."""
    at = 0
    while at < len(message):
        key, at = _varint(message, at)
        kind = key & 7
        if kind == _VARINT:
            _, at = _varint(message, at)
        elif kind == _BYTES:
            length, at = _varint(message, at)
            if length > len(message) - at:
                raise ValueError("cut short")
            with message[at : at + length] as content:
                yield key >> 3, content
            at += length
        elif kind in (_FIXED64, _FIXED32):
            at += 8 if kind == _FIXED64 else 4
        else:
            raise ValueError(f"field of type {kind}")


def _varint(message: memoryview, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = message[at]
        at += 1
        value |= (byte & 127) << shift
        if byte < 128:
            return value, at
        shift += 7
        if shift > 63:
            raise ValueError("number too long")
