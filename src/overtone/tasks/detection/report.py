"""What an evaluation of a detector counts and reports: average precision and recall, confusions, the worst images."""

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, ClassVar, Self

import numpy as np

from overtone.data.sources import Objects
from overtone.errors import OvertoneError
from overtone.heads.roi_heads import Detections
from overtone.tasks.detection.coco_metrics import Found, Precisions, precisions
from overtone.tasks.detection.counted import Counted, packed, unpacked
from overtone.tasks.detection.matching import confusion_of, voc_average_precisions
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.detection.transforms import Truth
from overtone.tasks.detection.written import found_of
from overtone.tasks.task import Plot, Table

BACKGROUND = "background"
_MOST_LABELS_SHOWN, _MOST_CURVES, _WORST = 20, 12, 20
_RECALLS = tuple(number / 100 for number in range(101))


@dataclass(frozen=True)
class DetectionReport:
    """How well objects are found in a list of images.

    Attributes:
        labels: names in the order of the outputs.
        num_expected: images asked for; `num_used`: those that could be read, which all figures are about.
        score_name: display name of the figure that decides.
        boxes: COCO's figures of boxes.
        masks: those of masks; None for a network without mask heads.
        objects: number of objects of each class.
        voc: VOC's AP50 of boxes of each class, percent.
        confusion: rows are marked classes, columns found ones, the last of each is the background.
        worst: the images with the most faults: name, objects missed, detections that are wrong.
        threshold: score from which `confusion` and `worst` count a detection.
        bad: names of the images that could not be read.
    """

    columns: ClassVar[dict[str, tuple[str, int]]] = {
        "ap": ("AP", 2),
        "ap50": ("AP50", 2),
        "mask_ap": ("mask AP", 2),
        "mask_ap50": ("mask AP50", 2),
    }

    labels: tuple[str, ...]
    num_expected: int
    num_used: int
    score_name: str
    boxes: Precisions
    masks: Precisions | None
    objects: tuple[int, ...]
    voc: tuple[float | None, ...]
    confusion: tuple[tuple[int, ...], ...]
    worst: tuple[tuple[str, int, int], ...]
    threshold: float
    bad: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        """What decides which epoch is best: AP or AP50, of masks where there are any."""
        deciding = self.masks or self.boxes
        return (deciding.ap50 if self.score_name.endswith("50") else deciding.ap) or 0.0

    @property
    def loss(self) -> float:
        """None is counted."""
        return math.nan

    @property
    def voc_ap50(self) -> float:
        """Mean of the classes' AP50 as VOC counts it."""
        known = [value for value in self.voc if value is not None]
        return sum(known) / len(known) if known else 0.0

    def figures(self) -> dict[str, float]:
        """The numbers for the log of a training."""
        found = {"ap": self.boxes.ap or 0.0, "ap50": self.boxes.ap50 or 0.0, "voc_ap50": self.voc_ap50}
        if self.masks is not None:
            found |= {"mask_ap": self.masks.ap or 0.0, "mask_ap50": self.masks.ap50 or 0.0}
        return found

    def tables(self, *, full: bool = False) -> list[Table]:
        """All figures, the classes (the worst of many), the most frequent confusions, and the worst images."""
        used = f"{self.num_used} of {self.num_expected}"
        kinds = [("boxes", self.boxes), *([] if self.masks is None else [("masks", self.masks)])]
        rows = tuple((name, used, *_figures(found)) for name, found in kinds)
        columns = ("", "images used", "AP", "AP50", "AP75", "small", "medium", "large", "AR 1", "AR 10", "AR 100")
        tables = [Table("", columns, rows), self._classes(full)]
        mistakes = self._mistakes(full)
        if mistakes:
            title = f"most frequent mistakes at score {self.threshold:g}"
            tables.append(Table(title, ("marked", "found", "times"), tuple(mistakes), num_text=2))
        if self.worst:
            worst = self.worst if full else self.worst[:5]
            tables.append(Table("worst images", ("image", "missed", "wrong"), worst))
        return tables

    def _classes(self, full: bool) -> Table:
        deciding = self.masks or self.boxes
        rows = list(zip(self.labels, self.objects, deciding.classes, deciding.classes50, self.voc, strict=True))
        title = "" if self.masks is None else "masks (VOC's AP50: boxes)"
        if len(rows) > _MOST_LABELS_SHOWN and not full:
            rows = sorted((row for row in rows if row[2] is not None), key=lambda row: row[2] or 0.0)
            rows = rows[:_MOST_LABELS_SHOWN]
            title = f"the {len(rows)} worst of {len(self.labels)} classes"
        cells = tuple((name, count, *map(_percent, values)) for name, count, *values in rows)
        return Table(title, ("class", "objects", "AP", "AP50", "VOC's AP50"), cells)

    def _mistakes(self, full: bool) -> list[tuple[str, str, int]]:
        names = (*self.labels, BACKGROUND)
        size = range(len(names))
        pairs = [(self.confusion[row][column], row, column) for row in size for column in size if row != column]
        frequent = sorted((pair for pair in pairs if pair[0]), key=lambda pair: -pair[0])[: None if full else 5]
        return [(names[row], names[column], count) for count, row, column in frequent]

    def plots(self) -> list[Plot]:
        """Precision by recall of each class (the worst of many), and the confusions with the background."""
        order = sorted(range(len(self.labels)), key=lambda k: self.boxes.classes50[k] or 0.0)
        chosen = [k for k in order if self.boxes.curves[k]][:_MOST_CURVES]
        series = {self.labels[k]: (_RECALLS, self.boxes.curves[k]) for k in sorted(chosen)}
        title = f"AP50 {self.boxes.ap50 or 0.0:.2f} % of {self.num_used} images"
        curves = Plot("precision_recall", "curves", title, series=series, axes=("recall at IoU 0.5", "precision"))
        values = tuple(tuple(map(float, row)) for row in self.confusion)
        names = (*self.labels, BACKGROUND)
        title = f"detections of score {self.threshold:g} and above"
        return [curves, Plot("confusion", "matrix", title, names, values, axes=("found", "marked"))]

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        values |= {"boxes": dataclasses.asdict(self.boxes)}
        values |= {"masks": None if self.masks is None else dataclasses.asdict(self.masks)}
        return {**self.figures(), **{key: _plain(value) for key, value in values.items()}}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_dict` gave."""
        fields = {f.name: values[f.name] for f in dataclasses.fields(cls)}
        fields["boxes"] = Precisions.from_dict(values["boxes"])
        fields["masks"] = None if values["masks"] is None else Precisions.from_dict(values["masks"])
        return cls(**{key: _frozen(value) for key, value in fields.items()})


class DetectionTally:
    """Detections and objects of an evaluation, image by image.

    Args:
        labels: names in the order of the outputs.
        settings: the threshold, and which figure decides.
        masks: whether masks are measured too.
    """

    def __init__(self, labels: Sequence[str], settings: DetectionSettings, masks: bool) -> None:
        self.labels, self._settings, self._masks = tuple(labels), settings, masks
        self._images: list[tuple[str, Objects, Found]] = []

    def add(self, outputs: Sequence[Detections], targets: Sequence[Truth], names: Sequence[str] = ()) -> None:
        """Count a batch: what was found in each image, and what is marked."""
        for detections, truth in zip(outputs, targets, strict=True):
            if truth.objects is None:
                raise OvertoneError(f"{truth.name} has no annotations to compare with; give data with boxes")
            self._images.append((truth.name, truth.objects, found_of(detections)))

    def counted(self) -> Counted:
        """What was counted so far."""
        return packed(self._images)

    def joined(self, parts: Sequence[Counted]) -> Self:
        """Add what other tallies have `counted`, in their order; gives this one back."""
        for part in parts:
            self._images += unpacked(part)
        return self

    def report(self, bad: Sequence[str] = ()) -> DetectionReport:
        """The figures so far; `bad` names the images that could not be read."""
        names, truths, found = (list(values) for values in zip(*self._images, strict=True))
        count, settings = len(self.labels), self._settings
        confusions = [confusion_of(o, f, count, settings.threshold) for o, f in zip(truths, found, strict=True)]
        labels = np.concatenate([objects.labels[~objects.crowd] for objects in truths])
        score_name = "AP" if settings.score == "ap" else "AP50"
        return DetectionReport(
            labels=self.labels,
            num_expected=len(names) + len(bad),
            num_used=len(names),
            score_name=f"mask {score_name}" if self._masks else score_name,
            boxes=precisions(truths, found, count, masks=False),
            masks=precisions(truths, found, count, masks=True) if self._masks else None,
            objects=tuple(np.bincount(labels, minlength=count).tolist()),
            voc=voc_average_precisions(truths, found, count),
            confusion=tuple(tuple(row) for row in sum(confusions).tolist()),  # type: ignore[union-attr]
            worst=_worst(names, confusions),
            threshold=settings.threshold,
            bad=tuple(bad),
        )


def _worst(names: Sequence[str], confusions: Sequence[np.ndarray]) -> tuple[tuple[str, int, int], ...]:
    """The images with the most faults: name, objects that were missed or misnamed, detections that are wrong."""
    faults = []
    for name, counts in zip(names, confusions, strict=True):
        right = np.trace(counts[:-1, :-1])
        faults.append((name, int(counts[:-1].sum() - right), int(counts[:, :-1].sum() - right)))
    faults.sort(key=lambda fault: (-(fault[1] + fault[2]), fault[0]))
    return tuple(fault for fault in faults[:_WORST] if fault[1] + fault[2])


def _figures(found: Precisions) -> tuple[str | None, ...]:
    values = (found.ap, found.ap50, found.ap75, found.small, found.medium, found.large, *found.ar)
    return tuple(map(_percent, values))


def _percent(value: float | None) -> str | None:
    return None if value is None else f"{value:.2f} %"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _plain(item) for key, item in value.items()}
    return [_plain(item) for item in value] if isinstance(value, (list, tuple)) else value


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, (list, tuple)) else value
