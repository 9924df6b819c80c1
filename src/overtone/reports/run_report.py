"""A run as one HTML file that opens from disk: recipe, data, curves, figures, what it gets wrong and where it looks.

The figures are those of the run folder. With its images at hand the best network is measured again, for the mistakes,
the heat maps and the calibration; without them the file says so.
"""

import base64
import functools
import importlib.util
import io
import json
import tempfile
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path, PurePath
from typing import Any

import jinja2
from PIL import Image

from overtone import zoo
from overtone.checkpoint import write_text
from overtone.config import Data, Recipe
from overtone.data.decoding import BadImage, decode_image
from overtone.data.imagenet import readable
from overtone.data.pipeline import Batch
from overtone.data.sources import Source
from overtone.engine import folder as files
from overtone.engine.evaluation import Evaluation, measure, model_and_source
from overtone.engine.inference import Computing, Inference, ready
from overtone.engine.log import Row, read_rows
from overtone.engine.samples import read_samples
from overtone.engine.showing import examples_of, write_beside_truth
from overtone.engine.summary import read_report
from overtone.errors import OvertoneError
from overtone.reports.confusion import answered
from overtone.reports.explorer import points
from overtone.reports.heat_maps import heat_maps
from overtone.reports.plots import draw, plot_curves
from overtone.reports.run_folders import RunOverview, overview, read_record
from overtone.tasks import recipe_from_dict, task_named
from overtone.tasks.task import Plot, Table

_TEMPLATE = "run_report.html.jinja"
_THUMBNAIL, _SMALLEST = 176, 128  # pixels
_SAMPLES, _MISTAKES, _MOST_CLASSES = 12, 12, 60


@dataclass(frozen=True)
class Figure:
    """An image of the report: `data:` address, what it shows, lines under it."""

    address: str
    title: str
    lines: tuple[str, ...] = ()


@dataclass(frozen=True)
class Mistake:
    """A labelled image that was taken for another class."""

    position: int
    target: int
    predicted: int
    probability: float


@dataclass(frozen=True)
class Measured:
    """The best network on the images that it was validated on."""

    inference: Inference
    found: Evaluation
    mistakes: tuple[Mistake, ...]


def write_run_report(
    folder: Path, out: Path, *, data: Data | None = None, device: str = "auto", benchmarks: Sequence[Path] = ()
) -> tuple[str, ...]:
    """Write the report of a run.

    Args:
        folder: the run folder.
        out: the file; it is replaced whole.
        data: where the images are now; None: where the recipe says.
        device: what measures the network.
        benchmarks: folders or files of `overtone benchmark --out`, whose latencies of this run are shown.

    Returns:
        What is not in the file, and why, in sentences.

    Raises:
        OvertoneError: no run, or files of it that are damaged.
    """
    record = _record(folder)
    missing: list[str] = []
    run, rows = overview(folder, folder.parent), read_rows(folder)
    recipe = recipe_from_dict(record["recipe"])
    measured = measured_run(folder, data or recipe.data, device, missing)
    report = read_report(folder, task_named(recipe.task)) if measured is None else measured.found.report
    context = {
        "run": run,
        "facts": _facts(run, record),
        "counts": _counts(folder),
        "samples": [] if measured is None else _samples(measured),
        "curves": _curves(rows, run),
        "tables": [] if report is None else [_cells(table) for table in report.tables(full=True)],
        "plots": [] if report is None else [Figure(_drawn(plot), plot.title) for plot in report.plots()],
        "calibration": _calibration(report),
        "mistakes": [] if measured is None else _mistakes(measured, missing),
        "examples": [] if measured is None else _examples(measured),
        "latency": _latency(run, folder, benchmarks),
        "recipe": json.dumps(record["recipe"], indent=2, ensure_ascii=False),
        "versions": dict(record.get("versions") or {}),
        "missing": missing,
    }
    environment = jinja2.Environment(autoescape=True, undefined=jinja2.StrictUndefined)
    template = (resources.files("overtone.reports") / _TEMPLATE).read_text(encoding="utf-8")
    write_text(out, environment.from_string(template).render(context))
    return tuple(missing)


def recipe_of(folder: Path) -> Recipe:
    """The recipe of a run.

    Raises:
        OvertoneError: no run, or its description is damaged.
    """
    return recipe_from_dict(_record(folder)["recipe"])


def _record(folder: Path) -> Mapping[str, Any]:
    if not (folder / files.RECIPE).is_file():
        raise OvertoneError(f"{folder} is not a run folder: it has no {files.RECIPE}; give the folder of a run")
    record, problem = read_record(folder / files.RECIPE)
    if problem is not None or not isinstance(record.get("recipe"), dict):
        raise OvertoneError(f"{folder / files.RECIPE} is damaged: {problem or 'it has no recipe'}; give another run")
    return record


def measured_run(folder: Path, data: Data, device: str, missing: list[str]) -> Measured | None:
    """The best network measured on the images that the training validated on.

    Args:
        folder: the run folder.
        data: where the images are.
        device: what measures the network.
        missing: gets the reason where the images are not at hand, and None is returned.
    """
    place = data.table or data.root
    if place is None or not place.exists():
        missing.append(f"The images are not at {place}: without them there are no samples, mistakes and heat maps.")
        return None
    try:
        load = functools.partial(zoo.load_model, str(folder))
        loaded, source = model_and_source(load, data, "auto", lambda text: None)
    except OvertoneError as error:
        missing.append(f"Not measured again, so without samples, mistakes and heat maps: {error}.")
        return None
    inference = ready(loaded, tuple(source.labels), Computing(device=device))
    mistakes: list[Mistake] = []
    seen = functools.partial(_add_mistakes, mistakes) if loaded.task == "classification" else None
    found = measure(inference, source, warn=lambda text: None, seen=seen)
    mistakes.sort(key=lambda one: -one.probability)
    return Measured(inference, found, tuple(mistakes[:_MISTAKES]))


def _add_mistakes(found: list[Mistake], batch: Batch, outputs: Any) -> None:
    """Add those of a batch; outputs are logits (B, K)."""
    found += [Mistake(*row) for row in answered(batch, outputs) if row[1] != row[2]]


def _facts(run: RunOverview, record: Mapping[str, Any]) -> list[tuple[str, str]]:
    """What the run is, in pairs for its head."""
    score = "" if run.best_score is None else f"{run.best_score:.2f} % {run.score_name}, epoch {run.best_epoch}"
    state = run.state + ("" if run.reason is None else f": {run.reason}")
    pairs = [
        ("network", run.model),
        ("recipe", run.recipe),
        ("best", score),
        ("state", f"{state}, {run.epoch} of {run.epochs or '?'} epochs, {run.seconds / 60:.1f} min"),
        ("images", record.get("split")),
    ]
    return [(name, str(value)) for name, value in pairs if value]


def _counts(folder: Path) -> dict[str, Any]:
    """How many images of each label were trained and validated on; of many labels the largest."""
    counted: Counter[tuple[str, str]] = Counter()
    try:
        for part, _, target, _ in read_samples(folder / files.SAMPLES):
            counted[part, str(target)] += 1
    except (OSError, EOFError, ValueError, TypeError):  # of a run that has none, or a damaged list
        return {"totals": {}, "rows": (), "more": 0}
    totals = {part: sum(count for (of, _), count in counted.items() if of == part) for part in ("train", "val")}
    labels = sorted({label for _, label in counted}, key=lambda label: (-counted["train", label], label))
    rows = [(readable(label), counted["train", label], counted["val", label]) for label in labels[:_MOST_CLASSES]]
    most = max((train for _, train, _ in rows), default=1) or 1
    return {
        "totals": totals,
        "rows": [(*row, 100 * row[1] / most) for row in rows] if 1 < len(labels) < sum(totals.values()) else (),
        "more": max(len(labels) - _MOST_CLASSES, 0),
    }


def _samples(measured: Measured) -> list[Figure]:
    """Images evenly through the source, with what the network says of each."""
    source, shown = measured.found.source, []
    step = max(len(source) // _SAMPLES, 1)
    for position in range(0, len(source), step)[:_SAMPLES]:
        image = _image(measured, source, position)
        if image is not None:
            shown.append(Figure(_address(image), "/".join(PurePath(source.name(position)).parts[-2:])))
    return shown


def _mistakes(measured: Measured, missing: list[str]) -> list[dict[str, Any]]:
    """The most confident mistakes, each with its image and, where Captum is installed, where the network looked."""
    source, labels = measured.found.source, measured.inference.task.labels
    explains = importlib.util.find_spec("captum") is not None
    if measured.mistakes and not explains:
        missing.append("Heat maps need Captum: pip install 'overtone[explain]'.")
    shown = []
    for one in measured.mistakes:
        image = _image(measured, source, one.position)
        if image is None:
            continue
        heat = None
        if explains:
            (found,) = heat_maps(measured.inference, image, (labels[one.predicted],))
            heat = _address(found.overlay(image))
        shown.append(
            {
                "image": _address(image),
                "heat": heat,
                "name": PurePath(source.name(one.position)).name,
                "target": readable(labels[one.target]),
                "predicted": readable(labels[one.predicted]),
                "probability": f"{100 * one.probability:.1f} %",
            }
        )
    return shown


def _examples(measured: Measured) -> list[Figure]:
    """The worst images and some others beside their truth, where the task can draw it."""
    found, inference = measured.found, measured.inference
    with tempfile.TemporaryDirectory() as folder:
        positions = examples_of(found.report, found.source).items()
        placed = inference.model, inference.placement, found.source, positions, Path(folder)
        return [
            Figure("data:image/png;base64," + base64.b64encode(path.read_bytes()).decode(), path.stem)
            for path in write_beside_truth(inference.task, *placed)
        ]


def _image(measured: Measured, source: Source, position: int) -> Image.Image | None:
    try:
        content: Any = source.read(position).get("image", b"")
        return (
            content if isinstance(content, Image.Image) else decode_image(content, measured.inference.preprocess.exif)
        )
    except BadImage:
        return None


def _calibration(report: Any) -> dict[str, str] | None:
    found = getattr(report, "calibration", None)
    if found is None:
        return None
    return {"error": f"{found.error:.2f} %", "temperature": f"{found.temperature:.3f}"}


def _latency(run: RunOverview, folder: Path, benchmarks: Sequence[Path]) -> list[tuple[str, str]]:
    """Milliseconds of this run's network, where they were measured."""
    for point in points(folder, benchmarks):
        if point.kind == "run":
            return [(series, f"{milliseconds:.2f} ms") for series, milliseconds in point.latency.items()]
    return []


def _curves(rows: Sequence[Row], run: RunOverview) -> Figure | None:
    if not rows:
        return None
    return Figure(_png(lambda path: plot_curves(rows, path)), f"{run.name}: loss, score and learning rate")


def _drawn(plot: Plot) -> str:
    return _png(lambda path: draw(plot, path))


def _cells(table: Table) -> dict[str, Any]:
    rows = [["" if cell is None else str(cell) for cell in row] for row in table.rows]
    return {"title": table.title, "columns": table.columns, "rows": rows, "num_text": table.num_text}


def _png(write: Callable[[Path], object]) -> str:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "plot.png"
        write(path)
        return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode()


def _address(image: Image.Image) -> str:
    small = image.convert("RGB")
    larger = _SMALLEST // max(small.height, 1)
    if larger > 1 and small.width * larger <= 2 * _THUMBNAIL:
        small = small.resize((small.width * larger, small.height * larger), Image.Resampling.NEAREST)
    small.thumbnail((2 * _THUMBNAIL, _THUMBNAIL))
    file = io.BytesIO()
    small.save(file, "JPEG", quality=85)
    return "data:image/jpeg;base64," + base64.b64encode(file.getvalue()).decode()
