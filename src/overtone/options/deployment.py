"""Options of the verbs that export networks and measure their speed."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

import tyro

from overtone.options.common import EvaluationData, ExportPrecision, ModelName, Target
from overtone.ranges import Checked, Percent, Pixels, PositiveInt


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
    data: EvaluationData = field(default_factory=EvaluationData)
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
    gpu_suite: bool = False
    """Instead of all this: what only a GPU can show, on one device in ten minutes; with --out as gpu.json."""
    gpu_parts: str = "all"
    """Parts of the GPU suite, separated by commas: steps, sync_bn, resume, decoding, filters, inference, training."""
    dry: bool = False
    """Run the GPU suite on the CPU, with a few small images, to see that it works; always so without a GPU."""
    out: Path | None = None
    """Write benchmark.csv, benchmark.json and, where accuracies are published, benchmark.png into this folder."""
    overwrite: bool = False
    """Replace files of these names in the folder given by --out."""
    json: bool = False
    """Print JSON instead of a table."""
