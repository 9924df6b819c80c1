"""Published parameters and multiply-adds compared with those of our networks, with a verdict on each.

A published figure agrees when it is ours rounded (half up) or truncated at its last published digit; the verdict says
which. Otherwise two explanations are tried, both computed: the authors' own way of counting (`counting`), which must
then give every figure of that table, and two rows of one table whose figures have been swapped. A figure without
explanation `differs`.
"""

import csv
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import timm
import torch
from torch import nn

from overtone.checkpoint import write_text
from overtone.models.multiply_adds import count_multiply_adds
from overtone.models.shapes_only import ShapesOnly
from overtone.published import PUBLISHED, SYSTEMS, Published, PublishedDense, PublishedRow
from overtone.reproduction import dense_figures
from overtone.reproduction.counting import RULES

Kind = Literal["agrees", "agrees as counted there", "published figure wrong", "not published", "differs"]
Figure = Literal["params_m", "macs_m"]

FIGURES: tuple[Figure, Figure] = ("params_m", "macs_m")


@dataclass(frozen=True)
class Verdict:
    """The comparison of one published figure.

    Attributes:
        published: the figure as a count; None where none is published.
        ours: the count of our network.
        kind: the verdict.
        why: the explanation; empty for plain agreement.
        as_counted_there: our network's count by the authors' rule, where that is what agrees.
    """

    published: int | None
    ours: int
    kind: Kind
    why: str = ""
    as_counted_there: int | None = None


@dataclass(frozen=True)
class Comparison:
    """One published row compared with our network."""

    row: PublishedRow
    parameters: Verdict
    multiply_adds: Verdict

    @property
    def verdicts(self) -> tuple[Verdict, Verdict]:
        """Both."""
        return self.parameters, self.multiply_adds


def compare(row: PublishedRow) -> Comparison:
    """Count on the meta device, where weights take no memory, and compare with the published figures of a row."""
    if isinstance(row, PublishedDense):
        return _compare_dense(row)
    return Comparison(row, _judge(row, "params_m"), _judge(row, "macs_m"))


def agreement(published: int, ours: int, unit: int) -> Literal["rounded", "cut off"] | None:
    """Return how a published count equals ours at its last digit, which is worth `unit`; None where it does not."""
    if published == (2 * ours + unit) // (2 * unit) * unit:
        return "rounded"
    return "cut off" if published == ours // unit * unit else None


def last_digit(row: PublishedRow, figure: Figure) -> int:
    """Return the worth of one unit of the last digit in the table that the row comes from."""
    if isinstance(row, PublishedDense):
        return row.last_digits[figure]
    return SYSTEMS[row.family].last_digits[figure]


def write_figures(path: Path, comparisons: Sequence[Comparison]) -> None:
    """Write the comparisons as CSV, a line per row."""
    columns = ("published", "ours", "verdict", "why")
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("model", "resolution", *(f"{what}_{column}" for what in ("params", "macs") for column in columns)))
    for comparison in comparisons:
        cells = [(verdict.published, verdict.ours, verdict.kind, verdict.why) for verdict in comparison.verdicts]
        writer.writerow((comparison.row.full_name, comparison.row.resolution, *cells[0], *cells[1]))
    write_text(path, text.getvalue())


def format_count(count: int, unit: int) -> str:
    """Format a count in millions, from 1000 M on in thousands of millions, down to the digit that is worth `unit`."""
    scale, sign = (10**9, "G") if count >= 10**9 else (10**6, "M")
    decimals = max(len(str(scale)) - len(str(max(unit, 1))), 0)
    return f"{count / scale:.{decimals}f} {sign}"


def _compare_dense(row: PublishedDense) -> Comparison:
    """Compare a detection or segmentation network, counted as its authors did, with the published figures.

    The originals' own classes gave exact counts: those must be ours too.
    """
    return Comparison(
        row,
        _judge_dense(row, "params_m", dense_figures.parameters(row), row.params),
        _judge_dense(row, "macs_m", dense_figures.multiply_adds(row), row.flops),
    )


def _judge_dense(row: PublishedDense, figure: Figure, ours: int, exact: int | None) -> Verdict:
    published = round(getattr(row, figure) * 10**6)
    if agreement(published, ours, last_digit(row, figure)) == "rounded" and exact in (None, ours):
        return Verdict(published, ours, "agrees")
    return Verdict(published, ours, "differs", f"the original classes give {exact or published:,}")


def _judge(row: Published, figure: Figure) -> Verdict:
    ours, published, unit = _ours(row, figure), _published(row, figure), last_digit(row, figure)
    if published is None:
        return Verdict(None, ours, "not published")
    how = agreement(published, ours, unit)
    if how is not None:
        return Verdict(published, ours, "agrees", "" if how == "rounded" else _why_cut(row, figure))
    if figure == "macs_m":
        counted = _as_counted_there(row)
        if counted is not None:
            rule = SYSTEMS[row.family].counting
            assert rule is not None
            why = f"with {rule.what} ({rule.source}), which gives every figure of the table"
            return Verdict(published, ours, "agrees as counted there", why, counted)
    other = _swapped_with(row, figure)
    if other is not None:
        why = (
            f"it is swapped with that of {other.full_name}: ours are {format_count(ours, unit // 100)} here and "
            f"{format_count(_ours(other, figure), unit // 100)} there"
        )
        return Verdict(published, ours, "published figure wrong", why)
    return Verdict(published, ours, "differs", f"by {(ours - published) / unit:+.2f} of its last digit, unexplained")


def _why_cut(row: Published, figure: Figure) -> str:
    """Say whether the whole table is cut off rather than rounded, or only some of its rows."""
    others = [other for other in _table(row.family, figure) if _how(other, figure) is not None]
    rounded = sum(_how(other, figure) == "rounded" and not _is_both(other, figure) for other in others)
    return "cut off at the last digit, " + ("where other rows are rounded" if rounded else "as in its whole table")


def _how(row: Published, figure: Figure) -> str | None:
    published = _published(row, figure)
    assert published is not None
    return agreement(published, _ours(row, figure), last_digit(row, figure))


def _is_both(row: Published, figure: Figure) -> bool:
    """Return whether rounding and cutting off give the same."""
    unit = last_digit(row, figure)
    return _published(row, figure) == _ours(row, figure) // unit * unit


def _as_counted_there(row: Published) -> int | None:
    """Count by the authors' rule, if that rule gives this figure and every other of the table."""
    if SYSTEMS[row.family].counting is None or not _is_given_by_rule(row) or not _rule_holds(row.family):
        return None
    return _by_rule(row)


@functools.cache
def _rule_holds(family: str) -> bool:
    return all(_is_given_by_rule(row) for row in _table(family))


def _is_given_by_rule(row: Published) -> bool:
    unit = last_digit(row, "macs_m")
    return agreement(_published(row, "macs_m") or 0, _by_rule(row), unit) == "rounded"


def _by_rule(row: Published) -> int:
    return _ours(row, "macs_m") + _added_by_rule(row.family, row.architecture, row.resolution, row.num_classes)


def _swapped_with(row: Published, figure: Figure) -> Published | None:
    """Find the row of the same table whose figure is swapped with this one's, so that crosswise both agree."""
    unit, ours = last_digit(row, figure), _ours(row, figure)
    for other in _table(row.family, figure):
        theirs = _published(other, figure)
        if other is row or theirs is None or agreement(theirs, ours, unit) is None or _how(other, figure) is not None:
            continue
        if agreement(_published(row, figure) or 0, _ours(other, figure), unit) is not None:
            return other
    return None


def _table(family: str, figure: Figure = "macs_m") -> list[Published]:
    """Return the rows of one published table: those of a family that have the figure."""
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
        rule = SYSTEMS[family].counting
        assert rule is not None
        return RULES[rule.rule](_network(architecture, num_classes), (3, resolution, resolution))
