"""Parameters and multiply-adds of the published rows against what our networks have, with a verdict on each.

The rule: a published figure agrees when it is ours rounded (half up) or cut off at its last published digit, and the
verdict says which. Where it is neither, two explanations are tried, both computed: the authors' own way of counting
(`published_counting`), which must then give every figure of that table, and two rows of one table whose figures have
changed places. What nothing explains `differs`.
"""

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import timm
import torch
from torch import nn

from overtone.models.multiply_adds import count_multiply_adds
from overtone.models.shapes_only import ShapesOnly
from overtone.published import PUBLISHED, Published
from overtone.verbs.published_counting import RULES

Kind = Literal["agrees", "agrees as counted there", "published figure wrong", "not published", "differs"]
Figure = Literal["params_m", "macs_m"]

LAST_DIGIT: Mapping[tuple[str, Figure], int] = {
    ("mobilenetv2", "params_m"): 1_000,
    ("mobilenetv2", "macs_m"): 10_000,
    ("hbonet", "params_m"): 1_000_000,
    ("hbonet", "macs_m"): 1_000_000,
    ("harmonic", "params_m"): 100_000,
    ("harmonic", "macs_m"): 100_000_000,
    ("hornet", "params_m"): 1_000_000,
    ("hornet", "macs_m"): 100_000_000,
}
"""What one unit of the last digit is worth in each published table: 300.79 M has 10,000, 4.0 G has 100,000,000."""


@dataclass(frozen=True)
class Verdict:
    """What becomes of one published figure.

    Attributes:
        published: the figure as a count; None where none is published.
        ours: the count of our network.
        kind: the verdict.
        why: what explains it, in words; empty for plain agreement.
        as_counted_there: our network's count by the authors' rule, where that is what agrees.
    """

    published: int | None
    ours: int
    kind: Kind
    why: str = ""
    as_counted_there: int | None = None


@dataclass(frozen=True)
class Comparison:
    """One published row against our network."""

    row: Published
    parameters: Verdict
    multiply_adds: Verdict

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """Both."""
        return self.parameters, self.multiply_adds


def compare(row: Published) -> Comparison:
    """Measure one row's network on the meta device, where weights take no memory, and judge the published figures."""
    return Comparison(row, _judge(row, "params_m"), _judge(row, "macs_m"))


def agreement(published: int, ours: int, unit: int) -> Literal["rounded", "cut off"] | None:
    """How a published count is ours at its last digit, which is worth `unit`; None where it is not."""
    if published == (2 * ours + unit) // (2 * unit) * unit:
        return "rounded"
    return "cut off" if published == ours // unit * unit else None


def spelled(count: int, unit: int) -> str:
    """A count in millions, from 1000 M on in thousands of millions, down to the digit that is worth `unit`."""
    scale, sign = (10**9, "G") if count >= 10**9 else (10**6, "M")
    decimals = max(len(str(scale)) - len(str(max(unit, 1))), 0)
    return f"{count / scale:.{decimals}f} {sign}"


def _judge(row: Published, figure: Figure) -> Verdict:
    ours, published, unit = _ours(row, figure), _published(row, figure), LAST_DIGIT[row.family, figure]
    if published is None:
        return Verdict(None, ours, "not published")
    how = agreement(published, ours, unit)
    if how is not None:
        return Verdict(published, ours, "agrees", "" if how == "rounded" else _why_cut(row, figure))
    if figure == "macs_m":
        counted = _as_counted_there(row)
        if counted is not None:
            rule = RULES[row.family]
            why = f"with {rule.what} ({rule.source}), which gives every figure of the table"
            return Verdict(published, ours, "agrees as counted there", why, counted)
    other = _swapped_with(row, figure)
    if other is not None:
        why = (
            f"it has changed places with that of {other.full_name}: ours are {spelled(ours, unit // 100)} here and "
            f"{spelled(_ours(other, figure), unit // 100)} there"
        )
        return Verdict(published, ours, "published figure wrong", why)
    return Verdict(published, ours, "differs", f"by {(ours - published) / unit:+.2f} of its last digit, unexplained")


def _why_cut(row: Published, figure: Figure) -> str:
    """Cut off rather than rounded: as the whole table is, or as only some of its rows are."""
    others = [other for other in _table(row.family, figure) if _how(other, figure) is not None]
    rounded = sum(_how(other, figure) == "rounded" and not _is_both(other, figure) for other in others)
    return "cut off at the last digit, " + ("where other rows are rounded" if rounded else "as in its whole table")


def _how(row: Published, figure: Figure) -> str | None:
    published = _published(row, figure)
    assert published is not None
    return agreement(published, _ours(row, figure), LAST_DIGIT[row.family, figure])


def _is_both(row: Published, figure: Figure) -> bool:
    """Whether rounding and cutting off give the same."""
    unit = LAST_DIGIT[row.family, figure]
    return _published(row, figure) == _ours(row, figure) // unit * unit


def _as_counted_there(row: Published) -> int | None:
    """The row's count by the authors' rule, if that rule gives this figure and every other of the table."""
    if row.family not in RULES or not _is_given_by_rule(row) or not _rule_holds(row.family):
        return None
    return _by_rule(row)


@functools.cache
def _rule_holds(family: str) -> bool:
    return all(_is_given_by_rule(row) for row in _table(family))


def _is_given_by_rule(row: Published) -> bool:
    unit = LAST_DIGIT[row.family, "macs_m"]
    return agreement(_published(row, "macs_m") or 0, _by_rule(row), unit) == "rounded"


def _by_rule(row: Published) -> int:
    return _ours(row, "macs_m") + _added_by_rule(row.family, row.architecture, row.resolution, row.num_classes)


def _swapped_with(row: Published, figure: Figure) -> Published | None:
    """The row of the same table with which this one has changed figures, so that crosswise both agree."""
    unit, ours = LAST_DIGIT[row.family, figure], _ours(row, figure)
    for other in _table(row.family, figure):
        theirs = _published(other, figure)
        if other is row or theirs is None or agreement(theirs, ours, unit) is None or _how(other, figure) is not None:
            continue
        if agreement(_published(row, figure) or 0, _ours(other, figure), unit) is not None:
            return other
    return None


def _table(family: str, figure: Figure = "macs_m") -> list[Published]:
    """The rows of one published table: those of a family that have the figure."""
    return [row for row in PUBLISHED if row.family == family and getattr(row, figure) is not None]


def _published(row: Published, figure: Figure) -> int | None:
    value = getattr(row, figure)
    return None if value is None else round(value * 1e6)


def _ours(row: Published, figure: Figure) -> int:
    if figure == "params_m":
        return _parameters(row.architecture, row.num_classes)
    return _multiply_adds(row.architecture, row.resolution, row.num_classes)


@functools.cache  # without weights a network is small
def _network(architecture: str, num_classes: int) -> nn.Module:
    with torch.device("meta"), ShapesOnly():
        return timm.create_model(architecture, num_classes=num_classes)


@functools.cache
def _parameters(architecture: str, num_classes: int) -> int:
    return sum(p.numel() for p in _network(architecture, num_classes).parameters() if p.requires_grad)


@functools.cache
def _multiply_adds(architecture: str, resolution: int, num_classes: int) -> int:
    with ShapesOnly():
        return count_multiply_adds(_network(architecture, num_classes), (3, resolution, resolution))


@functools.cache
def _added_by_rule(family: str, architecture: str, resolution: int, num_classes: int) -> int:
    with ShapesOnly():
        return RULES[family].added(_network(architecture, num_classes), (3, resolution, resolution))
