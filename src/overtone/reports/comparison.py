"""How runs differ, in recipe and result."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone.data.opening import resolved_once
from overtone.engine import folder as files
from overtone.engine.log import Row, read_rows
from overtone.engine.trackers import flattened
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json
from overtone.reports.epochs import best_of, score_name_of, score_of
from overtone.reports.run_folders import run_state


@dataclass(frozen=True)
class ComparedRun:
    """A run folder: its recipe as one level of names, and a row for each epoch."""

    folder: Path
    label: str
    recipe: Mapping[str, Any]
    rows: Sequence[Row]


def differences(found: Sequence[ComparedRun]) -> dict[str, tuple[Any, ...]]:
    """Return the fields of the recipes that differ, with the value of each run (None: absent)."""
    names = dict.fromkeys(name for run in found for name in run.recipe)
    values = {name: tuple(run.recipe.get(name) for run in found) for name in names}
    return {name: given for name, given in values.items() if any(value != given[0] for value in given)}


def read_run(folder: Path, label: str) -> ComparedRun:
    """Read a run folder.

    Raises:
        OvertoneError: it is none, or cannot be read.
    """
    path = folder / files.RECIPE
    if not path.is_file():
        raise OvertoneError(f"{folder} is not a run folder, it has no {files.RECIPE}; overtone runs DIR lists runs")
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        recipe = {"recipe": record.get("name"), **flattened(record["recipe"])}
        return ComparedRun(folder, label, recipe, read_rows(folder))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise OvertoneError(f"{path} cannot be read ({error}); leave this run out") from error


def result_of(run: ComparedRun) -> dict[str, Any]:
    """Summarise a run: state, epochs, and the figures of its best epoch."""
    best = best_of(run.rows) or {}
    rates = sorted(row["images_per_second"] for row in run.rows if row.get("images_per_second") is not None)
    return {
        "state": run_state(run.folder)[0],
        "epochs": len(run.rows),
        "best_epoch": best.get("epoch"),
        "score": score_of(best),
        "score_name": score_name_of(run.rows),
        "val_loss": best.get("val_loss"),
        "train_loss": run.rows[-1].get("train_loss") if run.rows else None,
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "seconds": sum(row.get("seconds") or 0.0 for row in run.rows),
    }


def labels_of(folders: Sequence[Path]) -> list[str]:
    """Return the shortest ends of the paths that distinguish the runs.

    Raises:
        OvertoneError: a run is given twice.
    """
    parts = [resolved_once(folder).parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise OvertoneError("a run is given twice; leave one out")
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]
