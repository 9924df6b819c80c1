"""One label per image: cross entropy, mixing, a teacher."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone import config
from overtone.data.mixing import Mixer, mixer_of
from overtone.data.pipeline import Batch, ImagePipeline, class_images, class_of
from overtone.data.sources import Source
from overtone.data.transforms import ImageTransform, evaluation_transform, recipe_transform, seen_box
from overtone.models.building import build_classifier
from overtone.tasks.classification.distillation import distillation_loss
from overtone.tasks.classification.report import ClassificationReport, ClassificationTally, check_outputs
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

SCRIPT = (
    'labels = about["labels"] or range(len(logits))',
    'logits = logits / about["settings"].get("temperature", 1)',
    "shares = numpy.exp(logits - logits.max())",
    "for index in logits.argsort()[::-1][:5]:",
    '    label = "".join(c if c.isprintable() else "?" for c in str(labels[index]))',
    '    print(f"{100 * shares[index] / shares.sum():.2f} %", label)',
)
"""Lines of `run.py`: from `logits` and `about` to the five most probable classes."""


@dataclass(frozen=True)
class ClassPrediction:
    """The most probable classes of one image.

    Attributes:
        best: (index, name, probability in 0..1), best first.
    """

    best: tuple[tuple[int, str, float], ...]

    @property
    def label(self) -> str:
        """The most probable class."""
        return self.best[0][1]

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"predictions": [{"class": name, "index": index, "probability": p} for index, name, p in self.best]}

    def rows(self) -> list[tuple[Any, ...]]:
        """A line for each class."""
        return [(name, f"{100 * probability:.2f} %") for _, name, probability in self.best]

    def write(self, image: Any, folder: Path, stem: str) -> list[Path]:
        """Write nothing: the rows say all."""
        return []


class Classification:
    """The task of naming an image's one class; see `tasks.task.Task`."""

    name: ClassVar[str] = "classification"
    target: ClassVar[str] = "label"
    report_type: ClassVar[type[ClassificationReport]] = ClassificationReport
    prediction_columns: ClassVar[tuple[str, ...]] = ("class", "probability")
    script_does: ClassVar[str] = "classifies an image"

    def __init__(self, setup: Setup) -> None:
        recipe = setup.recipe
        self.labels, self.settings, self._recipe = setup.labels, setup.settings, recipe
        self.label_smoothing = recipe.train.label_smoothing
        self._teacher, self._distill = setup.teacher, recipe.distill
        self._weights: Tensor | None = None
        self._mixer: Mixer | None = None
        self._mixed_steps: int | None = None
        if setup.train is None:
            return
        if (setup.teacher is None) != (recipe.distill.teacher is None):
            raise ValueError("a recipe with distillation needs its teacher, and no other takes one")
        self._mixer = mixer_of(recipe.augment, len(self.labels), self.label_smoothing)
        if self._mixer is not None and recipe.augment.mix_off_epochs:
            if setup.steps_per_epoch is None:
                raise ValueError("where mixing is off at the end, the number of steps in an epoch is needed")
            self._mixed_steps = (recipe.train.epochs - recipe.augment.mix_off_epochs) * setup.steps_per_epoch
        if recipe.train.class_weights == "balanced":
            self._weights = balanced_weights(class_counts(setup.train))

    @staticmethod
    def build(model: config.Model, labels: Sequence[str], *, pretrained: bool = False) -> nn.Module:
        """Build a classifier with one output per label."""
        return build_classifier(model, len(labels), pretrained=pretrained)

    def pipeline(self, *, train: bool, channels_last: bool = False, transform: Any = None) -> ImagePipeline:
        """Images `(3, size, size)` with their classes."""
        recipe = self._recipe
        if transform is None:
            transform = recipe_transform(recipe) if train else evaluation_transform(recipe.data.preprocess)
        return class_images(transform, channels_last=channels_last)

    def transform(self) -> ImageTransform:
        """From Pillow's image in RGB to float32 `(3, size, size)`, normalised."""
        return evaluation_transform(self._recipe.data.preprocess)

    def prepare(self, batch: Batch, seed: tuple[int, int]) -> Batch:
        """Mix a batch where the recipe says so: targets (B,) then become class probabilities (B, K)."""
        if self._mixer is None or (self._mixed_steps is not None and seed[1] >= self._mixed_steps):
            return batch
        inputs, targets = self._mixer(batch.inputs, batch.targets, seed)
        return batch._replace(inputs=inputs, targets=targets)

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """Runs of neighbours."""
        return split_evenly(batch, parts)

    def blank(self, batch: Batch, count: int) -> Batch:
        """Black images of class 0."""
        return blank_images(batch, count, self._recipe.data.preprocess.size)

    def weight(self, batch: Batch) -> float:
        """Number of images."""
        return batch.num_samples

    def loss(self, network: Forward, batch: Batch) -> Tensor:
        """Cross entropy summed over the images; targets are classes (B,) or probabilities (B, K).

        An image counts with the weight of its class. The sum is meant to be divided by the number of images, not of
        weights, so that its gradient is the same however a batch is cut. With a teacher, which sees the same images,
        it is (1 - weight) * cross entropy + weight * `distillation_loss`.
        """
        outputs = network(batch.inputs)
        loss = self._cross_entropy(outputs, batch.targets)
        if self._teacher is None or self._distill.weight == 0 or not len(outputs):
            return loss
        taught = self._teacher(batch.inputs)
        check_outputs(taught, self.labels)
        weight = self._distill.weight
        return (1 - weight) * loss + weight * distillation_loss(outputs, taught, self._distill)

    def _cross_entropy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        check_outputs(outputs, self.labels)
        if self._weights is not None:
            self._weights = self._weights.to(outputs.device)
        smoothing = self.label_smoothing if targets.ndim == 1 else 0.0  # the mixer has smoothed probabilities already
        return F.cross_entropy(outputs, targets, self._weights, reduction="sum", label_smoothing=smoothing)

    def predict(self, network: Forward, inputs: Tensor) -> Tensor:
        """Logits (B, K)."""
        return network(inputs)

    def view(self, image: Any) -> View:
        """The centre of the image, or all of it squashed, as evaluation takes it."""
        preprocess = self._recipe.data.preprocess
        return View(self.transform()(image).unsqueeze(0), seen_box(preprocess, image.size))

    def class_scores(self, network: Forward, pixels: Tensor) -> Tensor:
        """The logits."""
        return network(pixels)

    def tally(self) -> ClassificationTally:
        """A new count for an evaluation."""
        return ClassificationTally(self.labels, self._temperature)

    def predictions(
        self, outputs: Tensor, top_k: int | None = None, threshold: float | None = None
    ) -> list[ClassPrediction]:
        """The most probable classes of each image, by the softmax of logits (B, K) over the temperature, if any."""
        probabilities, least = (outputs / self._temperature).softmax(dim=1), threshold or 0
        best = probabilities.topk(min(top_k or USUAL_ANSWERS, len(self.labels)), dim=1)
        return [
            ClassPrediction(
                tuple((i, self.labels[i], p) for i, p in zip(indices, probabilities, strict=True) if p >= least)
            )
            for indices, probabilities in zip(best.indices.tolist(), best.values.tolist(), strict=True)
        ]

    def learned(self, report: ClassificationReport) -> Mapping[str, Any]:
        """The temperature that fits the validation best, where the recipe asks for it."""
        if not self._recipe.train.calibrate or report.calibration is None:
            return self.settings
        return {**self.settings, "temperature": report.calibration.temperature}

    @property
    def _temperature(self) -> float:
        found = self.settings.get("temperature", 1.0)
        return float(found) if isinstance(found, (int, float)) and 0.01 <= found <= 100 else 1.0

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Logits, whose best class must be the same."""
        return (OutputSpec("logits", agreement_of_classes, shift_free=True),)

    def export_form(self, network: nn.Module, size: int | None, *, any_size: bool) -> None:
        """The centre of an image."""

    def script(self) -> tuple[str, ...]:
        """The five most probable classes."""
        return SCRIPT


def class_counts(source: Source) -> tuple[int, ...]:
    """Number of samples of each class."""
    counted = getattr(source, "counts", None)
    if counted is not None:
        return counted()
    counts = [0] * len(source.labels)
    for position in range(len(source)):
        counts[class_of(source.read(position))] += 1
    return tuple(counts)


def balanced_weights(class_counts: Sequence[int]) -> Tensor:
    """Weight of each class inverse to its number of images, so that the mean over all images is 1: N / (K * n_c).

    K counts the classes that have images; a class without any weighs 0.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 0.0).float()


TASK = Classification
