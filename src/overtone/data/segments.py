"""Outlines of objects as the annotations give them: packed bytes, bitmaps, and COCO's run-length codes.

Polygons become pixels by the rules of pycocotools (extra `detect`), so that training, metrics and the published
figures see the same masks. Nothing else here needs it.
"""

import functools
import importlib
import struct
import warnings
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from overtone.data.run_lengths import lengths_in
from overtone.errors import OvertoneError

_NEEDED = "pycocotools, which is not installed: pip install 'overtone[detect]'"


def pack(segmentation: Any) -> bytes:
    """Pack what COCO keeps under `segmentation`: polygons, or run lengths as a list or as text; empty for none.

    Raises:
        ValueError: it is none of these, or a polygon of fewer than three points.
    """
    if segmentation is None or segmentation == []:
        return b""
    if isinstance(segmentation, Mapping):
        return _pack_runs(segmentation)
    if not isinstance(segmentation, Sequence) or isinstance(segmentation, str):
        raise ValueError("its segmentation is neither a list of polygons nor run lengths")
    try:
        rings = [np.asarray(ring, dtype="<f8") for ring in segmentation]
    except (TypeError, ValueError, OverflowError) as error:
        raise ValueError("a polygon of its segmentation has something other than numbers") from error
    if any(ring.ndim != 1 or len(ring) < 6 or len(ring) % 2 or not np.isfinite(ring).all() for ring in rings):
        raise ValueError("a polygon of its segmentation has fewer than three points x, y")
    head = struct.pack(f"<cI{len(rings)}I", b"P", len(rings), *(len(ring) for ring in rings))
    return head + b"".join(ring.tobytes() for ring in rings)


def _pack_runs(runs: Mapping[str, Any]) -> bytes:
    try:
        (height, width), counts = runs["size"], runs["counts"]
        counts = counts.encode("ascii") if isinstance(counts, str) else counts
        lengths = np.asarray(lengths_in(counts) if isinstance(counts, bytes) else counts, dtype="<u4")
        if lengths.sum(dtype=np.int64) != height * width:
            raise ValueError
        return struct.pack("<cII", b"R", height, width) + lengths.tobytes()
    except (KeyError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise ValueError("its run lengths are not those of its size") from error


def unpack(packed: bytes) -> Any:
    """COCO's `segmentation` of which `pack` gives these bytes, run lengths as a list; None for no outline."""
    rings = rings_of(packed)
    if not packed or rings is not None:
        return None if rings is None else [ring.tolist() for ring in rings]
    counts = np.frombuffer(packed, "<u4", offset=9).tolist()
    return {"size": list(struct.unpack_from("<II", packed, 1)), "counts": counts}


def rings_of(packed: bytes) -> list[np.ndarray] | None:
    """The polygons, each `(2 P,)` of x and y in turn; None for run lengths."""
    if packed[:1] != b"P":
        return None
    (count,) = struct.unpack_from("<I", packed, 1)
    lengths = struct.unpack_from(f"<{count}I", packed, 5)
    values = np.frombuffer(packed, dtype="<f8", offset=5 + 4 * count)
    return np.split(values, np.cumsum(lengths)[:-1])


def run_lengths(packed: bytes, box: Sequence[float], height: int, width: int) -> dict[str, Any]:
    """COCO's compressed run lengths of an outline in an image; of the box where there is no outline.

    Raises:
        OvertoneError: pycocotools is not installed.
        ValueError: run lengths of another size than the image's.
    """
    mask = mask_module()
    rings = rings_of(packed)
    if packed and rings is None:
        check_size(packed, height, width)
        counts = np.frombuffer(packed, dtype="<u4", offset=9).tolist()
        return mask.frPyObjects({"size": [height, width], "counts": counts}, height, width)
    if rings is None:
        x1, y1, x2, y2 = map(float, box)
        rings = [np.array([x1, y1, x1, y2, x2, y2, x2, y1])]
    return mask.merge(mask.frPyObjects([ring.tolist() for ring in rings], height, width))


def check_size(packed: bytes, height: int, width: int) -> None:
    """Refuse run lengths of another size than the image's.

    Raises:
        ValueError: they are.
    """
    stored = struct.unpack_from("<II", packed, 1) if packed[:1] == b"R" else (height, width)
    if stored != (height, width):
        raise ValueError(f"run lengths of {stored[1]}x{stored[0]} pixels in an image of {width}x{height}")


def bitmap(packed: bytes, box: Sequence[float], height: int, width: int) -> np.ndarray:
    """The pixels of an outline, uint8 `(height, width)` of 0 and 1; see `run_lengths`."""
    return decoded(run_lengths(packed, box, height, width))


def decoded(runs: Mapping[str, Any]) -> np.ndarray:
    """The pixels of COCO's compressed run lengths, uint8 `(height, width)`."""
    with warnings.catch_warnings():  # pycocotools converts its arrays in a way that NumPy 2 gives up
        warnings.filterwarnings("ignore", message="__array__ implementation", category=DeprecationWarning)
        return mask_module().decode(runs)


@functools.cache
def mask_module() -> Any:
    """Pycocotools' `mask`.

    Raises:
        OvertoneError: it is not installed.
    """
    try:
        return importlib.import_module("pycocotools.mask")
    except ImportError as error:
        raise OvertoneError(f"masks of objects need {_NEEDED}") from error
