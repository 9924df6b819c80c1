"""The accuracy of published weights, each measured as its authors did, against the published figures."""

import csv
import dataclasses
import hashlib
import io
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from torch import nn

from overtone import options, zoo
from overtone.checkpoint import write_text
from overtone.config import Interpolation, Preprocess
from overtone.data.imagenet import NUM_CLASSES, NUM_VALIDATION
from overtone.data.sources import ImageList
from overtone.engine.loop import evaluate
from overtone.errors import OvertoneError
from overtone.layers.test_time_pooling import TestTimePooling
from overtone.published import Published
from overtone.tasks.classification import Classification
from overtone.verbs.inference import ready

TOLERANCE = 0.1
"""Percentage points by which a measured accuracy may differ from the published one."""


@dataclass(frozen=True)
class Protocol:
    """How one published accuracy was measured.

    Attributes:
        name: `centre crop`, `squashed` or `test-time pooling`.
        preprocess: from a picture to the input.
        top1, top5: the published figures, percent; None where none is published.
        pooled: whether the classifier looks at every window of the last map.
    """

    name: str
    preprocess: Preprocess
    top1: float | None
    top5: float | None
    pooled: bool = False


@dataclass(frozen=True)
class Measurement:
    """One line of the results: a published row measured by one protocol.

    Attributes:
        model, protocol: the row's full name and the protocol's.
        resolution, resize, crop_fraction, interpolation: the preprocessing.
        weights: SHA-256 of the weights' file; `data` stands for the images and their labels.
        images, unreadable: how many were measured, and how many could not be read.
        correct_top1, correct_top5: how many were right.
        top1, top5, published_top1, published_top5: percent.
        verdict: what the comparison says.
        seconds: of the measurement.
    """

    model: str
    protocol: str
    resolution: int
    resize: str
    crop_fraction: float
    interpolation: str
    weights: str
    data: str
    images: int
    unreadable: int
    correct_top1: int
    correct_top5: int
    top1: float
    top5: float
    published_top1: float | None
    published_top5: float | None
    verdict: str
    seconds: float

    @property
    def key(self) -> tuple[str, str, str, str]:
        """What the measurement depends on: it need not be done again for the same."""
        return self.model, self.protocol, self.weights, self.data


def protocols_of(row: Published) -> tuple[Protocol, ...]:
    """The protocols by which a row's accuracies were measured, its own resolution first."""
    preprocess = Preprocess(
        size=row.resolution,
        resize="squash" if row.resize == "squash" else "shorter",
        crop_fraction=row.crop_fraction,
        interpolation=_filter(row.interpolation),
    )
    name = "squashed" if preprocess.resize == "squash" else "centre crop"
    own = Protocol(name, preprocess, row.top1, row.top5)
    larger = row.test_time_pooling
    if larger is None:
        return (own,)
    enlarged = dataclasses.replace(preprocess, size=larger.resolution, crop_fraction=larger.crop_fraction)
    return own, Protocol("test-time pooling", enlarged, larger.top1, larger.top5, pooled=True)


def measure(
    row: Published,
    protocol: Protocol,
    loaded: zoo.LoadedModel,
    images: ImageList,
    hardware: options.Hardware,
    weights: str,
    progress: Callable[[int], None] | None = None,
) -> tuple[Measurement, tuple[str, ...]]:
    """Evaluate the weights of a row by one of its protocols.

    Args:
        row: the published row; `loaded` are its weights, with 1000 outputs.
        protocol: how to measure.
        images: of ImageNet's validation, with its 1000 classes.
        hardware: where.
        weights: SHA-256 of the weights' file.
        progress: is told how many images are done.

    Returns:
        The measurement, and the paths of the images that could not be read.
    """
    model: nn.Module = TestTimePooling(loaded.model) if protocol.pooled else loaded.model
    loaded = dataclasses.replace(loaded, model=model, preprocess=protocol.preprocess)
    settings = options.Device(**{field.name: getattr(hardware, field.name) for field in dataclasses.fields(hardware)})
    inference = ready(loaded, settings)
    started = time.perf_counter()
    report = evaluate(
        Classification(images.classes), inference.model, inference.loader(images), inference.placement, progress
    )
    top1, top5 = round(report.top1, 3), round(report.top5, 3)
    measurement = Measurement(
        model=row.full_name,
        protocol=protocol.name,
        resolution=protocol.preprocess.size,
        resize=protocol.preprocess.resize,
        crop_fraction=protocol.preprocess.crop_fraction,
        interpolation=protocol.preprocess.interpolation,
        weights=weights,
        data=fingerprint(images),
        images=report.num_used,
        unreadable=len(report.bad),
        correct_top1=report.correct_top1,
        correct_top5=report.correct_top5,
        top1=top1,
        top5=top5,
        published_top1=protocol.top1,
        published_top5=protocol.top5,
        verdict=judge(protocol, report.num_used, top1, top5),
        seconds=round(time.perf_counter() - started, 1),
    )
    return measurement, report.bad


def judge(protocol: Protocol, num_images: int, top1: float, top5: float) -> str:
    """What a measured accuracy says about the published one, in words.

    Only all 50,000 images of the validation set can reproduce a published accuracy or contradict it.
    """
    pairs = [(ours, published) for ours, published in ((top1, protocol.top1), (top5, protocol.top5)) if published]
    if not pairs:
        return "not published"
    if num_images != NUM_VALIDATION:
        return f"not comparable: {num_images} images, not {NUM_VALIDATION}"
    worst = max((ours - published for ours, published in pairs), key=abs)
    # A figure of two decimals may lie exactly on the border; binary fractions must not decide.
    return "reproduced" if round(abs(worst), 6) <= TOLERANCE else f"differs by {worst:+.2f}"


def fingerprint(images: ImageList) -> str:
    """16 hex digits that stand for a list of images: their file names and classes, in order."""
    digest = hashlib.sha256()
    for path, target in zip(images.paths, images.targets, strict=True):
        digest.update(f"{path.name}\t{target}\n".encode(errors="surrogateescape"))
    return digest.hexdigest()[:16]


def check_outputs(loaded: zoo.LoadedModel, row: Published) -> None:
    """Make sure that the outputs are the 1000 classes of ImageNet-1K.

    Raises:
        OvertoneError: they are not.
    """
    outputs = int(getattr(loaded.model, "num_classes", 0))
    if outputs != NUM_CLASSES:
        raise OvertoneError(
            f"{loaded.source} has {outputs} outputs where {row.full_name} is measured on ImageNet's {NUM_CLASSES} "
            "classes; give the published file"
        )


def read_results(path: Path) -> list[Measurement]:
    """The measurements in a CSV file; an unfinished last line is left out.

    Raises:
        OvertoneError: the file is not such a table.
    """
    if not path.exists():
        return []
    names = [field.name for field in dataclasses.fields(Measurement)]
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if not rows or rows[0] != names:
        raise OvertoneError(f"{path} is not a table of overtone reproduce; choose another folder with --out")
    return [_from_cells(dict(zip(names, row, strict=True))) for row in rows[1:] if len(row) == len(names)]


def write_results(path: Path, measurements: list[Measurement]) -> None:
    """Write the CSV file whole or not at all."""
    names = [field.name for field in dataclasses.fields(Measurement)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for measurement in measurements:
        values = (getattr(measurement, name) for name in names)
        writer.writerow(["" if value is None else value for value in values])
    write_text(path, text.getvalue())


def _from_cells(cells: dict[str, str]) -> Measurement:
    integers = {"resolution", "images", "unreadable", "correct_top1", "correct_top5"}
    numbers = {"crop_fraction", "top1", "top5", "published_top1", "published_top5", "seconds"}
    values: dict[str, object] = {}
    for name, cell in cells.items():
        if name in integers:
            values[name] = int(cell)
        elif name in numbers:
            values[name] = float(cell) if cell else None
        else:
            values[name] = cell
    return Measurement(**values)  # type: ignore[arg-type]  # by the names of its fields


def _filter(name: str) -> Interpolation:
    if name not in ("bilinear", "bicubic"):
        raise ValueError(f"no published row was measured with {name}")
    return name
