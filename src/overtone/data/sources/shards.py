"""Images in tar shards of WebDataset's layout, on this machine or in a store, read at random through an index."""

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.masks import StoredMask
from overtone.data.opening import is_folder
from overtone.data.prefetching import Prefetcher
from overtone.data.shard_files import ShardFiles
from overtone.data.shard_index import IMAGE, JSON, MASK
from overtone.data.sources.boxed_json import objects_from_json
from overtone.data.sources.parts import evaluation_of, splits_of
from overtone.data.sources.shard_indices import indexed
from overtone.data.sources.shard_list import ShardList, find_shards, is_shards
from overtone.data.sources.shard_table import ShardTable, table_of
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.data.storage import address_of, is_remote
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

_GB = 10**9
_LEAST_SIDE = 32  # of an image that a detector learns from, pixels


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
        table: ShardTable,
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
            assert self._table.masks is not None
            record["mask"] = StoredMask(self.name(position), self._member(row, MASK), self._table.masks)
        elif self._target == "boxes":
            record["name"] = self.name(position)
            try:
                values = parse_json(self._member(row, JSON))
            except ValueError as error:
                raise BadImage(None, f"its JSON cannot be read: {error}") from error
            record["boxes"] = objects_from_json(values, self._table.positions)
        return record

    def entry(self, position: int) -> tuple[str, str, int]:
        """File name of the shard and key, label and size of the image (with its mask or boxes) in bytes."""
        row = int(self._positions[position])
        shard = self._files.addresses[int(self._table.shard[row])].rpartition("/")[2]
        target = int(self._table.targets[row])
        label = self.labels[target] if 0 <= target < len(self.labels) else ""
        if self._table.tags is not None:
            label = "|".join(self.labels[i] for i in np.flatnonzero(self._table.tags[row]))
        members = [IMAGE, *({"mask": (MASK,), "boxes": (JSON,)}.get(self._target, ()))]
        size = int(self._table.spans[row, members, 1].sum())
        return f"{shard}#{self._table.keys[row]}", label if self._target.startswith("label") else "", size

    def counts(self) -> tuple[int, ...]:
        """Number of images of each label."""
        if self._table.tags is not None:
            return tuple(self._table.tags[self._positions].sum(axis=0, dtype=np.int64).tolist())
        targets = self._table.targets[self._positions]
        return tuple(np.bincount(targets[targets >= 0], minlength=len(self.labels)).tolist())

    @property
    def has_outlines(self) -> bool:
        """Whether any object has an outline."""
        return bool(self._table.marks[self._positions, 3].any())

    def is_wide(self) -> np.ndarray:
        """Whether each image is wider than high, as the JSON of its boxes says, bool `(N,)`."""
        return self._table.marks[self._positions, 0] > self._table.marks[self._positions, 1]

    def usable(self) -> np.ndarray:
        """Positions of the images with an object that is no crowd, and sides of at least 32 pixels."""
        marks = self._table.marks[self._positions]
        return np.flatnonzero((marks[:, 2] > 0) & (marks[:, :2].min(1, initial=1 << 30) >= _LEAST_SIDE))

    def relabelled(self, labels: Sequence[str]) -> "ShardImages":
        """The same samples by other labels, which hold all of theirs."""
        table = self._table.relabelled(self.labels, labels)
        return ShardImages(labels, self._files, table, self._positions, self._target, self.origin, self.window)

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
            raise OvertoneError(f"{_place(data)} has shards of {some(found.parts)} but none to train on (train-*.tar)")
        if len(images.labels) < 2 and self.target == "label":
            raise OvertoneError(f"{_place(data)} has one class only, {', '.join(images.labels)}; add shards of another")
        by_part = {part: self._part(images, found, part, data) for part in found.parts}
        if self.target == "boxes" and data.drop_empty:
            by_part["train"] = by_part["train"].part(by_part["train"].usable(), by_part["train"].origin)
        return splits_of(by_part, data, f"the shards of {_place(data)}", _targets)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The samples of a part, chosen as of folders.

        Raises:
            OvertoneError: there is no such part.
        """
        found, images = self._open(data)
        parts = {name: self._part(images, found, name, data) for name in found.parts}
        return evaluation_of(parts, data, part, trained_on, lambda: images, _targets)

    def _open(self, data: Data) -> tuple[ShardList, ShardImages]:
        assert data.root is not None
        found = find_shards(data.root)
        addresses = [address for shards in found.parts.values() for address in shards]
        gone = found.hashes.keys() - {address.rpartition("/")[2] for address in addresses}
        if gone and self.target and is_folder(data.root):
            raise OvertoneError(
                f"{_place(data)} lists {len(gone)} shards in index.json that are not there ({some(gone, 3)}); put them "
                "back, or name those to take, such as 'train-{000000..000009}.tar'"
            )
        files, indices = indexed(addresses, found.hashes, round(data.cache_gb * _GB))
        shard = np.repeat(np.arange(len(indices), dtype=np.int32), [len(index) for index in indices])
        train = np.isin(shard, [at for at, address in enumerate(addresses) if address in found.parts.get("train", ())])
        if self.target in ("mask", "boxes") and not found.labels:
            raise OvertoneError(
                f"{_place(data)} names no classes; put classes.txt beside the shards, a name in each line"
            )
        labels, table = table_of(indices, shard, train, found.labels, self.target, data.ignore_index)
        everything = np.arange(len(shard), dtype=np.int64)
        origin = f"all samples of {_place(data)}"
        return found, ShardImages(labels, files, table, everything, self.target, origin, data.shuffle_shards)

    def _part(self, images: ShardImages, found: ShardList, part: str, data: Data) -> ShardImages:
        shards = frozenset(found.parts[part])
        return images.in_shards(shards.__contains__, f"{part} shards of {_place(data)}")


def _targets(images: ShardImages) -> np.ndarray:
    return images._table.targets[images._positions]


def _place(data: Data) -> str:
    """What names the shards, for messages."""
    assert data.root is not None
    return address_of(data.root)


def unlabelled_shards(root: Path, cache_gb: float = 20.0) -> ShardImages:
    """All samples of the shards that a path or an address names, whatever their labels.

    Raises:
        OvertoneError: there are none, or one cannot be read.
    """
    return Shards("")._open(Data(root=root, cache_gb=cache_gb))[1]
