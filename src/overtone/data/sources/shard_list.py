"""Which shards some data names: a folder of tars, a pattern with braces, one tar, or a text file of addresses."""

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.data.opening import is_folder
from overtone.data.sources.parts import PART_OF
from overtone.data.storage import Unreachable, address_of, is_remote, names_in, read_all
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

INDEX, CLASSES = "index.json", "classes.txt"
TAR = ".tar"
_BRACES = re.compile(r"\{(\d+)\.\.(\d+)\}")
_MOST = 1_000_000


@dataclass(frozen=True)
class ShardList:
    """Shards, and what lies beside them.

    Attributes:
        parts: addresses of the shards by part (`train`, `val`, `test`); those whose name says none are under `train`.
        labels: names of all classes in order, where `index.json` or `classes.txt` gives them; else empty.
        hashes: SHA-256 of each shard that `index.json` gives one of, by file name.
    """

    parts: Mapping[str, tuple[str, ...]]
    labels: tuple[str, ...] = ()
    hashes: Mapping[str, str] = field(default_factory=dict)


def is_shards(root: Path | None) -> bool:
    """Whether the data is of this form, by what is quickly seen; a folder with class folders beside tars is not."""
    if root is None:
        return False
    address = address_of(root)
    if is_remote(address) or address.endswith((TAR, ".txt")) or (_BRACES.search(address) and not is_folder(root)):
        return True
    if not is_folder(root):
        return False
    try:
        visible = [entry for entry in root.iterdir() if not entry.name.startswith(".")]
        return any(entry.suffix == TAR for entry in visible) and not any(entry.is_dir() for entry in visible)
    except OSError:
        return False


def find_shards(root: Path) -> ShardList:
    """The shards that `data.root` names.

    Raises:
        OvertoneError: there are none, or a list or an `index.json` that is none.
    """
    address = address_of(root)
    if address.endswith(".txt"):
        found = _listed(address)
    elif _BRACES.search(address):
        found = list(spelled_out(address))
    elif address.endswith(TAR):
        found = [address]
    else:
        found = _in_folder(address)
    if not found:
        raise OvertoneError(f"{address} holds no shards (.tar); overtone data pack writes some")
    folder = found[0].rpartition("/")[0] if not is_folder(root) else address
    about = _about(folder or ".", root)
    parts: dict[str, list[str]] = {}
    for shard in found:
        parts.setdefault(part_of(shard), []).append(shard)
    return ShardList({part: tuple(shards) for part, shards in parts.items()}, *about)


def spelled_out(pattern: str) -> Iterator[str]:
    """Every name of a pattern such as `train-{000..123}.tar`; several pairs of braces give all combinations.

    Raises:
        OvertoneError: a range that runs backwards, or of more than a million names.
    """
    found = _BRACES.search(pattern)
    if found is None:
        yield pattern
        return
    first, last = int(found[1]), int(found[2])
    if not 0 <= last - first < _MOST:
        raise OvertoneError(f"{pattern}: {found[0]} is no range of shards; write the smaller number first")
    width = len(found[1]) if found[1].startswith("0") else 0
    for number in range(first, last + 1):
        yield from spelled_out(f"{pattern[: found.start()]}{number:0{width}}{pattern[found.end() :]}")


def part_of(shard: str) -> str:
    """The part that a shard's name says: `val` of `imagenet-val-0001.tar`; `train` where it says none."""
    stem = shard.rpartition("/")[2].removesuffix(TAR).lower()
    return next((PART_OF[word] for word in re.split(r"[^a-z]+", stem) if word in PART_OF), "train")


def _listed(address: str) -> list[str]:
    lines = [line.strip() for line in read_all(address).decode("utf-8", "replace").splitlines()]
    folder = address.rpartition("/")[0]
    found: list[str] = []
    for line in lines:
        if not line or line.startswith("#"):
            continue
        if not line.endswith(TAR):
            raise OvertoneError(f"{address}: {line} is no shard (.tar); give an address of a shard in each line")
        absolute = is_remote(line) or line.startswith("/") or not folder
        found += spelled_out(line if absolute else f"{folder}/{line}")
    return found


def _in_folder(address: str) -> list[str]:
    if is_remote(address):
        try:
            return [f"{address.rstrip('/')}/{name}" for name in _names_of_index(f"{address.rstrip('/')}/{INDEX}")]
        except Unreachable:
            return [name for name in names_in(address) if name.endswith(TAR)]
    return sorted(str(path) for path in Path(address).glob(f"*{TAR}") if not path.name.startswith("."))


def _names_of_index(address: str) -> list[str]:
    shards = _index(address).get("shardlist", ())
    return [name for name in (str(shard["url"]) for shard in shards) if "/" not in name]


def _about(folder: str, root: Path) -> tuple[tuple[str, ...], dict[str, str]]:
    """Classes and hashes that the files beside the shards give."""
    try:
        index = _index(f"{folder}/{INDEX}")
    except Unreachable:
        index = {}
    hashes = {
        str(shard["url"]): shard["sha256"]
        for shard in index.get("shardlist", ())
        if isinstance(shard.get("sha256"), str)
    }
    labels = index.get("classes")
    if labels is None:
        try:
            lines = read_all(f"{folder}/{CLASSES}").decode("utf-8", "replace").splitlines()
            labels = [line.strip() for line in lines if line.strip()]
        except Unreachable:
            labels = []
    doubled = {label for label in labels if labels.count(label) > 1} if len(labels) != len(set(labels)) else set()
    if doubled:
        raise OvertoneError(f"the classes beside the shards of {root} name {some(doubled)} twice; remove one")
    return tuple(map(str, labels)), hashes


def _index(address: str) -> Mapping[str, Any]:
    """An `index.json` in the form of wids, which lists shards with their counts and sizes."""
    try:
        index = parse_json(read_all(address).decode())
        shards: Sequence[Mapping[str, Any]] = index["shardlist"]
        if not all(isinstance(shard["url"], str) for shard in shards):
            raise ValueError("a shard without a url")
        return index
    except (ValueError, TypeError, KeyError) as error:
        raise OvertoneError(f"{address} is no index of shards ({error}); remove it, or write it again") from error
