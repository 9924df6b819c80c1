"""Boxes and masks around objects: any detector on any backbone, COCO's and VOC's average precision."""

import itertools
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
from torch import Tensor, nn

from overtone import config
from overtone.data.pipeline import Batch
from overtone.data.segments import mask_module
from overtone.errors import OvertoneError
from overtone.heads import checked_head_options
from overtone.heads.detectors import create_detector, learns_masks, parse_detector
from overtone.heads.mask_rcnn import total_loss
from overtone.heads.roi_heads import Detections
from overtone.models.arguments import MODEL_ARGS, checked_model_args
from overtone.tasks.detection.coco_metrics import Found, engine_name
from overtone.tasks.detection.export import DetectionForm, form_of, read_form, script
from overtone.tasks.detection.report import DetectionReport, DetectionTally
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.detection.transforms import BoxPipeline, TrainingChanges, Views
from overtone.tasks.detection.written import DetectionPrediction, found_of
from overtone.tasks.task import Forward, OutputSpec, Setup, View

_HEAD_ARGS = "head_args"  # of `heads.detectors.create_detector`; all other arguments are the backbone's

_MOST_FOUND = 100  # objects in an image


class Detection:
    """The task of finding objects; see `tasks.task.Task`."""

    name: ClassVar[str] = "detection"
    target: ClassVar[str] = "boxes"
    report_type: ClassVar[type[DetectionReport]] = DetectionReport
    prediction_columns: ClassVar[tuple[str, ...]] = ("object", "score", "box")
    script_does: ClassVar[str] = "draws what is found in an image"
    example_row: ClassVar[dict[str, Any]] = {
        "width": 1,
        "height": 1,
        "predictions": [{"index": 0, "label": "", "score": 0.0, "box": [0.0], "mask": ""}],
    }

    def __init__(self, setup: Setup) -> None:
        recipe = setup.recipe
        self.labels, self.settings, self._recipe = setup.labels, setup.settings, recipe
        wanted = recipe.settings if isinstance(recipe.settings, DetectionSettings) else DetectionSettings()
        model, exported = recipe.model, setup.settings.get("form")
        if exported is None:
            self._masks = learns_masks(model.name.partition(".")[0], model.head, model.args.get(_HEAD_ARGS, {}))
        else:  # an export keeps no recipe
            shipped = read_form(exported, recipe.data.preprocess).shipped
            wanted, self._masks = shipped.settings, shipped.masks
        self._wanted = wanted
        if self._masks:
            mask_module()
        if setup.train is None:
            return
        engine_name()  # the first validation comes late to say what is not installed
        _check(recipe)
        if self._masks and not getattr(setup.train, "has_outlines", True):
            raise OvertoneError(
                f"{model.head or model.name} learns masks, and {setup.train.origin} has boxes alone; choose a head "
                "without masks, such as --model.head faster_rcnn"
            )

    @staticmethod
    def build(model: config.Model, labels: Sequence[str], *, pretrained: bool = False) -> nn.Module:
        """Build `model.head` on the backbone `model.name`, or the detector of a name such as fcos_hbonet_x100.

        Of `model.args`, `head_args` are those of `heads.detectors.create_detector`; all others are the backbone's.
        `model.drop_path_rate` is the backbone's too.
        """
        options = checked_head_options({key: value for key, value in model.args.items() if key == _HEAD_ARGS})
        given = {key: value for key, value in model.args.items() if key != _HEAD_ARGS}
        backbone_args = checked_model_args(parse_detector(model.name, model.head).backbone, given, MODEL_ARGS)
        if model.drop_path_rate:
            backbone_args["drop_path_rate"] = model.drop_path_rate
        return create_detector(
            model.name if pretrained else model.name.partition(".")[0],
            len(labels),
            head=model.head,
            pretrained=pretrained,
            backbone_args=backbone_args,
            head_args=options.get(_HEAD_ARGS),
        )

    @property
    def answer_bytes_per_pixel(self) -> int:
        """Memory that `predictions` takes for a pixel of an image: the masks of as many objects as are found."""
        return _MOST_FOUND if self._masks else 0

    def pipeline(self, *, train: bool, channels_last: bool = False, transform: Any = None) -> BoxPipeline:
        """Resized images, padded to those of the batch."""
        recipe, wanted = self._recipe, self._wanted
        preprocess, changes = recipe.data.preprocess, None
        if train:
            changes = TrainingChanges(preprocess, recipe.augment, wanted, masks=self._masks)
        return BoxPipeline(preprocess, wanted, changes, transform=transform, channels_last=channels_last)

    def prepare(self, batch: Batch, seed: tuple[int, int]) -> Batch:
        """Nothing is mixed beside mosaics."""
        return batch

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """Runs of neighbours; empty parts come before the others."""
        count = batch.num_samples
        empty = max(parts - max(count, 1), 0)
        bounds = [index * count // (parts - empty) for index in range(parts - empty + 1)]
        runs = [slice(0, 0)] * empty + [slice(a, b) for a, b in itertools.pairwise(bounds)]
        return [
            Batch(Views(*(values[run] for values in batch.inputs)), batch.targets[run], batch.ids[run]) for run in runs
        ]

    def blank(self, batch: Batch, count: int) -> Batch:
        """Black images without objects."""
        side = max(self._wanted.size_divisor, 64)
        pixels = batch.inputs.pixels.new_zeros(count, 3, side, side)
        views = Views(pixels, ((side, side),) * count, ((1.0, 1.0),) * count, ((side, side),) * count)
        target: dict[str, Tensor] = {"boxes": pixels.new_zeros(0, 4)}
        target["labels"] = torch.zeros(0, dtype=torch.int64, device=pixels.device)
        if self._masks:
            target["masks"] = torch.zeros(0, side, side, dtype=torch.uint8, device=pixels.device)
        return Batch(views, (target,) * count, batch.ids[:0])

    def weight(self, batch: Batch) -> float:
        """Number of images."""
        return batch.num_samples

    def loss(self, network: Forward, batch: Batch) -> Tensor:
        """The detector's losses, which are means over the batch by its own rules, times the number of images."""
        views: Views = batch.inputs
        if not len(views.pixels):
            return views.pixels.new_zeros((), requires_grad=True)
        losses = network(views.pixels, views.sizes, batch.targets)
        return total_loss(losses) * len(views.pixels)

    def predict(self, network: Forward, inputs: Views | Tensor) -> list[Detections]:
        """What is found in each image, in pixels of the original."""
        if not isinstance(inputs, Views):
            sizes = ((int(inputs.shape[-2]), int(inputs.shape[-1])),) * len(inputs)
            inputs = Views(inputs, sizes, ((1.0, 1.0),) * len(inputs), sizes)
        return network(inputs.pixels, inputs.sizes, None, inputs.scales, inputs.originals)

    def transform(self) -> Any:
        """From Pillow's image in RGB to float32 `(3, H, W)`, resized and normalised."""
        return self.pipeline(train=False).alone

    def view(self, image: Any) -> View:
        """The whole image, resized."""
        width, height = image.size
        return View(self.transform()(image).unsqueeze(0), (0.0, 0.0, float(width), float(height)))

    def class_scores(self, network: Forward, pixels: Tensor) -> Tensor:
        """Of each class the scores of what is found of it, added up."""
        (found,) = self.predict(network, pixels)
        scores = found.scores.new_zeros(len(self.labels))
        return scores.index_add(0, found.labels, found.scores).unsqueeze(0)

    def tally(self) -> DetectionTally:
        """A new count."""
        return DetectionTally(self.labels, self._wanted, self._masks)

    def predictions(
        self, outputs: Sequence[Detections], top_k: int | None = None, threshold: float | None = None
    ) -> list[DetectionPrediction]:
        """The surest objects of each image, from the threshold on; all of them unless `top_k` is given."""
        least, made = self._wanted.threshold if threshold is None else threshold, []
        for detections in outputs:
            found = found_of(detections)
            count = int((found.scores >= least).sum())
            count = count if top_k is None else min(count, top_k)
            masks = None if found.masks is None else found.masks[:count]
            best = Found(found.boxes[:count], found.scores[:count], found.labels[:count], masks)
            made.append(DetectionPrediction(best, tuple(self.labels), detections.image_size))
        return made

    def learned(self, report: DetectionReport) -> Mapping[str, Any]:
        """Nothing beside the weights."""
        return self.settings

    def script(self) -> tuple[str, ...]:
        """The functions of `standalone`."""
        return script()

    def export_form(self, network: nn.Module, size: int | None, *, any_size: bool) -> DetectionForm:
        """Letterboxed images of one size; see `tasks.detection.export`."""
        return form_of(network, self.labels, self._recipe.data.preprocess, self._wanted, size)

    read_form = staticmethod(read_form)

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Boxes `(N, 4)`, scores and labels `(N,)`, compared in their order."""
        return (
            OutputSpec("boxes", _agreement),
            OutputSpec("scores", _agreement),
            OutputSpec("labels", _agreement),
        )


def _agreement(reference: np.ndarray, other: np.ndarray, tie: float) -> tuple[float, float]:
    """Share of the longer one that both have, and of that what is equal up to the tie."""
    count, longer = min(len(reference), len(other)), max(len(reference), len(other))
    if not longer:
        return 1.0, 1.0
    near = np.abs(reference[:count] - other[:count]).reshape(count, -1).max(axis=1, initial=0.0) <= tie
    return count / longer, float(near.sum()) / longer


def _check(recipe: config.Recipe) -> None:
    """Refuse settings that this task would ignore."""
    augment = recipe.augment
    wrong = {
        "augment.mixup": augment.mixup > 0,
        "augment.cutmix": augment.cutmix > 0,
        "augment.rand_augment": augment.rand_augment is not None,
        "augment.random_erasing": augment.random_erasing > 0,
        "train.sizes": bool(recipe.train.sizes),
        "train.class_weights": recipe.train.class_weights != "none",
        "train.label_smoothing": recipe.train.label_smoothing > 0,
        "distill.teacher": recipe.distill.teacher is not None,
    }
    named = [name for name, is_set in wrong.items() if is_set]
    if named:
        raise OvertoneError(
            f"{', '.join(named)} is not for a detection; leave it out (its own options are --settings.*, such as "
            "settings.mosaic)"
        )


TASK = Detection
