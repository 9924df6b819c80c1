"""What an evaluation of a segmentation counts and reports: IoU and accuracy of every class, from integer counts."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.data.masks import IGNORED
from overtone.errors import OvertoneError
from overtone.tasks.task import Plot, Table

_MOST_CLASSES_SHOWN = 20
_MOST_CLASSES_IN_MATRIX = 16
_MOST_CLASSES_PLOTTED = 100
_WORST, _WORST_SHOWN = 20, 5

Borders = tuple[tuple[int, int, int, int], ...]
Counted = tuple[Tensor, Tensor, list[float], list[tuple[str, float]], int]


@dataclass(frozen=True)
class SegmentationReport:
    """How well the pixels of a list of images are classified, over all of them together, at the images' own sizes.

    Attributes:
        labels: names of the classes.
        num_expected: images asked for; `num_used`: those that could be read, which all figures are about.
        loss: mean cross entropy of the labelled pixels.
        confusion: pixels by true class (row) and predicted class (column); those without a class are left out.
        borders: per class, predicted border pixels near a true border, predicted ones, true border pixels near a
            predicted border, true ones; empty where they were not asked for.
        bad: names of the images that could not be read.
        worst: the images with the smallest share of right pixels: name, percent right.
    """

    score_name: ClassVar[str] = "mIoU"
    columns: ClassVar[dict[str, tuple[str, int]]] = {
        "miou": ("mIoU", 2),
        "mean_accuracy": ("mAcc", 2),
        "pixel_accuracy": ("aAcc", 2),
    }

    labels: tuple[str, ...]
    num_expected: int
    num_used: int
    loss: float
    confusion: tuple[tuple[int, ...], ...]
    borders: Borders = ()
    bad: tuple[str, ...] = ()
    worst: tuple[tuple[str, float], ...] = ()

    @property
    def iou(self) -> tuple[float | None, ...]:
        """Per class, percent of its true or predicted pixels that are both; None for a class that is neither."""
        predicted = [sum(column) for column in zip(*self.confusion, strict=True)]
        unions = (sum(row) + predicted[k] - row[k] for k, row in enumerate(self.confusion))
        return tuple(_percent(row[k], union) for (k, row), union in zip(enumerate(self.confusion), unions, strict=True))

    @property
    def accuracy(self) -> tuple[float | None, ...]:
        """Per class, percent of its pixels that are predicted so; None for a class without pixels."""
        return tuple(_percent(row[k], sum(row)) for k, row in enumerate(self.confusion))

    @property
    def mean_iou(self) -> float:
        """Mean IoU of the classes that occur, percent."""
        return _mean(self.iou)

    @property
    def mean_accuracy(self) -> float:
        """Mean accuracy of the classes that have pixels, percent."""
        return _mean(self.accuracy)

    @property
    def pixel_accuracy(self) -> float:
        """Percent of the labelled pixels that are right."""
        right = sum(row[k] for k, row in enumerate(self.confusion))
        return _percent(right, sum(map(sum, self.confusion))) or 0.0

    @property
    def boundary_f(self) -> tuple[float | None, ...]:
        """Per class, F-score of its borders, percent; None for a class without any, all over or unasked."""
        return tuple(_f_score(*counts) for counts in self.borders) or (None,) * len(self.labels)

    @property
    def score(self) -> float:
        """What decides which epoch is best: mean IoU."""
        return self.mean_iou

    def figures(self) -> dict[str, float]:
        """The numbers for the log of a training."""
        figures = {"val_loss": self.loss, "miou": self.mean_iou, "mean_accuracy": self.mean_accuracy}
        figures["pixel_accuracy"] = self.pixel_accuracy
        return figures | ({"boundary_f": _mean(self.boundary_f)} if self.borders else {})

    def tables(self, *, full: bool = False) -> list[Table]:
        """All figures, the classes (the worst of many), the confusion matrix where it is small, the worst images."""
        cells = [("images used", f"{self.num_used} of {self.num_expected}"), ("mIoU", f"{self.mean_iou:.2f} %")]
        cells += [("mAcc", f"{self.mean_accuracy:.2f} %"), ("aAcc", f"{self.pixel_accuracy:.2f} %")]
        if self.borders:
            cells.append(("boundary F", f"{_mean(self.boundary_f):.2f} %"))
        cells.append(("loss", f"{self.loss:.4f}"))
        main = Table("", tuple(name for name, _ in cells), (tuple(value for _, value in cells),))
        tables = [main, self._class_table(full)]
        if len(self.labels) <= _MOST_CLASSES_IN_MATRIX:
            title = "confusion matrix, percent of the true class: rows are the true classes, columns the predicted ones"
            rows = tuple((name, *shares) for name, shares in zip(self.labels, self._shares(), strict=True))
            tables.append(Table(title, ("", *self.labels), rows))
        if self.worst:
            worst = self.worst if full else self.worst[:_WORST_SHOWN]
            tables.append(
                Table("worst images", ("image", "aAcc"), tuple((name, _shown(right)) for name, right in worst))
            )
        return tables

    def plots(self) -> list[Plot]:
        """The confusion matrix in percent, and the IoU of every class."""
        if len(self.labels) > _MOST_CLASSES_PLOTTED:
            return []
        title = f"mIoU {self.mean_iou:.2f} % of {self.num_used} images"
        shares = tuple(tuple(float(share) for share in row) for row in self._shares())
        bars = (tuple(value or 0.0 for value in self.iou),)
        return [
            Plot("confusion", "matrix", title, self.labels, shares, axes=("predicted class", "true class")),
            Plot("iou", "bars", title, self.labels, bars, axes=("IoU (%)", "")),
        ]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "num_expected": self.num_expected,
            "num_used": self.num_used,
            "miou": self.mean_iou,
            "mean_accuracy": self.mean_accuracy,
            "pixel_accuracy": self.pixel_accuracy,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "labels": list(self.labels),
            "iou": list(self.iou),
            "accuracy": list(self.accuracy),
            "boundary_f": list(self.boundary_f),
            "confusion": [list(row) for row in self.confusion],
            "borders": [list(counts) for counts in self.borders],
            "bad": list(self.bad),
            "worst": [list(image) for image in self.worst],
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_dict` gave."""
        return cls(
            labels=tuple(values["labels"]),
            num_expected=values["num_expected"],
            num_used=values["num_used"],
            loss=math.nan if values["loss"] is None else values["loss"],
            confusion=tuple(tuple(row) for row in values["confusion"]),
            borders=tuple((c[0], c[1], c[2], c[3]) for c in values["borders"]),
            bad=tuple(values["bad"]),
            worst=tuple((name, right) for name, right in values.get("worst", ())),
        )

    def _class_table(self, full: bool) -> Table:
        pixels = [sum(row) for row in self.confusion]
        every = max(sum(pixels), 1)
        rows = list(zip(self.labels, pixels, self.iou, self.accuracy, self.boundary_f, strict=True))
        title = ""
        if len(rows) > _MOST_CLASSES_SHOWN and not full:
            worst = sorted((value, at) for at, value in enumerate(self.iou) if value is not None)
            rows = [rows[at] for _, at in worst[:_MOST_CLASSES_SHOWN]]
            title = f"the {len(rows)} worst of {len(self.labels)} classes"
        columns = ("class", "share of pixels", "IoU", "accuracy", *(("boundary F",) if self.borders else ()))
        cells = (
            (name, f"{100 * count / every:.2f} %", *map(_shown, values[: len(columns) - 2]))
            for name, count, *values in rows
        )
        return Table(title, columns, tuple(cells))

    def _shares(self) -> list[tuple[str, ...]]:
        """The confusion matrix in percent of each row."""
        return [tuple(f"{100 * count / max(sum(row), 1):.1f}" for count in row) for row in self.confusion]


class SegmentationTally:
    """Counts of an evaluation.

    Args:
        labels: names of the classes.
        boundary: see `SegmentationSettings.boundary`.
    """

    def __init__(self, labels: Sequence[str], boundary: float = 0.0) -> None:
        self.labels, self.boundary = tuple(labels), boundary
        num_classes = len(self.labels)
        self._confusion = torch.zeros(num_classes, num_classes, dtype=torch.int64)
        self._borders = torch.zeros(num_classes, 4, dtype=torch.int64)
        self._losses: list[float] = []
        self._images: list[tuple[str, float]] = []
        self._num_images = 0

    def add(self, outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> None:
        """Count a batch: logits (B, K, H, W), masks (B, H, W) with `IGNORED` where there is no class."""
        check_maps(outputs, self.labels)
        if outputs.shape[-2:] != targets.shape[-2:]:
            raise ValueError(f"logits of {tuple(outputs.shape)} for masks of {tuple(targets.shape)}")
        num_classes, targets = len(self.labels), targets.long()
        predicted, labelled = outputs.argmax(1), targets != IGNORED
        pairs = targets[labelled] * num_classes + predicted[labelled]
        counts = torch.bincount(pairs, minlength=num_classes**2)
        self._confusion += counts.view(num_classes, num_classes).cpu()
        for one, truth in zip(outputs, targets, strict=True):
            loss = F.cross_entropy(one[None], truth[None], ignore_index=IGNORED, reduction="sum")
            self._losses.append(float(loss))
        for name, one, truth, counted in zip(names, predicted, targets, labelled, strict=False):
            right = _percent(int((one == truth)[counted].sum()), int(counted.sum()))
            self._images += [] if right is None else [(name, right)]
        if self.boundary:
            for one, truth in zip(predicted, targets, strict=True):
                self._borders += border_counts(one, truth, num_classes, self.boundary).cpu()
        self._num_images += len(targets)

    def counted(self) -> Counted:
        """What was counted so far."""
        return self._confusion, self._borders, self._losses, self._images, self._num_images

    def joined(self, parts: Sequence[Counted]) -> Self:
        """Add what other tallies have `counted`, in their order; gives this one back."""
        for confusion, borders, losses, images, num_images in parts:
            self._confusion += confusion
            self._borders += borders
            self._losses += losses
            self._images += images
            self._num_images += num_images
        return self

    def report(self, bad: Sequence[str] = ()) -> SegmentationReport:
        """The figures so far; `bad` names the images that could not be read."""
        pixels = int(self._confusion.sum())
        return SegmentationReport(
            labels=self.labels,
            num_expected=self._num_images + len(bad),
            num_used=self._num_images,
            loss=math.fsum(self._losses) / pixels if pixels else math.nan,
            confusion=tuple(map(tuple, self._confusion.tolist())),
            borders=tuple((c[0], c[1], c[2], c[3]) for c in self._borders.tolist()) if self.boundary else (),
            bad=tuple(bad),
            worst=tuple(sorted(self._images, key=lambda image: (image[1], image[0]))[:_WORST]),
        )


def check_maps(outputs: Tensor, labels: Sequence[str]) -> None:
    """Make sure that a network gives one map for each class.

    Raises:
        OvertoneError: it gives another shape.
    """
    if outputs.ndim != 4 or outputs.shape[1] != len(labels):
        raise OvertoneError(
            f"the network's output has shape {tuple(outputs.shape)} for {len(labels)} classes; it must be "
            f"(images, {len(labels)}, height, width): choose a network with a segmentation head, --model.head"
        )


def border_counts(predicted: Tensor, truth: Tensor, num_classes: int, tolerance: float) -> Tensor:
    """Border pixels of each class: predicted near a true one, predicted, true near a predicted one, true; (K, 4).

    A border pixel of a class has a neighbour to the right or below, or to the left or above, of another class. Near is
    within max(1, tolerance * diagonal) rows and columns. Pixels without a class have no border (Csurka et al. 2013,
    "What is a good evaluation measure for semantic segmentation?", with a square neighbourhood).

    Args:
        predicted: classes (H, W).
        truth: classes (H, W), `IGNORED` where there is none.
        num_classes: K.
        tolerance: share of the image's diagonal.
    """
    height, width = truth.shape
    reach = max(1, round(tolerance * math.hypot(height, width)))
    labelled = truth != IGNORED
    counts = torch.zeros(num_classes, 4, dtype=torch.int64, device=truth.device)
    for label in torch.unique(torch.cat([predicted[labelled], truth[labelled]])).tolist():
        ours, theirs = (_border(values == label) & labelled for values in (predicted, truth))
        near_theirs, near_ours = (_widened(border, reach) for border in (theirs, ours))
        numbers = ((ours & near_theirs).sum(), ours.sum(), (theirs & near_ours).sum(), theirs.sum())
        counts[label] = torch.stack(numbers)
    return counts


def _border(region: Tensor) -> Tensor:
    """The pixels of a region that have one of the four neighbours outside of it."""
    padded = F.pad(region[None].float(), (1, 1, 1, 1), mode="replicate")[0] > 0
    inside = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return region & ~inside


def _widened(border: Tensor, reach: int) -> Tensor:
    return F.max_pool2d(border[None].float(), 2 * reach + 1, stride=1, padding=reach)[0] > 0


def _f_score(near_ours: int, ours: int, near_theirs: int, theirs: int) -> float | None:
    if not ours and not theirs:
        return None
    precision, recall = near_ours / max(ours, 1), near_theirs / max(theirs, 1)
    return 200 * precision * recall / (precision + recall) if precision + recall else 0.0


def _percent(part: int, whole: int) -> float | None:
    return 100 * part / whole if whole else None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _shown(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} %"
