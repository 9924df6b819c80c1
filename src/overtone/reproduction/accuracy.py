"""Accuracy of published weights, each measured by its authors' protocol and compared with the published figures."""

import dataclasses
import hashlib
from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from overtone import zoo
from overtone.config import Preprocess
from overtone.data.imagenet import NUM_CLASSES, NUM_VALIDATION
from overtone.data.sources import ImageList
from overtone.engine.evaluation import measure as evaluate
from overtone.engine.inference import Computing, ready
from overtone.errors import OvertoneError
from overtone.layers.test_time_pooling import TestTimePooling
from overtone.published import Published

TOLERANCE = 0.1
"""Percentage points by which a measured accuracy may differ from the published one."""


@dataclass(frozen=True)
class Protocol:
    """How one published accuracy was measured.

    Attributes:
        name: `centre crop`, `squashed` or `test-time pooling`.
        preprocess: from an image to the input.
        top1, top5: the published figures, percent; None where none is published.
        pooled: whether the classifier is applied to every window of the last map.
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
        images, unreadable: numbers of images measured, and of those that could not be read.
        correct_top1, correct_top5: numbers of images with the right class first, or among the first five.
        top1, top5, published_top1, published_top5: percent.
        verdict: result of the comparison.
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
        """What the measurement depends on: with an equal key it is not repeated."""
        return self.model, self.protocol, self.weights, self.data


def protocols_of(row: Published) -> tuple[Protocol, ...]:
    """Return the protocols by which a row's accuracies were measured, its own resolution first."""
    preprocess = Preprocess(
        size=row.resolution, resize=row.resize, crop_fraction=row.crop_fraction, interpolation=row.interpolation
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
    computing: Computing,
    weights: str,
    *,
    progress: Callable[[int], None] | None = None,
    warn: Callable[[str], object] = print,
) -> tuple[Measurement, tuple[str, ...]]:
    """Evaluate the weights of a row by one of its protocols.

    Args:
        row: the published row; `loaded` are its weights, with 1000 outputs.
        protocol: how to measure.
        images: ImageNet's validation images, with its 1000 classes.
        computing: where and with what.
        weights: SHA-256 of the weights' file.
        progress: called with the number of images done.
        warn: called with a line about anything unusual.

    Returns:
        The measurement, and the paths of the images that could not be read.
    """
    model: nn.Module = TestTimePooling(loaded.model) if protocol.pooled else loaded.model
    loaded = dataclasses.replace(loaded, model=model, preprocess=protocol.preprocess)
    found = evaluate(ready(loaded, tuple(images.labels), computing), images, progress, warn=warn)
    report = found.report
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
        seconds=round(found.seconds, 1),
    )
    return measurement, report.bad


def judge(protocol: Protocol, num_images: int, top1: float, top5: float) -> str:
    """Compare a measured accuracy with the published one, in words.

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
    """Return 16 hex digits of a digest of the images' file names and classes, in order."""
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
