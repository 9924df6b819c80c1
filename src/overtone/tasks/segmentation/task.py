"""A class for every pixel: any head on any backbone, whole images or sliding windows, mean IoU."""

import dataclasses
import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.transforms.v2 import functional as moved

from overtone import config
from overtone.data.decoding import BadImage, as_pixels
from overtone.data.masks import IGNORED, MOST_CLASSES
from overtone.data.pipeline import Batch
from overtone.data.sources import Source
from overtone.errors import OvertoneError
from overtone.heads import TrainingLogits, build_segmenter, checked_head_options, create_segmenter, parse_segmenter
from overtone.heads.segmentation_inference import mean_probabilities, sliding_window_logits, whole_image_logits
from overtone.heads.upernet import resize
from overtone.models.arguments import MODEL_ARGS, checked_model_args
from overtone.tasks.export_forms import ExportForm
from overtone.tasks.segmentation import standalone
from overtone.tasks.segmentation.losses import counted_pixels, pixel_loss
from overtone.tasks.segmentation.prediction import MaskPrediction
from overtone.tasks.segmentation.report import SegmentationReport, SegmentationTally, check_maps
from overtone.tasks.segmentation.settings import SegmentationSettings
from overtone.tasks.segmentation.transforms import MaskPipeline, TrainingChanges, Views
from overtone.tasks.task import (
    USUAL_ANSWERS,
    Forward,
    OutputSpec,
    Setup,
    View,
    agreement_of_classes,
    blank_images,
    split_evenly,
)

_COPIED = "# --- copied from here on\n"  # in the source of `standalone`
_POWERS = {"sqrt": 0.5, "balanced": 1.0}
_OPTIONS = ("auxiliary", "size_divisor", "head_args")  # of `build_segmenter`; all other arguments are the backbone's


class Segmentation:
    """The task of naming the class of every pixel; see `tasks.task.Task`."""

    name: ClassVar[str] = "segmentation"
    target: ClassVar[str] = "mask"
    report_type: ClassVar[type[SegmentationReport]] = SegmentationReport
    prediction_columns: ClassVar[tuple[str, ...]] = ("class", "share of pixels")
    script_does: ClassVar[str] = "writes an image's mask and overlay"

    def __init__(self, setup: Setup) -> None:
        recipe = setup.recipe
        self.labels, self.settings, self._recipe = setup.labels, setup.settings, recipe
        wanted = recipe.settings if isinstance(recipe.settings, SegmentationSettings) else SegmentationSettings()
        self._wanted = wanted
        if len(self.labels) > MOST_CLASSES:
            raise OvertoneError(
                f"there are {len(self.labels)} classes, and masks hold indices below {MOST_CLASSES}; merge classes"
            )
        self._weights: Tensor | None = None
        if setup.train is None:
            return
        _check(recipe)
        if wanted.class_weights != "none":
            self._weights = class_weights(setup.train, len(self.labels), _POWERS[wanted.class_weights])

    @staticmethod
    def build(model: config.Model, labels: Sequence[str], *, pretrained: bool = False) -> nn.Module:
        """Build `model.head` on the backbone `model.name`, or the network of a name such as upernet_hornet_tiny_gf.

        Of `model.args`, `auxiliary`, `size_divisor` and `head_args` are those of `heads.build_segmenter`; all others
        are the backbone's. `model.drop_path_rate` is the backbone's too.
        """
        options = checked_head_options({key: value for key, value in model.args.items() if key in _OPTIONS})
        backbone = model.name if model.head is not None else parse_segmenter(model.name).backbone
        given = {key: value for key, value in model.args.items() if key not in _OPTIONS}
        backbone_args = dict(checked_model_args(backbone.partition(".")[0], given, MODEL_ARGS))
        if model.drop_path_rate:
            backbone_args["drop_path_rate"] = model.drop_path_rate
        if model.head is None:
            return create_segmenter(
                model.name, len(labels), backbone_args=backbone_args, pretrained=pretrained, **options
            )
        return build_segmenter(
            model.name, model.head, len(labels), backbone_args=backbone_args, pretrained=pretrained, **options
        )

    @property
    def answer_bytes_per_pixel(self) -> int:
        """Memory that `predict` takes for a pixel of an image: a logit of each class."""
        return 4 * len(self.labels)

    def pipeline(self, *, train: bool, channels_last: bool = False, transform: Any = None) -> MaskPipeline:
        """Crops `(3, size, size)` with masks in training; one image of any size in evaluation."""
        preprocess, wanted = self._recipe.data.preprocess, self._wanted
        changes = TrainingChanges(preprocess, self._recipe.augment, wanted) if train else None
        return MaskPipeline(preprocess, wanted, changes, transform=transform, channels_last=channels_last)

    def transform(self) -> Callable[[Any], Any]:
        """From Pillow's image in RGB to the views of it that evaluation passes through the network."""
        views = self.pipeline(train=False).views
        return lambda image: views(as_pixels(image).permute(2, 0, 1))

    def prepare(self, batch: Batch, seed: tuple[int, int]) -> Batch:
        """Nothing is mixed."""
        return batch

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """Runs of neighbours."""
        return split_evenly(batch, parts)

    def blank(self, batch: Batch, count: int) -> Batch:
        """Black crops without classes."""
        size = self._recipe.data.preprocess.size
        blank = blank_images(batch, count, size)
        return blank._replace(targets=batch.targets.new_full((count, size, size), IGNORED))

    def weight(self, batch: Batch) -> float:
        """Number of pixels, of those with a class or of all."""
        return counted_pixels(batch.targets, self._wanted)

    def loss(self, network: Forward, batch: Batch) -> Tensor:
        """The recipe's loss, and the auxiliary head's, summed over the pixels."""
        outputs = network(batch.inputs)
        if self._weights is not None:
            self._weights = self._weights.to(batch.targets.device)
        main, auxiliary = outputs if isinstance(outputs, TrainingLogits) else (outputs, None)
        check_maps(main, self.labels)
        loss = pixel_loss(main, batch.targets, self._wanted, self._weights)
        if auxiliary is None:
            return loss
        return loss + self._wanted.auxiliary_weight * pixel_loss(auxiliary, batch.targets, self._wanted, self._weights)

    def predict(self, network: Forward, inputs: Views | Tensor) -> Tensor:
        """Logits (B, K, H, W) at the images' own size; logarithms of probabilities where several views are averaged."""
        wanted = self._wanted
        pixels, size = inputs if isinstance(inputs, Views) else ((inputs,), tuple(inputs.shape[-2:]))

        def logits_of(images: Tensor) -> Tensor:
            if wanted.inference == "whole":
                return whole_image_logits(network, images, size)
            window, stride = wanted.windows(self._recipe.data.preprocess.size)
            height, width = images.shape[-2:]
            if wanted.pad:
                images = F.pad(images, (0, max(window - width, 0), 0, max(window - height, 0)))
            return resize(sliding_window_logits(network, images, window, stride)[..., :height, :width], size)

        if len(pixels) == 1 and not wanted.flip:
            return logits_of(pixels[0])
        averaged = mean_probabilities(logits_of, pixels, size, mirrored=wanted.flip)
        return averaged.clamp(min=torch.finfo(averaged.dtype).tiny).log()

    def view(self, image: Any) -> View:
        """The whole image at its first scale."""
        width, height = image.size
        return View(self.transform()(image).pixels[0], (0.0, 0.0, float(width), float(height)))

    def class_scores(self, network: Forward, pixels: Tensor) -> Tensor:
        """Of each class its logits on the pixels that it is the best class of, over the number of all pixels."""
        logits = network(pixels)  # (1, K, h, w)
        is_best = logits == logits.amax(1, keepdim=True)
        return (logits * is_best).mean((2, 3))

    def tally(self) -> SegmentationTally:
        """A new count."""
        return SegmentationTally(self.labels, self._wanted.boundary)

    def predictions(
        self, outputs: Tensor, top_k: int | None = None, threshold: float | None = None
    ) -> list[MaskPrediction]:
        """The best class of every pixel of logits (B, K, H, W)."""
        check_maps(outputs, self.labels)
        best = outputs.argmax(1).to(torch.uint8).cpu().numpy()
        return [
            MaskPrediction(classes, tuple(self.labels), top_k or USUAL_ANSWERS, threshold or 0.0) for classes in best
        ]

    def learned(self, report: SegmentationReport) -> Mapping[str, Any]:
        """Nothing beside the weights."""
        return self.settings

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Logits (B, K, h, w) at the stride of the head, whose best classes must be the same."""
        return (OutputSpec("logits", agreement_of_classes, shift_free=True),)

    def export_form(self, network: nn.Module, size: int | None, *, any_size: bool) -> ExportForm:
        """Images as the recipe scales them, of any size, or windows of one size, slid over them.

        An export of one size sees nothing but windows: smaller images are padded.
        """
        side = size or self._wanted.windows(self._recipe.data.preprocess.size)[0]
        window, stride = dataclasses.replace(self._wanted, window=side, stride=None).windows(side)
        if self._wanted.stride is not None and self._wanted.stride <= side:
            stride = self._wanted.stride
        settings = dataclasses.replace(self._wanted, window=window, stride=stride)
        if not any_size:
            settings = dataclasses.replace(settings, inference="slide", pad=True)
        views = MaskPipeline(self._recipe.data.preprocess, dataclasses.replace(settings, scales=(1.0,))).views

        def inputs(image: Any) -> Tensor:
            pixels = views(as_pixels(image).permute(2, 0, 1)).pixels[0][0]
            return pixels if any_size else moved.center_crop(pixels, [side, side])

        return ExportForm(side, inputs, config.to_dict(settings))

    def script(self) -> tuple[str, ...]:
        """The functions of `standalone`."""
        functions = inspect.getsource(standalone).partition(_COPIED)[2].replace("run: Run", "run")
        imports = ("import colorsys", "from typing import Any", "")
        return (*imports, *functions.splitlines(), "", "", "print(*main(run, image, about, sys.argv[1:]), sep=chr(10))")


def class_weights(source: Source, num_classes: int, power: float) -> Tensor:
    """Weight of each class: 1 / its share of the labelled pixels to a power, mean 1; a class without pixels gets 0.

    Reads every mask once.
    """
    counts = torch.zeros(num_classes, dtype=torch.float64)
    for position in range(len(source)):
        try:
            record = source.read(position)
            mask = torch.from_numpy(record["mask"].pixels() if "mask" in record else np.empty(0, dtype=np.uint8))
        except BadImage:  # named when it is trained on
            continue
        counts += torch.bincount(mask.flatten(), minlength=IGNORED + 1)[:num_classes].double()
    is_there = counts > 0
    weights = torch.where(is_there, (counts.sum() / counts.clamp(min=1)) ** power, 0.0)
    return (weights / weights.sum().clamp(min=1e-12) * is_there.sum()).float()


def _check(recipe: config.Recipe) -> None:
    """Refuse settings that this task would ignore."""
    augment = recipe.augment
    wrong = {
        "augment.mixup": augment.mixup > 0,
        "augment.cutmix": augment.cutmix > 0,
        "augment.rand_augment": augment.rand_augment is not None,
        "train.sizes": bool(recipe.train.sizes),
        "train.class_weights": recipe.train.class_weights != "none",
        "train.label_smoothing": recipe.train.label_smoothing > 0,
        "distill.teacher": recipe.distill.teacher is not None,
    }
    named = [name for name, is_set in wrong.items() if is_set]
    if named:
        raise OvertoneError(
            f"{', '.join(named)} is not for a segmentation; leave it out (its own options are --settings.*, such as "
            "settings.class_weights)"
        )


TASK = Segmentation
