"""The protocols between a task and what trains, evaluates, predicts and exports: nothing else knows of a task.

A task is made for a list of labels and a recipe. It builds the network, turns records into batches, gives the loss of a
batch and what it is divided by, counts an evaluation, and says how two implementations of its network must agree.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, ClassVar, Protocol, Self, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from overtone import config
from overtone.data.pipeline import Batch, Pipeline
from overtone.data.sources.source import Source
from overtone.tasks.export_forms import ExportForm, GraphForm

R_co = TypeVar("R_co", bound="Report", covariant=True)
Forward = Callable[..., Any]
"""A network under the run's precision: takes what the network takes, and gives its outputs in float32."""


@dataclass(frozen=True)
class Table:
    """A table of a report.

    Attributes:
        title: what it shows; empty for the main one.
        columns: headings.
        rows: the cells.
        num_text: how many columns, from the left, hold words.
    """

    title: str
    columns: tuple[str, ...]
    rows: tuple[tuple[Any, ...], ...]
    num_text: int = 1


@dataclass(frozen=True)
class Plot:
    """A plot of a report, as data that `reports` draws.

    Attributes:
        name: file name without suffix.
        kind: `matrix` (rows by columns of counts, `labels` for both), `curves` (`series` of x and y), `log_curves`
            (over a logarithmic axis) or `bars`.
        title: above it.
        labels: of the rows and columns, or of the bars.
        values: rows of numbers.
        series: curves by name, each a pair of lists.
        axes: names of the horizontal and the vertical axis.
    """

    name: str
    kind: str
    title: str
    labels: tuple[str, ...] = ()
    values: tuple[tuple[float, ...], ...] = ()
    series: Mapping[str, tuple[Sequence[float], Sequence[float]]] = field(default_factory=dict)
    axes: tuple[str, str] = ("", "")


USUAL_ANSWERS = 5


class Report(Protocol):
    """What an evaluation found.

    Attributes:
        score_name: display name of the score, such as `top-1`.
        num_expected: samples asked for.
        num_used: those that could be read, which all figures are about.
        bad: names of the others.
    """

    score_name: ClassVar[str]
    num_expected: int
    num_used: int
    bad: tuple[str, ...]

    @property
    def score(self) -> float:
        """The figure that decides which epoch is best; higher is better. Shares are in percent."""
        ...

    @property
    def loss(self) -> float:
        """Mean loss, which decides between epochs of equal score; NaN where there is none."""
        ...

    def figures(self) -> Mapping[str, float]:
        """Named numbers for the log, in the order of its columns."""
        ...

    def tables(self, *, full: bool = False) -> Sequence[Table]:
        """Tables to print, the main one first; `full`: every row rather than the most telling ones."""
        ...

    def plots(self) -> Sequence[Plot]:
        """Plots to draw."""
        ...

    def to_dict(self) -> dict[str, Any]:
        """All of it as JSON values."""
        ...

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        """The report that `to_dict` gave."""
        ...


class Tally(Protocol[R_co]):
    """What an evaluation counts, batch by batch."""

    def add(self, outputs: Any, targets: Any, names: Sequence[str] = ()) -> None:
        """Count a batch: what `predict` gave, float32, the batch's targets, both on the device, and samples' names."""
        ...

    def counted(self) -> Any:
        """What was counted, as something that can be sent to another process."""
        ...

    def joined(self, parts: Sequence[Any]) -> Self:
        """A tally of all that the parts have `counted`, in their order."""
        ...

    def report(self, bad: Sequence[str]) -> R_co:
        """The figures, given the names of the samples that could not be read."""
        ...


class Prediction(Protocol):
    """What a network says of one image.

    One that can be drawn beside its truth has a method `beside(image, target)`, both of a record, which gives Pillow's
    image. It may have a `to_row() -> dict`: what a Parquet row holds of it, where that is more than `to_dict`.
    """

    def to_dict(self) -> dict[str, Any]:
        """It as JSON values."""
        ...

    def rows(self) -> Sequence[tuple[Any, ...]]:
        """Lines of a printed table under `Task.prediction_columns`."""
        ...

    def write(self, image: Any, folder: Path, stem: str) -> Sequence[Path]:
        """Write files that show it on the image (a path or Pillow's); gives their paths, perhaps none."""
        ...


@dataclass(frozen=True)
class View:
    """An image as its network takes it.

    Attributes:
        pixels: float32 `(1, 3, H, W)`.
        box: left, top, right and bottom of the part of the image that they show, in pixels of the image.
    """

    pixels: Tensor
    box: tuple[float, float, float, float]


@dataclass(frozen=True)
class OutputSpec:
    """One output of a network and how two implementations of it must agree.

    Attributes:
        name: in an exported graph.
        agreement: from a reference, another result (both float64) and a tie: the share, 0 to 1, of decisions that are
            the same, and of those that are, or that the reference puts within the tie of its own.
        shift_free: whether adding a constant to all values of a sample changes nothing, as before a softmax.
    """

    name: str
    agreement: Callable[[np.ndarray, np.ndarray, float], tuple[float, float]]
    shift_free: bool = False


@dataclass(frozen=True)
class Setup:
    """What a task is made from.

    Attributes:
        labels: names of the outputs, in their order.
        recipe: gives the preprocessing, and all that is trained by.
        settings: what an earlier training found (`Manifest.settings`).
        train: the training samples, which class weights are made from; None where nothing is trained.
        steps_per_epoch: optimiser steps in an epoch.
        teacher: gives the outputs that the recipe's distillation learns from.
    """

    labels: tuple[str, ...]
    recipe: config.Recipe = field(default_factory=config.Recipe)
    settings: Mapping[str, Any] = field(default_factory=dict)
    train: Source | None = None
    steps_per_epoch: int | None = None
    teacher: Callable[[Tensor], Tensor] | None = None


class Task(Protocol[R_co]):
    """What is learned; made by `Task(Setup(...))`.

    Attributes:
        name: of the task, which is also that of its package.
        target: key of a record that holds what is learned.
        report_type: class of its reports.
        prediction_columns: headings of a printed table of predictions, after the image's.
        script_does: what an export's `run.py` does, after its name, such as `classifies an image`.
        labels: names of the outputs.
        settings: what the task found beside the weights, to be kept with them.
    """

    name: ClassVar[str]
    target: ClassVar[str]
    report_type: ClassVar[type[Any]]
    prediction_columns: ClassVar[tuple[str, ...]]
    script_does: ClassVar[str]
    labels: tuple[str, ...]
    settings: Mapping[str, Any]

    def __init__(self, setup: Setup) -> None: ...

    @staticmethod
    def build(model: config.Model, labels: Sequence[str], *, pretrained: bool = False) -> nn.Module:
        """Build the network, backbone and head, with new weights, or its backbone's pretrained ones."""
        ...

    def pipeline(self, *, train: bool, channels_last: bool = False, transform: Any = None) -> Pipeline:
        """From a record to a batch; `transform` replaces that of evaluation for a network that takes other inputs."""
        ...

    def transform(self) -> Callable[[Any], Any]:
        """From Pillow's image in RGB to what the network takes, as in evaluation, without the batch dimension."""
        ...

    def prepare(self, batch: Batch, seed: tuple[int, int]) -> Batch:
        """Change a whole training batch on the device, such as by mixing, as a function of `seed` = (seed, step)."""
        ...

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        """Cut a batch into so many parts, which may be empty where there are more parts than samples."""
        ...

    def blank(self, batch: Batch, count: int) -> Batch:
        """So many blank samples (perhaps none) like the batch's, for a process without samples of its own."""
        ...

    def weight(self, batch: Batch) -> float:
        """What the summed loss of a batch is divided by, added up over all processes: samples, pixels or boxes."""
        ...

    def loss(self, network: Forward, batch: Batch) -> Tensor:
        """Loss of a batch, summed; calls the network."""
        ...

    def predict(self, network: Forward, inputs: Any) -> Any:
        """What the network gives for inputs, in evaluation."""
        ...

    def view(self, image: Any) -> "View":
        """What the network takes of Pillow's image in RGB, in one piece, to be explained."""
        ...

    def class_scores(self, network: Forward, pixels: Tensor) -> Tensor:
        """Score (1, K) of each label in pixels (1, 3, H, W), which gradients are taken of."""
        ...

    def tally(self) -> Tally[R_co]:
        """A new count for an evaluation."""
        ...

    def predictions(self, outputs: Any, top_k: int | None = None, threshold: float | None = None) -> list[Any]:
        """One `Prediction` for each sample of `predict`'s outputs.

        Args:
            outputs: what `predict` gave.
            top_k: most answers for a sample; None: as many as the task usually gives, perhaps `USUAL_ANSWERS`.
            threshold: lowest score or share, 0 to 1, of an answer; None: the task's own, if it has one.
        """
        ...

    def learned(self, report: Any) -> Mapping[str, Any]:
        """Settings to keep with the weights that a validation's report is of, such as thresholds."""
        ...

    def outputs(self) -> tuple[OutputSpec, ...]:
        """The outputs of its networks."""
        ...

    def export_form(self, network: nn.Module, size: int | None, *, any_size: bool) -> ExportForm | GraphForm | None:
        """How a network is exported; None: as a classifier, which takes the centre of an image.

        Args:
            network: it.
            size: pixels, side of the square that the export takes; None: the task's choice.
            any_size: any height and width go instead; ignored by a task whose exports take one size.
        """
        ...

    def script(self) -> tuple[str, ...]:
        """Lines of an export's `run.py`, from an image to what it prints or writes; none: no such file.

        They find `about` (model.json), `run(images)`, which gives the outputs of a batch as arrays, and `image`
        (Pillow's, RGB); without an `export_form`, also `logits`, the first output for that image.
        """
        ...


def split_evenly(batch: Batch, parts: int) -> list[Batch]:
    """Cut a batch whose inputs and targets are tensors with samples first; empty parts come before the others."""
    count = batch.num_samples
    empty = max(parts - max(count, 1), 0)
    cut = (tensor.tensor_split(parts - empty) for tensor in (batch.inputs, batch.targets, batch.ids))
    filled = [Batch(*values) for values in zip(*cut, strict=True)]
    return [Batch(batch.inputs[:0], batch.targets[:0], batch.ids[:0])] * empty + filled


def blank_images(batch: Batch, count: int, size: int) -> Batch:
    """So many black images with targets of zeros."""
    inputs = batch.inputs.new_zeros(count, 3, size, size)
    targets = torch.zeros((count, *batch.targets.shape[1:]), dtype=batch.targets.dtype, device=batch.targets.device)
    return Batch(inputs, targets, batch.ids[:0])


def agreement_of_classes(reference: np.ndarray, other: np.ndarray, tie: float) -> tuple[float, float]:
    """Share of samples, or of their positions, with the same best class of logits `(B, K, ...)`; see `OutputSpec`."""
    best, found = (np.expand_dims(values.argmax(axis=1), 1) for values in (reference, other))
    near = np.take_along_axis(reference, found, 1) >= np.take_along_axis(reference, best, 1) - tie
    finite = np.isfinite(other).all(axis=1, keepdims=True)
    return float(((best == found) & finite).mean()), float((near & finite).mean())
