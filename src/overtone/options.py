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
ExportPrecision = Literal["float32", "bfloat16", "int8", "int8+bfloat16"]
Target = Literal["onnx", "openvino", "executorch", "torch", "aoti"]
RuntimeName = Literal["torch", "compile", "onnx", "openvino", "executorch", "aoti"]


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
class LaunchSlurm:
    """Train on a Slurm cluster; options with a dot, such as --data.root and --run.out, are those of the training."""

    recipe: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RECIPE")]
    """The recipe (overtone train --help lists them)."""
    nodes: int = 1
    """Machines."""
    gpus: int = 1
    """GPUs of each machine, with one process each; 0: train on CPUs."""
    processes: int = 1
    """Processes on each machine, for --gpus 0."""
    partition: str | None = None
    """Partition; default: the cluster's."""
    time: str | None = None
    """Time limit as Slurm takes it, such as 24:00:00; two minutes before, the run saves and the job queues again."""
    account: str | None = None
    """Account that pays."""
    qos: str | None = None
    """Quality of service."""
    cpus_per_gpu: int | None = None
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
    """Print the script; write and submit nothing."""


@dataclass(frozen=True)
class Runs:
    """List the runs below a folder: state, recipe, best top-1, progress, time."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="[DIR]")] = Path("runs")
    """A folder with run folders in it, up to four levels down."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Compare:
    """Show in what the recipes of runs differ, and what came of it: a table, and their curves in one picture."""

    runs: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="RUN RUN …")]
    """Run folders."""
    out: Path = Path("compare.png")
    """The picture to write."""
    overwrite: bool = False
    """Replace the picture if it is there."""
    json: bool = False
    """Print one JSON object instead of tables."""


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
    hf-hub:owner/name; or the folder of an export."""
    data: EvaluationData
    """The images to evaluate on."""
    run: Device = Device()
    """Where the arithmetic happens; nothing here but the size changes the figures beyond rounding."""
    runtime: RuntimeName = "torch"
    """What runs the network; others than torch run its fastest exact form. An export has its own."""
    precision: ExportPrecision | None = None
    """Arithmetic of that runtime; default: run.precision."""
    calibration: Path | None = None
    """Folder of pictures that int8 takes its ranges from."""
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
    hf-hub:owner/name; or the folder of an export."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE|DIR …")]
    """Image files, or folders whose images (also those in folders inside) are taken."""
    top_k: int = 5
    """Classes to name per image."""
    run: Device = Device()
    """Where the arithmetic happens."""
    runtime: RuntimeName = "torch"
    """What runs the network; others than torch run its fastest exact form. An export has its own."""
    precision: ExportPrecision | None = None
    """Arithmetic of that runtime; default: run.precision."""
    calibration: Path | None = None
    """Folder of pictures that int8 takes its ranges from."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """The network of a bare file, where its keys and shapes do not tell."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint."""
    json: bool = False
    """Print JSON instead of a table."""
    out: Path | None = None
    """New folder for files that show each prediction, such as masks and overlays, where the task writes any."""


@dataclass(frozen=True)
class Export:
    """Write a network for a runtime into a folder that appears when its outputs have been checked there."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    to: Literal["onnx", "openvino", "executorch", "torch", "aoti", "auto"]
    """The runtime; torch: torch.export's file; aoti: compiled ahead of time for this kind of machine; auto: the fastest
    on this machine, as overtone tune finds it."""
    precision: ExportPrecision = "float32"
    """Arithmetic; int8 needs --calibration; auto tries every one."""
    size: int | None = None
    """Side of the square input, pixels; default: the model's own."""
    dynamic_batch: bool = False
    """Any number of images in a call, rather than one."""
    with_preprocessing: bool = False
    """Put the normalisation into the graph, and the resize where the runtime can: it then takes uint8 pictures."""
    calibration: Path | None = None
    """Folder of pictures like those to come: int8 takes its ranges from them, and the check is made on them; default:
    generated pictures for the check."""
    out: Path | None = None
    """Folder to write; default: exports/ and a name from the model, the runtime and the precision."""
    overwrite: bool = False
    """Replace an earlier export in that folder."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """The network of a bare file, where its keys and shapes do not tell."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint."""
    threads: int | None = None
    """Threads of arithmetic while it is checked; default: PyTorch's."""
    json: bool = False
    """Print what model.json says instead of a table."""


@dataclass(frozen=True)
class TuningData:
    """Labelled images, so that accuracy decides rather than agreement."""

    root: Path | None = None
    """Folder with val/ or test/ of class folders, or one folder of class folders."""
    split: Literal["auto", "train", "val", "test", "all"] = "auto"
    """Which images; see overtone evaluate."""


@dataclass(frozen=True)
class Tune:
    """Try the runtimes and precisions of this machine, print a table, and write the fastest that is right."""

    model: ModelName
    """Published weights (overtone weights list), run folder, file of weights of any layout, architecture, or
    hf-hub:owner/name."""
    runtimes: tuple[Target, ...] = ()
    """Runtimes to try; default: those that are installed."""
    precisions: tuple[ExportPrecision, ...] = ()
    """Precisions to try; default: all, int8 only where there are pictures for it."""
    data: TuningData = TuningData()
    """Images with classes: what loses more than --max-loss on them is left out."""
    max_loss: float = 1.0
    """Percentage points of top-1 that may be lost on --data.root."""
    min_agreement: float = 95.0
    """Without --data.root: percent of the pictures whose best class must be the network's own."""
    calibration: Path | None = None
    """Folder of pictures like those to come, for int8 and for the check; default: data.root's train/, or data.root."""
    size: int | None = None
    """Side of the square input, pixels; default: the model's own."""
    rounds: int = 7
    """Rounds in which all candidates take turns; the latency is the median."""
    out: Path | None = None
    """Folder for the fastest one; default: exports/ and the model's name with -auto."""
    overwrite: bool = False
    """Replace an earlier export in that folder."""
    weights_dir: tuple[Path, ...] = ()
    """Folders to look in for published weights, beside the cache and OVERTONE_WEIGHTS_DIR."""
    architecture: str | None = None
    """The network of a bare file, where its keys and shapes do not tell."""
    ema: bool = False
    """Take the averaged weights of a training checkpoint."""
    threads: int | None = None
    """Threads of arithmetic; default: PyTorch's."""
    json: bool = False
    """Print JSON instead of a table."""


@dataclass(frozen=True)
class Benchmark:
    """Measure speed and memory on this machine's CPU: each contender has a process of its own, and they take turns."""

    models: Annotated[tuple[str, ...], tyro.conf.Positional, tyro.conf.arg(metavar="MODEL …")]
    """Architectures, published rows (no weights are fetched: they do not matter here), run folders or files."""
    runtime: str = "built,torch"
    """Runtimes, with commas between: built (PyTorch, as it is built), torch (its fastest exact form), compile, onnx,
    openvino, executorch, aoti; all: every one that is installed."""
    precision: str = "float32"
    """Precisions, with commas between: float32, bfloat16, int8, int8+bfloat16; all."""
    batch: str = "1"
    """Images per call, with commas between."""
    size: int | None = None
    """Side of the square input, pixels; default: each model's own."""
    threads: int | None = None
    """Threads of arithmetic; default: PyTorch's."""
    against: str = ""
    """Further networks, with commas between; timm:NAME is one of timm's."""
    train: bool = False
    """Measure a step of training too (float32, bfloat16: autocast)."""
    rounds: int = 30
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
