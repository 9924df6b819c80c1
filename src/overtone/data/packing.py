"""Writing tar shards from any source: in parallel, resumable, the same bytes for the same samples and settings.

Each sample is `NUMBER.EXT` with the bytes of the image, `NUMBER.json` (its name, and labels or boxes), and `NUMBER.cls`
(position of its class in `index.json`) or `NUMBER.mask.png` (positions of the pixels' classes, 255 for none).
`index.json`, in the form of wids, lists the shards with counts, sizes and SHA-256; it is written last, so that a folder
with one is whole.
"""

import hashlib
import io
import json
import os
import tarfile
import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overtone.data.caching import write_whole
from overtone.data.cropping import at_most
from overtone.data.decoding import BadImage, decode_image
from overtone.data.opening import read_at, read_file
from overtone.data.shard_index import SUFFIX, index_of
from overtone.data.sources.boxed_json import objects_to_json
from overtone.data.sources.source import Record, Source
from overtone.data.storage import Stamp
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

INDEX, PLAN = "index.json", ".pack.json"
_PROBES = 64  # samples whose size decides how many shards there are
_OVERHEAD = 2048  # bytes of a sample's headers and label in a tar
_SUFFIXES = {"JPEG": "jpg", "PNG": "png", "WEBP": "webp", "BMP": "bmp", "GIF": "gif", "TIFF": "tif"}
_BAD = ".bad.json"


@dataclass(frozen=True)
class Packing:
    """How samples are written.

    Attributes:
        size_mb: about how large a shard becomes, MB.
        max_side: images whose shorter side is longer are resized to it (pixels) and written as JPEG; None: every image
            is written byte for byte.
        quality: of that JPEG, 1..100.
        shuffle: write the training samples in a random order (a function of their names alone) rather than as listed.
        workers: threads.
    """

    size_mb: float = 256.0
    max_side: int | None = None
    quality: int = 92
    shuffle: bool = True
    workers: int = 0


@dataclass(frozen=True)
class Packed:
    """What was written.

    Attributes:
        folder: of the shards.
        counts: samples in the shards by part.
        shards: number of shards.
        kept: how many of them an earlier call had written.
        size: bytes in all.
        bad: name and reason of each sample that could not be read; it is in no shard.
    """

    folder: Path
    counts: Mapping[str, int]
    shards: int
    kept: int
    size: int
    bad: tuple[tuple[str, str], ...]


@dataclass(frozen=True)
class _Shard:
    name: str
    part: str
    source: Source
    positions: np.ndarray
    first: int


def pack(
    parts: Mapping[str, Source], out: Path, packing: Packing, progress: Callable[[int], object] | None = None
) -> Packed:
    """Write shards of every part into a folder; what an earlier call with the same samples has written is kept.

    Args:
        parts: the samples by part (`train`, `val`, `test`), all with the same labels.
        out: the folder.
        packing: how.
        progress: called with the number of samples done so far.

    Raises:
        OvertoneError: the folder holds shards of other samples or settings, or cannot be written.
    """
    labels = next(iter(parts.values())).labels
    digest = _digest(parts, labels, packing)
    finished = _finished(out, digest)
    if finished is not None:
        return finished
    _begin(out, digest)
    shards = [shard for part, source in parts.items() for shard in _planned(part, source, packing)]
    done, kept = 0, 0
    with warnings.catch_warnings(), ThreadPoolExecutor(packing.workers or min(2 * (os.cpu_count() or 1), 16)) as pool:
        warnings.simplefilter("ignore")  # decoding in threads changes the filters under each other's feet
        entries = []
        for shard, (entry, existed) in zip(
            shards, pool.map(lambda shard: _written(shard, out, packing), shards), strict=True
        ):
            entries.append(entry)
            kept += existed
            done += len(shard.positions)
            if progress is not None:
                progress(done)
    bad = [(name, reason) for entry in entries for name, reason in entry.pop("bad")]
    index = {
        "__kind__": "wids-shard-index-v1",
        "wids_version": 1,
        "shardlist": entries,
        "classes": list(labels),
        "max_side": packing.max_side,
        "quality": None if packing.max_side is None else packing.quality,
        "bad": bad,
        "packed_from": digest,
    }
    _write_json(out / INDEX, index)
    for shard in shards:
        (out / f"{shard.name}{_BAD}").unlink(missing_ok=True)
    (out / PLAN).unlink(missing_ok=True)
    return _summary(out, index, kept)


def _summary(out: Path, index: Mapping[str, Any], kept: int) -> Packed:
    counts: dict[str, int] = {}
    for entry in index["shardlist"]:
        counts[entry["part"]] = counts.get(entry["part"], 0) + entry["nsamples"]
    size = sum(entry["filesize"] for entry in index["shardlist"])
    bad = tuple((str(name), str(reason)) for name, reason in index["bad"])
    return Packed(out, counts, len(index["shardlist"]), kept, size, bad)


def _finished(out: Path, digest: str) -> Packed | None:
    """What a call like this one has written, if it came to its end."""
    try:
        index = parse_json((out / INDEX).read_bytes().decode())
        return _summary(out, index, len(index["shardlist"])) if index["packed_from"] == digest else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _planned(part: str, source: Source, packing: Packing) -> Iterator[_Shard]:
    """The shards of a part, of equal numbers of samples: a shard holds as many as the mean size allows."""
    count = len(source)
    if not count:
        return
    order = np.arange(count)
    if packing.shuffle and part == "train":
        ranks = [
            hashlib.sha256(_plain_name(source, at).encode(errors="surrogateescape")).digest() for at in range(count)
        ]
        order = np.array(sorted(range(count), key=ranks.__getitem__))
    probes = np.unique(np.linspace(0, count - 1, min(count, _PROBES)).astype(np.int64))
    sizes = []
    for at in probes.tolist():
        try:
            sizes.append(len(_image(source.read(at), packing)[0]))
        except BadImage:
            continue
    mean = (sum(sizes) / len(sizes) if sizes else 0) + _OVERHEAD
    number = max(1, round(count * mean / (packing.size_mb * 1e6)))
    first = 0
    for at, positions in enumerate(np.array_split(order, min(number, count))):
        yield _Shard(f"{part}-{at:06}", part, source, positions, first)
        first += len(positions)


def _written(shard: _Shard, out: Path, packing: Packing) -> tuple[dict[str, Any], bool]:
    """The entry of a shard in `index.json`, and whether it was there."""
    path, bad_path = out / f"{shard.name}.tar", out / f"{shard.name}{_BAD}"
    existed = path.exists() and bad_path.exists()
    if not existed:
        bad: list[tuple[str, str]] = []
        write_whole(path, lambda part: _write_tar(part, shard, packing, bad))
        _write_json(bad_path, bad)
    bad = [(str(name), str(reason)) for name, reason in parse_json(bad_path.read_bytes().decode())]
    size = path.stat().st_size
    beside = out / f"{shard.name}{SUFFIX}"
    if not existed or not beside.exists():
        with path.open("rb") as file:
            index_of(lambda start, length: read_at(file.fileno(), start, length), size).write(beside, Stamp(size, ""))
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    entry = {
        "url": path.name,
        "part": shard.part,
        "nsamples": len(shard.positions) - len(bad),
        "filesize": size,
        "sha256": digest,
        "bad": bad,
    }
    return entry, existed


def _write_tar(path: Path, shard: _Shard, packing: Packing, bad: list[tuple[str, str]]) -> None:
    with tarfile.open(path, "w", format=tarfile.USTAR_FORMAT) as archive:
        for offset, position in enumerate(shard.positions.tolist()):
            try:
                record = shard.source.read(position)
                image, suffix = _image(record, packing)
                members = [(suffix, image), *_targets(record, shard.source, position)]
            except BadImage as error:
                bad.append((shard.source.name(position), error.reason))
                continue
            for kind, content in members:
                info = tarfile.TarInfo(f"{shard.first + offset:08}.{kind}")
                info.size = len(content)
                archive.addfile(info, io.BytesIO(content))


def _image(record: Record, packing: Packing) -> tuple[bytes, str]:
    """The bytes of an image and the suffix of its format.

    Raises:
        BadImage: it cannot be read, or is no image.
    """
    image = record.get("image", b"")
    if isinstance(image, Image.Image):
        content = io.BytesIO()
        image.save(content, "PNG")
        encoded = content.getvalue()
    else:
        try:
            encoded = image if isinstance(image, bytes) else read_file(image)
        except (OSError, ValueError) as error:
            raise BadImage(None, (getattr(error, "strerror", None) or str(error)).lower()) from error
    try:
        with Image.open(io.BytesIO(encoded), formats=tuple(_SUFFIXES)) as opened:
            suffix, sides = _SUFFIXES[opened.format or ""], opened.size
    except Exception as error:  # Pillow's readers let nearly every kind of exception through
        raise BadImage(None, "not an image of a known format") from error
    if packing.max_side is None or min(sides) <= packing.max_side:
        return encoded, suffix
    return _smaller(encoded, packing.max_side, packing.quality), "jpg"


def _smaller(encoded: bytes, side: int, quality: int) -> bytes:
    """A JPEG with the shorter side resized (bicubic, antialiased); EXIF orientation is kept as it is stored."""
    small = at_most(decode_image(encoded), side)
    assert isinstance(small, Image.Image)
    content = io.BytesIO()
    with Image.open(io.BytesIO(encoded)) as opened:
        orientation = Image.Exif()
        orientation[0x0112] = opened.getexif().get(0x0112, 1)
    small.save(content, "JPEG", quality=quality, optimize=False, exif=orientation)
    return content.getvalue()


def _targets(record: Record, source: Source, position: int) -> Iterator[tuple[str, bytes]]:
    """The members beside the image; the JSON has the sample's name too."""
    about: dict[str, Any] = {"name": _plain_name(source, position)}
    if "label" in record:
        yield "cls", str(record["label"]).encode()
    if "labels" in record:
        about["labels"] = [source.labels[at] for at in record["labels"]]
    if "boxes" in record:
        about |= objects_to_json(record["boxes"], source.labels)
    if "mask" in record:
        content = io.BytesIO()
        Image.fromarray(record["mask"].pixels()).save(content, "PNG")
        yield "mask.png", content.getvalue()
    yield "json", json.dumps(about, ensure_ascii=True, sort_keys=True).encode()


def _plain_name(source: Source, position: int) -> str:
    """The name of a sample below its folder, which does not depend on where the folder lies."""
    entry = getattr(source, "entry", None)
    return source.name(position) if entry is None else entry(position)[0]


def _digest(parts: Mapping[str, Source], labels: Sequence[str], packing: Packing) -> str:
    digest = hashlib.sha256(json.dumps([list(labels), packing.size_mb, packing.max_side, packing.quality]).encode())
    digest.update(str(packing.shuffle).encode())
    for part, source in parts.items():
        for position in range(len(source)):
            entry = getattr(source, "entry", None)
            sample = source.name(position) if entry is None else entry(position)
            digest.update(json.dumps([part, sample]).encode())
    return digest.hexdigest()


def _begin(out: Path, digest: str) -> None:
    """Make the folder, or make sure that what is there comes from a call like this one."""
    plan = out / PLAN
    names = [path.name for path in out.iterdir()] if out.is_dir() else []
    if plan.exists():
        if parse_json(plan.read_bytes().decode()).get("digest") == digest:
            return
        raise OvertoneError(f"{out} holds shards of other images or settings; remove it, or choose another --out")
    if names:
        raise OvertoneError(f"{out} is not empty ({some(names, 3)}); choose another --out, or remove it")
    try:
        out.mkdir(parents=True, exist_ok=True)
        _write_json(plan, {"digest": digest})
    except OSError as error:
        raise OvertoneError(f"{out} cannot be written: {error.strerror}; choose another --out") from error


def _write_json(path: Path, value: Any) -> None:
    text = json.dumps(value, indent=1, ensure_ascii=True) + "\n"
    write_whole(path, lambda part: part.write_text(text, encoding="ascii"))
