"""Run folders as rows of a list: what state a run is in, and how far it has come."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from overtone.engine import folder as files
from overtone.engine.folder import is_claimed
from overtone.engine.log import Row, read_rows
from overtone.plain_json import parse_json
from overtone.reports.epochs import best_of, score_name_of, score_of

RunState = Literal["running", "finished", "interrupted", "failed", "damaged"]
_DEPTH = 4


@dataclass(frozen=True)
class RunOverview:
    """One run in a list.

    Attributes:
        name: its folder, relative to the one that is listed.
        state: `running`; `finished`; `interrupted`, which can be resumed; `failed`, by an error; `damaged`, where
            the folder's files cannot be read.
        reason: how it ended, or what is damaged, if known.
        recipe: the recipe's name; `model` the network's.
        best_score: of epoch `best_epoch` (from 1); `score_name` is its name.
        epoch: epochs done, of `epochs`.
        seconds: time spent in the epochs that are done.
        folder: the run folder.
    """

    name: str
    state: RunState
    reason: str | None
    recipe: str | None
    model: str | None
    best_score: float | None
    score_name: str | None
    best_epoch: int | None
    epoch: int
    epochs: int | None
    seconds: float
    folder: Path


def run_folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """Yield the folders with a `recipe.json`, `root` itself or up to `depth` levels below it, by name."""
    if (root / files.RECIPE).is_file():
        yield root
        return
    if depth == 0:
        return
    try:
        inside = sorted(entry.path for entry in os.scandir(root) if entry.is_dir(follow_symlinks=False))
    except OSError:  # not ours to read
        return
    for path in inside:
        yield from run_folders(Path(path), depth - 1)


def overview(folder: Path, root: Path) -> RunOverview:
    """Read the files of a run folder; what cannot be read is None."""
    record, problem = read_record(folder / files.RECIPE)
    recipe = _part(record, "recipe")
    rows = _rows(folder)
    best = best_of(rows)
    state, reason = run_state(folder)
    if problem is not None and state != "running":
        state, reason = "damaged", problem
    return RunOverview(
        name=run_name(folder, root),
        state=state,
        reason=reason,
        recipe=_text(record.get("name")),
        model=_text(_part(recipe, "model").get("name")),
        best_score=None if best is None else score_of(best),
        score_name=None if best is None else score_name_of(rows),
        best_epoch=None if best is None else best["epoch"],
        epoch=len(rows),
        epochs=_whole(_part(recipe, "train").get("epochs")),
        seconds=sum(row["seconds"] for row in rows if isinstance(row.get("seconds"), (int, float))),
        folder=folder,
    )


def run_name(folder: Path, root: Path) -> str:
    """Return the name of a run in the list of those below a folder."""
    relative = folder.relative_to(root).as_posix()
    return folder.resolve().name if relative == "." else relative


def run_state(folder: Path) -> tuple[RunState, str | None]:
    """Return the state of a run, and how it ended if known.

    The lock says whether it runs. A process that was killed has left `status.json` at `running` without the lock.
    """
    status, _ = read_record(folder / files.STATUS)
    if is_claimed(folder):
        return "running", None
    said, reason = status.get("status"), _text(status.get("reason"))
    if said in ("finished", "interrupted", "failed"):
        return said, reason
    if said is None and (folder / files.SUMMARY).is_file():
        return "finished", None
    if said is None and (folder / files.FAULT).is_file():
        return "failed", "the loss or the gradient was not finite"
    return "interrupted", None


def read_record(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """Read a JSON object; the second value describes what is wrong with the file."""
    try:
        value = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        return {}, f"{path.name} cannot be read ({error})"
    return (value, None) if isinstance(value, dict) else ({}, f"{path.name} does not hold an object")


def _rows(folder: Path) -> list[Row]:
    try:
        return read_rows(folder)
    except OSError:
        return []


def _part(record: Mapping[str, Any], name: str) -> Mapping[str, Any]:
    value = record.get(name)
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _whole(value: Any) -> int | None:
    return value if isinstance(value, int) else None
