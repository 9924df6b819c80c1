"""The score of an epoch, read from a row of `metrics.jsonl`, whatever the task."""

from collections.abc import Mapping, Sequence
from typing import Any

Row = Mapping[str, Any]
_OLD_SCORE, _OLD_NAME = "top1", "top-1"  # of runs before scores had names


def score_of(row: Row) -> float | None:
    """Return the validation score of an epoch; None where there is none."""
    value = row.get("score", row.get(_OLD_SCORE))
    return float(value) if isinstance(value, (int, float)) and not isinstance(value, bool) else None


def score_name_of(rows: Sequence[Row]) -> str:
    """Return the display name of the score."""
    names = (row["score_name"] for row in rows if isinstance(row.get("score_name"), str))
    return next(names, _OLD_NAME)


def best_of(rows: Sequence[Row]) -> Row | None:
    """Return the best epoch: the last that the training marked as best, else the first of the highest score."""
    scored = [row for row in rows if score_of(row) is not None]
    marked = [row for row in scored if row.get("is_best")]
    return marked[-1] if marked else max(scored, key=lambda row: score_of(row) or 0.0, default=None)
