"""Options of the verbs about architectures and published weights."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from overtone.options.common import Hardware
from overtone.ranges import Checked


@dataclass(frozen=True)
class Models(Checked):
    """List architectures: parameters, multiply-adds, default resolution, published top-1."""

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = ""
    """A shell pattern such as 'hbonet_*' (quote it), or a part of the name such as vgg."""
    timm: bool = False
    """List timm's own architectures too; give a pattern with it, timm has more than a thousand."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class ImageNet(Checked, section="data"):
    """ImageNet's validation images."""

    root: Path | None = None
    """Class folders named n01440764 and so on, or all images in one folder beside a label file."""
    labels: Path | None = None
    """Label file of images in one folder: the official ground truth, Kaggle's table, Caffe's val.txt, …"""


@dataclass(frozen=True)
class Reproduce(Checked):
    """Check the networks against the published tables: sizes and costs, and with images the accuracy of the weights
    that are available.
    """

    only: str = "*"
    """Rows whose name, architecture or family matches a shell pattern such as 'hbonet*' (quote it)."""
    weights_dir: tuple[Path, ...] = ()
    """Folders with published or converted files, beside the cache; without images, these are verified and loaded."""
    data: ImageNet = ImageNet()
    """The images to measure accuracy on."""
    fetch: bool = False
    """Download the published files that are not available locally."""
    out: Path | None = None
    """Folder for the results, which a later call continues; default with images: reproduced."""
    run: Hardware = field(default_factory=lambda: Hardware(precision="float32"))
    """Device and precision; the published figures were measured in float32."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class WeightsList(Checked):
    """List every published row: file, size, verification, licence, availability, accuracy."""

    pattern: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="[PATTERN]")] = "*"
    """A shell pattern such as 'hbonet_*' (quote it), or a part of the name such as se_resnext."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in beside the cache."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class WeightsFetch(Checked):
    """Download published files into the cache, and verify them."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="NAME|PATTERN …")]
    """Published rows by name, such as hbonet_x100.dli14_in1k, or by a shell pattern (quote it)."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in before downloading."""


@dataclass(frozen=True)
class WeightsVerify(Checked):
    """Verify files: published ones by their published hash, overtone's own by the hash in their header."""

    names: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE|NAME …")]
    """Files, or published rows by name."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published rows, beside the cache."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class WeightsConvert(Checked):
    """Convert weights into a self-describing safetensors file, or back into the published layout."""

    model: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="FILE|NAME")]
    """A file of weights in any published layout, a run folder, or the name of a published row."""
    out: Path
    """The file to write."""
    to: Literal["safetensors", "published"] = "safetensors"
    """safetensors with a header, or the published layout, which the original code reads."""
    layout: Literal["auto", "bare", "module", "model", "state_dict"] = "auto"
    """Wrapper of the published layout; auto: the one of the published row, else bare."""
    architecture: str | None = None
    """The network, where it cannot be inferred from the keys of the file."""
    ema: bool = False
    """Use the averaged weights (EMA) of a training checkpoint."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published rows, beside the cache."""
    overwrite: bool = False
    """Replace the file to write if it is there."""


@dataclass(frozen=True)
class WeightsInspect(Checked):
    """Describe a file of weights, without building the network."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """A file of weights in any layout."""
    json: bool = False
    """Print JSON instead of text."""
