"""The options of each verb, as data: what `--help` shows and what the verb is called with.

Frozen dataclasses of plain values; no PyTorch, so that `--help` answers at once. The docstring under a field is its
help text on the command line.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from overtone.config import Recipe, Run

ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
Precision = Literal["auto", "float32", "bfloat16"]


@dataclass(frozen=True)
class Models:
    """List architectures: parameters, multiply-adds, default resolution, published top-1."""

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = ""
    """A shell pattern such as 'hbonet_*' (quote it), or a part of the name such as vgg."""
    timm: bool = False
    """List timm's own architectures too; give a pattern with it, timm has more than a thousand."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Training(Recipe):
    """Train by a recipe; every value of the recipe is an option, shown with the recipe's value as its default."""

    run: Run = Run()
    """Where and with what the run happens; nothing here changes what is learnt beyond rounding."""


@dataclass(frozen=True)
class EvaluationData:
    """The images to evaluate on."""

    root: Path
    """Folder with val/ or test/ of class folders, or one folder of class folders."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images; auto: val/ or test/ if the folder has one, else what the model's training held out, else all."""


@dataclass(frozen=True)
class Device:
    """Where the arithmetic happens."""

    device: str = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Arithmetic of the forward pass; auto: bfloat16 on GPUs that have it, else float32."""
    batch_size: int = 64
    """Images per forward pass."""
    workers: int | None = None
    """Processes that read images; default: the number of usable cores, at most 8."""
    threads: int | None = None
    """Threads of arithmetic on the CPU; default: PyTorch's."""
    size: int | None = None
    """Side of the square input, pixels; default: the model's own."""


@dataclass(frozen=True)
class Evaluate:
    """Measure top-1, top-5, loss, per-class accuracy and the confusion matrix on a folder of labelled images."""

    model: ModelName
    """Run folder, checkpoint file, or name of an architecture."""
    data: EvaluationData
    """The images to evaluate on."""
    run: Device = Device()
    """Where the arithmetic happens; nothing here but the size changes the figures beyond rounding."""
    allow_bad: bool = False
    """Exit with 0 although some images could not be read (they are left out and counted in any case)."""
    out: Path | None = None
    """Write evaluation.json and confusion.png into this folder."""
    overwrite: bool = False
    """Replace files of these names in the folder given by --out."""
    per_class: bool = False
    """Print every class; without it, the 20 worst when there are more."""
    json: bool = False
    """Print one JSON object instead of tables."""


@dataclass(frozen=True)
class Predict:
    """Name what is in pictures: the most probable classes of each image."""

    model: ModelName
    """Run folder, checkpoint file, or name of an architecture."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR …")]
    """Image files, or folders whose images (also those in folders inside) are taken."""
    top_k: int = 5
    """Classes to name per image."""
    run: Device = Device()
    """Where the arithmetic happens."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Demo:
    """See it work in three minutes: handwritten digits as an image folder, trained, evaluated and predicted."""

    out: Path = Path("demo")
    """Folder for the images and the run."""
    overwrite: bool = False
    """Replace what an earlier demo left in that folder."""
