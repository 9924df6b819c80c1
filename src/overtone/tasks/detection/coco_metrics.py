"""COCO's average precision and recall, by pycocotools or faster-coco-eval (extra `detect`), which agree.

Areas, ignored crowds and the 101 points of recall are COCO's; see cocodataset.org, "Detection evaluation".
"""

import contextlib
import functools
import importlib
import importlib.util
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from overtone.data.segments import run_lengths
from overtone.data.sources import Objects
from overtone.errors import OvertoneError

Engine = Literal["pycocotools", "faster_coco_eval"]
_ENGINES: tuple[Engine, ...] = ("pycocotools", "faster_coco_eval")
_LIMITS = (1, 10, 100)  # detections of an image that the recalls count
_NONE = -1.0  # what the evaluators give where there is nothing to find


@dataclass(frozen=True)
class Found:
    """The detections of one image, by descending score.

    Attributes:
        boxes: float32 `(N, 4)`: left, top, right, bottom, pixels of the original image.
        scores: float32 `(N,)`.
        labels: int64 `(N,)`.
        masks: COCO's run lengths of each; None without mask heads.
    """

    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray
    masks: tuple[Mapping[str, Any], ...] | None


@dataclass(frozen=True)
class Precisions:
    """Average precisions and recalls in percent; None where there is nothing to find.

    Attributes:
        ap: mean over classes and IoU 0.50, 0.55, …, 0.95.
        ap50: at IoU 0.50.
        ap75: at IoU 0.75.
        small: of objects below 32 x 32 pixels.
        medium: of those below 96 x 96.
        large: of the others.
        ar: recall with 1, 10 and 100 detections an image, mean over classes and IoU.
        ar_by_size: recall with 100 of small, medium and large objects.
        classes: AP of each class.
        classes50: AP50 of each class.
        curves: precision at recalls 0, 0.01, …, 1 at IoU 0.50 of each class, 0 to 1; empty for a class without objects.
    """

    ap: float | None
    ap50: float | None
    ap75: float | None
    small: float | None
    medium: float | None
    large: float | None
    ar: tuple[float | None, ...]
    ar_by_size: tuple[float | None, ...]
    classes: tuple[float | None, ...]
    classes50: tuple[float | None, ...]
    curves: tuple[tuple[float, ...], ...]

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Precisions":
        """From plain values."""
        return cls(**{key: _tuples(value) for key, value in values.items()})


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, (list, tuple)) else value


@functools.cache
def engine_name() -> Engine:
    """The first evaluator that is installed.

    Raises:
        OvertoneError: none is.
    """
    for name in _ENGINES:
        if importlib.util.find_spec(name) is not None:
            return name
    raise OvertoneError(
        "average precision of boxes needs pycocotools or faster-coco-eval, which are not installed: "
        "pip install 'overtone[detect]'"
    )


def precisions(
    truths: Sequence[Objects], found: Sequence[Found], num_classes: int, *, masks: bool, engine: Engine | None = None
) -> Precisions:
    """The figures of detections against what was marked, image by image.

    Args:
        truths: the objects of each image.
        found: its detections, in the same order.
        num_classes: classes.
        masks: compare masks rather than boxes; marked objects without an outline count with their box.
        engine: which evaluator; None: the first that is installed.
    """
    coco_type, eval_type = _engine(engine or engine_name())
    kind = "segm" if masks else "bbox"
    detections = [row for image, one in enumerate(found, 1) for row in _rows(one, image, masks)]
    with contextlib.redirect_stdout(io.StringIO()):
        truth = coco_type()
        truth.dataset = _dataset(truths, num_classes, masks)
        truth.createIndex()
        if not detections:
            return _nothing(truths, num_classes)
        evaluation = eval_type(truth, truth.loadRes(detections), kind)
        evaluation.params.maxDets = list(_LIMITS)
        evaluation.evaluate()
        evaluation.accumulate()
    shape = [len(evaluation.params.iouThrs), len(evaluation.params.recThrs), num_classes, 4, len(_LIMITS)]
    precision = np.asarray(evaluation.eval["precision"], dtype=np.float64).reshape(shape)
    recall = np.asarray(evaluation.eval["recall"], dtype=np.float64).reshape([shape[0], *shape[2:]])
    return _summary(precision, recall)


def _engine(name: Engine) -> tuple[Any, Any]:
    if name == "faster_coco_eval":
        module = importlib.import_module(name)
        return module.COCO, module.COCOeval_faster
    return importlib.import_module("pycocotools.coco").COCO, importlib.import_module("pycocotools.cocoeval").COCOeval


def _dataset(truths: Sequence[Objects], num_classes: int, masks: bool) -> dict[str, Any]:
    annotations, images = [], []
    for image, objects in enumerate(truths, 1):
        height, width = objects.size
        images.append({"id": image, "height": height, "width": width, "file_name": str(image)})
        outlines = objects.outlines or (b"",) * len(objects)
        for at, (left, top, right, bottom) in enumerate(objects.boxes.astype(np.float64).tolist()):
            note = {
                "id": len(annotations) + 1,
                "image_id": image,
                "category_id": int(objects.labels[at]) + 1,
                "bbox": [left, top, right - left, bottom - top],
                "area": float(objects.areas[at]),
                "iscrowd": int(objects.crowd[at]),
            }
            if masks:
                note["segmentation"] = _text(run_lengths(outlines[at], objects.boxes[at].tolist(), height, width))
            annotations.append(note)
    categories = [{"id": number, "name": str(number)} for number in range(1, num_classes + 1)]
    return {"info": {}, "images": images, "annotations": annotations, "categories": categories}


def _rows(found: Found, image: int, masks: bool) -> list[dict[str, Any]]:
    """The detections of an image as COCO's results; for masks without boxes, so that areas are those of the masks."""
    rows = []
    for at, (left, top, right, bottom) in enumerate(found.boxes.astype(np.float64).tolist()):
        row: dict[str, Any] = {"image_id": image, "category_id": int(found.labels[at]) + 1}
        row["score"] = float(found.scores[at])
        if masks:
            assert found.masks is not None
            row["segmentation"] = _text(found.masks[at])
        else:
            row["bbox"] = [left, top, right - left, bottom - top]
        rows.append(row)
    return rows


def _text(runs: Mapping[str, Any]) -> dict[str, Any]:
    counts = runs["counts"]
    return {"size": list(runs["size"]), "counts": counts.decode() if isinstance(counts, bytes) else counts}


def _summary(precision: np.ndarray, recall: np.ndarray) -> Precisions:
    """The figures from precision `(T, R, K, areas, limits)` and recall `(T, K, areas, limits)`."""
    by_class = precision[:, :, :, 0, -1]  # T, R, K
    curves = tuple(
        tuple(by_class[0, :, k].tolist()) if by_class[0, :, k].max() > _NONE else () for k in range(by_class.shape[2])
    )
    return Precisions(
        ap=_mean(by_class),
        ap50=_mean(by_class[0]),
        ap75=_mean(by_class[5]),
        small=_mean(precision[:, :, :, 1, -1]),
        medium=_mean(precision[:, :, :, 2, -1]),
        large=_mean(precision[:, :, :, 3, -1]),
        ar=tuple(_mean(recall[:, :, 0, limit]) for limit in range(len(_LIMITS))),
        ar_by_size=tuple(_mean(recall[:, :, area, -1]) for area in (1, 2, 3)),
        classes=tuple(_mean(by_class[:, :, k]) for k in range(by_class.shape[2])),
        classes50=tuple(_mean(by_class[0, :, k]) for k in range(by_class.shape[2])),
        curves=curves,
    )


def _mean(values: np.ndarray) -> float | None:
    """Mean of what there was something to find for, percent."""
    known = values[values > _NONE]
    return 100 * float(known.mean()) if known.size else None


def _nothing(truths: Sequence[Objects], num_classes: int) -> Precisions:
    """The figures where nothing was found at all."""
    labels = np.concatenate([objects.labels[~objects.crowd] for objects in truths]) if truths else np.zeros(0, np.int64)
    there = np.bincount(labels, minlength=num_classes) > 0
    zero = 0.0 if there.any() else None
    each = tuple(0.0 if is_there else None for is_there in there)
    curves = tuple((0.0,) * 101 if is_there else () for is_there in there)
    return Precisions(zero, zero, zero, None, None, None, (zero,) * 3, (None,) * 3, each, each, curves)
