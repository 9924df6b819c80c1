"""The options of each verb, as data: what `--help` shows and what the verb is called with.

Frozen dataclasses of plain values; no PyTorch, so that `--help` answers at once. The docstring under a field is its
help text on the command line.
"""

from dataclasses import dataclass, field
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

    run: Run = field(default_factory=Run)
    """Where and with what the run happens; nothing here changes what is learnt beyond rounding."""


@dataclass(frozen=True)
class EvaluationData:
    """The images to evaluate on."""

    root: Path
    """Folder with val/ or test/ of class folders, or one folder of class folders (for a network of ImageNet: all or
    some of n01440764/ and so on)."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images; auto: val/ or test/ if the folder has one, else what the model's training held out, else all."""


@dataclass(frozen=True)
class Hardware:
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


@dataclass(frozen=True)
class Device(Hardware):
    """Where the arithmetic happens, and at which size."""

    size: int | None = None
    """Side of the square input, pixels; default: the model's own."""


@dataclass(frozen=True)
class Evaluate:
    """Measure top-1, top-5, loss, per-class accuracy and the confusion matrix on a folder of labelled images."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    data: EvaluationData
    """The images to evaluate on."""
    run: Device = Device()
    """Where the arithmetic happens; nothing here but the size changes the figures beyond rounding."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """The network of a bare file, where its keys and shapes do not tell."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint."""
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
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR …")]
    """Image files, or folders whose images (also those in folders inside) are taken."""
    top_k: int = 5
    """Classes to name per image."""
    run: Device = Device()
    """Where the arithmetic happens."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """The network of a bare file, where its keys and shapes do not tell."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Demo:
    """See it work in three minutes: handwritten digits as an image folder, trained, evaluated and predicted."""

    out: Path = Path("demo")
    """Folder for the images and the run."""
    overwrite: bool = False
    """Replace what an earlier demo left in that folder."""


@dataclass(frozen=True)
class ImageNet:
    """ImageNet's validation images."""

    root: Path | None = None
    """Class folders named n01440764 and so on, or all images in one folder beside a label file."""
    labels: Path | None = None
    """Label file of images in one folder: the official ground truth, Kaggle's table, Caffe's val.txt, …"""


@dataclass(frozen=True)
class Reproduce:
    """The published tables as a test: sizes and costs, or with images the accuracy of every weight at hand."""

    only: str = "*"
    """Rows whose name, architecture or family matches a shell pattern such as 'hbonet*' (quote it)."""
    weights_dir: tuple[Path, ...] = ()
    """Folders with published or converted files, beside the cache; without images, these are proved and loaded."""
    data: ImageNet = ImageNet()
    """The images to measure accuracy on."""
    fetch: bool = False
    """Download the published files that are not at hand."""
    out: Path | None = None
    """Folder for the results, which a later call goes on from; default with images: reproduced."""
    run: Hardware = Hardware(precision="float32")
    """Where the arithmetic happens; the published figures were measured in float32."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class WeightsList:
    """List every published row: file, size, proof, licence, whether it is at hand, accuracy."""

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = "*"
    """A shell pattern such as 'hbonet_*' (quote it), or a part of the name such as se_resnext."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in beside the cache."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class WeightsFetch:
    """Download published files into the cache, and prove them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME|PATTERN …")]
    """Published rows by name, such as hbonet_x100.dli14_in1k, or by a shell pattern (quote it)."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in before downloading."""


@dataclass(frozen=True)
class WeightsVerify:
    """Prove files: published ones by their published hash, overtone's own by the one they carry."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE|NAME …")]
    """Files, or published rows by name."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published rows, beside the cache."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class WeightsConvert:
    """Convert weights into a safetensors file that says what it is, or back into the published layout."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|NAME")]
    """A file of weights in any published layout, a run folder, or the name of a published row."""
    out: Path
    """The file to write."""
    to: Literal["safetensors", "published"] = "safetensors"
    """safetensors with a header, or the published layout, which the original code reads."""
    layout: Literal["auto", "bare", "module", "model", "state_dict"] = "auto"
    """Wrapper of the published layout; auto: the one of the published row, else bare."""
    architecture: str | None = None
    """The network, where the file's keys do not tell."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published rows, beside the cache."""
    overwrite: bool = False
    """Replace the file to write if it is there."""


@dataclass(frozen=True)
class WeightsInspect:
    """Say what a file of weights is, without building the network."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A file of weights in any layout."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class PrepareImageNet:
    """Sort ImageNet's archives or its flat validation folder into class folders."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder of validation images, ILSVRC2012_img_val.tar, ILSVRC2012_img_train.tar, or a folder of class tars."""
    out: Path
    """Folder for the class folders, such as imagenet/val; what is there already is kept."""
    labels: Path | None = None
    """Label file of the validation images; default: one of a known name beside them."""
    how: Literal["copy", "link", "move"] = "copy"
    """How an image gets there; link: a hard link where the disk allows it, else a symbolic one."""
