"""Images in tar shards of WebDataset's layout, on this machine or in a store, read at random through an index."""

import contextlib
import io
import os
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.packed_texts import PackedTexts
from overtone.data.prefetching import Prefetcher
from overtone.data.shard_files import ShardFiles
from overtone.data.shard_index import (
    IMAGE,
    JSON,
    MASK,
    SUFFIX,
    ShardIndex,
    cached_path,
    index_of,
    listed_members,
    read_index,
)
from overtone.data.sources.seeded import held_out
from overtone.data.sources.shard_list import TAR, ShardList, find_shards, is_shards
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.data.storage import Changed, Stamp, Unreachable, is_remote, read_all, stamp
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

_GB = 10**9
_LONGEST_NUMBER = 7  # digits of a class that is given as a number


@dataclass(frozen=True)
class _Table:
    """All samples of some shards: the columns of their indices, one after the other; see `ShardIndex`."""

    keys: PackedTexts
    shard: np.ndarray
    spans: np.ndarray
    problems: PackedTexts
    targets: np.ndarray
    tags: np.ndarray | None
    label_problems: Mapping[int, str]


class ShardImages:
    """Images in shards: a source of records with the bytes of the image, and with what its targets are made of.

    Args:
        labels: names of the classes.
        files: the shards.
        table: their samples.
        positions: which of these, in the order of the shards.
        target: what its records hold beside the image: `label`, `labels`, `mask` or `boxes`; empty: nothing.
        origin: where they come from, one phrase for messages.
        window: shards that training's order draws from at a time.
    """

    def __init__(
        self,
        labels: Sequence[str],
        files: ShardFiles,
        table: _Table,
        positions: np.ndarray,
        target: str,
        origin: str,
        window: int,
    ) -> None:
        self.labels, self.origin, self.window = tuple(labels), origin, window
        self._files, self._table, self._positions, self._target = files, table, positions, target

    def __len__(self) -> int:
        """Number of samples, those that cannot be read among them."""
        return len(self._positions)

    def name(self, position: int) -> str:
        """The shard and the key, such as `shards/train-000001.tar#a/7`."""
        row = int(self._positions[position])
        return f"{self._files.addresses[int(self._table.shard[row])]}#{self._table.keys[row]}"

    def read(self, position: int) -> Record:
        """The bytes of the image and what the targets are made of.

        Raises:
            BadImage: the sample is not whole, has no known label, or its shard has changed.
        """
        row = int(self._positions[position])
        problem = self._table.problems[row] or self._table.label_problems.get(row, "")
        if problem:
            raise BadImage(None, problem)
        record: Record = {"image": self._member(row, IMAGE)}
        if self._target == "label":
            record["label"] = int(self._table.targets[row])
        elif self._target == "labels":
            assert self._table.tags is not None
            record["labels"] = np.flatnonzero(self._table.tags[row]).tolist()
        elif self._target == "mask":
            record["mask"] = self._member(row, MASK)
        elif self._target == "boxes":
            record["boxes"] = parse_json(self._member(row, JSON).decode())
        return record

    def entry(self, position: int) -> tuple[str, str, int]:
        """File name of the shard and key, label and size of the image in bytes."""
        row = int(self._positions[position])
        shard = self._files.addresses[int(self._table.shard[row])].rpartition("/")[2]
        target = int(self._table.targets[row])
        label = self.labels[target] if 0 <= target < len(self.labels) else ""
        if self._table.tags is not None:
            label = "|".join(self.labels[i] for i in np.flatnonzero(self._table.tags[row]))
        return f"{shard}#{self._table.keys[row]}", label, int(self._table.spans[row, IMAGE, 1])

    def counts(self) -> tuple[int, ...]:
        """Number of images of each label."""
        if self._table.tags is not None:
            return tuple(self._table.tags[self._positions].sum(axis=0, dtype=np.int64).tolist())
        targets = self._table.targets[self._positions]
        return tuple(np.bincount(targets[targets >= 0], minlength=len(self.labels)).tolist())

    def groups(self) -> np.ndarray:
        """Number of samples of each shard, int64; samples of a shard are neighbours."""
        shards = self._table.shard[self._positions]
        return np.diff(np.flatnonzero(np.r_[True, shards[1:] != shards[:-1], True])) if len(shards) else shards

    def prefetcher(self, order: np.ndarray) -> Prefetcher | None:
        """What fetches remote shards ahead of an order of the samples; None where nothing is kept on this machine.

        Args:
            order: int64, positions in the order in which they will be read.
        """
        files = self._files
        if not files.cache_bytes or not any(map(is_remote, files.addresses)):
            return None
        shards = self._table.shard[self._positions[order]]
        found, first = np.unique(shards, return_index=True)
        largest = max(stamp.size for stamp in files.stamps)
        room = files.cache_bytes // (2 * max(largest, 1)) - self.window  # half of the cache is for what is read now
        return Prefetcher(files, found[np.argsort(first)].tolist(), max(min(self.window, room), 1))

    def shards_of(self, positions: Sequence[int]) -> set[int]:
        """Numbers of the shards of some samples."""
        return set(self._table.shard[self._positions[list(positions)]].tolist())

    def part(self, positions: Sequence[int] | np.ndarray, origin: str) -> "ShardImages":
        """The samples at some positions."""
        chosen = self._positions[np.asarray(positions, dtype=np.int64)]
        return ShardImages(self.labels, self._files, self._table, chosen, self._target, origin, self.window)

    def in_shards(self, wanted: Callable[[str], bool], origin: str) -> "ShardImages":
        """The samples of the shards whose address is wanted."""
        chosen = np.array([wanted(address) for address in self._files.addresses], dtype=bool)
        return self.part(np.flatnonzero(chosen[self._table.shard[self._positions]]), origin)

    def _member(self, row: int, kind: int) -> bytes:
        start, length = self._table.spans[row, kind].tolist()
        return self._files.read(int(self._table.shard[row]), start, length)


class Shards:
    """Tar shards by `data.root`, for tasks that learn one kind of target.

    Args:
        target: `label`, `labels`, `mask` or `boxes`.
    """

    def __init__(self, target: str) -> None:
        self.target = target

    def matches(self, data: Data) -> bool:
        """Whether `data.root` names shards."""
        return data.table is None and is_shards(data.root)

    def splits(self, data: Data) -> Splits:
        """By the names of the shards; where none says val, a seeded part of the samples is held out.

        Raises:
            OvertoneError: no training shards, or one class only.
        """
        found, images = self._open(data)
        if "train" not in found.parts:
            raise OvertoneError(f"{data.root} has shards of {some(found.parts)} but none to train on (train-*.tar)")
        if len(images.labels) < 2 and self.target == "label":
            raise OvertoneError(f"{data.root} has one class only, {', '.join(images.labels)}; add shards of another")
        by_part = {part: self._part(images, found, part, data) for part in found.parts}
        train, val, test = by_part["train"], by_part.get("val"), by_part.get("test")
        if val is None and test is not None and data.validate_on == "test":
            return Splits(train, test, f"train and test shards of {data.root}")
        if val is None:
            seeded = self._seeded(train, data)
            return Splits(seeded.train, seeded.val, seeded.origin, seeded.seeded, test)
        return Splits(train, val, f"train and val shards of {data.root}", test=test)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The samples of a part, chosen as of folders.

        Raises:
            OvertoneError: there is no such part.
        """
        found, images = self._open(data)
        if part == "auto":
            named = next((name for name in ("val", "test") if name in found.parts), None)
            part = named or ("val" if trained_on is not None else "all")  # type: ignore[assignment]
        if part == "all":
            return images
        if part in found.parts and (part != "train" or (trained_on is None and len(found.parts) > 1)):
            return self._part(images, found, part, data)
        if part == "test" or "train" not in found.parts:
            raise OvertoneError(f"{data.root} has no shards of {part}; it has {some(found.parts)}: choose one, or all")
        splits = self._seeded(self._part(images, found, "train", data), trained_on or data)
        return splits.train if part == "train" else splits.val

    def _open(self, data: Data) -> tuple[ShardList, ShardImages]:
        assert data.root is not None
        found = find_shards(data.root)
        addresses = [address for shards in found.parts.values() for address in shards]
        files, indices = _indexed(addresses, found.hashes, round(data.cache_gb * _GB))
        shard = np.repeat(np.arange(len(indices), dtype=np.int32), [len(index) for index in indices])
        train = np.isin(shard, [at for at, address in enumerate(addresses) if address in found.parts.get("train", ())])
        labels, table = _table(indices, shard, train, found.labels, self.target)
        if self.target in ("mask", "boxes") and not labels:
            raise OvertoneError(f"{data.root} names no classes; put classes.txt beside the shards, a name in each line")
        everything = np.arange(len(shard), dtype=np.int64)
        origin = f"all samples of {data.root}"
        return found, ShardImages(labels, files, table, everything, self.target, origin, data.shuffle_shards)

    def _part(self, images: ShardImages, found: ShardList, part: str, data: Data) -> ShardImages:
        shards = frozenset(found.parts[part])
        return images.in_shards(shards.__contains__, f"{part} shards of {data.root}")

    def _seeded(self, images: ShardImages, data: Data) -> Splits:
        if data.val_fraction == 0:
            return Splits(images, images.part([], images.origin), f"all {images.origin} (nothing held out)")
        targets = images._table.targets[images._positions]
        names = (images.entry(position)[0] for position in range(len(images)))
        chosen = held_out(names, targets, data)
        origin = f"seeded split of {images.origin} (seed {data.split_seed}, {data.val_fraction:.4g} held out)"
        train, val = (images.part(np.flatnonzero(chosen == is_val), origin) for is_val in (False, True))
        if not len(val):
            raise OvertoneError(f"{images.origin} hold too few samples to hold any out; add some, or val shards")
        return Splits(train, val, origin, seeded=True)


def unlabelled_shards(root: Path, cache_gb: float = 20.0) -> ShardImages:
    """All samples of the shards that a path or an address names, whatever their labels.

    Raises:
        OvertoneError: there are none, or one cannot be read.
    """
    return Shards("")._open(Data(root=root, cache_gb=cache_gb))[1]


def _indexed(addresses: Sequence[str], hashes: Mapping[str, str], cache: int) -> tuple[ShardFiles, list[ShardIndex]]:
    """The shards and their indices, read or made in parallel.

    Raises:
        OvertoneError: a shard that cannot be reached, or that has another checksum than it should.
    """
    with ThreadPoolExecutor(max(2 * (os.cpu_count() or 1), 4)) as pool:
        stamps = list(pool.map(stamp, addresses))
        known = [hashes.get(address.rpartition("/")[2], "") for address in addresses]
        files = ShardFiles(addresses, stamps, cache, known)
        try:
            return files, list(pool.map(lambda at: _index(files, at), range(len(addresses))))
        except Changed as error:
            raise OvertoneError(f"{error} changes while it is read; wait until it is written") from error


def _index(files: ShardFiles, at: int) -> ShardIndex:
    """The index of a shard: from the cache, from beside it, or made and kept in the cache."""
    address, wanted = files.addresses[at], files.stamps[at]
    kept = cached_path(address)
    index = read_index(kept, wanted.size, wanted.version)
    if index is not None:
        return index
    if is_remote(address):
        index = _fetched_index(address, wanted, kept)
        if index is not None:
            return index
    if is_remote(address) and not files.cache_bytes:
        return _made(_buffered(files, at), wanted, None, kept)
    if not is_remote(address):
        path = Path(address)
        beside = path.with_name(path.name.removesuffix(TAR) + SUFFIX)
        # What lies beside was written for one version of the shard; its time may differ, since the two were copied.
        index = read_index(beside, wanted.size) if beside.exists() and _is_older(path, beside) else None
        if index is not None:
            return index
    descriptor = files.open(at)
    try:
        local = None if is_remote(address) else Path(address)
        return _made(lambda start, length: os.pread(descriptor, length, start), wanted, local, kept)
    finally:
        os.close(descriptor)


def _fetched_index(address: str, wanted: Stamp, kept: Path) -> ShardIndex | None:
    """The index that lies beside a remote shard, if there is one of it."""
    try:
        content = read_all(address.removesuffix(TAR) + SUFFIX)
    except Unreachable:
        return None
    index = read_index(io.BytesIO(content), wanted.size)
    if index is not None:
        _keep(index, kept, wanted)
    return index


def _is_older(path: Path, index: Path) -> bool:
    return path.stat().st_mtime_ns <= index.stat().st_mtime_ns


def _made(read: Callable[[int, int], bytes], wanted: Stamp, path: Path | None, kept: Path) -> ShardIndex:
    listed = None
    if path is not None:
        listing = path.with_suffix(".idx")
        if listing.exists() and _is_older(path, listing):
            listed = listed_members(listing.read_text(encoding="utf-8", errors="replace"))
    index = index_of(read, wanted.size, listed)
    _keep(index, kept, wanted)
    return index


def _keep(index: ShardIndex, kept: Path, wanted: Stamp) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        index.write(kept, wanted)


def _buffered(files: ShardFiles, at: int, piece: int = 1 << 22) -> Callable[[int, int], bytes]:
    """Reads a remote shard from its beginning in large pieces."""
    start, content = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal start, content
        if not start <= offset <= offset + length <= start + len(content):
            most = min(max(length, piece), files.stamps[at].size - offset)
            start, content = offset, files.read(at, offset, most) if most > 0 else b""
        return content[offset - start : offset - start + length]

    return read


def _table(
    indices: Sequence[ShardIndex], shard: np.ndarray, train: np.ndarray, known: tuple[str, ...], target: str
) -> tuple[tuple[str, ...], _Table]:
    """Names of all labels, and the samples with positions in them as targets."""
    keys, label, labels, problems = (
        PackedTexts.joined([getattr(index, name) for index in indices])
        for name in ("keys", "label", "labels", "problems")
    )
    spans = np.concatenate([index.spans for index in indices])
    broken: dict[int, str] = {}
    targets, tags = np.zeros(len(shard), dtype=np.int64), None
    if target == "label":
        known, targets = _classes(label, train, known)
        for row in np.flatnonzero(targets < 0).tolist():
            text = label[row]
            broken[row] = f"its class {text!r} is unknown to the training" if text else "no label (cls or json member)"
    elif target == "labels":
        known, tags = _tags(labels, label, train, known, broken)
    elif target:
        kind, name = (MASK, "mask (mask.png)") if target == "mask" else (JSON, "boxes (json member)")
        broken = dict.fromkeys(np.flatnonzero(spans[:, kind, 0] < 0).tolist(), f"no {name}")
    return known, _Table(keys, shard, spans, problems, targets, tags, broken)


def _classes(label: PackedTexts, train: np.ndarray, known: tuple[str, ...]) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the classes and the position of each sample's, -1 where it has none of them.

    Numbers are positions, in the given names or, without these, among as many classes as the largest one needs.
    """
    texts, inverse = np.unique(np.array(list(label), dtype=object), return_inverse=True)
    words = [str(text) for text in texts]
    in_training = set(np.unique(inverse[train]).tolist()) if train.any() else set(range(len(words)))
    given = [word for at, word in enumerate(words) if word and at in in_training]
    numbers = all(word.isdecimal() and len(word) <= _LONGEST_NUMBER for word in given)
    if not known:
        known = tuple(map(str, range(max(map(int, given)) + 1))) if numbers and given else tuple(sorted(given))
    position = {name: at for at, name in enumerate(known)}
    if numbers and not set(given) <= set(known):
        position |= {str(at): at for at in range(len(known))}
    return known, np.array([position.get(word, -1) for word in words], dtype=np.int64)[inverse]


def _tags(
    labels: PackedTexts, label: PackedTexts, train: np.ndarray, known: tuple[str, ...], broken: dict[int, str]
) -> tuple[tuple[str, ...], np.ndarray]:
    """Names of the labels, and uint8 `(samples, labels)`; one label alone counts as a list of one."""
    rows: list[list[Any] | None] = [
        parse_json(many) if many else [one] if one else None for many, one in zip(labels, label, strict=True)
    ]
    if not known:
        chosen = train if train.any() else np.ones_like(train)
        known = tuple(sorted({word for row, used in zip(rows, chosen, strict=True) if used for word in row or ()}))
    position = {name: at for at, name in enumerate(known)}
    tags = np.zeros((len(rows), len(known)), dtype=np.uint8)
    for at, row in enumerate(rows):
        unknown = [word for word in row or () if word not in position]
        if row is None or unknown:
            broken[at] = f"its label {unknown[0]!r} is unknown to the training" if row else "no labels (json member)"
        else:
            tags[at, [position[word] for word in row]] = 1
    return known, tags
