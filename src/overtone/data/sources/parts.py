"""What is trained on, validated and evaluated of data with parts: `train`, `val` and `test`, or `all` without parts."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np

from overtone.config import Data
from overtone.data.sources.seeded import held_out
from overtone.data.sources.source import Part, Source, Splits
from overtone.errors import OvertoneError, some

PARTS: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
"""The names that folders, files and rows of each part may have."""
PART_OF = {name: part for part, names in PARTS.items() for name in names}


class Divisible(Source, Protocol):
    """Samples of which some can be taken, and that have names which do not depend on the machine."""

    def entry(self, position: int) -> tuple[str, str, int]:
        """Name, target and size of a sample."""
        ...

    def part(self, positions: Any, origin: str) -> Any:
        """The samples at some positions."""
        ...


S = TypeVar("S", bound=Divisible)
Strata = Callable[[S], Sequence[int] | np.ndarray]
"""The class of each sample, which a seeded split keeps in proportion."""


def root_of(root: Path | None, layout: str) -> Path:
    """Return `data.root` where it is a folder.

    Args:
        root: `data.root`.
        layout: what to give, for the message.

    Raises:
        OvertoneError: it is not.
    """
    if root is None:
        raise OvertoneError(f"data.root is not given, so there are no images; {layout}")
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise OvertoneError(f"data.root {root} {kind}; {layout}")
    return root


def splits_of(parts: Mapping[str, S], data: Data, origin: str, strata: Strata[S] | None = None) -> Splits:
    """Take the data's own parts for training and validation, else hold a seeded part of the training samples out.

    Args:
        parts: `train` with `val` or `test` or both, or `all`.
        data: how the parts are used.
        origin: where the parts come from, one phrase for messages.
        strata: see `Strata`.

    Raises:
        OvertoneError: nothing to train on, or too little to hold any out.
    """
    train, val, test = parts.get("train", parts.get("all")), parts.get("val"), parts.get("test")
    if train is None or not len(train):
        raise OvertoneError(f"{_place(data)} has {some(parts)} but nothing to train on; add training images")
    if val is None and test is not None and data.validate_on == "test":
        return Splits(train, test, origin)
    if val is None:
        return dataclasses.replace(seeded_split(train, data, strata), test=test)
    return Splits(train, val, origin, test=test)


def evaluation_of(
    parts: Mapping[str, S],
    data: Data,
    part: Part,
    trained_on: Data | None,
    everything: Callable[[], S],
    strata: Strata[S] | None = None,
) -> S:
    """Take the samples of a part: the data's own, else by the seeded split of the training.

    Args:
        parts: see `splits_of`.
        data: where they are.
        part: `auto`: `val`, else `test`, else the held-out part of a network that was trained here, else all.
        trained_on: the data of the network's training, which held samples out by a seed; None: it did not.
        everything: gives the samples of all parts.
        strata: see `Strata`.

    Raises:
        OvertoneError: there is no such part, or nothing in it.
    """
    if part == "auto":
        part = "val" if "val" in parts else "test" if "test" in parts else "all" if trained_on is None else "val"
    if part == "all":
        return everything()
    is_divided = "val" in parts or (trained_on is None and len(parts) > 1)
    if part in parts and (part != "train" or is_divided):
        return parts[part]
    pool = parts.get("train", parts.get("all"))
    if part == "test" or pool is None:
        raise OvertoneError(f"{_place(data)} has no {part} images; it has {some(parts)}: choose one of these, or all")
    splits = seeded_split(pool, trained_on or data, strata)
    chosen: Any = splits.train if part == "train" else splits.val
    if not len(chosen):
        raise OvertoneError(f"the training held nothing of {_place(data)} out to evaluate on; choose all")
    return chosen


def seeded_split(images: S, data: Data, strata: Strata[S] | None = None) -> Splits:
    """Hold `data.val_fraction` of the samples out, chosen by their names (`names`, else those of `entry`) and a seed.

    Raises:
        OvertoneError: there are too few.
    """
    if data.val_fraction == 0:
        return Splits(images, images.part([], images.origin), f"{images.origin} (nothing held out)")
    names = getattr(images, "names", None) or (images.entry(position)[0] for position in range(len(images)))
    groups = np.zeros(len(images), dtype=np.int64) if strata is None else strata(images)
    chosen = held_out(map(str, names), groups, data)
    origin = f"seeded split of {images.origin} (seed {data.split_seed}, {data.val_fraction:.4g} held out)"
    train, val = (images.part(np.flatnonzero(chosen == is_val), origin) for is_val in (False, True))
    if not len(val):
        raise OvertoneError(f"{images.origin}: too few images to hold any out; add some, or a part named val")
    return Splits(train, val, origin, seeded=True)


def _place(data: Data) -> Any:
    return data.table or data.root
