"""One label per image: cross entropy, mixing, a teacher, top-1 and top-5, the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.config import Recipe
from overtone.data.mixing import Mixer, mixer_of
from overtone.errors import OvertoneError
from overtone.tasks.distillation import Teacher, distillation_loss

MOST_CLASSES_IN_CONFUSION = 2000


@dataclass(frozen=True)
class ClassificationReport:
    """What a classifier got right on a list of images, as counts.

    Attributes:
        classes: names in the order of the outputs.
        num_expected: images asked for; `num_used`: those that could be read, which all figures are about.
        correct_top1, correct_top5: images whose class is the first, or among the first five, of the outputs.
        loss: mean cross entropy, without label smoothing or class weights.
        class_counts, class_correct: per class, its images and those whose top-1 is right.
        confusion: images by true class (row) and top-1 (column); empty above 2000 classes.
        bad: paths of the images that could not be read.
    """

    classes: tuple[str, ...]
    num_expected: int
    num_used: int
    correct_top1: int
    correct_top5: int
    loss: float
    class_counts: tuple[int, ...]
    class_correct: tuple[int, ...]
    confusion: tuple[tuple[int, ...], ...]
    bad: tuple[str, ...] = ()

    @property
    def top1(self) -> float:
        """Top-1 accuracy, percent."""
        return 100 * self.correct_top1 / max(self.num_used, 1)

    @property
    def top5(self) -> float:
        """Top-5 accuracy, percent."""
        return 100 * self.correct_top5 / max(self.num_used, 1)

    @property
    def per_class(self) -> tuple[float | None, ...]:
        """Top-1 accuracy of each class, percent; None for a class without images."""
        return tuple(
            100 * correct / count if count else None
            for correct, count in zip(self.class_correct, self.class_counts, strict=True)
        )

    @property
    def score(self) -> float:
        """What decides which epoch is best: top-1."""
        return self.top1

    def figures(self) -> dict[str, float]:
        """The numbers for the log of a training."""
        return {"val_loss": self.loss, "top1": self.top1, "top5": self.top5}

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values, with the percentages."""
        return {
            "num_expected": self.num_expected,
            "num_used": self.num_used,
            "top1": self.top1,
            "top5": self.top5,
            "correct_top1": self.correct_top1,
            "correct_top5": self.correct_top5,
            "loss": self.loss if math.isfinite(self.loss) else None,
            "classes": list(self.classes),
            "class_counts": list(self.class_counts),
            "class_correct": list(self.class_correct),
            "per_class": list(self.per_class),
            "confusion": [list(row) for row in self.confusion],
            "bad": list(self.bad),
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "ClassificationReport":
        """The report that `to_dict` gave."""
        return cls(
            classes=tuple(values["classes"]),
            num_expected=values["num_expected"],
            num_used=values["num_used"],
            correct_top1=values["correct_top1"],
            correct_top5=values["correct_top5"],
            loss=math.nan if values["loss"] is None else values["loss"],
            class_counts=tuple(values["class_counts"]),
            class_correct=tuple(values["class_correct"]),
            confusion=tuple(tuple(row) for row in values["confusion"]),
            bad=tuple(values["bad"]),
        )


class ClassificationTally:
    """Counts of an evaluation, kept on the device until the report."""

    def __init__(self, classes: Sequence[str]) -> None:
        self.classes = tuple(classes)
        self._targets: list[Tensor] = []
        self._predicted: list[Tensor] = []
        self._losses: list[Tensor] = []
        self._in_top5: list[Tensor] = []

    def add(self, outputs: Tensor, targets: Tensor) -> None:
        """Count a batch: outputs (B, K), targets (B,)."""
        _check_outputs(outputs, self.classes)
        best = outputs.topk(min(5, len(self.classes)), dim=1).indices  # (B, 5)
        self._targets.append(targets)
        self._predicted.append(best[:, 0])
        self._in_top5.append((best == targets[:, None]).any(dim=1).sum())
        self._losses.append(F.cross_entropy(outputs, targets, reduction="sum"))

    def counted(self) -> tuple[list[Tensor], ...]:
        """What was counted so far, on the CPU."""
        return tuple(
            [tensor.cpu() for tensor in tensors]
            for tensors in (self._targets, self._predicted, self._losses, self._in_top5)
        )

    def joined(self, parts: Sequence[tuple[list[Tensor], ...]]) -> Self:
        """Add what other tallies have `counted`, in their order; gives this one back."""
        for targets, predicted, losses, in_top5 in parts:
            self._targets += targets
            self._predicted += predicted
            self._losses += losses
            self._in_top5 += in_top5
        return self

    def report(self, bad: Sequence[str] = ()) -> ClassificationReport:
        """The figures so far; `bad` names the images that could not be read."""
        num_classes = len(self.classes)
        targets, predicted = torch.cat(self._targets).cpu(), torch.cat(self._predicted).cpu()
        counts = torch.bincount(targets, minlength=num_classes)
        correct = torch.bincount(targets[predicted == targets], minlength=num_classes)
        confusion: list[list[int]] = []
        if num_classes <= MOST_CLASSES_IN_CONFUSION:
            pairs = torch.bincount(targets * num_classes + predicted, minlength=num_classes**2)
            confusion = pairs.view(num_classes, num_classes).tolist()
        return ClassificationReport(
            classes=self.classes,
            num_expected=len(targets) + len(bad),
            num_used=len(targets),
            correct_top1=int(correct.sum()),
            correct_top5=int(torch.stack(self._in_top5).sum()),
            loss=float(torch.stack(self._losses).cpu().double().sum()) / len(targets),
            class_counts=tuple(counts.tolist()),
            class_correct=tuple(correct.tolist()),
            confusion=tuple(tuple(row) for row in confusion),
            bad=tuple(bad),
        )


class Classification:
    """The task of naming an image's one class.

    Args:
        classes: names in the order of the outputs.
        recipe: gives label smoothing, class weights, mixing and distillation; None where nothing is trained.
        class_counts: training images per class, which balanced class weights are made from.
        steps_per_epoch: optimiser steps in an epoch, for a recipe that mixes in some epochs only.
        teacher: gives the outputs that the recipe's distillation learns from.
    """

    def __init__(
        self,
        classes: Sequence[str],
        recipe: Recipe | None = None,
        class_counts: Sequence[int] | None = None,
        *,
        steps_per_epoch: int | None = None,
        teacher: Teacher | None = None,
    ) -> None:
        self.classes = tuple(classes)
        self.label_smoothing = 0.0
        self._weights: Tensor | None = None
        self._mixer: Mixer | None = None
        self._mixed_steps: int | None = None
        self._distill, self._teacher = (recipe or Recipe()).distill, teacher
        if recipe is None:
            return
        if (teacher is None) != (recipe.distill.teacher is None):
            raise ValueError("a recipe with distillation needs its teacher, and no other takes one")
        self.label_smoothing = recipe.train.label_smoothing
        self._mixer = mixer_of(recipe.augment, len(self.classes), self.label_smoothing)
        if self._mixer is not None and recipe.augment.mix_off_epochs:
            if steps_per_epoch is None:
                raise ValueError("where mixing is off at the end, the number of steps in an epoch is needed")
            self._mixed_steps = (recipe.train.epochs - recipe.augment.mix_off_epochs) * steps_per_epoch
        if recipe.train.class_weights == "balanced":
            if class_counts is None:
                raise ValueError("balanced class weights need the number of images of each class")
            self._weights = balanced_weights(class_counts)

    def prepare(self, images: Tensor, targets: Tensor, seed: tuple[int, int]) -> tuple[Tensor, Tensor]:
        """Mix a batch where the recipe says so: targets (B,) then become class probabilities (B, K)."""
        if self._mixer is None or (self._mixed_steps is not None and seed[1] >= self._mixed_steps):
            return images, targets
        return self._mixer(images, targets, seed)

    def loss(self, outputs: Tensor, targets: Tensor, images: Tensor | None = None) -> Tensor:
        """Cross entropy summed over the images; targets are classes (B,) or probabilities (B, K).

        An image counts with the weight of its class. The sum is meant to be divided by the number of images, not of
        weights, so that its gradient is the same however a batch is cut. With a teacher, which sees the same `images`,
        it is (1 - weight) * cross entropy + weight * `distillation_loss`.
        """
        loss = self._cross_entropy(outputs, targets)
        if self._teacher is None or self._distill.weight == 0 or not len(outputs):
            return loss
        if images is None:
            raise ValueError("a teacher needs the images")
        taught = self._teacher(images)
        _check_outputs(taught, self.classes)
        weight = self._distill.weight
        return (1 - weight) * loss + weight * distillation_loss(outputs, taught, self._distill)

    def _cross_entropy(self, outputs: Tensor, targets: Tensor) -> Tensor:
        _check_outputs(outputs, self.classes)
        if self._weights is not None:
            self._weights = self._weights.to(outputs.device)
        smoothing = self.label_smoothing if targets.ndim == 1 else 0.0  # the mixer has smoothed probabilities already
        return F.cross_entropy(outputs, targets, self._weights, reduction="sum", label_smoothing=smoothing)

    def tally(self) -> ClassificationTally:
        """A new count for an evaluation."""
        return ClassificationTally(self.classes)


def balanced_weights(class_counts: Sequence[int]) -> Tensor:
    """Weight of each class inverse to its number of images, so that the mean over all images is 1: N / (K * n_c).

    K counts the classes that have images; a class without any weighs 0.
    """
    counts = torch.tensor(class_counts, dtype=torch.float64)
    present = counts > 0
    weights = counts.sum() / (present.sum() * counts.clamp(min=1))
    return torch.where(present, weights, 0.0).float()


def _check_outputs(outputs: Tensor, classes: Sequence[str]) -> None:
    if outputs.ndim != 2 or outputs.shape[1] != len(classes):
        raise OvertoneError(
            f"the network's output has shape {tuple(outputs.shape)} for {len(classes)} classes; "
            f"it must be (images, {len(classes)}): choose a network with a classifier of that many classes"
        )
