"""AP and mIoU of the published detection and segmentation networks, measured by their authors' protocols."""

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone import zoo
from overtone.config import Data
from overtone.engine.evaluation import measure, model_and_source
from overtone.engine.inference import Computing, ready
from overtone.published import PublishedDense
from overtone.reproduction.accuracy import TOLERANCE

SEVERAL_SCALES = {"scales": (0.5, 0.75, 1.0, 1.25, 1.5, 1.75), "flip": True}
"""Settings of the published evaluation of a segmentation at several scales."""

Progress = Callable[[str, int], AbstractContextManager[Callable[[int], None]]]


@dataclass(frozen=True)
class DenseMeasurement:
    """One figure of one network.

    Attributes:
        model: full name of the row.
        figure: `box AP`, `mask AP`, `mIoU` or `mIoU, several scales`.
        images: that could be read; `unreadable`: the others.
        measured, published: percent.
    """

    model: str
    figure: str
    images: int
    unreadable: int
    measured: float
    published: float

    @property
    def verdict(self) -> str:
        """Whether they agree."""
        difference = self.measured - self.published
        return "agrees" if abs(difference) <= TOLERANCE else f"differs by {difference:+.2f}"


def dense_measurements(
    row: PublishedDense,
    root: Path,
    computing: Computing,
    weights_dir: tuple[Path, ...] = (),
    *,
    progress: Progress,
    warn: Callable[[str], object],
) -> Iterator[DenseMeasurement]:
    """Measure one network whose file is at hand.

    Args:
        row: what it is.
        root: COCO or ADE20K; its validation images are taken.
        computing: where.
        weights_dir: folders of weights.
        progress: opened with a name and the number of images.
        warn: called with a line for what goes wrong on the way.

    Raises:
        OvertoneError: the file does not fit, or the images are not there.
    """

    def load(**wish: Any) -> zoo.LoadedModel:
        return zoo.load_model(row.full_name, weights_dir=weights_dir, **wish)

    loaded, source = model_and_source(load, Data(root=root), "val", warn)
    protocols = [({}, "")] + ([(SEVERAL_SCALES, ", several scales")] if row.task == "segmentation" else [])
    for changes, name in protocols:
        inference = ready(loaded, tuple(source.labels), computing, changes)
        with progress(f"{row.full_name}{name}", len(source)) as done:
            report = measure(inference, source, done, warn=warn).report
        for figure, measured, published in _figures(row, report, name):
            yield DenseMeasurement(row.full_name, figure, report.num_used, len(report.bad), measured, published)


def _figures(row: PublishedDense, report: Any, name: str) -> list[tuple[str, float, float]]:
    if row.task == "segmentation":
        published = row.miou_multi_scale if name else row.miou
        return [] if published is None else [(f"mIoU{name}", report.score, published)]
    found = [("box AP", report.boxes.ap, row.box_ap)]
    if report.masks is not None:
        found.append(("mask AP", report.masks.ap, row.mask_ap))
    return [(figure, measured, published) for figure, measured, published in found if published is not None]
