"""How detectors are exported: letterboxed images of one size, detections in or after the graph, and what must agree.

An export and the network are given the same letterboxed images. Each detection of either with a score from 0.3 on must
be among the other's, with the same label and within these tolerances; the share that must be:

| precision | box, any side | score | share |
|---|---|---|---|
| float32 | 0.00025 of the input's side | 0.001 | all |
| bfloat16 | 0.02 | 0.05 | 95 % |
| int8, int8+bfloat16 | 0.03 | 0.15 | 85 % |

Where the network finds nothing from 0.3 on in any image, its ten surest detections of each count instead.
"""

import dataclasses
import inspect
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from overtone.config import Preprocess, from_dict, to_dict
from overtone.data.bounded_resize import FILTERS
from overtone.errors import OvertoneError
from overtone.heads.detector_graphs import Candidates, Suppressed
from overtone.heads.detectors import has_masks
from overtone.heads.light_detectors import LightDetector
from overtone.heads.mask_rcnn import MaskRcnn
from overtone.heads.region_graphs import Regions, detection_limits, has_regions
from overtone.heads.roi_heads import Detections, Size
from overtone.ranges import Checked, Fraction, Pixels, PositiveInt
from overtone.tasks.detection import standalone
from overtone.tasks.detection.coco_classes import category_ids
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.segmentation.transforms import fitted_size

_STRIDE = 32  # what sides are a multiple of, so that no detector pads further
_WIDEST = 1.5  # of the usual ratios of photographs; wider ones are resized to a smaller shorter side
_SURE, _SUREST = 0.3, 10
_FUNCTIONS = (
    standalone.resized,
    standalone.letterboxed,
    standalone.suppressed,
    standalone.in_original,
    standalone.pasted,
    standalone.coco_results,
    standalone.drawn,
)


class Tolerance(NamedTuple):
    """How far apart a detection may be: `box` as a share of the side; `share` of the detections must be within both."""

    box: float
    score: float
    share: float


_TOLERANCES = {"float32": Tolerance(2.5e-4, 1e-3, 1.0), "bfloat16": Tolerance(0.02, 0.05, 0.95)}
_WHOLE_NUMBERS = Tolerance(0.03, 0.15, 0.85)


@dataclass(frozen=True)
class Shipped(Checked, section="settings.form"):
    """What `model.json` keeps of an exported detector, beside its preprocessing."""

    size: tuple[Pixels, Pixels]
    """Height and width of the letterbox that images are put into, pixels."""
    shorter: Pixels
    """Shorter side that an image is resized to, or less where it would not fit."""
    suppressed: bool
    """Whether the graph returns the detections; otherwise candidates, of which the limits below choose."""
    score: Fraction
    """That a detection exceeds."""
    overlap: Fraction
    """IoU above which, of two detections of a class, only the surer one is kept."""
    most: PositiveInt
    """Detections of an image."""
    categories: tuple[PositiveInt, ...]
    """Ids of the classes in COCO's results."""
    settings: DetectionSettings
    """Of the training's recipe."""
    staged: bool = False
    """Whether suppression happens between stages, too, and so within the graph."""
    masks: bool = False
    """Whether the graph returns a mask for each detection."""

    def __post_init__(self) -> None:
        """Refuse a letterbox that a detector would pad."""
        super().__post_init__()
        for side in self.size:
            if side % _STRIDE:
                raise OvertoneError(f"size is {side}; detectors are exported for multiples of {_STRIDE}: choose one")


class DetectionForm:
    """The exported form of detectors; see `tasks.export_forms.GraphForm`.

    Args:
        shipped: what `model.json` keeps.
        preprocess: mean, deviation and filter; its size is the longer side.
        is_open: whether nobody has chosen a size.
    """

    def __init__(self, shipped: Shipped, preprocess: Preprocess, *, is_open: bool = False) -> None:
        self.shipped, self.preprocess = shipped, dataclasses.replace(preprocess, size=max(shipped.size))
        self.size, self._is_open = shipped.size, is_open
        self.num_classes = len(shipped.categories)
        self.outputs = ("boxes", "scores", "labels", *(("masks",) if shipped.masks else ()))

    @property
    def settings(self) -> Mapping[str, Any]:
        """For `read_form`."""
        return to_dict(self.shipped)

    def for_outputs(self, *, dynamic: bool) -> "DetectionForm":
        """With suppression in the graph, whose outputs then depend on the image, or after it.

        Raises:
            OvertoneError: a detector that cannot be without.
        """
        if self.shipped.staged and not dynamic:
            raise OvertoneError(
                "a detector with a second stage needs non-maximum suppression within its graph, which this runtime "
                "does not take; use --to onnx, or openvino with overtone[onnx] installed"
            )
        return self._with(suppressed=dynamic)

    def for_images(self, sizes: Sequence[Size]) -> "DetectionForm":
        """For images of these heights and widths: where all have about one ratio a letterbox without wide margins."""
        if not (self._is_open and sizes):
            return self
        wanted = self.shipped
        fitted = {fitted_size(*size, max(wanted.settings.longest, wanted.shorter), wanted.shorter) for size in sizes}
        boxes = {tuple(math.ceil(side / _STRIDE) * _STRIDE for side in size) for size in fitted}
        return self._with(size=boxes.pop()) if len(boxes) == 1 else self

    def _with(self, **changes: Any) -> "DetectionForm":
        return type(self)(dataclasses.replace(self.shipped, **changes), self.preprocess, is_open=self._is_open)

    def graph(self, network: nn.Module) -> nn.Module:
        """From images (1, 3, height, width) to boxes (1, N, 4), scores and labels (1, N), and masks if any."""
        assert isinstance(network, LightDetector | MaskRcnn)
        if self.shipped.staged or isinstance(network, MaskRcnn):
            return Regions(network, self.size).eval().requires_grad_(False)
        candidates = Candidates(network, self.size)
        graph = Suppressed(candidates) if self.shipped.suppressed else candidates
        return graph.eval().requires_grad_(False)

    def inputs(self, image: Image.Image) -> Tensor:
        """An RGB image, letterboxed and normalised, (3, height, width)."""
        preprocess = self.preprocess
        found = standalone.letterboxed(self._resized(image), self.size, preprocess.mean, preprocess.std)
        return torch.from_numpy(found[0])

    def view(self, image: Tensor) -> Tensor:
        """An image, uint8 (3, H, W), resized as in the letterbox."""
        resized = self._resized(Image.fromarray(image.permute(1, 2, 0).contiguous().numpy()))
        return torch.from_numpy(np.array(resized)).permute(2, 0, 1)

    def _resized(self, image: Image.Image) -> Image.Image:
        return standalone.resized(image, self.size, self.shipped.shorter, FILTERS[self.preprocess.interpolation])

    def answer(
        self,
        call: Callable[[np.ndarray], Sequence[np.ndarray]],
        images: Tensor,
        sizes: Sequence[Size] | None = None,
        targets: None = None,
        scales: Sequence[tuple[float, float]] | None = None,
        originals: Sequence[Size] | None = None,
    ) -> list[Detections]:
        """What a detector in evaluation returns (`MaskRcnn.forward`), by calls of the graph.

        Raises:
            OvertoneError: images that do not fit, or a graph that returns something else.
        """
        sizes = [(images.shape[-2], images.shape[-1])] * len(images) if sizes is None else sizes
        scales = [(1.0, 1.0)] * len(images) if scales is None else scales
        originals = sizes if originals is None else originals
        found = []
        for image, (height, width), scale, original in zip(images, sizes, scales, originals, strict=True):
            if height > self.size[0] or width > self.size[1]:
                raise OvertoneError(f"an image of {height}x{width} pixels does not fit into the export's {self.size}")
            square = np.zeros((1, 3, *self.size), dtype=np.float32)
            square[0, :, :height, :width] = image[:, :height, :width].float().cpu().numpy()
            found.append(self._detections(call(square), scale, original, images.device))
        return found

    def _detections(
        self, arrays: Sequence[np.ndarray], scale: tuple[float, float], original: Size, device: torch.device
    ) -> Detections:
        shapes = [array.shape for array in arrays]
        count = shapes[0][1] if shapes and len(shapes[0]) == 3 else -1
        if [shape[:3] for shape in shapes[:3]] != [(1, count, 4), (1, count), (1, count)] or (
            [shape[:2] for shape in shapes[3:]] != [(1, count)] * self.shipped.masks
        ):
            raise OvertoneError(
                f"the export returns {', '.join(map(str, shapes))} instead of {', '.join(self.outputs)}; export again"
            )
        boxes, scores = (array[0].astype(np.float32) for array in arrays[:2])
        labels = np.rint(arrays[2][0]).astype(np.int64)
        if len(labels) and (labels.min() < 0 or labels.max() >= self.num_classes):
            raise OvertoneError("the export returns labels that no class has; export again")
        if not self.shipped.suppressed:
            wanted = self.shipped
            kept = standalone.suppressed(boxes, scores, labels, wanted.score, wanted.overlap, wanted.most)
            boxes, scores, labels = boxes[kept], scores[kept], labels[kept]
        boxes, inside = standalone.in_original(boxes, scale, (original[1], original[0]), self.shipped.masks)
        parts = [boxes, scores, labels, *(array[0].astype(np.float32) for array in arrays[3:])]
        corners, sure, classes, *masks = (torch.from_numpy(part[inside]).to(device) for part in parts)
        return Detections(corners, sure, classes, masks[0] if masks else None, original)

    def compare(
        self, references: Sequence[Sequence[Detections]], found: Sequence[Sequence[Detections]], precision: str
    ) -> tuple[dict[str, Any], list[str]]:
        """What `model.json` says of the agreement, and which bounds do not hold.

        Args:
            references: of the network, for each image a list of one.
            found: of the export.
            precision: of its arithmetic.
        """
        tolerance = _WHOLE_NUMBERS if precision.startswith("int8") else _TOLERANCES[precision]
        pairs = [(_arrays(a[0]), _arrays(b[0])) for a, b in zip(references, found, strict=True)]
        return compare_detections(pairs, tolerance, max(self.size))


def form_of(
    network: nn.Module, labels: Sequence[str], preprocess: Preprocess, settings: DetectionSettings, side: int | None
) -> DetectionForm:
    """The form of a detector that is evaluated with a preprocessing.

    Args:
        network: the detector.
        labels: names of its classes.
        preprocess: its size is the shorter side in evaluation.
        settings: of its training.
        side: pixels, of a square; None: a square that holds images of three to two as in evaluation.

    Raises:
        OvertoneError: a detector that cannot be exported, or a side that it would pad.
    """
    limits = detection_limits(network)
    longest = min(max(settings.longest, preprocess.size), math.ceil(preprocess.size * _WIDEST))
    square = side or math.ceil(longest / _STRIDE) * _STRIDE
    return DetectionForm(
        Shipped(
            size=(square, square),
            shorter=preprocess.size,
            suppressed=True,
            score=limits.score,
            overlap=limits.overlap,
            most=limits.most,
            categories=category_ids(labels),
            settings=settings,
            staged=has_regions(network),
            masks=has_masks(network),
        ),
        preprocess,
        is_open=side is None,
    )


def read_form(values: Any, preprocess: Preprocess) -> DetectionForm:
    """The form whose `settings` an export kept.

    Raises:
        OvertoneError: they cannot be.
    """
    return DetectionForm(from_dict(Shipped, values), preprocess)


def script() -> tuple[str, ...]:
    """Lines of `run.py`; see `tasks.task.Task.script`."""
    functions = (line for function in _FUNCTIONS for line in ("", "", *inspect.getsource(function).splitlines()))
    return (
        "from PIL import ImageDraw",
        *functions,
        "",
        "",
        'form, preprocess = about["settings"]["form"], about["preprocess"]',
        'resampling = getattr(Image.Resampling, preprocess["interpolation"].upper())',
        'small = resized(image, form["size"], form["shorter"], resampling)',
        'outputs = run(letterboxed(small, form["size"], preprocess["mean"], preprocess["std"]))',
        "boxes, scores, labels, *masks = (numpy.asarray(output)[0] for output in outputs)",
        'labels = labels.astype("int64")',
        'if not form["suppressed"]:',
        '    kept = suppressed(boxes, scores, labels, form["score"], form["overlap"], form["most"])',
        "    boxes, scores, labels = boxes[kept], scores[kept], labels[kept]",
        "scales = small.width / image.width, small.height / image.height",
        'boxes, inside = in_original(boxes, scales, image.size, form["masks"])',
        'inside &= scores >= form["settings"]["threshold"]',
        "boxes, scores, labels = boxes[inside], scores[inside], labels[inside]",
        "masks = [pasted(mask, box, image.size) for mask, box in zip(masks[0][inside], boxes)] if masks else []",
        'names = [str(name) for name in about["labels"] or range(about["num_classes"])]',
        'names = ["".join(c if c.isprintable() else "?" for c in name) for name in names]',
        "for box, score, label in zip(boxes, scores, labels):",
        '    print(f"{names[label]} {score:.3f}", *(f"{value:.1f}" for value in box))',
        'out = pathlib.Path(sys.argv[2] if len(sys.argv) > 2 else ".")',
        "out.mkdir(parents=True, exist_ok=True)",
        "stem = pathlib.Path(sys.argv[1]).stem",
        "number = int(stem) if stem.isdecimal() else stem",
        'results = json.dumps(coco_results(boxes, scores, labels, form["categories"], number, masks))',
        '(out / f"{stem}.detections.json").write_text(results + "\\n", encoding="utf-8")',
        'drawn(image, boxes, scores, labels, names, masks).save(out / f"{stem}.detections.png")',
    )


Arrays = tuple[np.ndarray, np.ndarray, np.ndarray]


def _arrays(found: Detections) -> Arrays:
    return found.boxes.cpu().numpy(), found.scores.cpu().numpy(), found.labels.cpu().numpy()


def compare_detections(
    pairs: Sequence[tuple[Arrays, Arrays]], tolerance: Tolerance, side: int
) -> tuple[dict[str, Any], list[str]]:
    """Boxes, scores and labels of a network and of its export, image by image; see the table above."""
    surest = max((float(scores.max()) for (_, scores, _), _ in pairs if len(scores)), default=0.0)
    boxes, scores = [], []
    for one, other in pairs:
        for ours, theirs in ((one, other), (other, one)):
            level = np.sort(ours[1])[::-1][:_SUREST].min(initial=1.0)
            for at in np.flatnonzero(ours[1] >= (_SURE if surest >= _SURE else level)):
                box, score = _nearest(ours, int(at), theirs)
                boxes.append(box / side)
                scores.append(score)
    box, score = np.array(boxes), np.array(scores)
    strict, count = _TOLERANCES["float32"], len(boxes)

    def share(bound: Tolerance) -> float:
        return float(((box <= bound.box) & (score <= bound.score)).mean()) if count else 1.0

    has_pair = np.isfinite(box)
    record = {
        "detections": count,
        "from_score": _SURE if surest >= _SURE else None,
        "largest": float(box[has_pair].max(initial=0.0)),
        "rms": float(np.sqrt((score[has_pair] ** 2).mean())) if has_pair.any() else 0.0,
        "largest_score": float(score[has_pair].max(initial=0.0)),
        "same_decisions": share(strict),
        "agreement": share(tolerance),
        "bound": tolerance._asdict(),
    }
    if record["agreement"] >= tolerance.share:
        return record, []
    return record, [
        f"{record['agreement']:.1%} of {count} detections are the same within {tolerance.box * side:.2f} pixels and "
        f"{tolerance.score:g} of score, below {tolerance.share:.0%}"
    ]


def _nearest(ours: Arrays, at: int, theirs: Arrays) -> tuple[float, float]:
    """Largest difference of a side, pixels, and of the score to the nearest box of the same label; infinite if none."""
    rivals = np.flatnonzero(theirs[2] == ours[2][at])
    if not len(rivals):
        return math.inf, math.inf
    apart = np.abs(theirs[0][rivals] - ours[0][at]).max(1)
    best = int(apart.argmin())
    return float(apart[best]), float(abs(theirs[1][rivals[best]] - ours[1][at]))
