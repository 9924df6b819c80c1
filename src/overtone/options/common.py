"""What several verbs have in common: names of types, images, device and precision."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from overtone.config import Data
from overtone.errors import OvertoneError
from overtone.ranges import Checked, Count, FractionBelowOne, Pixels, Positive, PositiveInt

ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
TABLES = (".csv", ".tsv", ".parquet", ".pq")
DataFolder = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DIR|TABLE]")]
Precision = Literal["auto", "float32", "bfloat16"]
ExportPrecision = Literal["float32", "bfloat16", "int8", "int8+bfloat16"]
Target = Literal["onnx", "openvino", "executorch", "torch", "aoti"]
RuntimeName = Literal["torch", "compile", "onnx", "openvino", "executorch", "aoti"]


def with_positional(data: Any, path: Path | None) -> Any:
    """Return `data` with the positional path as its `root`, or as its `table` if it has the suffix of one.

    Raises:
        OvertoneError: `data` already names another path.
    """
    name = "table" if path is not None and path.suffix.lower() in TABLES and hasattr(data, "table") else "root"
    given = getattr(data, name)
    if path is None or path == given:
        return data
    if given is not None:
        raise OvertoneError(f"the images are given twice, {path} and --data.{name} {given}; give one")
    return replace(data, **{name: path})


@dataclass(frozen=True)
class EvaluationData(Checked, section="data"):
    """Labelled images."""

    root: Path | None = None
    """Folder with val/ or test/ of class folders, or one folder of class folders (for a network of ImageNet: all or
    some of n01440764/ and so on); with a table, the folder of its images."""
    table: Path | None = None
    """CSV or Parquet file with a column of image paths, relative to it or to root, and columns of labels."""
    image_column: str | None = None
    """Column of the table with the image paths; default: image, path, file or filename."""
    label_column: str | None = None
    """Column of the table with the labels; default: label, or labels; or one column of 0 and 1 for each label."""
    split_column: str | None = None
    """Column of the table with train, val or test; default: split, if there is one."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images; auto: val/ or test/ (or the table's rows of these) if there are any, else what the model's training
    held out, else all."""

    @property
    def is_given(self) -> bool:
        """Whether there are any."""
        return self.root is not None or self.table is not None

    def as_data(self) -> Data:
        """Where the images are, as a recipe says it."""
        return Data(
            root=self.root,
            table=self.table,
            image_column=self.image_column,
            label_column=self.label_column,
            split_column=self.split_column,
        )


@dataclass(frozen=True)
class Hardware(Checked, section="run"):
    """Device and precision."""

    device: str = "auto"
    """auto: a GPU if there is one; or cpu, cuda, cuda:1, mps."""
    precision: Precision = "auto"
    """Precision of the forward pass; auto: bfloat16 on GPUs that have it, else float32."""
    batch_size: PositiveInt = 64
    """Images per forward pass."""
    workers: Count | None = None
    """Processes that read images; default: the number of usable cores, at most 8."""
    threads: PositiveInt | None = None
    """CPU threads of PyTorch and the runtime; default: PyTorch's."""


@dataclass(frozen=True)
class Device(Hardware):
    """Device and precision, and the input size."""

    size: Pixels | None = None
    """Side of the square input, pixels; default: the model's own."""


@dataclass(frozen=True)
class InferenceSettings(Checked, section="settings"):
    """Of a segmentation: how images pass through the network; default: as its recipe says."""

    scale: tuple[Pixels, Pixels] | None = None
    """Longer and shorter side that images are resized into, keeping their ratio."""
    inference: Literal["whole", "slide"] | None = None
    """Whole images, or overlapping windows whose logits are averaged."""
    window: Pixels | None = None
    """slide: side of the windows, pixels."""
    stride: Pixels | None = None
    """slide: pixels from window to window."""
    scales: tuple[Positive, ...] | None = None
    """Pass every image at these factors of its size, such as 0.5 0.75 1 1.25, and average the probabilities."""
    flip: bool = False
    """Pass every image mirrored too, and average the probabilities."""
    boundary: FractionBelowOne | None = None
    """Report a boundary F-score too, of borders within this share of the image's diagonal, such as 0.0075."""

    def given(self) -> dict[str, Any]:
        """The settings that are not the recipe's; a window or a stride means windows."""
        values = {name: getattr(self, name) for name in self.__dataclass_fields__}
        if self.window is not None or self.stride is not None:
            values["inference"] = self.inference or "slide"
        return {name: value for name, value in values.items() if value not in (None, False)}
