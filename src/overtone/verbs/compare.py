"""`overtone compare`: how the recipes of runs differ, their results, and their curves in one plot."""

from collections.abc import Mapping, Sequence
from typing import Any

from overtone.engine.log import duration
from overtone.errors import OvertoneError
from overtone.options import Compare
from overtone.reports.comparison import ComparedRun, differences, labels_of, read_run, result_of
from overtone.reports.plots import plot_comparison
from overtone.verbs.console import note, print_json, print_line, print_table

_ABSENT = "—"


def compare(options: Compare) -> int:
    """Print the differences and results of runs, and draw their curves.

    Returns:
        The exit code, 0.

    Raises:
        OvertoneError: fewer than two runs, a folder that is none, or a plot that exists already.
    """
    if len(options.runs) < 2:
        raise OvertoneError("give at least two runs: overtone compare RUN RUN …")
    if options.out.exists() and not options.overwrite:
        raise OvertoneError(f"{options.out} exists; give another --out, or --overwrite to replace it")
    labels = labels_of(options.runs)
    found = [read_run(folder, label) for folder, label in zip(options.runs, labels, strict=True)]
    different, results = differences(found), [result_of(run) for run in found]
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
        (f"best {' or '.join(dict.fromkeys(result['score_name'] for result in results))}", "score", "{:.2f}".format),
        ("of epoch", "best_epoch", str),
        ("validation loss there", "val_loss", "{:.4f}".format),
        ("last training loss", "train_loss", "{:.4f}".format),
        ("images/s (median)", "images_per_second", "{:,.0f}".format),
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
