"""Where the figures of a training go beside its own files: TensorBoard, Weights & Biases, MLflow.

The latter two are used if asked for and installed. A run that is resumed is resumed there too: `trackers.json` in the
run folder keeps what it is called there.
"""

import importlib
import json
import math
import os
import secrets
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Literal, Protocol

from torch.utils.tensorboard import SummaryWriter

from overtone.checkpoint import write_text
from overtone.config import Run
from overtone.engine.folder import TENSORBOARD, TRACKERS
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json

Ending = Literal["finished", "interrupted", "failed"]
Row = Mapping[str, Any]
_NOT_FIGURES = ("epoch", "step", "is_best", "score", "score_name", "evaluated")
_MOST_PARAMETERS, _LONGEST_PARAMETER = 100, 250  # what every MLflow server takes in one message, in one value
_PROJECT = "overtone"


class Tracker(Protocol):
    """Something that keeps the figures of a run: `start`, then `metrics` after each epoch, then `close`."""

    name: str

    def start(self, config: Row) -> None:
        """Begin or resume a run of these settings (nested plain values)."""
        ...

    def metrics(self, row: Row) -> None:
        """Keep the figures of an epoch, at the optimiser step `row["step"]`."""
        ...

    def close(self, ending: Ending) -> None:
        """Say how the run ended."""
        ...


def chosen_trackers(run: Run, folder: Path, purge_step: int | None = None) -> list[Tracker]:
    """The trackers that a run asks for.

    Args:
        run: `tensorboard`, `wandb` and `mlflow` say which.
        folder: the run folder.
        purge_step: what TensorBoard has from this step on is of a part of the run that is repeated.

    Raises:
        OvertoneError: one is asked for and not installed.
    """
    check_installed(run)
    trackers: list[Tracker] = []
    if run.tensorboard:
        trackers.append(TensorBoard(folder, purge_step))
    if run.wandb:
        trackers.append(WeightsAndBiases(folder))
    if run.mlflow:
        trackers.append(MLflow(folder))
    return trackers


def check_installed(run: Run) -> None:
    """Whether what the run asks for is installed.

    Raises:
        OvertoneError: it is not; the message says what to install.
    """
    for asked, module, name in ((run.wandb, "wandb", WeightsAndBiases.name), (run.mlflow, "mlflow", MLflow.name)):
        if asked and not _is_installed(module):
            raise OvertoneError(
                f"--run.{module} needs {name}, which is not installed; pip install {module}, or leave the option out"
            )


class TensorBoard:
    """Event files in the run folder."""

    name = "TensorBoard"

    def __init__(self, folder: Path, purge_step: int | None = None) -> None:
        self._folder, self._purge_step = folder / TENSORBOARD, purge_step
        self._writer: SummaryWriter | None = None

    def start(self, config: Row) -> None:
        """Open the event file."""
        self._writer = SummaryWriter(str(self._folder), purge_step=self._purge_step)

    def metrics(self, row: Row) -> None:
        """Add a point to each curve."""
        assert self._writer is not None
        for name, value in row.items():
            if name not in _NOT_FIGURES and value is not None:
                self._writer.add_scalar(name, value, row["step"])
        self._writer.flush()

    def close(self, ending: Ending) -> None:
        """Close the event file."""
        if self._writer is not None:
            self._writer.close()


class WeightsAndBiases:
    """A run at wandb.ai or, with WANDB_MODE=offline, below `wandb/` in the run folder until `wandb sync`.

    Its project is WANDB_PROJECT or `overtone`, its name the run folder's.
    """

    name = "Weights & Biases"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._run: Any = None

    def start(self, config: Row) -> None:
        """Begin the run, or resume the one that the run folder names."""
        known = _known(self._folder, "wandb")
        identity = known or secrets.token_hex(8)
        self._run = _module("wandb").init(
            project=os.environ.get("WANDB_PROJECT", _PROJECT),
            name=self._folder.resolve().name,
            dir=str(self._folder),
            id=identity,
            resume="allow",
            config=dict(config),
        )
        if known is None:
            _remember(self._folder, "wandb", identity)

    def metrics(self, row: Row) -> None:
        """Log the figures of an epoch."""
        self._run.log({"epoch": row["epoch"], **_figures(row)}, step=row["step"])

    def close(self, ending: Ending) -> None:
        """Finish; an interrupted run is marked as one that will be resumed."""
        if self._run is None:
            return
        if ending == "interrupted":
            self._run.mark_preempting()
        self._run.finish(exit_code=0 if ending == "finished" else 1)


class MLflow:
    """A run on the server or in the database of MLFLOW_TRACKING_URI, such as sqlite:///mlflow.db.

    Its experiment is MLFLOW_EXPERIMENT_NAME or `overtone`, its name the run folder's.
    """

    name = "MLflow"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._module: Any = None

    def start(self, config: Row) -> None:
        """Begin the run with its settings as parameters, or resume the one that the run folder names."""
        module, known = _module("mlflow"), _known(self._folder, "mlflow")
        if "MLFLOW_EXPERIMENT_ID" not in os.environ:
            module.set_experiment(os.environ.get("MLFLOW_EXPERIMENT_NAME", _PROJECT))
        run = module.start_run(run_id=known, run_name=self._folder.resolve().name)
        self._module = module
        if known is None:
            parameters = [(name, str(value)[:_LONGEST_PARAMETER]) for name, value in flattened(config).items()]
            for first in range(0, len(parameters), _MOST_PARAMETERS):
                module.log_params(dict(parameters[first : first + _MOST_PARAMETERS]))
            _remember(self._folder, "mlflow", run.info.run_id)

    def metrics(self, row: Row) -> None:
        """Log the figures of an epoch."""
        self._module.log_metrics(_figures(row), step=row["step"])

    def close(self, ending: Ending) -> None:
        """End the run."""
        if self._module is not None:
            self._module.end_run(status={"finished": "FINISHED", "interrupted": "KILLED", "failed": "FAILED"}[ending])


def flattened(values: Mapping[str, Any], prefix: str = "") -> dict[str, Any]:
    """Nested settings as one level: `{"optim": {"lr": 0.1}}` is `{"optim.lr": 0.1}`."""
    flat: dict[str, Any] = {}
    for name, value in values.items():
        flat |= flattened(value, f"{prefix}{name}.") if isinstance(value, Mapping) else {f"{prefix}{name}": value}
    return flat


def _figures(row: Row) -> dict[str, float]:
    return {
        name: float(value)
        for name, value in row.items()
        if name not in _NOT_FIGURES and isinstance(value, (int, float)) and math.isfinite(value)
    }


def _is_installed(module: str) -> bool:
    try:
        return find_spec(module) is not None
    except ValueError:  # imported already, in a way that left no specification
        return True


def _module(name: str) -> ModuleType:
    return importlib.import_module(name)


def _known(folder: Path, tracker: str) -> str | None:
    path = folder / TRACKERS
    try:
        known = parse_json(path.read_text(encoding="utf-8")) if path.is_file() else {}
        return known.get(tracker)
    except (ValueError, AttributeError, OSError):  # then it is another run there
        return None


def _remember(folder: Path, tracker: str, identity: str) -> None:
    names = {name: _known(folder, name) for name in ("wandb", "mlflow")} | {tracker: identity}
    known = {name: value for name, value in names.items() if value is not None}
    write_text(folder / TRACKERS, json.dumps(known) + "\n")
