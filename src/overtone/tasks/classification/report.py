"""What an evaluation of a classifier counts and reports: top-1, top-5, per class, the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.data.imagenet import readable
from overtone.errors import OvertoneError
from overtone.tasks.classification.calibration import Calibration, calibration_of, counts_of
from overtone.tasks.task import Plot, Table

MOST_CLASSES_IN_CONFUSION = 2000
_FEWEST_CLASSES_FOR_TOP5 = 10
_MOST_CLASSES_SHOWN = 20
_MOST_CLASSES_IN_MATRIX = 16
_MOST_CONFUSIONS = 10
_MOST_CLASSES_PLOTTED = 100


@dataclass(frozen=True)
class ClassificationReport:
    """What a classifier got right on a list of images, as counts.

    Attributes:
        classes: names in the order of the outputs.
        num_expected: images asked for; `num_used`: those that could be read, which all figures are about.
        correct_top1, correct_top5: images whose class is the first, or among the first five, of the outputs.
        loss: mean cross entropy, without label smoothing or class weights.
        class_counts, class_correct: per class, its images and those whose top-1 is right.
        confusion: images by true class (row) and top-1 (column); empty above 2000 classes.
        bad: paths of the images that could not be read.
        calibration: how right the probabilities are; None in reports of release 0.1 and before.
    """

    score_name: ClassVar[str] = "top-1"
    columns: ClassVar[dict[str, tuple[str, int]]] = {"top1": ("top-1", 2), "top5": ("top-5", 2)}

    classes: tuple[str, ...]
    num_expected: int
    num_used: int
    correct_top1: int
    correct_top5: int
    loss: float
    class_counts: tuple[int, ...]
    class_correct: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    bad: tuple[str, ...] = ()
    calibration: Calibration | None = None

    @property
    def top1(self) -> float:
        """Top-1 accuracy, percent."""
        return 100 * self.correct_top1 / max(self.num_used, 1)

    @property
    def top5(self) -> float:
        """Top-5 accuracy, percent."""
        return 100 * self.correct_top5 / max(self.num_used, 1)

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Top-1 accuracy of each class, percent; None for a class without images."""
        return tuple(
            100 * correct / count if count else None
            for correct, count in zip(self.class_correct, self.class_counts, strict=True)
        )

    @property
    def score(self) -> float:
        """What decides which epoch is best: top-1."""
        return self.top1

    def figures(self) -> dict[str, float]:
        """The numbers for the log of a training; top-5 says nothing of fewer than ten classes."""
        figures = {"val_loss": self.loss, "top1": self.top1}
        return figures | ({"top5": self.top5} if len(self.classes) >= _FEWEST_CLASSES_FOR_TOP5 else {})

    def tables(self, *, full: bool = False) -> list[Table]:
        """All figures, the classes (the worst of many), and the confusion matrix or the most frequent mistakes."""
        cells = [
            ("images used", f"{self.num_used} of {self.num_expected}"),
            ("top-1", f"{self.top1:.2f} %"),
            ("correct", self.correct_top1),
        ]
        if len(self.classes) >= _FEWEST_CLASSES_FOR_TOP5:
            cells += [("top-5", f"{self.top5:.2f} %"), ("correct", self.correct_top5)]
        cells.append(("loss", f"{self.loss:.4f}"))
        if self.calibration is not None:
            cells.append(("calibration error", f"{self.calibration.error:.2f} %"))
        main = Table("", tuple(name for name, _ in cells), (tuple(value for _, value in cells),))
        return [main, self._class_table(full), *self._confusion_tables()]

    def plots(self) -> list[Plot]:
        """The confusion matrix, where it can be looked at, and the reliability of the probabilities."""
        reliability = [] if self.calibration is None else [self.calibration.plot()]
        if not self.confusion or len(self.classes) > _MOST_CLASSES_PLOTTED:
            return reliability
        title = f"top-1 {self.top1:.2f} % of {self.num_used} images"
        labels = tuple(map(readable, self.classes))
        return [
            Plot("confusion", "matrix", title, labels, self.confusion, axes=("predicted class", "true class")),
            *reliability,
        ]

    def _class_table(self, full: bool) -> Table:
        rows = list(zip(self.classes, self.class_counts, self.class_correct, self.per_class, strict=True))
        title = ""
        if len(rows) > _MOST_CLASSES_SHOWN and not full:
            worst = sorted((share, at) for at, share in enumerate(self.per_class) if share is not None)
            rows = [rows[at] for _, at in worst[:_MOST_CLASSES_SHOWN]]
            title = f"the {len(rows)} worst of {len(self.classes)} classes"
        cells = (
            (readable(name), count, correct, None if share is None else f"{share:.2f} %")
            for name, count, correct, share in rows
        )
        return Table(title, ("class", "images", "correct", "top-1"), tuple(cells))

    def _confusion_tables(self) -> list[Table]:
        if not self.confusion:
            return []
        names = [readable(name) for name in self.classes]
        if len(names) <= _MOST_CLASSES_IN_MATRIX:
            title = "confusion matrix: rows are the true classes, columns the predicted ones"
            rows = tuple((name, *row) for name, row in zip(names, self.confusion, strict=True))
            return [Table(title, ("", *names), rows)]
        mistakes = [
            (count, names[true], names[predicted])
            for true, row in enumerate(self.confusion)
            for predicted, count in enumerate(row)
            if count and true != predicted
        ]
        mistakes.sort(key=lambda mistake: (-mistake[0], mistake[1:]))
        rows = tuple((true, predicted, count) for count, true, predicted in mistakes[:_MOST_CONFUSIONS])
        return [Table("most frequent mistakes", ("true class", "predicted", "images"), rows, num_text=2)]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values, with the percentages."""
        return {
            "num_expected": self.num_expected,
            "num_used": self.num_used,
            "top1": self.top1,
            "top5": self.top5,
            "correct_top1": self.correct_top1,
            "correct_top5": self.correct_top5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "classes": list(self.classes),
            "class_counts": list(self.class_counts),
            "class_correct": list(self.class_correct),
            "per_class": list(self.per_class),
            "confusion": [list(row) for row in self.confusion],
            "bad": list(self.bad),
            "calibration": None if self.calibration is None else self.calibration.to_dict(),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClassificationReport":
        """The report that `to_dict` gave."""
        return cls(
            classes=tuple(values["classes"]),
            num_expected=values["num_expected"],
            num_used=values["num_used"],
            correct_top1=values["correct_top1"],
            correct_top5=values["correct_top5"],
            loss=math.nan if values["loss"] is None else values["loss"],
            class_counts=tuple(values["class_counts"]),
            class_correct=tuple(values["class_correct"]),
            confusion=tuple(tuple(row) for row in values["confusion"]),
            bad=tuple(values["bad"]),
            calibration=Calibration.from_dict(values["calibration"]) if values.get("calibration") else None,
        )


class ClassificationTally:
    """Counts of an evaluation, kept on the device until the report."""

    def __init__(self, classes: Sequence[str], temperature: float = 1.0) -> None:
        self.classes, self.temperature = tuple(classes), temperature
        self._targets: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._in_top5: list[Tensor] = []
        self._calibration: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> None:
        """Count a batch: outputs (B, K), targets (B,)."""
        check_outputs(outputs, self.classes)
        best = outputs.topk(min(5, len(self.classes)), dim=1).indices  # (B, 5)
        self._targets.append(targets)
        self._predicted.append(best[:, 0])
        self._in_top5.append((best == targets[:, None]).any(dim=1).sum())
        self._losses.append(F.cross_entropy(outputs, targets, reduction="sum"))
        self._calibration.append(counts_of(outputs, targets, self.temperature))

    def counted(self) -> tuple[list[Tensor], ...]:
        """What was counted so far, on the CPU."""
        return tuple(
            [tensor.cpu() for tensor in tensors]
            for tensors in (self._targets, self._predicted, self._losses, self._in_top5, self._calibration)
        )

    def joined(self, parts: Sequence[tuple[list[Tensor], ...]]) -> Self:
        """Add what other tallies have `counted`, in their order; gives this one back."""
        for targets, predicted, losses, in_top5, calibration in parts:
            self._targets += targets
            self._predicted += predicted
            self._losses += losses
            self._in_top5 += in_top5
            self._calibration += calibration
        return self

    def report(self, bad: Sequence[str] = ()) -> ClassificationReport:
        """The figures so far; `bad` names the images that could not be read."""
        num_classes = len(self.classes)
        targets, predicted = torch.cat(self._targets).cpu(), torch.cat(self._predicted).cpu()
        counts = torch.bincount(targets, minlength=num_classes)
        correct = torch.bincount(targets[predicted == targets], minlength=num_classes)
        confusion: list[list[int]] = []
        if num_classes <= MOST_CLASSES_IN_CONFUSION:
            pairs = torch.bincount(targets * num_classes + predicted, minlength=num_classes**2)
            confusion = pairs.view(num_classes, num_classes).tolist()
        return ClassificationReport(
            classes=self.classes,
            num_expected=len(targets) + len(bad),
            num_used=len(targets),
            correct_top1=int(correct.sum()),
            correct_top5=int(torch.stack(self._in_top5).sum()),
            loss=float(torch.stack(self._losses).cpu().double().sum()) / len(targets),
            class_counts=tuple(counts.tolist()),
            class_correct=tuple(correct.tolist()),
            confusion=tuple(tuple(row) for row in confusion),
            bad=tuple(bad),
            calibration=calibration_of(torch.stack(self._calibration).cpu().double().sum(0)),
        )


def check_outputs(outputs: Tensor, labels: Sequence[str]) -> None:
    """Make sure that a network gives one number for each label.

    Raises:
        OvertoneError: it gives another shape.
    """
    if outputs.ndim != 2 or outputs.shape[1] != len(labels):
        raise OvertoneError(
            f"the network's output has shape {tuple(outputs.shape)} for {len(labels)} labels; "
            f"it must be (images, {len(labels)}): choose a network with a classifier of that many outputs"
        )
