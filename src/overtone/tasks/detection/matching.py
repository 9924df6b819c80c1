"""Detections matched with marked objects at IoU 0.5: VOC's average precision, confusions, and the worst images."""

from collections.abc import Sequence

import numpy as np

from overtone.data.sources import Objects
from overtone.tasks.detection.coco_metrics import Found

IOU = 0.5


def ious(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes `(N, 4)` and `(M, 4)`: `(N, M)`."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(min=0).prod(2)
    areas = [(boxes[:, 2:] - boxes[:, :2]).clip(min=0).prod(1) for boxes in (first, second)]
    return shared / np.maximum(areas[0][:, None] + areas[1][None] - shared, 1e-12)


def voc_average_precisions(
    truths: Sequence[Objects], found: Sequence[Found], num_classes: int
) -> tuple[float | None, ...]:
    """AP50 of each class in percent as VOC counts it since 2010; None for a class without objects.

    Every detection, by descending score, goes to the object of its class in its image that it overlaps most; it is
    right where the IoU is at least 0.5 and the object was not taken. Difficult objects (and crowds) count neither way.
    The area under the curve is exact, after precision has been made to fall with recall.
    """
    return tuple(_voc_class(truths, found, label) for label in range(num_classes))


def _voc_class(truths: Sequence[Objects], found: Sequence[Found], label: int) -> float | None:
    scores, right, total = [], [], 0
    for objects, one in zip(truths, found, strict=True):
        own = objects.labels == label
        boxes, ignored = objects.boxes[own].astype(np.float64), (objects.difficult | objects.crowd)[own]
        total += int((~ignored).sum())
        chosen = one.labels == label
        if not chosen.any():
            continue
        hits = _voc_hits(one.boxes[chosen].astype(np.float64), one.scores[chosen], boxes, ignored)
        scores.append(one.scores[chosen][hits >= 0])
        right.append(hits[hits >= 0])
    if not total:
        return None
    if not scores:
        return 0.0
    order = np.argsort(-np.concatenate(scores), kind="stable")
    hits = np.cumsum(np.concatenate(right)[order])
    precision, recall = hits / np.arange(1, len(hits) + 1), hits / total
    precision = np.maximum.accumulate(precision[::-1])[::-1]
    return 100 * float((np.diff(recall, prepend=0.0) * precision).sum())


def _voc_hits(boxes: np.ndarray, scores: np.ndarray, truth: np.ndarray, ignored: np.ndarray) -> np.ndarray:
    """1 for each detection that is right, 0 for one that is wrong, -1 for one that does not count."""
    hits = np.zeros(len(boxes), dtype=np.int64)
    if not len(truth):
        return hits
    overlaps = ious(boxes, truth)
    best, taken = overlaps.argmax(1), np.zeros(len(truth), dtype=bool)
    for at in np.argsort(-scores, kind="stable"):
        if overlaps[at, best[at]] < IOU:
            continue
        if ignored[best[at]]:
            hits[at] = -1
        elif not taken[best[at]]:
            hits[at], taken[best[at]] = 1, True
    return hits


def confusion_of(objects: Objects, found: Found, num_classes: int, threshold: float) -> np.ndarray:
    """Counts of one image, int64 `(K + 1, K + 1)`: rows are marked classes, columns found ones, the last none.

    Detections of `threshold` and above are paired with objects of any class, the largest IoU first, from 0.5 on.
    Difficult objects and crowds are not missed, and what is found in them is not wrong.
    """
    counts = np.zeros((num_classes + 1, num_classes + 1), dtype=np.int64)
    chosen = found.scores >= threshold
    labels, ignored = found.labels[chosen], objects.difficult | objects.crowd
    partner = partners(objects, found.boxes[chosen], labels)
    counted = (partner >= 0) & ~ignored[partner] if len(objects) else np.zeros(len(labels), dtype=bool)
    np.add.at(counts, (objects.labels[partner[counted]], labels[counted]), 1)
    missed = ~ignored
    missed[partner[partner >= 0]] = False
    counts[num_classes, :-1] += np.bincount(labels[partner < 0], minlength=num_classes)
    counts[:-1, num_classes] += np.bincount(objects.labels[missed], minlength=num_classes)
    return counts


def partners(objects: Objects, boxes: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """The object of each detection, int64 `(N,)`, -1 for none: the largest IoU first, from 0.5 on, whatever the class.

    Each object has one detection at most, a crowd any number.
    """
    overlaps = ious(boxes.astype(np.float64), objects.boxes.astype(np.float64))
    partner, is_free = np.full(len(labels), -1, dtype=np.int64), np.ones(len(objects), dtype=bool)
    pairs = np.argwhere(overlaps >= IOU)
    same = labels[pairs[:, 0]] == objects.labels[pairs[:, 1]]
    for row, column in pairs[np.lexsort((~same, -overlaps[pairs[:, 0], pairs[:, 1]]))]:
        if partner[row] < 0 and is_free[column]:
            partner[row], is_free[column] = column, bool(objects.crowd[column])
    return partner
