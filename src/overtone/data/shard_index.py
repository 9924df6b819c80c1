"""The index of one shard (a tar archive in WebDataset's layout): where the members of each sample lie, and its labels.

A sample is the run of members of one key, the name up to the first dot behind the last slash: `a/7.jpg` and `a/7.cls`
are the image and the label of `a/7`. An index is made from the archive's headers once and kept in the cache, or read
where it lies beside the shard; it holds for one size and version of the shard.
"""

import hashlib
import io
import json
import zipfile
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

import numpy as np

from overtone.data.caching import data_cache, write_whole
from overtone.data.packed_texts import PackedTexts
from overtone.data.storage import Stamp
from overtone.data.tar_members import BrokenTar, Member, members
from overtone.plain_json import parse_json

SUFFIX = ".index.npz"
"""What the name of an index ends with that lies beside its shard, in place of `.tar`."""
IMAGE, JSON, MASK = 0, 1, 2
_FORMAT = 2
_IMAGES = ("jpg", "jpeg", "png", "webp", "bmp", "gif", "tif", "tiff")
_MASKS = ("mask.png", "seg.png", "segmentation.png")
_MOST_TEXT = 1 << 26  # bytes of a label or of a sample's JSON
_ONE, _MANY = ("label", "cls", "class", "class_name"), ("labels", "tags")
_END = "(end)"
_NO_MARKS = (0, 0, 0, 0)
_MOST_MARK = 1 << 30

_Row = tuple[str, list[tuple[int, int]], str, str, str, tuple[int, int, int, int]]

Read = Callable[[int, int], bytes]


@dataclass(frozen=True)
class ShardIndex:
    """The samples of a shard.

    Attributes:
        keys: of the samples; one that stands for what a shard that is cut off has lost is `(end)`.
        spans: int64 `(n, 3, 2)`, offset and size of image, JSON and mask in bytes; -1 where there is none.
        label: the one label of each sample as text; empty where there is none.
        labels: all labels of each sample, a JSON list; empty where there is none.
        problems: why a sample cannot be read; empty where nothing is wrong.
        marks: int32 `(n, 4)`, of what the JSON of boxes says: width and height of the image, number of objects that are
            no crowd, number of outlines; 0 where it says nothing.
    """

    keys: PackedTexts
    spans: np.ndarray
    label: PackedTexts
    labels: PackedTexts
    problems: PackedTexts
    marks: np.ndarray

    def __len__(self) -> int:
        return len(self.keys)

    def write(self, path: Path, stamp: Stamp) -> None:
        """Write the index of a shard of this size and version; the same content gives the same bytes."""
        write_whole(path, lambda part: self._write(part, stamp))

    def _write(self, path: Path, stamp: Stamp) -> None:
        texts = {name: getattr(self, name) for name in ("keys", "label", "labels", "problems")}
        columns = {f"{name}_{part}": getattr(texts[name], part) for name in texts for part in ("content", "ends")}
        about = json.dumps({"format": _FORMAT, "size": stamp.size, "version": stamp.version}).encode()
        with path.open("wb") as file:
            np.savez(file, about=np.frombuffer(about, np.uint8), spans=self.spans, marks=self.marks, **columns)


@dataclass
class _Sample:
    parts: dict[str, Member] = field(default_factory=dict)
    doubled: bool = False


def index_of(read: Read, size: int, listed: Iterable[Member] | None = None) -> ShardIndex:
    """Make the index of a shard.

    Args:
        read: gives bytes of the shard from an offset on, of some length.
        size: of the shard, bytes.
        listed: its members where they are known; else they are read from the archive.
    """
    samples: dict[str, _Sample] = {}
    last = ""
    end = ""
    try:
        for member in members(read, size) if listed is None else listed:
            key, suffix = _key_and_suffix(member.name)
            sample = samples.setdefault(key, _Sample())
            if suffix in sample.parts or (key != last and sample.parts):
                sample.doubled = True
            sample.parts.setdefault(suffix, member)
            last = key
    except BrokenTar as error:
        end = f"{error} after {last}" if last else str(error)
    rows = [_row(key, sample, read, size) for key, sample in samples.items()]
    rows += [
        (f"{row[0]} (again)", row[1], "", "", "two samples have this key", _NO_MARKS)
        for row in rows
        if samples[row[0]].doubled
    ]
    if end or not rows:
        rows.append((_END, _spans({}), "", "", end or "the shard holds no sample", _NO_MARKS))
    keys, spans, label, labels, problems, marks = zip(*rows, strict=True)
    return ShardIndex(
        PackedTexts.of(keys),
        np.array(spans, dtype=np.int64).reshape(-1, 3, 2),
        *(PackedTexts.of(texts) for texts in (label, labels, problems)),
        marks=np.array(marks, dtype=np.int32).reshape(-1, 4),
    )


def read_index(path: Path | IO[bytes], size: int, version: str | None = None) -> ShardIndex | None:
    """An index that was written for a shard of this size and version; None where there is none of it.

    Args:
        path: the index, or its content as a file.
        size: of the shard now, bytes.
        version: of the shard now; None: any.
    """
    try:
        content = io.BytesIO(path.read_bytes()) if isinstance(path, Path) else path  # np.load leaves broken files open
        with np.load(content, allow_pickle=False) as file:
            about = parse_json(file["about"].tobytes().decode())
            if about["format"] != _FORMAT or about["size"] != size or version not in (None, about["version"]):
                return None
            texts = [
                PackedTexts(file[f"{name}_content"], file[f"{name}_ends"])
                for name in ("keys", "label", "labels", "problems")
            ]
            index = ShardIndex(texts[0], file["spans"], *texts[1:], marks=file["marks"])
    except (OSError, ValueError, KeyError, TypeError, EOFError, zipfile.BadZipFile):
        return None
    return index if _is_sound(index, size) else None


def cached_path(address: str) -> Path:
    """Where the index of a shard is kept."""
    return data_cache() / "indices" / f"{hashlib.sha256(address.encode('utf-8', 'surrogateescape')).hexdigest()}.npz"


def listed_members(text: str) -> list[Member] | None:
    """The members that an `.idx` file of DALI's `wds2idx` (version 1.2) lists; None where it is none."""
    lines = text.splitlines()
    if not lines or lines[0].split()[:1] != ["v1.2"]:
        return None
    found: list[Member] = []
    for line in lines[1:]:
        words = line.split(" ")
        if len(words) % 4 or not all(word.isdigit() for at in (1, 2) for word in words[at::4]):
            return None
        found += [Member(words[at + 3], int(words[at + 1]), int(words[at + 2])) for at in range(0, len(words), 4)]
    return found


def _is_sound(index: ShardIndex, size: int) -> bool:
    """Whether nothing in an index, which anyone may have written, points outside of the shard."""
    count = len(index.keys)
    texts = (index.keys, index.label, index.labels, index.problems)
    if not all(len(text) == count and text.is_sound for text in texts) or index.spans.shape != (count, 3, 2):
        return False
    if index.marks.shape != (count, 4):
        return False
    starts, sizes = index.spans[..., 0], index.spans[..., 1]
    absent = (starts == -1) & (sizes == -1)
    return bool((absent | ((starts >= 0) & (sizes >= 0) & (starts + sizes <= size))).all())


def _key_and_suffix(name: str) -> tuple[str, str]:
    folder, slash, last = name.rpartition("/")
    stem, _, suffix = last.partition(".")
    return folder + slash + stem, suffix.lower()


def _row(key: str, sample: _Sample, read: Read, size: int) -> _Row:
    """Key, spans, label, labels, problem and marks of a sample."""
    parts = sample.parts
    cut = next((member.name for member in parts.values() if member.offset + member.size > size), None)
    if cut is not None:
        return key, _spans({}), "", "", f"the shard ends within {cut}", _NO_MARKS
    spans = _spans(parts)
    if spans[IMAGE][0] < 0:
        return key, spans, "", "", f"no image among its members ({', '.join(sorted(parts))})", _NO_MARKS
    values: dict[str, Any] = {}
    problem = label = labels = ""
    if "json" in parts:
        try:
            found = parse_json(_content(parts["json"], read).decode())
            values = found if isinstance(found, dict) else {}
        except ValueError:
            problem = f"{parts['json'].name} is no JSON"
    if "cls" in parts:
        label = _content(parts["cls"], read).decode("utf-8", "replace").strip()
    else:
        one = next((values[name] for name in _ONE if isinstance(values.get(name), (str, int))), "")
        label = str(one)
    many = next((values[name] for name in _MANY if isinstance(values.get(name), list)), None)
    if many is not None:
        labels = json.dumps([str(word) for word in many], ensure_ascii=False)
    return key, spans, label, labels, problem, _marks(values)


def _marks(values: dict[str, Any]) -> tuple[int, int, int, int]:
    """See `ShardIndex.marks`; what is wrong with the values is found when the sample is read."""
    sides = [values.get(name) for name in ("width", "height")]
    width, height = (side if isinstance(side, int) and 0 <= side < _MOST_MARK else 0 for side in sides)
    lists = [values.get(name) for name in ("boxes", "crowd", "outlines")]
    boxes, crowd, outlines = (found if isinstance(found, list) else [] for found in lists)
    return width, height, max(len(boxes) - sum(map(bool, crowd)), 0), sum(map(bool, outlines))


def _content(member: Member, read: Read) -> bytes:
    if member.size > _MOST_TEXT:
        raise ValueError(f"{member.name} is larger than {_MOST_TEXT:,} bytes")
    return read(member.offset, member.size)


def _spans(parts: dict[str, Member]) -> list[tuple[int, int]]:
    """Offset and size of image, JSON and mask; a PNG beside a photograph of another format is the mask."""
    image = next((suffix for suffix in _IMAGES if suffix in parts), None)
    mask = next((suffix for suffix in _MASKS if suffix in parts), None)
    if mask is None and "png" in parts and image != "png":
        mask = "png"
    return [
        (-1, -1) if suffix is None or suffix not in parts else (parts[suffix].offset, parts[suffix].size)
        for suffix in (image, "json", mask)
    ]
