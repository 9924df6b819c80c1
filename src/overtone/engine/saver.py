"""Checkpoints of a training: the best weights, and the last state, from which a training is resumed exactly.

`best` holds the network that was evaluated. `last` holds the weights, or their moving average where there is one, and,
as tensors under their own names, all that the next step depends on: the optimiser's state by parameter name and the
trained weights beside an average. `last-1` and so on are the ones before it. Where the training stood is in the
manifest's `progress`. Generators have no state to save: every step seeds its own.
"""

import dataclasses
import functools
import os
import platform
import time
from collections.abc import Callable, Mapping
from importlib import metadata
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from overtone import __version__
from overtone.checkpoint import (
    TRAINING_PREFIX,
    Checkpoint,
    DamagedCheckpoint,
    Manifest,
    copied,
    read_checkpoint,
    write_tensors,
    write_text,
)
from overtone.engine import folder as files
from overtone.engine.background import Background
from overtone.engine.state import State
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError

_OPTIMIZER, _MODEL = "optimizer/", "model/"


def versions() -> dict[str, str]:
    """Versions of overtone and of what its numbers depend on."""
    libraries = {name: metadata.version(name) for name in ("torchvision", "timm", "numpy", "pillow")}
    torch_version = str(torch.__version__)  # with the build it is of, such as +cpu
    return {"overtone": __version__, "torch": torch_version, **libraries, "python": platform.python_version()}


class Saver:
    """Writes the checkpoints of a run beside the training, which waits only while the tensors are copied.

    Args:
        folder: the run folder.
        manifest: what the network is.
        keep_last: how many of the last checkpoints stay; best is kept besides.
        every_minutes: minutes between checkpoints within an epoch; None: no limit.
        every_steps: steps between checkpoints within an epoch; None: no limit.
    """

    def __init__(
        self,
        folder: Path,
        manifest: Manifest,
        *,
        keep_last: int = 2,
        every_minutes: float | None = None,
        every_steps: int | None = None,
    ) -> None:
        self.folder, self.manifest, self.keep_last = folder, manifest, keep_last
        self.every_minutes, self.every_steps = every_minutes, every_steps
        self._background = Background()
        self._saved_at, self._saved_step = time.monotonic(), 0

    def __enter__(self) -> "Saver":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Wait for the last checkpoint, unless someone insists on leaving at once."""
        self._background.__exit__(kind, error, trace)

    def start(self, step: int) -> None:
        """Count minutes and steps from here on."""
        self._saved_at, self._saved_step = time.monotonic(), step

    @property
    def is_writing(self) -> bool:
        """Whether a checkpoint is being written now."""
        return self._background.is_busy

    def is_due(self, step: int) -> bool:
        """Whether it is time for a checkpoint within the epoch; never while one is being written.

        Raises:
            OvertoneError: the last one could not be written.
        """
        minutes, steps = self.every_minutes, self.every_steps
        if self.is_writing:
            return False
        self._background.check()
        if steps is not None and step - self._saved_step >= steps:
            return True
        return minutes is not None and time.monotonic() - self._saved_at >= 60 * minutes

    def save(
        self,
        trainer: Trainer,
        state: State,
        metrics: Mapping[str, Any],
        *,
        best: bool = False,
        report: str | None = None,
        settings: Mapping[str, Any] | None = None,
    ) -> None:
        """Copy all that the training needs to resume from `state`, and write it in the background.

        Args:
            trainer: the networks and the optimiser, between two steps.
            state: where the training stands.
            metrics: figures of the evaluated weights.
            best: write the evaluated weights with their figures as the best ones, before all else.
            report: text that goes with the best.
            settings: what the task found beside the weights; None: as before.

        Raises:
            OvertoneError: the checkpoint before this one could not be written; the last good ones are still there.
        """
        self._background.close()
        if settings is not None:
            self.manifest = dataclasses.replace(self.manifest, settings=settings)
        manifest = dataclasses.replace(self.manifest, metrics=metrics)
        weights = copied((trainer.model if trainer.average is None else trainer.average.module).state_dict())
        training = copied({}, _training_tensors(trainer))
        is_average = trainer.average is not None and trainer.evaluates == "average"
        chosen = weights if is_average or trainer.average is None else _with_prefix(training, TRAINING_PREFIX + _MODEL)
        last = dataclasses.replace(manifest, progress=dataclasses.asdict(state))
        self.start(state.step)

        def write() -> None:
            if best:
                write_tensors(self.folder / files.BEST, manifest, chosen)
            if best and report is not None:
                write_text(self.folder / files.REPORT, report)
            room = functools.partial(files.make_room, self.folder, self.keep_last)
            write_tensors(self.folder / files.LAST, last, weights | training, room)

        self._background.submit(write)

    def close(self) -> None:
        """Wait for the last checkpoint.

        Raises:
            OvertoneError: it could not be written.
        """
        self._background.close()


def read_last(folder: Path, say: Callable[[str], object]) -> tuple[Path, Checkpoint] | None:
    """The newest checkpoint of a run that is whole, which gets the newest name; damaged ones are set aside.

    Args:
        folder: the run folder, claimed.
        say: called with a line for each damaged one.

    Returns:
        The file and its content; None where there is no checkpoint at all.

    Raises:
        OvertoneError: all of them are damaged, or the newest whole one was written by a newer overtone.
    """
    damaged: list[tuple[Path, DamagedCheckpoint]] = []
    for path in files.checkpoints(folder):
        try:
            checkpoint = read_checkpoint(path)
        except DamagedCheckpoint as error:
            damaged.append((path, error))
            continue
        for broken, error in damaged:
            aside = files.set_aside(broken)
            say(f"{str(error).partition(';')[0]}; it is {aside.name} now, and {path.name} is used instead")
        if path.name != files.LAST:
            os.replace(path, folder / files.LAST)
        return folder / files.LAST, checkpoint
    if damaged:
        names = ", ".join(path.name for path, _ in damaged)
        raise OvertoneError(
            f"no checkpoint in {folder} is whole ({names}; {str(damaged[0][1]).partition(';')[0]}); "
            "put back a copy, or start over with --run.overwrite"
        )
    return None


def restore(path: Path, checkpoint: Checkpoint, trainer: Trainer) -> State:
    """Bring a trainer to where it stood when `save_last` wrote the checkpoint.

    Raises:
        OvertoneError: the checkpoint has weights alone, or is of another network or optimiser.
    """
    if not checkpoint.manifest.progress:
        raise OvertoneError(f"{path} holds weights but no state of a training; resume from the run's last checkpoint")
    state = State.from_dict(checkpoint.manifest.progress)
    trained = _with_prefix(checkpoint.training, _MODEL) if trainer.average is not None else checkpoint.weights
    try:
        trainer.model.load_state_dict(trained)
        if trainer.average is not None:
            trainer.average.module.load_state_dict(checkpoint.weights)
        _restore_optimizer(trainer, _with_prefix(checkpoint.training, _OPTIMIZER))
    except (RuntimeError, KeyError) as error:
        raise OvertoneError(
            f"{path} is not of this training ({str(error).splitlines()[0]}); resume with the recipe of the run"
        ) from error
    return state


def _training_tensors(trainer: Trainer) -> dict[str, Tensor]:
    tensors = {}
    for name, parameter in _trained(trainer.model, trainer.optimizer).items():
        for key, value in trainer.optimizer.state.get(parameter, {}).items():
            if isinstance(value, Tensor):
                tensors[f"{_OPTIMIZER}{name}/{key}"] = value
    if trainer.average is not None:
        tensors |= {_MODEL + key: value for key, value in trainer.model.state_dict().items()}
    return tensors


def _restore_optimizer(trainer: Trainer, tensors: Mapping[str, Tensor]) -> None:
    """Give each parameter its state back, laid out in memory as the parameter is.

    The layout matters for exactness: the same sum taken by a vector instruction or one by one may round otherwise.
    """
    optimizer, parameters = trainer.optimizer, _trained(trainer.model, trainer.optimizer)
    indices = {parameter: index for index, parameter in enumerate(trainer.parameters)}
    states: dict[int, dict[str, Tensor]] = {}
    for full_name, value in tensors.items():
        name, _, key = full_name.rpartition("/")
        parameter = parameters[name]
        if value.shape == parameter.shape:
            value = torch.empty_like(parameter, dtype=value.dtype, requires_grad=False).copy_(value)
        states.setdefault(indices[parameter], {})[key] = value
    groups = optimizer.state_dict()["param_groups"]
    optimizer.load_state_dict({"state": states, "param_groups": groups})


def _trained(model: nn.Module, optimizer: Optimizer) -> dict[str, nn.Parameter]:
    trained = {parameter for group in optimizer.param_groups for parameter in group["params"]}
    return {name: parameter for name, parameter in model.named_parameters() if parameter in trained}


def _with_prefix(tensors: Mapping[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {key.removeprefix(prefix): value for key, value in tensors.items() if key.startswith(prefix)}
