"""Options of the verbs about images on disk."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import tyro

from overtone.options.common import DataFolder, with_positional
from overtone.ranges import Checked, Count, Positive, PositiveInt, Range


@dataclass(frozen=True)
class PrepareImageNet(Checked):
    """Sort ImageNet's archives or its flat validation folder into class folders."""

    source: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="SOURCE")]
    """Folder of validation images, ILSVRC2012_img_val.tar, ILSVRC2012_img_train.tar, or a folder of class tars."""
    out: Path
    """Folder for the class folders, such as imagenet/val; existing images are kept."""
    labels: Path | None = None
    """Label file of the validation images; default: one of a known name beside them."""
    how: Literal["copy", "link", "move"] = "copy"
    """How an image is placed; link: a hard link where the disk allows it, otherwise a symbolic one."""


@dataclass(frozen=True)
class PackedData(Checked, section="data"):
    """The images."""

    root: Path | None = None
    """Whatever a training takes: a folder of class folders, shards, an address."""
    table: Path | None = None
    """CSV or Parquet file with a column of image paths, relative to it or to `root`, and columns of labels."""


@dataclass(frozen=True)
class DataPack(Checked):
    """Write tar shards (WebDataset's layout) from any images; a call that was stopped is continued by the same call."""

    out: Path
    """Folder for the shards and their index.json."""
    folder: DataFolder = None
    """The images: the same as --data.root, or --data.table for a .csv or .parquet file."""
    data: PackedData = PackedData()
    """The images."""
    task: str = "classification"
    """The task that the shards are for, which decides what is written beside each image."""
    size_mb: Positive = 256.0
    """About how large a shard becomes, MB."""
    max_side: PositiveInt | None = None
    """Resize images whose shorter side is longer to so many pixels, and write them as JPEG: changes pixels; default:
    every file is written byte for byte."""
    quality: Annotated[int, Range(at_least=1, at_most=100)] = 92
    """Quality of that JPEG."""
    listed: bool = False
    """Write the training images in the order in which they are listed; default: shuffled, so that each shard holds all
    classes."""
    workers: Count = 0
    """Threads; 0: by the number of cores."""
    json: bool = False
    """Print JSON instead of text."""

    def __post_init__(self) -> None:
        """Take the positional folder as `data.root`."""
        super().__post_init__()
        object.__setattr__(self, "data", with_positional(self.data, self.folder))


@dataclass(frozen=True)
class DataVerify(Checked):
    """Check shards against the sizes and SHA-256 in their index.json, and that every image in them can be decoded."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder that overtone data pack has written."""
    no_decode: bool = False
    """Check the shards' bytes alone."""
    json: bool = False
    """Print JSON instead of text."""


@dataclass(frozen=True)
class DataInfo(Checked):
    """Describe images: labels, sizes, formats, unreadable files, files that are the same; of masks the shares of the
    classes.
    """

    folder: DataFolder = None
    """The images: the same as --data.root, or --data.table for a .csv or .parquet file."""
    data: PackedData = PackedData()
    """The images."""
    task: str | None = None
    """The task whose labels are counted; default: segmentation where masks/ lies beside images/, else
    classification."""
    headers: bool = False
    """Read only the headers of the images: sooner, and damaged ones are not found."""
    out: Path | None = None
    """Write info.json, plots and some masks on their images into this folder."""
    json: bool = False
    """Print JSON instead of tables."""

    def __post_init__(self) -> None:
        """Take the positional folder as `data.root`."""
        super().__post_init__()
        object.__setattr__(self, "data", with_positional(self.data, self.folder))
