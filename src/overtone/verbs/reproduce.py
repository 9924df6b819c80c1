"""`overtone reproduce`: the published tables as a test."""

import dataclasses
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from overtone import options, zoo
from overtone.checkpoint import write_text
from overtone.data.imagenet import NUM_CLASSES, find_validation
from overtone.data.sources import ImageList
from overtone.errors import OvertoneError
from overtone.published import PUBLISHED, Published, matching
from overtone.verbs.console import note, print_json, print_line, print_table, progress, warn
from overtone.verbs.published_accuracy import (
    Measurement,
    check_outputs,
    fingerprint,
    measure,
    protocols_of,
    read_results,
    write_results,
)
from overtone.verbs.published_figures import LAST_DIGIT, Comparison, Figure, Verdict, compare, spelled

_FIGURES, _ACCURACY, _TABLE = "figures.csv", "accuracy.csv", "accuracy.md"
_DEFAULT_OUT = Path("reproduced")


def reproduce(chosen: options.Reproduce) -> int:
    """Compare, print, and say with 1 that something differs.

    Without images and without weights: sizes and costs of every network. With images: the accuracy of all weights at
    hand. With weights alone: each is proved and loaded.

    Raises:
        OvertoneError: no row matches, no images, or weights that cannot be read.
    """
    rows = rows_matching(chosen.only)
    if chosen.data.root is not None:
        return _reproduce_accuracy(rows, chosen)
    if chosen.weights_dir:
        return _load_all(rows, chosen)
    return _reproduce_figures(rows, chosen)


def rows_matching(pattern: str) -> tuple[Published, ...]:
    """Published rows by a shell pattern of their full name, architecture or family, or by a part of the name.

    Raises:
        OvertoneError: no row matches.
    """
    rows = matching(pattern) or tuple(row for row in PUBLISHED if pattern in row.full_name)
    if not rows:
        raise OvertoneError(f"no published row matches {pattern!r}; overtone weights list names them all")
    return rows


# --- sizes and costs


def _reproduce_figures(rows: Sequence[Published], chosen: options.Reproduce) -> int:
    with progress("building", len(rows)) as done:
        comparisons = []
        for row in rows:
            comparisons.append(compare(row))
            done(len(comparisons))
    differing = [c.row.full_name for c in comparisons if any(verdict.kind == "differs" for verdict in c.verdicts)]
    if chosen.json:
        print_json([_figures_as_dict(comparison) for comparison in comparisons])
    else:
        _print_figures(comparisons)
    if chosen.out is not None:
        lines = [",".join(_figures_header())]
        lines += [",".join(_quoted(cell) for cell in _figure_cells(comparison)) for comparison in comparisons]
        write_text(chosen.out / _FIGURES, "\n".join(lines) + "\n")
        note(f"{chosen.out / _FIGURES} written")
    note(f"{len(comparisons)} rows, {len(differing)} with a figure that nothing explains")
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
                counted = verdict.as_counted_there
                last_digit = LAST_DIGIT[comparison.row.family, "macs_m"]
                shown = "" if counted is None else f" ({spelled(counted, last_digit // 10)})"
                names = reasons.setdefault(f"{what}: {verdict.kind}: {verdict.why}", [])
                names.append(comparison.row.full_name + shown)
    for reason, names in reasons.items():
        print_line(f"\n{reason}:\n  {', '.join(names)}")


def _cells(verdict: Verdict, row: Published, figure: Figure) -> tuple[str, str | None, str]:
    unit = LAST_DIGIT[row.family, figure]
    published = None if verdict.published is None else spelled(verdict.published, unit)
    return spelled(verdict.ours, min(unit, 10**6) // 10), published, verdict.kind


def _figures_header() -> tuple[str, ...]:
    per_figure = tuple(f"{what}_{column}" for what in ("params", "macs") for column in _COLUMNS)
    return ("model", "resolution", *per_figure)


_COLUMNS = ("published", "ours", "verdict", "why")


def _figure_cells(comparison: Comparison) -> list[object]:
    cells: list[object] = [comparison.row.full_name, comparison.row.resolution]
    for verdict in comparison.verdicts:
        cells += [verdict.published, verdict.ours, verdict.kind, verdict.why]
    return cells


def _quoted(cell: object) -> str:
    text = "" if cell is None else str(cell)
    return '"' + text.replace('"', '""') + '"' if any(sign in text for sign in ',"\n') else text


def _figures_as_dict(comparison: Comparison) -> dict[str, Any]:
    return {
        "model": comparison.row.full_name,
        "resolution": comparison.row.resolution,
        "parameters": dataclasses.asdict(comparison.parameters),
        "multiply_adds": dataclasses.asdict(comparison.multiply_adds),
    }


# --- accuracy


def _reproduce_accuracy(rows: Sequence[Published], chosen: options.Reproduce) -> int:
    assert chosen.data.root is not None
    images = find_validation(chosen.data.root, chosen.data.labels)
    problems: list[str] = []
    found = [(row, _located(row, chosen, problems)) for row in rows]
    at_hand = [(row, located) for row, located in found if located is not None]
    absent = [row.full_name for row, located in found if located is None]
    if not at_hand:
        raise OvertoneError(
            f"no weights of {_some(absent)} are at hand; name their folder with --weights-dir, or add --fetch"
            + "".join(f"; {problem}" for problem in problems[:1])
        )
    out = chosen.out or _DEFAULT_OUT
    results = read_results(out / _ACCURACY)
    note(f"{len(images)} images of {len(set(images.targets))} classes, {images.origin}")
    shown: list[Measurement] = []
    unreadable: dict[str, None] = {}
    for row, located in at_hand:
        try:
            for measurement, bad in _measured(row, located, images, results, chosen):
                shown.append(measurement)
                unreadable.update(dict.fromkeys(bad))
                results = [result for result in results if result.key[:2] != measurement.key[:2]] + [measurement]
                write_results(out / _ACCURACY, results)
        except WeightsUnfit as error:
            problems.append(str(error))
    write_text(out / _TABLE, _as_markdown(results))
    _print_accuracy(shown, absent, chosen.json)
    note(f"{out / _ACCURACY} and {out / _TABLE} written")
    for path in unreadable:
        warn(f"{path} could not be read; it is left out of every figure")
    for problem in problems:
        warn(problem)
    return 1 if problems or any(m.unreadable or m.verdict.startswith("differs") for m in shown) else 0


def _measured(
    row: Published,
    located: zoo.Located,
    images: ImageList,
    results: Sequence[Measurement],
    chosen: options.Reproduce,
) -> Iterator[tuple[Measurement, tuple[str, ...]]]:
    """A row's measurements, one per protocol, and the images that could not be read; those made before are reused."""
    before = {result.key: result for result in results}
    weights, data = zoo.digests(located.path).sha256, fingerprint(images)
    loaded: zoo.LoadedModel | None = None
    for protocol in protocols_of(row):
        known = before.get((row.full_name, protocol.name, weights, data))
        if known is not None:
            note(f"{row.full_name}, {protocol.name}: measured before")
            yield known, ()
            continue
        loaded = loaded or _loaded(row, located, chosen)
        with progress(f"{row.full_name}, {protocol.name}", len(images)) as done:
            measurement, bad = measure(row, protocol, loaded, images, chosen.run, weights, done)
        note(f"{row.full_name}, {protocol.name}: top-1 {measurement.top1:.3f}, {measurement.verdict}")
        yield measurement, bad


def _located(row: Published, chosen: options.Reproduce, problems: list[str]) -> zoo.Located | None:
    """The row's file, or None where there is none at hand; one that is altered or cannot be had is a problem."""
    if not row.urls:
        return None
    try:
        located = zoo.find_published(row, chosen.weights_dir)
        if located is None and chosen.fetch:
            located = zoo.fetch_published(row, chosen.weights_dir)
    except OvertoneError as error:
        problems.append(str(error))
        return None
    return located


class WeightsUnfit(OvertoneError):
    """A file that is at hand cannot be measured; the others can."""


def _loaded(row: Published, located: zoo.Located, chosen: options.Reproduce) -> zoo.LoadedModel:
    """The row's network with the 1000 outputs of ImageNet-1K, of which the 10,459 of ImageNet-22K have all.

    Raises:
        WeightsUnfit: the file cannot be read, does not fit, or has no classifier (OpenMMLab's copies of HorNet-L).
    """
    try:
        if not zoo.describe(located.path).num_classes:
            raise WeightsUnfit(
                f"{located.path} has no classifier, so {row.full_name} cannot be measured with this copy"
            )
        reduced = None if row.num_classes == NUM_CLASSES else NUM_CLASSES
        loaded = zoo.load_model(row.full_name, num_classes=reduced, weights_dir=chosen.weights_dir)
        check_outputs(loaded, row)
    except WeightsUnfit:
        raise
    except OvertoneError as error:
        raise WeightsUnfit(str(error)) from error
    return loaded


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


def _as_markdown(results: Sequence[Measurement]) -> str:
    head = "| published row | protocol | images | top-1 | published | top-5 | published | verdict |"
    order = {row.full_name: place for place, row in enumerate(PUBLISHED)}
    lines = [head, "|---|---|---:|---:|---:|---:|---:|---|"]
    for result in sorted(results, key=lambda result: order.get(result.model, len(order))):
        published = ["" if value is None else f"{value:g}" for value in (result.published_top1, result.published_top5)]
        way = f"{result.protocol}, {result.resolution} pixels, {result.interpolation}"
        lines.append(
            f"| `{result.model}` | {way} | {result.images} | {result.top1:.3f} | {published[0]} | {result.top5:.3f} "
            f"| {published[1]} | {result.verdict} |"
        )
    return "\n".join(lines) + "\n"


def _load_all(rows: Sequence[Published], chosen: options.Reproduce) -> int:
    """Without images: every file at hand is proved and loaded strictly."""
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
    note("accuracies are measured on images: --data.root IMAGENET/val")
    return 1 if problems else 0


def _some(names: Sequence[str], limit: int = 5) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
