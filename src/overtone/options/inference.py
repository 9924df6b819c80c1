"""Options of the verbs that run a network on images: evaluate, predict, explain, serve."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from overtone.errors import OvertoneError
from overtone.options.common import (
    DataFolder,
    Device,
    EvaluationData,
    ExportPrecision,
    InferenceSettings,
    ModelName,
    RuntimeName,
    with_positional,
)
from overtone.ranges import Checked, Fraction, NonNegative, Pixels, PositiveInt, Range, Seconds


@dataclass(frozen=True)
class Evaluate(Checked):
    """Measure a network on labelled images: top-1, top-5 (from ten classes on), loss, per-class accuracy and the
    confusion matrix; for several labels per image mean average precision, F1 and each label's figures; for masks mIoU.
    """

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name; or the folder of an export."""
    data: EvaluationData = field(default_factory=EvaluationData)
    """The images to evaluate on."""
    run: Device = field(default_factory=Device)
    """Device and precision; only the size changes the figures beyond rounding."""
    runtime: RuntimeName = "torch"
    """Runtime of the network. An export has its own."""
    no_deploy: bool = False
    """Run the network as it was trained in torch too, rather than in its fastest exact form (overtone.deploy), which 64
    or more images get otherwise."""
    precision: ExportPrecision | None = None
    """Precision in that runtime; default: that of --run.precision."""
    calibration: Path | None = None
    """Folder of images from which the ranges of int8 are calibrated."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """Architecture of a bare file, where it cannot be inferred from keys and shapes."""
    ema: bool = False
    """Use the averaged weights (EMA) of a training checkpoint."""
    settings: InferenceSettings = field(default_factory=InferenceSettings)
    """Of a segmentation: how images pass through the network."""
    allow_bad: bool = False
    """Exit with 0 even if some images could not be read (they are excluded and counted either way)."""
    parts: Path | None = None
    """Write what the network says of each image into this folder as Parquet parts too; processes of torchrun or Slurm
    share the images, and a call that was stopped is continued by the same call."""
    part_size: PositiveInt = 8192
    """Images of a part."""
    out: Path | None = None
    """Write evaluation.json, the plots, such as confusion.png, for masks and boxes the worst images beside their truth,
    and of a classifier images.jsonl, what each image was taken for, into this folder; the page of overtone serve --runs
    shows that of a folder inside of the run's."""
    overwrite: bool = False
    """Replace files of these names in the folder given by --out."""
    per_class: bool = False
    """Print every class, rather than the 20 worst."""
    folder: DataFolder = None
    """The images to evaluate on: the same as --data.root, or --data.table for a .csv or .parquet file."""
    json: bool = False
    """Print one JSON object instead of tables."""

    def __post_init__(self) -> None:
        """Take the positional folder as `data.root`, or the table as `data.table`."""
        super().__post_init__()
        object.__setattr__(self, "data", with_positional(self.data, self.folder))
        if not self.data.is_given:
            raise OvertoneError(
                "no images are given; add a folder of class folders, DIR, or a table, --data.table FILE"
            )


@dataclass(frozen=True)
class Predict(Checked):
    """Predict what images show: the most probable classes, or the labels, of each."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name; or the folder of an export."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR …")]
    """Image files, or folders, which are searched recursively; or shards or Parquet files, as training takes them."""
    top_k: PositiveInt | None = None
    """Most classes, labels or objects to report per image; default: 5, and all objects."""
    threshold: Fraction | None = None
    """Lowest probability, score of an object or share of the pixels to report; default: the model's own, if any."""
    parts: Path | None = None
    """Write the predictions into this folder as Parquet parts instead of printing them; processes of torchrun or Slurm
    share the images, and a call that was stopped is continued by the same call."""
    part_size: PositiveInt = 8192
    """Images of a part."""
    features: bool = False
    """Write the pooled features before the classifier into the parts, instead of classes."""
    features_dtype: Literal["float32", "float16"] = "float32"
    """Type of the features."""
    run: Device = field(default_factory=Device)
    """Device and precision."""
    runtime: RuntimeName = "torch"
    """Runtime of the network. An export has its own."""
    no_deploy: bool = False
    """Run the network as it was trained in torch too, rather than in its fastest exact form (overtone.deploy), which 64
    or more images get otherwise."""
    precision: ExportPrecision | None = None
    """Precision in that runtime; default: that of --run.precision."""
    calibration: Path | None = None
    """Folder of images from which the ranges of int8 are calibrated."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """Architecture of a bare file, where it cannot be inferred from keys and shapes."""
    ema: bool = False
    """Use the averaged weights (EMA) of a training checkpoint."""
    settings: InferenceSettings = field(default_factory=InferenceSettings)
    """Of a segmentation: how images pass through the network."""
    json: bool = False
    """Print JSON instead of a table."""
    out: Path | None = None
    """New folder for files that show each prediction, such as masks and overlays, where the task writes any."""


@dataclass(frozen=True)
class Explain(Checked):
    """Show where a network looks: for each image the parts that count for its class (Grad-CAM), as a PNG and JSON."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR …")]
    """Image files, or folders, which are searched recursively."""
    out: Path
    """New folder for the files."""
    label: tuple[str, ...] = ()
    """Classes to explain; default: the best ones of each image."""
    top_k: PositiveInt = 1
    """How many of the best classes."""
    layer: str | None = None
    """Module whose output is explained; default: the last stage of the backbone."""
    opacity: Fraction = 0.7
    """Of the map over the image."""
    run: Device = field(default_factory=Device)
    """Device and precision."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """Architecture of a bare file, where it cannot be inferred from keys and shapes."""
    ema: bool = False
    """Use the averaged weights (EMA) of a training checkpoint."""


@dataclass(frozen=True)
class Serve(Checked):
    """Serve networks over HTTP: a page to try them, an API for images, the Open Inference Protocol for tensors."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL …")]
    """Published weights (overtone weights list), run folders, files of weights, architectures, or folders of exports;
    each gets the last part of what it is given as for its name."""
    port: Annotated[int, Range(at_least=0, at_most=65535)] = 8000
    """Port; 0: any that is free."""
    host: str = "127.0.0.1"
    """Address to listen on; 0.0.0.0: all of this machine's."""
    token: str | None = None
    """Token that clients must show as "Authorization: Bearer TOKEN"; default: the variable OVERTONE_SERVE_TOKEN."""
    runtime: RuntimeName = "torch"
    """Runtime of the networks, which run in their fastest exact form. An export has its own."""
    precision: ExportPrecision | None = None
    """Precision in that runtime; default: float32, on GPUs that have it bfloat16."""
    device: str = "auto"
    """Device of PyTorch: auto, cpu, cuda, cuda:1, mps."""
    threads: PositiveInt | None = None
    """CPU threads of the arithmetic; default: PyTorch's."""
    size: Pixels | None = None
    """Side of the square input, pixels; default: each model's own."""
    calibration: Path | None = None
    """Folder of images from which the ranges of int8 are calibrated."""
    max_batch: PositiveInt = 16
    """Images that pass through a network together at most."""
    max_wait_ms: NonNegative = 3.0
    """Milliseconds that an image waits for others that are on their way."""
    max_queue: PositiveInt = 128
    """Images of a model that may wait; more are answered with 503."""
    max_mb: Annotated[int, Range(at_least=1, at_most=1024)] = 32
    """Size of a request at most, MiB; larger ones are answered with 413."""
    max_pixels: PositiveInt = 50_000_000
    """Pixels of an image at most."""
    deadline: Seconds = 60.0
    """Seconds for an answer, then 504."""
    runs: Path | None = None
    """Folder of runs that the page shows."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    ema: bool = False
    """Use the averaged weights (EMA) of training checkpoints."""
