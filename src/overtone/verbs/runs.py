"""`overtone runs`: the runs below a folder, what state they are in and how far they have come."""

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from overtone.config import to_dict
from overtone.engine import folder as files
from overtone.engine.folder import is_claimed
from overtone.engine.log import Row, duration, read_rows
from overtone.errors import OvertoneError
from overtone.options import Runs
from overtone.plain_json import parse_json
from overtone.verbs.console import note, print_json, print_table

RunState = Literal["running", "finished", "interrupted", "failed", "damaged"]
_DEPTH = 4


@dataclass(frozen=True)
class RunOverview:
    """A run as a line of the list.

    Attributes:
        name: its folder, relative to the one that was looked through.
        state: `running`; `finished`; `interrupted`, which can be gone on with; `failed`, by an error; `damaged`, where
            the folder's files cannot be read.
        reason: how it ended, or what is damaged, if it is known.
        recipe: the recipe's name; `model` the network's.
        best_top1: percent, of epoch `best_epoch` (from 1).
        epoch: epochs done, of `epochs`.
        seconds: time spent in the epochs that are done.
        folder: the run folder.
    """

    name: str
    state: RunState
    reason: str | None
    recipe: str | None
    model: str | None
    best_top1: float | None
    best_epoch: int | None
    epoch: int
    epochs: int | None
    seconds: float
    folder: Path


def runs(options: Runs) -> int:
    """Print the runs below a folder.

    Returns:
        The exit code, 0.

    Raises:
        OvertoneError: there is no such folder.
    """
    root = options.folder
    if not root.is_dir():
        raise OvertoneError(f"{root} is not a folder; give one with run folders in it: overtone runs DIR")
    found = [overview(folder, root) for folder in run_folders(root)]
    if options.json:
        print_json([to_dict(run) for run in found])
        return 0
    if not found:
        note(f"no runs in {root}")
        return 0
    print_table(
        ("run", "state", "recipe", "model", "top-1", "of epoch", "epochs", "time"),
        [
            (
                run.name,
                run.state,
                run.recipe,
                run.model,
                None if run.best_top1 is None else f"{run.best_top1:.2f} %",
                run.best_epoch,
                f"{run.epoch}/{'?' if run.epochs is None else run.epochs}",
                duration(run.seconds),
            )
            for run in found
        ],
        left=4,
    )
    for run in found:
        if run.reason is not None and run.state in ("failed", "damaged"):
            note(f"{run.name}: {run.reason}")
    return 0


def run_folders(root: Path, depth: int = _DEPTH) -> Iterator[Path]:
    """The folders with a `recipe.json`, `root` itself or up to `depth` levels below it, by name."""
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
    """What the files of a run folder say; whatever cannot be read is left out."""
    record, problem = _read(folder / files.RECIPE)
    recipe = _part(record, "recipe")
    rows = _rows(folder)
    top1 = [row for row in rows if isinstance(row.get("top1"), (int, float))]
    best = max(top1, key=lambda row: row["top1"], default=None)
    state, reason = run_state(folder)
    if problem is not None and state != "running":
        state, reason = "damaged", problem
    relative = folder.relative_to(root).as_posix()
    return RunOverview(
        name=folder.resolve().name if relative == "." else relative,
        state=state,
        reason=reason,
        recipe=_text(record.get("name")),
        model=_text(_part(recipe, "model").get("name")),
        best_top1=None if best is None else float(best["top1"]),
        best_epoch=None if best is None else best["epoch"],
        epoch=len(rows),
        epochs=_whole(_part(recipe, "train").get("epochs")),
        seconds=sum(row["seconds"] for row in rows if isinstance(row.get("seconds"), (int, float))),
        folder=folder,
    )


def run_state(folder: Path) -> tuple[RunState, str | None]:
    """The state of a run, and how it ended if that is known.

    The lock says whether it runs. A process that was killed has left `status.json` at `running` without the lock.
    """
    status, _ = _read(folder / files.STATUS)
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


def _read(path: Path) -> tuple[Mapping[str, Any], str | None]:
    """A JSON object, and what is wrong with the file if something is."""
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
