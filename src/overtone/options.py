"""The options of each verb as frozen dataclasses of plain values: the source of `--help`, and the verb's argument.

The docstring under a field is its help text. No PyTorch is imported, so that `--help` is fast.
"""

from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from overtone.config import Data, Recipe, Run
from overtone.errors import OvertoneError
from overtone.ranges import (
    Checked,
    Count,
    Fraction,
    FractionBelowOne,
    NonNegative,
    Percent,
    Pixels,
    Positive,
    PositiveInt,
    Range,
    Seconds,
)

ModelName = Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="MODEL")]
TABLES = (".csv", ".tsv", ".parquet", ".pq")
DataFolder = Annotated[Path | None, tyro.conf.Positional, tyro.conf.arg(metavar="[DIR|TABLE]")]
Precision = Literal["auto", "float32", "bfloat16"]
ExportPrecision = Literal["float32", "bfloat16", "int8", "int8+bfloat16"]
Target = Literal["onnx", "openvino", "executorch", "torch", "aoti"]
RuntimeName = Literal["torch", "compile", "onnx", "openvino", "executorch", "aoti"]


def _with_positional(data: Any, path: Path | None) -> Any:
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
class Models(Checked):
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

    folder: DataFolder = None
    """The images: the same as --data.root, or --data.table for a .csv or .parquet file."""
    run: Run = field(default_factory=Run)
    """Where and with what the run happens; nothing here changes what is learned beyond rounding."""

    def __post_init__(self) -> None:
        """Take the positional folder as `data.root`."""
        super().__post_init__()
        object.__setattr__(self, "data", _with_positional(self.data, self.folder))


@dataclass(frozen=True)
class LaunchSlurm(Checked):
    """Train on a Slurm cluster; options with a dot, such as --data.root and --run.out, are those of the training. After
    `predict` all options that are not listed here are those of the prediction.
    """

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe (overtone train --help lists them); or predict, MODEL, SOURCE and --parts."""
    folder: DataFolder = None
    """The images: the same as --data.root, or --data.table for a .csv or .parquet file."""
    nodes: PositiveInt = 1
    """Machines."""
    gpus: Count = 1
    """GPUs of each machine, with one process each; 0: train on CPUs."""
    processes: PositiveInt = 1
    """Processes on each machine, for --gpus 0."""
    partition: str | None = None
    """Partition; default: the cluster's."""
    time: str | None = None
    """Time limit as Slurm takes it, such as 24:00:00; two minutes before, the run saves and the job is requeued."""
    account: str | None = None
    """Account to charge."""
    qos: str | None = None
    """Quality of service."""
    cpus_per_gpu: PositiveInt | None = None
    """CPU cores of each GPU's process (with --gpus 0: of each process)."""
    mem: str | None = None
    """Memory of each machine, such as 200G."""
    constraint: str | None = None
    """Features that the machines must have, such as a100."""
    job_name: str | None = None
    """Name in the queue; default: the name of the run folder."""
    env: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="KEY=VALUE")] = ()
    """An environment variable of the training; may be given several times."""
    sbatch_option: Annotated[tuple[str, ...], tyro.conf.UseAppendAction, tyro.conf.arg(metavar="NAME[=VALUE]")] = ()
    """A further option of sbatch, without its dashes: exclusive, or mail-type=END; may be given several times."""
    dry_run: bool = False
    """Print the script without writing or submitting it."""


@dataclass(frozen=True)
class Runs(Checked):
    """List the runs below a folder: state, recipe, best score, progress, time."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[DIR]")] = Path("runs")
    """A folder with run folders in it, up to four levels down."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Compare(Checked):
    """Compare the recipes and results of runs in a table, and their curves in one plot."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN …")]
    """Run folders."""
    out: Path = Path("compare.png")
    """The plot to write (PNG)."""
    overwrite: bool = False
    """Replace the plot if it exists."""
    json: bool = False
    """Print one JSON object instead of tables."""


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


@dataclass(frozen=True)
class Evaluate(Checked):
    """Measure a network on labelled images: top-1, top-5 (from ten classes on), loss, per-class accuracy and the
    confusion matrix; for several labels per image mean average precision, F1 and each label's figures; for masks mIoU.
    """

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name; or the folder of an export."""
    data: EvaluationData = EvaluationData()
    """The images to evaluate on."""
    run: Device = Device()
    """Device and precision; only the size changes the figures beyond rounding."""
    runtime: RuntimeName = "torch"
    """Runtime of the network; those other than torch run its fastest exact form. An export has its own."""
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
    settings: InferenceSettings = InferenceSettings()
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
        object.__setattr__(self, "data", _with_positional(self.data, self.folder))
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
    run: Device = Device()
    """Device and precision."""
    runtime: RuntimeName = "torch"
    """Runtime of the network; those other than torch run its fastest exact form. An export has its own."""
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
    settings: InferenceSettings = InferenceSettings()
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
    run: Device = Device()
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


@dataclass(frozen=True)
class Export(Checked):
    """Export a network for a runtime into a folder, which appears once its outputs have been verified there."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    to: Literal["onnx", "openvino", "executorch", "torch", "aoti", "triton", "auto"]
    """The runtime; torch: torch.export's file; aoti: compiled ahead of time for this kind of machine; triton: a model
    repository for Triton and OpenVINO Model Server; auto: the fastest on this machine, as overtone tune finds it."""
    precision: ExportPrecision = "float32"
    """Precision; int8 needs --calibration; --to auto tries every one."""
    size: Pixels | None = None
    """Side of the square input, pixels; default: the model's own."""
    dynamic_batch: bool = False
    """Any number of images in a call, rather than one."""
    dynamic: bool = False
    """Any height and width, rather than one size; for outputs that are maps, where the network takes them."""
    with_preprocessing: bool = False
    """Put the normalisation into the graph, and the resize where the runtime can: it then takes uint8 images."""
    calibration: Path | None = None
    """Folder of representative images, for the calibration of int8 and for the check; default: generated images for the
    check."""
    out: Path | None = None
    """Folder to write; default: exports/ and a name from the model, the runtime and the precision."""
    overwrite: bool = False
    """Replace an earlier export in that folder."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """Architecture of a bare file, where it cannot be inferred from keys and shapes."""
    ema: bool = False
    """Use the averaged weights (EMA) of a training checkpoint."""
    threads: PositiveInt | None = None
    """CPU threads while the export is verified; default: PyTorch's."""
    json: bool = False
    """Print the content of model.json instead of a table."""


@dataclass(frozen=True)
class Trust(Checked):
    """Trust the files of an export that came from elsewhere."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")]
    """Folder of the export."""


@dataclass(frozen=True)
class Tune(Checked):
    """Try the runtimes and precisions of this machine, print a table, and export the fastest that is accurate."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    runtimes: tuple[Target, ...] = ()
    """Runtimes to try; default: those that are installed."""
    precisions: tuple[ExportPrecision, ...] = ()
    """Precisions to try; default: all, int8 only with images for its calibration."""
    data: EvaluationData = EvaluationData()
    """Labelled images: a candidate that loses more than --max-loss on them is rejected."""
    max_loss: Percent = 1.0
    """Percentage points of the score (top-1 or mIoU, say) that may be lost on the labelled images."""
    min_agreement: Percent = 95.0
    """Without labelled images: percent of the images, or pixels, whose best class must be that of the network."""
    calibration: Path | None = None
    """Folder of representative images, for int8 and for the check; default: train/ of data.root, or data.root (or the
    table's folder)."""
    size: Pixels | None = None
    """Side of the square input, pixels; default: the model's own."""
    rounds: PositiveInt = 7
    """Rounds in which all candidates take turns; the latency is the median."""
    out: Path | None = None
    """Folder for the fastest one; default: exports/ and the model's name with -auto."""
    overwrite: bool = False
    """Replace an earlier export in that folder."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """Architecture of a bare file, where it cannot be inferred from keys and shapes."""
    ema: bool = False
    """Use the averaged weights (EMA) of a training checkpoint."""
    threads: PositiveInt | None = None
    """CPU threads; default: PyTorch's."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Benchmark(Checked):
    """Measure speed and memory on this machine's CPU: each contender has a process of its own, and they take turns."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL …")]
    """Architectures, published rows (no weights are fetched: they do not matter here), run folders or files."""
    runtime: str = "built,torch"
    """Runtimes, separated by commas: built (PyTorch, as it is built), torch (its fastest exact form), compile, onnx,
    openvino, executorch, aoti; all: every one that is installed."""
    precision: str = "float32"
    """Precisions, separated by commas: float32, bfloat16, int8, int8+bfloat16; all."""
    batch: str = "1"
    """Images per call, separated by commas."""
    size: Pixels | None = None
    """Side of the square input, pixels; default: each model's own."""
    threads: PositiveInt | None = None
    """CPU threads; default: PyTorch's."""
    against: str = ""
    """Further networks, separated by commas; timm:NAME is one of timm's."""
    train: bool = False
    """Measure a step of training too (float32, bfloat16: autocast)."""
    rounds: PositiveInt = 30
    """Rounds in which all contenders take turns, of up to five calls each."""
    no_memory: bool = False
    """Do not measure memory."""
    out: Path | None = None
    """Write benchmark.csv, benchmark.json and, where accuracies are published, benchmark.png into this folder."""
    overwrite: bool = False
    """Replace files of these names in the folder given by --out."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Report(Checked):
    """Write a self-contained HTML file that opens from disk: of a run, or the explorer of many networks."""

    subject: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|explorer")]
    """A run folder; or explorer: the published networks and your runs, accuracy against cost."""
    out: Path | None = None
    """The file to write; default: report.html in the run folder, or explorer.html."""
    data: EvaluationData = EvaluationData()
    """The images of the run, where they are no longer at the recipe's place."""
    device: str = "auto"
    """What measures the run's network: auto, cpu, cuda, cuda:1, mps."""
    calibrate: bool = False
    """Keep the temperature that fits the validation images best with the run's best network."""
    runs: Path | None = None
    """Explorer: a folder with run folders in it, whose runs become points too."""
    benchmarks: tuple[Path, ...] = ()
    """Folders or files that overtone benchmark --out has written: their latencies are shown."""
    overwrite: bool = False
    """Replace the file if it exists."""


@dataclass(frozen=True)
class Demo(Checked):
    """Train, evaluate, predict and export in about three minutes, on handwritten digits written as an image folder."""

    out: Path = Path("demo")
    """Folder for the images and the run."""
    overwrite: bool = False
    """Replace an earlier demo in that folder."""


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
    run: Hardware = Hardware(precision="float32")
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
        object.__setattr__(self, "data", _with_positional(self.data, self.folder))


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
        object.__setattr__(self, "data", _with_positional(self.data, self.folder))
