"""What an evaluation of a multi-label network counts and reports: average precisions, F1, thresholds."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.tasks.classification.report import check_outputs
from overtone.tasks.task import Plot, Table

DEFAULT_THRESHOLD = 0.5
_MOST_LABELS_SHOWN = 20


@dataclass(frozen=True)
class MultilabelReport:
    """How well labels are ranked and decided on a list of images.

    Attributes:
        labels: names in the order of the outputs.
        num_expected: images asked for; `num_used`: those that could be read, which all figures are about.
        loss: mean binary cross entropy over images and labels.
        positives: per label, images that it holds of.
        average_precision: per label, percent; None for a label without positives.
        f1: per label, percent, at its threshold; None for a label that neither holds nor is predicted anywhere.
        micro_f1: F1 over all decisions together, percent.
        thresholds: per label, the probability from which it is predicted.
        bad: names of the images that could not be read.
    """

    score_name: ClassVar[str] = "mAP"
    columns: ClassVar[dict[str, tuple[str, int]]] = {"map": ("mAP", 2), "macro_f1": ("macro F1", 2)}

    labels: tuple[str, ...]
    num_expected: int
    num_used: int
    loss: float
    positives: tuple[int, ...]
    average_precision: tuple[float | None, ...]
    f1: tuple[float | None, ...]
    micro_f1: float
    thresholds: tuple[float, ...]
    bad: tuple[str, ...] = ()

    @property
    def mean_average_precision(self) -> float:
        """Mean of the labels' average precisions, percent; labels without positives are left out."""
        return _mean(self.average_precision)

    @property
    def macro_f1(self) -> float:
        """Mean of the labels' F1, percent."""
        return _mean(self.f1)

    @property
    def score(self) -> float:
        """What decides which epoch is best: mean average precision."""
        return self.mean_average_precision

    def figures(self) -> dict[str, float]:
        """The numbers for the log of a training."""
        return {"val_loss": self.loss, "map": self.score, "macro_f1": self.macro_f1, "micro_f1": self.micro_f1}

    def tables(self, *, full: bool = False) -> list[Table]:
        """All figures, and the labels (the worst of many)."""
        used = f"{self.num_used} of {self.num_expected}"
        columns = ("images used", "mAP", "macro F1", "micro F1", "loss")
        cells = (used, *(f"{value:.2f} %" for value in (self.score, self.macro_f1, self.micro_f1)), f"{self.loss:.4f}")
        rows = list(zip(self.labels, self.positives, self.average_precision, self.f1, self.thresholds, strict=True))
        title = ""
        if len(rows) > _MOST_LABELS_SHOWN and not full:
            scored = sorted((row for row in rows if row[2] is not None), key=lambda row: row[2] or 0.0)
            rows = scored[:_MOST_LABELS_SHOWN]
            title = f"the {len(rows)} worst of {len(self.labels)} labels"
        per_label = tuple((name, count, _percent(ap), _percent(f1), f"{t:.3f}") for name, count, ap, f1, t in rows)
        return [
            Table("", columns, (cells,)),
            Table(title, ("label", "images", "AP", "F1", "threshold"), per_label),
        ]

    def plots(self) -> list[Plot]:
        """Average precision of each label."""
        values = tuple((0.0 if ap is None else ap,) for ap in self.average_precision)
        title = f"mAP {self.score:.2f} % of {self.num_used} images"
        return [Plot("average_precision", "bars", title, self.labels, values, axes=("average precision (%)", ""))]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        return {
            "num_expected": self.num_expected,
            "num_used": self.num_used,
            "map": self.score,
            "macro_f1": self.macro_f1,
            "micro_f1": self.micro_f1,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "labels": list(self.labels),
            "positives": list(self.positives),
            "average_precision": list(self.average_precision),
            "f1": list(self.f1),
            "thresholds": list(self.thresholds),
            "bad": list(self.bad),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_dict` gave."""
        return cls(
            labels=tuple(values["labels"]),
            num_expected=values["num_expected"],
            num_used=values["num_used"],
            loss=math.nan if values["loss"] is None else values["loss"],
            positives=tuple(values["positives"]),
            average_precision=tuple(values["average_precision"]),
            f1=tuple(values["f1"]),
            micro_f1=values["micro_f1"],
            thresholds=tuple(values["thresholds"]),
            bad=tuple(values["bad"]),
        )


class MultilabelTally:
    """Probabilities and targets of an evaluation.

    Args:
        labels: names in the order of the outputs.
        thresholds: per label; None chooses those of the best F1 on what is counted.
    """

    def __init__(self, labels: Sequence[str], thresholds: Sequence[float] | None) -> None:
        self.labels, self.thresholds = tuple(labels), thresholds
        self._outputs: list[Tensor] = []
        self._targets: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> None:
        """Count a batch: logits (B, K), targets (B, K) of 0 and 1."""
        check_outputs(outputs, self.labels)
        self._outputs.append(outputs)
        self._targets.append(targets)

    def counted(self) -> tuple[list[Tensor], list[Tensor]]:
        """What was counted so far, on the CPU."""
        return [tensor.cpu() for tensor in self._outputs], [tensor.cpu() for tensor in self._targets]

    def joined(self, parts: Sequence[tuple[list[Tensor], list[Tensor]]]) -> Self:
        """Add what other tallies have `counted`, in their order; gives this one back."""
        for outputs, targets in parts:
            self._outputs += outputs
            self._targets += targets
        return self

    def report(self, bad: Sequence[str] = ()) -> MultilabelReport:
        """The figures so far; `bad` names the images that could not be read."""
        logits = torch.cat(self._outputs).cpu().double()
        truth = torch.cat(self._targets).cpu().numpy() > 0.5  # (N, K)
        scores = logits.sigmoid().numpy()
        loss = F.binary_cross_entropy_with_logits(logits, torch.from_numpy(truth).double()).item()
        columns = range(len(self.labels))
        thresholds = self.thresholds
        if thresholds is None:
            thresholds = [best_threshold(scores[:, k], truth[:, k]) for k in columns]
        predicted = scores >= np.asarray(thresholds)
        hits, made, wanted = (predicted & truth).sum(0), predicted.sum(0), truth.sum(0)
        return MultilabelReport(
            labels=self.labels,
            num_expected=len(truth) + len(bad),
            num_used=len(truth),
            loss=loss,
            positives=tuple(wanted.tolist()),
            average_precision=tuple(average_precision(scores[:, k], truth[:, k]) for k in columns),
            f1=tuple(_f1(int(hits[k]), int(made[k]), int(wanted[k])) for k in columns),
            micro_f1=_f1(int(hits.sum()), int(made.sum()), int(wanted.sum())) or 0.0,
            thresholds=tuple(float(threshold) for threshold in thresholds),
            bad=tuple(bad),
        )


def average_precision(scores: np.ndarray, truth: np.ndarray) -> float | None:
    """Area under the precision-recall steps in percent: sum over ranks of (R_n - R_(n-1)) P_n; equal scores are one.

    None without positives.
    """
    if not truth.any():
        return None
    hits, made = _ranked(scores, truth)[1:]
    recall_steps = np.diff(hits, prepend=0) / hits[-1]
    return float(100 * (recall_steps * hits / made).sum())


def best_threshold(scores: np.ndarray, truth: np.ndarray) -> float:
    """The score from which on predicting a label gives the best F1; 0.5 without positives.

    It lies half way to the next lower score, so that a small change of the scores changes no decision.
    """
    if not truth.any():
        return DEFAULT_THRESHOLD
    values, hits, made = _ranked(scores, truth)
    best = int(np.argmax(2 * hits / (made + hits[-1])))
    below = values[best + 1] if best + 1 < len(values) else 0.0
    return float((values[best] + below) / 2)


def _ranked(scores: np.ndarray, truth: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Distinct scores from the highest, and the positives and the images with at least each of them."""
    order = np.argsort(-scores, kind="stable")
    scores, truth = scores[order], truth[order]
    last = np.flatnonzero(np.diff(scores, append=-np.inf))
    return scores[last], np.cumsum(truth)[last], last + 1


def _f1(hits: int, made: int, wanted: int) -> float | None:
    """100 * 2 TP / (predicted + true); None where nothing is predicted and nothing true."""
    return 100 * 2 * hits / (made + wanted) if made + wanted else None


def _mean(values: Sequence[float | None]) -> float:
    known = [value for value in values if value is not None]
    return sum(known) / len(known) if known else 0.0


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} %"
