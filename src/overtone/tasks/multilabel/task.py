"""Any number of labels per image: binary cross entropy or the asymmetric loss, a threshold for each label."""

import functools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone import config
from overtone.data.mixing import Mixer, mixer_of
from overtone.data.pipeline import Batch, ImagePipeline
from overtone.data.sources import Record, Source, TaggedImages
from overtone.data.transforms import ImageTransform, evaluation_transform, recipe_transform, seen_box
from overtone.errors import OvertoneError
from overtone.models.building import build_classifier
from overtone.tasks.classification.report import check_outputs
from overtone.tasks.multilabel.report import DEFAULT_THRESHOLD, MultilabelReport, MultilabelTally
from overtone.tasks.multilabel.settings import MultilabelSettings
from overtone.tasks.task import USUAL_ANSWERS, Forward, OutputSpec, Setup, View, blank_images, split_evenly

_HEAVIEST_POSITIVE = 100.0
_LARGEST = 1 - 1e-7  # probability whose complement still has a logarithm in float32


@dataclass(frozen=True)
class TagsPrediction:
    """The labels of one image whose probability reaches their threshold.

    Attributes:
        labels: (index, name, probability in 0..1, threshold), most probable first; perhaps none.
        below: the same of those that do not reach their threshold.
    """

    labels: tuple[tuple[int, str, float, float], ...]
    below: tuple[tuple[int, str, float, float], ...] = ()

    def to_dict(self) -> dict[str, Any]:
        """As JSON values."""
        return {"predictions": _as_dicts(self.labels)}

    def details(self) -> dict[str, Any]:
        """What a page that lets its user choose another threshold needs too, as JSON values."""
        return {"below": _as_dicts(self.below)}

    def rows(self) -> list[tuple[Any, ...]]:
        """A line for each label."""
        found = [(name, f"{100 * p:.2f} %", f"{100 * t:.2f} %") for _, name, p, t in self.labels]
        return found or [("(no label reaches its threshold)", None, None)]

    def write(self, image: Any, folder: Path, stem: str) -> list[Path]:
        """Write nothing: the rows say all."""
        return []


def _as_dicts(labels: Iterable[tuple[int, str, float, float]]) -> list[dict[str, Any]]:
    keys = ("index", "label", "probability", "threshold")
    return [dict(zip(keys, label, strict=True)) for label in labels]


class Multilabel:
    """The task of naming all labels that hold of an image; see `tasks.task.Task`."""

    name: ClassVar[str] = "multilabel"
    target: ClassVar[str] = "labels"
    report_type: ClassVar[type[MultilabelReport]] = MultilabelReport
    prediction_columns: ClassVar[tuple[str, ...]] = ("label", "probability", "threshold")
    script_does: ClassVar[str] = "names the labels of an image"
    example_row: ClassVar[dict[str, Any]] = {
        "predictions": [{"index": 0, "label": "", "probability": 0.0, "threshold": 0.0}]
    }

    def __init__(self, setup: Setup) -> None:
        recipe = setup.recipe
        self.labels, self.settings, self._recipe = setup.labels, setup.settings, recipe
        wanted = recipe.settings if isinstance(recipe.settings, MultilabelSettings) else MultilabelSettings()
        self._wanted, self._smoothing = wanted, recipe.train.label_smoothing
        self._is_training = setup.train is not None
        self._weights: Tensor | None = None
        self._mixer: Mixer | None = None
        if setup.train is None:
            return
        if recipe.distill.teacher is not None:
            raise OvertoneError("distill.teacher is for tasks with one label per image; leave it out of multilabel")
        self._mixer = mixer_of(recipe.augment, len(self.labels))
        if wanted.positive_weights == "balanced":
            self._weights = positive_weights(setup.train)

    @staticmethod
    def build(model: config.Model, labels: Sequence[str], *, pretrained: bool = False) -> nn.Module:
        """Build a classifier with one output per label."""
        return build_classifier(model, len(labels), pretrained=pretrained)

    def pipeline(self, *, train: bool, channels_last: bool = False, transform: Any = None) -> ImagePipeline:
        """Images `(3, size, size)` with float32 `(K,)` of 0 and 1."""
        recipe = self._recipe
        if transform is None:
            transform = recipe_transform(recipe) if train else evaluation_transform(recipe.data.preprocess)
        target = functools.partial(_tags, num_labels=len(self.labels))
        return ImagePipeline(transform, target, torch.empty(0, len(self.labels)), channels_last=channels_last)

    def transform(self) -> ImageTransform:
        """From Pillow's image in RGB to float32 `(3, size, size)`, normalised."""
        return evaluation_transform(self._recipe.data.preprocess)

    def prepare(self, batch: Batch, seed: tuple[int, int]) -> Batch:
        """Mix a batch where the recipe says so: targets become shares."""
        if self._mixer is None:
            return batch
        inputs, shares = self._mixer.with_shares(batch.inputs, seed)
        return batch._replace(inputs=inputs, targets=shares.to(batch.targets) @ batch.targets)

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """Runs of neighbours."""
        return split_evenly(batch, parts)

    def blank(self, batch: Batch, count: int) -> Batch:
        """Black images without labels."""
        return blank_images(batch, count, self._recipe.data.preprocess.size)

    def weight(self, batch: Batch) -> float:
        """Number of images."""
        return batch.num_samples

    def loss(self, network: Forward, batch: Batch) -> Tensor:
        """The recipe's loss, averaged over the labels and summed over the images.

        Binary cross entropy, with a weight for each label's positives; or `asymmetric_loss`.
        """
        outputs = network(batch.inputs)
        check_outputs(outputs, self.labels)
        targets = batch.targets * (1 - self._smoothing) + self._smoothing / 2
        if self._wanted.loss == "asymmetric":
            return asymmetric_loss(outputs, targets, self._wanted).sum() / len(self.labels)
        if self._weights is not None:
            self._weights = self._weights.to(outputs.device)
        loss = F.binary_cross_entropy_with_logits(outputs, targets, pos_weight=self._weights, reduction="sum")
        return loss / len(self.labels)

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

    def tally(self) -> MultilabelTally:
        """A new count; a training's validation chooses the thresholds, any other evaluation takes those it finds."""
        return MultilabelTally(self.labels, None if self._is_training else self._thresholds())

    def predictions(
        self, outputs: Tensor, top_k: int | None = None, threshold: float | None = None
    ) -> list[TagsPrediction]:
        """The labels of each image that reach the threshold, or their own, by the sigmoid of logits (B, K)."""
        thresholds = self._thresholds() if threshold is None else [threshold] * len(self.labels)
        found = []
        for row in outputs.sigmoid().tolist():
            best = sorted(range(len(row)), key=lambda k: -row[k])
            rows = [(k, self.labels[k], row[k], thresholds[k]) for k in best]
            most = top_k or USUAL_ANSWERS
            parts = ([one for one in rows if (one[2] >= one[3]) is holds][:most] for holds in (True, False))
            found.append(TagsPrediction(*map(tuple, parts)))
        return found

    def learned(self, report: MultilabelReport) -> Mapping[str, Any]:
        """The thresholds of the validation."""
        return {"thresholds": list(report.thresholds)}

    def outputs(self) -> tuple[OutputSpec, ...]:
        """Logits, whose decisions must be the same."""
        at = torch.tensor(self._thresholds(), dtype=torch.float64).clamp(1e-6, 1 - 1e-6).logit().numpy()

        def agreement(reference: np.ndarray, other: np.ndarray, tie: float) -> tuple[float, float]:
            same = ((reference >= at) == (other >= at)) & np.isfinite(other)
            near = (np.abs(reference - at) <= tie) & np.isfinite(other)
            return float(same.mean()), float((same | near).mean())

        return (OutputSpec("logits", agreement),)

    def export_form(self, network: nn.Module, size: int | None, *, any_size: bool) -> None:
        """The centre of an image."""

    def script(self) -> tuple[str, ...]:
        """The labels whose probability reaches their threshold."""
        return (
            f'thresholds = about["settings"].get("thresholds") or [{DEFAULT_THRESHOLD}] * len(logits)',
            "for index in logits.argsort()[::-1]:",
            "    share = 1 / (1 + numpy.exp(-logits[index]))",
            "    if share >= thresholds[index]:",
            '        label = "".join(c if c.isprintable() else "?" for c in str(about["labels"][index]))',
            '        print(f"{100 * share:.2f} %", label)',
        )

    def _thresholds(self) -> Sequence[float]:
        kept = self.settings.get("thresholds") or ()
        return list(map(float, kept)) if len(kept) == len(self.labels) else [DEFAULT_THRESHOLD] * len(self.labels)


def asymmetric_loss(logits: Tensor, targets: Tensor, settings: MultilabelSettings) -> Tensor:
    """Asymmetric loss (Ridnik et al. 2021, arXiv:2009.14119, equations 4 to 7) of each decision.

    With p the probability and q = max(p - clip, 0): -y (1 - p)^g+ log p - (1 - y) q^g- log (1 - q). timm's own returns
    a sum or a mean, by its version.

    Args:
        logits: `(B, K)`.
        targets: `(B, K)` in 0..1.
        settings: the exponents and the clip.
    """
    p = logits.sigmoid()
    q = (p - settings.clip).clamp(min=0)
    positive = (1 - p).pow(settings.gamma_positive) * F.logsigmoid(logits)
    negative = q.pow(settings.gamma_negative) * torch.log1p(-q.clamp(max=_LARGEST))
    return -targets * positive - (1 - targets) * negative


def positive_weights(source: Source) -> Tensor:
    """Negative images for each positive one of each label, at most 100; 1 for a label without positives."""
    if isinstance(source, TaggedImages):
        counts = torch.tensor(source.counts(), dtype=torch.float64)
    else:
        counts = sum(torch.from_numpy(_tags(source.read(i), len(source.labels))).double() for i in range(len(source)))
        assert isinstance(counts, Tensor)
    weights = (len(source) - counts) / counts.clamp(min=1)
    return torch.where(counts > 0, weights.clamp(max=_HEAVIEST_POSITIVE), 1.0).float()


def _tags(record: Record, num_labels: int) -> np.ndarray:
    """The labels of a record as float32 `(K,)` of 0 and 1."""
    tags = np.zeros(num_labels, dtype=np.float32)
    tags[list(record.get("labels", ()))] = 1
    return tags


TASK = Multilabel
