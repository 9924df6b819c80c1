"""`overtone compare`: in what the recipes of runs differ, what came of it, and their curves in one picture."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone.data.opening import resolved_once
from overtone.engine import folder as files
from overtone.engine.log import Row, duration, read_rows
from overtone.engine.trackers import flattened
from overtone.errors import OvertoneError
from overtone.options import Compare
from overtone.plain_json import parse_json
from overtone.verbs.console import note, print_json, print_line, print_table
from overtone.verbs.plots import plot_comparison
from overtone.verbs.runs import run_state

_ABSENT = "—"


@dataclass(frozen=True)
class ComparedRun:
    """What a run folder says: its recipe as one level of names, and a row for each epoch."""

    folder: Path
    label: str
    recipe: Mapping[str, Any]
    rows: Sequence[Row]


def compare(options: Compare) -> int:
    """Print the differences and results of runs, and draw their curves.

    Returns:
        The exit code, 0.

    Raises:
        OvertoneError: fewer than two runs, a folder that is none, or a picture that is there already.
    """
    if len(options.runs) < 2:
        raise OvertoneError("give at least two runs: overtone compare RUN RUN …")
    if options.out.exists() and not options.overwrite:
        raise OvertoneError(f"{options.out} exists; give another --out, or --overwrite to replace it")
    labels = _labels(options.runs)
    found = [_read(folder, label) for folder, label in zip(options.runs, labels, strict=True)]
    different, results = differences(found), [_result(run) for run in found]
    drawn = any(run.rows for run in found)
    if drawn:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        plot_comparison({run.label: run.rows for run in found}, options.out)
    if options.json:
        print_json(
            {
                "runs": [str(run.folder) for run in found],
                "differences": {name: list(values) for name, values in different.items()},
                "results": results,
                "plot": str(options.out) if drawn else None,
            }
        )
    else:
        _print(found, different, results)
    note(f"curves: {options.out}" if drawn else "no run has finished an epoch: no curves")
    return 0


def differences(found: Sequence[ComparedRun]) -> dict[str, tuple[Any, ...]]:
    """The fields of the recipes that are not the same in all runs, with the value of each run (None: not there)."""
    names = dict.fromkeys(name for run in found for name in run.recipe)
    values = {name: tuple(run.recipe.get(name) for run in found) for name in names}
    return {name: given for name, given in values.items() if any(value != given[0] for value in given)}


def _read(folder: Path, label: str) -> ComparedRun:
    path = folder / files.RECIPE
    if not path.is_file():
        raise OvertoneError(f"{folder} is not a run folder, it has no {files.RECIPE}; overtone runs DIR lists runs")
    try:
        record = parse_json(path.read_text(encoding="utf-8"))
        recipe = {"recipe": record.get("name"), **flattened(record["recipe"])}
        return ComparedRun(folder, label, recipe, read_rows(folder))
    except (OSError, ValueError, KeyError, AttributeError, TypeError) as error:
        raise OvertoneError(f"{path} cannot be read ({error}); leave this run out") from error


def _result(run: ComparedRun) -> dict[str, Any]:
    scored = [row for row in run.rows if isinstance(row.get("top1"), (int, float))]
    best = max(scored, key=lambda row: row["top1"], default={})
    rates = sorted(row["images_per_second"] for row in run.rows if row.get("images_per_second") is not None)
    return {
        "state": run_state(run.folder)[0],
        "epochs": len(run.rows),
        "best_epoch": best.get("epoch"),
        "top1": best.get("top1"),
        "top5": best.get("top5"),
        "val_loss": best.get("val_loss"),
        "train_loss": run.rows[-1].get("train_loss") if run.rows else None,
        "images_per_second": rates[len(rates) // 2] if rates else None,
        "seconds": sum(row.get("seconds") or 0.0 for row in run.rows),
    }


def _print(
    found: Sequence[ComparedRun], different: Mapping[str, Sequence[Any]], results: Sequence[Mapping[str, Any]]
) -> None:
    labels = [run.label for run in found]
    if different:
        print_table(("recipe", *labels), [(name, *(_cell(run, name) for run in found)) for name in different])
    else:
        print_line("the recipes are the same")
    print_line()
    shown = (
        ("state", "state", str),
        ("epochs done", "epochs", str),
        ("best top-1", "top1", lambda value: f"{value:.2f} %"),
        ("of epoch", "best_epoch", str),
        ("top-5 there", "top5", lambda value: f"{value:.2f} %"),
        ("validation loss there", "val_loss", lambda value: f"{value:.4f}"),
        ("last training loss", "train_loss", lambda value: f"{value:.4f}"),
        ("images/s (median)", "images_per_second", lambda value: f"{value:,.0f}"),
        ("time", "seconds", duration),
    )
    print_table(
        ("result", *labels),
        [
            (name, *(_ABSENT if result[key] is None else text(result[key]) for result in results))
            for name, key, text in shown
        ],
    )


def _cell(run: ComparedRun, name: str) -> str:
    if name not in run.recipe:  # written by another version
        return _ABSENT
    value = run.recipe[name]
    if value is None or value == []:
        return "none"
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)


def _labels(folders: Sequence[Path]) -> list[str]:
    """The shortest ends of the paths that tell the runs apart."""
    parts = [resolved_once(folder).parts for folder in folders]
    if len(set(parts)) < len(parts):
        raise OvertoneError("a run is given twice; leave one out")
    for length in range(1, max(map(len, parts)) + 1):
        labels = ["/".join(part[-length:]) for part in parts]
        if len(set(labels)) == len(labels):
            return labels
    return [str(folder) for folder in folders]
