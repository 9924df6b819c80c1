"""All samples of some shards in columns, with the targets of one kind of task."""

import dataclasses
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from overtone.data.masks import ClassList, class_list
from overtone.data.packed_texts import PackedTexts
from overtone.data.shard_index import JSON, MASK, ShardIndex
from overtone.plain_json import parse_json

_LONGEST_NUMBER = 7  # digits of a class that is given as a number


@dataclass(frozen=True)
class ShardTable:
    """The columns of the indices of some shards, one after the other (see `ShardIndex`), and the targets.

    Attributes:
        keys: of the samples.
        shard: number of each sample's shard.
        spans: see `ShardIndex`.
        marks: see `ShardIndex`.
        problems: see `ShardIndex`.
        targets: position of each sample's class, -1 for none; zeros where the task learns something else.
        tags: uint8 `(n, labels)`, for tasks that learn several labels.
        masks: what the values in masks stand for, for tasks that learn these.
        positions: of each class by name and by number, for tasks that learn boxes.
        label_problems: why the target of a sample cannot be learned.
    """

    keys: PackedTexts
    shard: np.ndarray
    spans: np.ndarray
    marks: np.ndarray
    problems: PackedTexts
    targets: np.ndarray
    tags: np.ndarray | None
    masks: ClassList | None
    positions: Mapping[str | int, int]
    label_problems: Mapping[int, str]

    def relabelled(self, labels: Sequence[str], others: Sequence[str]) -> "ShardTable":
        """The same samples with positions in other labels, which hold all of these."""
        position = {name: at for at, name in enumerate(others)}
        new = np.array([*(position[name] for name in labels), -1], dtype=np.int64)  # the last one is that of -1
        tags = None
        if self.tags is not None:
            tags = np.zeros((len(self.tags), len(others)), dtype=np.uint8)
            tags[:, new[:-1]] = self.tags
        return dataclasses.replace(
            self,
            targets=new[self.targets],
            tags=tags,
            masks=None if self.masks is None else self.masks.relabelled(others),
            positions={key: int(new[at]) for key, at in self.positions.items()},
        )


def table_of(
    indices: Sequence[ShardIndex],
    shard: np.ndarray,
    train: np.ndarray,
    known: tuple[str, ...],
    target: str,
    ignore_index: int | None,
) -> tuple[tuple[str, ...], ShardTable]:
    """Names of all labels, and the samples with positions in them as targets."""
    keys, label, labels, problems = (
        PackedTexts.joined([getattr(index, name) for index in indices])
        for name in ("keys", "label", "labels", "problems")
    )
    spans, marks = (np.concatenate([getattr(index, name) for index in indices]) for name in ("spans", "marks"))
    masks, positions = None, {}
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
    if target == "mask":
        masks = class_list(known, ignore_index)
        known = masks.labels
    elif target == "boxes":
        positions = {name: at for at, name in enumerate(known)} | dict(enumerate(range(len(known))))
    return known, ShardTable(keys, shard, spans, marks, problems, targets, tags, masks, positions, broken)


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
