"""What a source holds, and whether its images and shards are whole: reads every sample, in parallel."""

import hashlib
import io
import os
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overtone.data.decoding import BadImage, decode_image
from overtone.data.masks import IGNORED
from overtone.data.opening import read_file
from overtone.data.packing import INDEX
from overtone.data.sources.shards import unlabelled_shards
from overtone.data.sources.source import Record, Source
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json

_BATCH = 1024
WITHOUT = "(none)"
"""Stands for pixels without a class."""


@dataclass(frozen=True)
class Survey:
    """What the samples of a source are.

    Attributes:
        samples: number of them.
        labels: number of images of each label, by name.
        pixels: number of pixels of each label, by name, where there are masks; `(none)`: those without a class.
        sizes: number of images of each (width, height), pixels.
        formats: number of images of each format.
        num_bytes: of all images.
        bad: name and reason of each that cannot be read.
        same: names of the images that have the same bytes, group by group.
    """

    samples: int
    labels: Mapping[str, int]
    sizes: Mapping[tuple[int, int], int]
    formats: Mapping[str, int]
    num_bytes: int
    bad: tuple[tuple[str, str], ...]
    same: tuple[tuple[str, ...], ...]
    pixels: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class _Seen:
    name: str
    reason: str = ""
    digest: bytes = b""
    size: tuple[int, int] = (0, 0)
    format: str = ""
    num_bytes: int = 0
    labels: tuple[int, ...] = ()
    pixels: tuple[tuple[int, int], ...] = ()


def survey(source: Source, *, decode: bool = True, progress: Callable[[int], object] | None = None) -> Survey:
    """Read every sample of a source.

    Args:
        source: the samples.
        decode: decode the images whole, which finds damaged ones; else only their headers are read.
        progress: called with the number of samples done so far.
    """
    labels, sizes, formats = Counter[str](), Counter[tuple[int, int]](), Counter[str]()
    pixels = Counter[str]()
    bad: list[tuple[str, str]] = []
    first: dict[bytes, int] = {}
    same: dict[bytes, list[str]] = {}
    num_bytes = 0
    for at, seen in enumerate(_in_parallel(source, lambda position: _look(source, position, decode))):
        if progress is not None and at % 64 == 0:
            progress(at)
        labels.update(source.labels[label] for label in seen.labels)
        pixels.update({WITHOUT if label == IGNORED else source.labels[label]: count for label, count in seen.pixels})
        num_bytes += seen.num_bytes
        if seen.reason:
            bad.append((seen.name, seen.reason))
            continue
        sizes[seen.size] += 1
        formats[seen.format] += 1
        if seen.digest in first:
            same.setdefault(seen.digest, [source.name(first[seen.digest])]).append(seen.name)
        else:
            first[seen.digest] = at
    by_name = {name: labels[name] for name in source.labels}
    shares = {name: pixels[name] for name in (*source.labels, WITHOUT)} if pixels else {}
    groups = tuple(map(tuple, same.values()))
    return Survey(len(source), by_name, sizes, formats, num_bytes, tuple(bad), groups, shares)


def _in_parallel(source: Source, look: Callable[[int], _Seen]) -> Iterable[_Seen]:
    with warnings.catch_warnings(), ThreadPoolExecutor(min(os.cpu_count() or 1, 16)) as pool:
        warnings.simplefilter("ignore")  # decoding in threads changes the filters under each other's feet
        for start in range(0, len(source), _BATCH):
            yield from pool.map(look, range(start, min(start + _BATCH, len(source))))


def _look(source: Source, position: int, decode: bool) -> _Seen:
    name = source.name(position)
    try:
        record = source.read(position)
        labels = _labels(record)
        image = record.get("image", b"")
        if isinstance(image, Image.Image):
            return _Seen(name, "", hashlib.sha256(image.tobytes()).digest(), image.size, "memory", 0, labels)
        content = image if isinstance(image, bytes) else read_file(image)
    except BadImage as error:
        return _Seen(name, error.reason)
    except (OSError, ValueError) as error:
        return _Seen(name, (getattr(error, "strerror", None) or str(error)).lower())
    try:
        if decode:
            decode_image(content)
        with Image.open(io.BytesIO(content)) as opened:
            size, kind = opened.size, opened.format or ""
    except BadImage as error:
        return _Seen(name, error.reason, labels=labels, num_bytes=len(content))
    except Exception:  # Pillow's readers let nearly every kind of exception through
        return _Seen(name, "not an image of a known format", labels=labels, num_bytes=len(content))
    try:
        pixels = _pixels(record, size)
    except BadImage as error:
        return _Seen(name, error.reason, num_bytes=len(content))
    labels = labels or tuple(label for label, _ in pixels if label != IGNORED)
    return _Seen(name, "", hashlib.sha256(content).digest(), size, kind, len(content), labels, pixels)


def _pixels(record: Record, size: tuple[int, int]) -> tuple[tuple[int, int], ...]:
    """Class, or `IGNORED`, and pixels in the record's mask, if it has one."""
    if "mask" not in record:
        return ()
    mask = record["mask"].pixels()
    if mask.shape[::-1] != size:
        raise BadImage(None, f"it is {size[0]}x{size[1]} pixels and its mask {mask.shape[1]}x{mask.shape[0]}")
    counts = np.bincount(mask.ravel(), minlength=IGNORED + 1)
    return tuple((int(label), int(counts[label])) for label in np.flatnonzero(counts))


def _labels(record: Record) -> tuple[int, ...]:
    if "label" in record:
        return (record["label"],)
    if "boxes" in record:
        return tuple(np.unique(record["boxes"].labels).tolist())
    return tuple(record.get("labels", ()))


def verify_shards(folder: Path, progress: Callable[[int], object] | None = None) -> list[tuple[str, str]]:
    """Compare the shards of a folder with its `index.json`: presence, size, SHA-256.

    Args:
        folder: what `pack` wrote.
        progress: called with the number of shards done so far.

    Returns:
        Name and what is wrong of each file that is not as it was written.

    Raises:
        OvertoneError: there is no `index.json`, or it is none.
    """
    path = folder / INDEX
    try:
        index = parse_json(read_file(path).decode())
        shards: list[dict[str, Any]] = list(index["shardlist"])
        expected = {str(shard["url"]): (int(shard["filesize"]), str(shard["sha256"])) for shard in shards}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OvertoneError(
            f"{path} cannot be read ({error}); give a folder that overtone data pack has written"
        ) from error
    wrong = []
    with ThreadPoolExecutor(min(2 * (os.cpu_count() or 1), 16)) as pool:
        checks = pool.map(lambda item: _difference(folder / item[0], *item[1]), expected.items())
        for at, (name, difference) in enumerate(zip(expected, checks, strict=True)):
            if difference:
                wrong.append((name, difference))
            if progress is not None:
                progress(at + 1)
    others = sorted(path.name for path in folder.glob("*.tar") if path.name not in expected)
    return wrong + [(name, "is not in index.json") for name in others]


def _difference(path: Path, size: int, sha256: str) -> str:
    try:
        actual = path.stat().st_size
        if actual != size:
            return f"has {actual:,} bytes, and {size:,} in index.json"
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        return f"cannot be read: {(error.strerror or str(error)).lower()}"
    return "" if digest == sha256 else f"has the SHA-256 {digest}, and {sha256} in index.json"


def survey_shards(folder: Path, progress: Callable[[int], object] | None = None) -> tuple[int, list[tuple[str, str]]]:
    """Decode every image in the shards of a folder, whatever its labels.

    Returns:
        The number of images that could be decoded, and name and reason of each sample that could not.

    Raises:
        OvertoneError: there are no shards.
    """
    found = survey(unlabelled_shards(folder), progress=progress)
    return found.samples - len(found.bad), list(found.bad)
