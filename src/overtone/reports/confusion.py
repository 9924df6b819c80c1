"""The confusion matrix of a run with the images behind its cells, where an evaluation has written them down.

A training keeps counts. `overtone evaluate RUN … --out RUN/evaluation` adds `images.jsonl`, a line for each image.
"""

import functools
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePath
from typing import Any

from torch import Tensor

from overtone.data.opening import resolved_once
from overtone.data.pipeline import Batch
from overtone.data.sources import Source
from overtone.engine import folder as files
from overtone.plain_json import parse_json
from overtone.reports.run_folders import read_record

IMAGES = "images.jsonl"
_MOST_CLASSES = 50  # that a matrix on a screen has
_MOST_LINES = 200_000
_MOST_SAMPLES = 5000  # that are listed


@dataclass(frozen=True)
class Judged:
    """One labelled image and what the network took it for.

    Attributes:
        name: of the image, in its data.
        target, predicted: names of the true and of the most probable class.
        probability: of that, 0 to 1.
        path: the file; None where there is none, as in shards.
    """

    name: str
    target: str
    predicted: str
    probability: float
    path: str | None = None


@dataclass(frozen=True)
class Confusion:
    """Counts by true class (row) and predicted class (column), and the images where they are known.

    Of many classes it has those with the most mistakes alone; `num_classes` is how many there are.
    """

    classes: tuple[str, ...]
    counts: tuple[tuple[int, ...], ...]
    num_classes: int
    samples: tuple[Judged, ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, without paths; the mistakes come first, the most confident one at their head."""
        order = sorted(
            range(len(self.samples)),
            key=lambda at: (self.samples[at].target == self.samples[at].predicted, -self.samples[at].probability),
        )
        keys = ("name", "target", "predicted", "probability")
        samples = [
            {"index": at, "has_file": one.path is not None} | {key: getattr(one, key) for key in keys}
            for at in order[:_MOST_SAMPLES]
            for one in (self.samples[at],)
        ]
        return {
            "classes": list(self.classes),
            "counts": [list(row) for row in self.counts],
            "num_classes": self.num_classes,
            "samples": samples,
        }


def answered(batch: Batch, outputs: Tensor) -> Iterator[tuple[int, int, int, float]]:
    """Position, class, most probable class and its probability of each image of a classification's batch.

    Args:
        batch: with classes (B,) as targets.
        outputs: logits (B, K).
    """
    best = outputs.float().softmax(dim=1).max(dim=1)
    columns = batch.ids, batch.targets, best.indices, best.values
    return zip(*(column.tolist() for column in columns), strict=True)


def add_judged(found: list[Judged], source: Source, batch: Batch, outputs: Tensor) -> None:
    """Add the images of a batch of a classification; outputs are logits (B, K)."""
    for position, target, predicted, probability in answered(batch, outputs):
        name = source.name(position)
        path = str(resolved_once(Path(name))) if Path(name).is_file() else None
        found.append(Judged(_end(name), source.labels[target], source.labels[predicted], probability, path))


def write_images(path: Path, judged: Iterable[Judged]) -> None:
    """Write a line for each image."""
    path.write_text("".join(json.dumps(vars(one)) + "\n" for one in judged), encoding="utf-8")


def _end(name: str) -> str:
    """The last two parts of a path: what leaves the machine of it."""
    return "/".join(PurePath(name).parts[-2:])


def confusion_of(folder: Path) -> Confusion | None:
    """Return the confusion matrix of a run; None where it has none.

    That of the newest evaluation below the run's folder with images, else that of the run's own report.
    """
    found = [path for pattern in (IMAGES, f"*/{IMAGES}") for path in folder.glob(pattern)]
    for path in sorted(found, key=lambda path: path.stat().st_mtime, reverse=True):
        status = path.stat()
        confusion = _from_images(path, (status.st_mtime_ns, status.st_size))
        if confusion is not None:
            return confusion
    report, _ = read_record(folder / files.REPORT)
    classes, counts = report.get("classes"), report.get("confusion")
    try:
        return _of_worst_classes(classes, counts) if classes and counts else None
    except (TypeError, IndexError):
        return None  # damaged, or of another version


@functools.lru_cache(maxsize=4)  # asked for again with every image that is shown
def _from_images(path: Path, stamp: tuple[int, int]) -> Confusion | None:
    try:
        with path.open(encoding="utf-8") as file:
            samples = tuple(_judged(parse_json(line)) for line, _ in zip(file, range(_MOST_LINES), strict=False))
    except (OSError, ValueError, KeyError, TypeError):
        return None
    classes = tuple(sorted({name for one in samples for name in (one.target, one.predicted)}))
    at = {name: index for index, name in enumerate(classes)}
    counts = [[0] * len(classes) for _ in classes]
    for one in samples:
        counts[at[one.target]][at[one.predicted]] += 1
    return _of_worst_classes(classes, counts, samples) if samples else None


def _of_worst_classes(
    classes: Sequence[str], counts: Sequence[Sequence[int]], samples: tuple[Judged, ...] = ()
) -> Confusion:
    """Keep the classes that take part in the most mistakes, in their order."""
    mistakes = [sum(counts[at]) + sum(row[at] for row in counts) - 2 * counts[at][at] for at in range(len(classes))]
    worst = sorted(sorted(range(len(classes)), key=lambda at: -mistakes[at])[:_MOST_CLASSES])
    kept = tuple(tuple(counts[row][column] for column in worst) for row in worst)
    return Confusion(tuple(classes[at] for at in worst), kept, len(classes), samples)


def _judged(values: Mapping[str, Any]) -> Judged:
    path = values.get("path")
    name, target, predicted = (str(values[key]) for key in ("name", "target", "predicted"))
    return Judged(_end(name), target, predicted, float(values["probability"]), None if path is None else str(path))
