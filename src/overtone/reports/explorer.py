"""The published rows and a user's runs as points: accuracy against cost, for the page that compares them.

A point has its figures, the benchmark that its score was measured on (scores of different ones do not compare) and the
command line that uses the network. Latencies come from the files of `overtone benchmark --out`.
"""

import functools
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.architectures import sizes
from overtone.data.opening import resolved_once
from overtone.engine import folder as files
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json
from overtone.published import DENSE, PUBLISHED, Published
from overtone.reports.measured_sizes import size_of_run
from overtone.reports.run_folders import RunOverview, overview, read_record, run_folders

BENCHMARK = "benchmark.json"
_DEPTH = 4
_IMAGENET, _SEGMENTATION, _DETECTION = "ImageNet-1K top-1", "ADE20K mIoU", "COCO box AP"
_MILLION = 1e6


@dataclass(frozen=True)
class Point:
    """One network.

    Attributes:
        name: `architecture.tag`, or the run's folder.
        family: published system; `timm` for other architectures.
        kind: `published` or `run`.
        benchmark: what the score is and on which data.
        score: percent.
        multiply_adds: of one image at `resolution`; `parameters`: a count; None where not known.
        resolution: pixels, the side of the input.
        command: command line that uses it.
        notes: what else is to be known.
        latency: milliseconds of one call, by the name of the series: runtime, precision, batch, threads, processor.
    """

    name: str
    family: str
    kind: str
    benchmark: str
    score: float
    multiply_adds: float | None
    parameters: float | None
    resolution: int | None
    command: str
    notes: tuple[str, ...] = ()
    latency: Mapping[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class _Latency:
    """One row of a benchmark: `model` as it was named, on images of `size` pixels."""

    model: str
    size: int
    series: str
    milliseconds: float


def points(runs: Path | None = None, benchmarks: Sequence[Path] = ()) -> list[Point]:
    """Return all published rows with a score, and the runs below a folder that have one.

    Args:
        runs: run folders, and folders of `overtone benchmark --out`, up to four levels down.
        benchmarks: further folders or files of `overtone benchmark --out`.

    Raises:
        OvertoneError: a file in `benchmarks` is no such file.
    """
    measured = [row for path in _benchmark_files(benchmarks) for row in _latencies(path)]
    for path in _benchmark_files([] if runs is None else [runs]):
        with suppress(OvertoneError):  # nobody has asked for this file
            measured += _latencies(path)
    found = [_published_point(row, measured) for row in PUBLISHED if row.top1 is not None]
    found += [_dense_point(row, measured) for row in DENSE if row.score is not None]
    return found if runs is None else found + _run_points(runs, measured)


def _run_points(root: Path, measured: Iterable[_Latency]) -> list[Point]:
    runs = [overview(folder, root) for folder in run_folders(root)]
    scored = (run for run in runs if run.best_score is not None and math.isfinite(run.best_score))
    return [_run_point(run, root, measured) for run in scored]


def family_of(architecture: str) -> str:
    """Return the system that an architecture belongs to: that of the rows whose names begin with the same word."""
    return _families().get(_word(architecture), "timm")


@functools.cache
def _families() -> Mapping[str, str]:
    return {_word(row.architecture): row.family for row in PUBLISHED}


def _word(architecture: str) -> str:
    return architecture.partition("_")[0]


def _published_point(row: Published, measured: Iterable[_Latency]) -> Point:
    size = sizes().get(row.architecture)
    multiply_adds = None if row.macs_m is None else row.macs_m * _MILLION
    if multiply_adds is None and size is not None and size.resolution == row.resolution:
        multiply_adds = size.multiply_adds
    parameters = None if row.params_m is None else row.params_m * _MILLION
    if parameters is None and size is not None:
        parameters = size.parameters
    pooling = row.test_time_pooling
    pooled = None if pooling is None else f"{pooling.top1:.2f} % pooled at {pooling.resolution} px"
    notes = (row.pretraining and f"pretrained on {row.pretraining}", pooled, row.note, row.correction)
    known = {row.full_name, row.architecture}
    return Point(
        name=row.full_name,
        family=row.family,
        kind="published",
        benchmark=_IMAGENET,
        score=row.top1 or 0.0,
        multiply_adds=multiply_adds,
        parameters=parameters,
        resolution=row.resolution,
        command=_command(row.full_name, bool(row.urls)),
        notes=tuple(note for note in (*notes, None if row.urls else "no weights published") if note),
        latency={one.series: one.milliseconds for one in measured if one.model in known and one.size == row.resolution},
    )


def _dense_point(row: Any, measured: Iterable[_Latency]) -> Point:
    size = " x ".join(str(side) for side in row.flops_input[1:])
    figures = (
        None if row.mask_ap is None else f"mask AP {row.mask_ap}",
        None if row.miou_multi_scale is None else f"mIoU {row.miou_multi_scale} at several scales",
        f"multiply-adds as published, at {size}",
    )
    score = row.miou if row.task == "segmentation" else row.box_ap
    return Point(
        name=row.full_name,
        family=family_of(row.backbone),
        kind="published",
        benchmark=_SEGMENTATION if row.task == "segmentation" else _DETECTION,
        score=score or 0.0,
        multiply_adds=float(row.flops or 0),
        parameters=float(row.params),
        resolution=row.crop,
        command=_command(row.full_name, bool(row.urls)),
        notes=tuple(note for note in figures if note),
        latency={one.series: one.milliseconds for one in measured if one.model in (row.full_name, row.name)},
    )


def _run_point(run: RunOverview, root: Path, measured: Iterable[_Latency]) -> Point:
    record, _ = read_record(run.folder / files.RECIPE)
    recipe = record.get("recipe")
    data = (recipe.get("data") or {}) if isinstance(recipe, Mapping) else {}
    source = data.get("table") or data.get("root")
    size = size_of_run(record)
    own = resolved_once(run.folder)
    found = [one for one in measured if resolved_once(Path(one.model)) == own]
    epochs = f"{run.epoch} of {run.epochs or '?'} epochs, {run.state}"
    return Point(
        name=run.name,
        family=family_of(run.model or ""),
        kind="run",
        benchmark=f"{run.score_name} on {Path(str(source)).name}" if source else f"{run.score_name} of runs",
        score=run.best_score or 0.0,
        multiply_adds=None if size is None else size.multiply_adds,
        parameters=None if size is None else size.parameters,
        resolution=None if size is None else size.resolution,
        command=f"overtone predict {_shown(run.folder, root)} image.jpg",
        notes=tuple(note for note in (run.model, epochs) if note),
        latency={one.series: one.milliseconds for one in found},
    )


def _shown(folder: Path, root: Path) -> str:
    """A run folder as a command line names it; of an absolute path no more than its last parts leave the machine."""
    return (folder.relative_to(root.parent) if root.is_absolute() else folder).as_posix()


def _command(name: str, has_weights: bool) -> str:
    return f"overtone predict {name} image.jpg" if has_weights else f"overtone benchmark {name}"


def _benchmark_files(places: Iterable[Path]) -> Iterator[Path]:
    for place in places:
        if place.is_file():
            yield place
            continue
        for folder, inside, names in os.walk(place):
            if len(Path(folder).relative_to(place).parts) >= _DEPTH:
                inside.clear()
            inside.sort()
            if BENCHMARK in names:
                yield Path(folder) / BENCHMARK


def _latencies(path: Path) -> list[_Latency]:
    """Return the rows of inference of a file of `overtone benchmark`.

    Raises:
        OvertoneError: it is not such a file.
    """
    try:
        report = parse_json(path.read_text(encoding="utf-8"))
        processor = report["machine"]["processor"]
        return [
            _Latency(row["model"], row["size"], f"{_series(row)}, {processor}", float(row["latency_ms"]))
            for row in report["rows"]
            if row["task"] == "inference"
        ]
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise OvertoneError(f"{path} cannot be read as a file of overtone benchmark ({error}); remove it") from error


def _series(row: Mapping[str, Any]) -> str:
    threads = "1 thread" if row["threads"] == 1 else f"{row['threads']} threads"
    return f"{row['runtime']}, {row['precision']}, batch {row['batch']}, {threads}"
