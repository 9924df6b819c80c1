"""`overtone reproduce`: the published tables as a test."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from overtone import options, zoo
from overtone.checkpoint import write_text
from overtone.data.imagenet import find_validation
from overtone.engine.inference import Computing
from overtone.errors import OvertoneError, some
from overtone.published import Published, PublishedDense, PublishedRow, select
from overtone.reproduction.accuracy import Measurement
from overtone.reproduction.figures import Comparison, Figure, Verdict, compare, format_count, last_digit, write_figures
from overtone.reproduction.results import as_markdown, read_results, write_results
from overtone.reproduction.weights import Loading, WeightsUnfit, measurements_of
from overtone.verbs.console import note, print_json, print_line, print_table, progress, warn
from overtone.verbs.reproduce_dense import reproduce_dense

_FIGURES, _ACCURACY, _TABLE = "figures.csv", "accuracy.csv", "accuracy.md"
_DEFAULT_OUT = Path("reproduced")


def reproduce(chosen: options.Reproduce) -> int:
    """Compare and print; return 1 if something differs.

    Without images and weights: sizes and costs of every network. With images: the accuracy of all weights at hand.
    With weights alone: each file is verified and loaded.

    Raises:
        OvertoneError: no row matches, no images, or weights that cannot be read.
    """
    rows = select(chosen.only)
    if chosen.data.root is not None:
        dense = [row for row in rows if isinstance(row, PublishedDense)]
        others = [row for row in rows if isinstance(row, Published)]
        if not others:
            return reproduce_dense(dense, chosen, chosen.data.root)
        return _reproduce_accuracy(others, chosen, chosen.data.root)
    if chosen.weights_dir:
        return _load_all(rows, chosen)
    return _reproduce_figures(rows, chosen)


# --- sizes and costs


def _reproduce_figures(rows: Sequence[PublishedRow], chosen: options.Reproduce) -> int:
    comparisons = []
    with progress("building", len(rows)) as done:
        for row in rows:
            comparisons.append(compare(row))
            done(len(comparisons))
    differing = [c.row.full_name for c in comparisons if any(verdict.kind == "differs" for verdict in c.verdicts)]
    if chosen.json:
        print_json([_as_dict(comparison) for comparison in comparisons])
    else:
        _print_figures(comparisons)
    if chosen.out is not None:
        write_figures(chosen.out / _FIGURES, comparisons)
        note(f"{chosen.out / _FIGURES} written")
    note(f"{len(comparisons)} rows, {len(differing)} with an unexplained difference")
    return 1 if differing else 0


def _print_figures(comparisons: Sequence[Comparison]) -> None:
    print_table(
        ("published row", "parameters", "published", "verdict", "multiply-adds", "published", "verdict"),
        [
            (c.row.full_name, *_cells(c.parameters, c.row, "params_m"), *_cells(c.multiply_adds, c.row, "macs_m"))
            for c in comparisons
        ],
    )
    reasons: dict[str, list[str]] = {}
    for comparison in comparisons:
        for what, verdict in (("parameters", comparison.parameters), ("multiply-adds", comparison.multiply_adds)):
            if verdict.why:
                counted, unit = verdict.as_counted_there, last_digit(comparison.row, "macs_m")
                shown = "" if counted is None else f" ({format_count(counted, unit // 10)})"
                names = reasons.setdefault(f"{what}: {verdict.kind}: {verdict.why}", [])
                names.append(comparison.row.full_name + shown)
    for reason, names in reasons.items():
        print_line(f"\n{reason}:\n  {', '.join(names)}")


def _cells(verdict: Verdict, row: PublishedRow, figure: Figure) -> tuple[str, str | None, str]:
    unit = last_digit(row, figure)
    published = None if verdict.published is None else format_count(verdict.published, unit)
    return format_count(verdict.ours, min(unit, 10**6) // 10), published, verdict.kind


def _as_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "model": comparison.row.full_name,
        "resolution": comparison.row.resolution,
        "parameters": dataclasses.asdict(comparison.parameters),
        "multiply_adds": dataclasses.asdict(comparison.multiply_adds),
    }


# --- accuracy


def _reproduce_accuracy(rows: Sequence[Published], chosen: options.Reproduce, root: Path) -> int:
    images = find_validation(root, chosen.data.labels)
    problems: list[str] = []
    found = [(row, _located(row, chosen, problems)) for row in rows]
    at_hand = [(row, located) for row, located in found if located is not None]
    absent = [row.full_name for row, located in found if located is None]
    if not at_hand:
        raise OvertoneError(
            f"no weights of {some(absent)} are at hand; name their folder with --weights-dir, or add --fetch"
            + "".join(f"; {problem}" for problem in problems[:1])
        )
    out = chosen.out or _DEFAULT_OUT
    results = read_results(out / _ACCURACY)
    note(f"{len(images)} images of {len(set(images.targets))} classes, {images.origin}")
    run = chosen.run
    computing = Computing(run.device, run.precision, run.threads, run.batch_size, run.workers)
    shown: list[Measurement] = []
    unreadable: dict[str, None] = {}
    for row, located in at_hand:
        measured = measurements_of(
            row, located, images, results, _loading(chosen), computing, progress=progress, say=note, warn=warn
        )
        try:
            for measurement, bad in measured:
                shown.append(measurement)
                unreadable.update(dict.fromkeys(bad))
                results = [result for result in results if result.key[:2] != measurement.key[:2]] + [measurement]
                write_results(out / _ACCURACY, results)
        except WeightsUnfit as error:
            problems.append(str(error))
    write_text(out / _TABLE, as_markdown(results))
    _print_accuracy(shown, absent, chosen.json)
    note(f"{out / _ACCURACY} and {out / _TABLE} written")
    for path in unreadable:
        warn(f"{path} could not be read; it is left out of every figure")
    for problem in problems:
        warn(problem)
    return 1 if problems or any(m.unreadable or m.verdict.startswith("differs") for m in shown) else 0


def _loading(chosen: options.Reproduce) -> Loading:
    return Loading(chosen.weights_dir, chosen.fetch)


def _located(row: PublishedRow, chosen: options.Reproduce, problems: list[str]) -> zoo.Located | None:
    """Return the row's file, or None; a file that is altered or cannot be downloaded is added to the problems."""
    try:
        return _loading(chosen).locate(row)
    except OvertoneError as error:
        problems.append(str(error))
        return None


def _print_accuracy(shown: Sequence[Measurement], absent: Sequence[str], as_json: bool) -> None:
    if as_json:
        print_json({"measured": [dataclasses.asdict(result) for result in shown], "absent": list(absent)})
        return
    print_table(
        ("published row", "protocol", "images", "top-1", "published", "top-5", "published", "verdict"),
        [
            (
                result.model,
                f"{result.protocol} {result.resolution}",
                result.images,
                f"{result.top1:.3f}",
                result.published_top1,
                f"{result.top5:.3f}",
                result.published_top5,
                result.verdict,
            )
            for result in shown
        ],
        left=2,
    )
    if absent:
        note(f"not at hand, so not measured: {', '.join(absent)}")


def _load_all(rows: Sequence[PublishedRow], chosen: options.Reproduce) -> int:
    """Verify and load every file at hand, without images."""
    table: list[tuple[str, str, str]] = []
    problems: list[str] = []
    for row in rows:
        known = len(problems)
        located = _located(row, chosen, problems)
        if located is not None:
            try:
                zoo.load_model(row.full_name, weights_dir=chosen.weights_dir)
            except OvertoneError as error:
                problems.append(str(error))
        if len(problems) > known:
            table.append((row.full_name, "does not load", problems[-1]))
        elif located is None:
            table.append((row.full_name, "not at hand" if row.urls else "published without weights", ""))
        else:
            table.append((row.full_name, "loaded", str(located.proof)))
    if chosen.json:
        print_json([dict(zip(("model", "state", "proof"), line, strict=True)) for line in table])
    else:
        print_table(("published row", "weights", "proof"), table, left=3)
    note(
        "accuracies are measured on images: --data.root IMAGENET/val, or --only 'upernet*' with ADE20K's and "
        "--only 'cascade*' with COCO's folder"
    )
    return 1 if problems else 0
