"""Options of the verbs that train, and that list, compare and report runs."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from overtone.config import Recipe, Run
from overtone.options.common import DataFolder, EvaluationData, with_positional
from overtone.ranges import Checked, Count, PositiveInt


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
        object.__setattr__(self, "data", with_positional(self.data, self.folder))


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
class Report(Checked):
    """Write a self-contained HTML file that opens from disk: of a run, or the explorer of many networks."""

    subject: Annotated[str, tyro.conf.Positional, tyro.conf.arg(metavar="RUN|explorer")]
    """A run folder; or explorer: the published networks and your runs, accuracy against cost."""
    out: Path | None = None
    """The file to write; default: report.html in the run folder, or explorer.html."""
    data: EvaluationData = field(default_factory=EvaluationData)
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
