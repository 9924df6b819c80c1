"""Checkpoints of a training: the best weights, and the last state, which a training goes on from exactly.

`best` holds the network that was evaluated. `last` holds the same kind of weights plus, as tensors under their own
names, all that the next step depends on: the optimiser's state by parameter name and, where a moving average is what
is evaluated, the trained weights beside it. Where the training stood is in the manifest's `progress`. Generators have
no state to save: every step seeds its own.
"""

import dataclasses
import platform
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim import Optimizer

from overtone import __version__
from overtone.checkpoint import Checkpoint, Manifest, write_checkpoint
from overtone.engine.state import State
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError

_OPTIMIZER, _MODEL = "optimizer/", "model/"


def versions() -> dict[str, str]:
    """Versions of overtone and of what its numbers depend on."""
    libraries = {name: metadata.version(name) for name in ("torchvision", "timm", "numpy", "pillow")}
    torch_version = str(torch.__version__)  # with the build it is of, such as +cpu
    return {"overtone": __version__, "torch": torch_version, **libraries, "python": platform.python_version()}


def save_best(path: Path, manifest: Manifest, trainer: Trainer, metrics: Mapping[str, Any]) -> None:
    """Write the evaluated weights with their figures."""
    write_checkpoint(path, dataclasses.replace(manifest, metrics=metrics), trainer.evaluated.state_dict())


def save_last(path: Path, manifest: Manifest, trainer: Trainer, state: State, metrics: Mapping[str, Any]) -> None:
    """Write all that the training needs to go on from `state`."""
    manifest = dataclasses.replace(manifest, metrics=metrics, progress=dataclasses.asdict(state))
    write_checkpoint(path, manifest, trainer.evaluated.state_dict(), _training_tensors(trainer))


def restore(path: Path, checkpoint: Checkpoint, trainer: Trainer) -> State:
    """Bring a trainer to where it stood when `save_last` wrote the checkpoint.

    Raises:
        OvertoneError: the checkpoint has weights alone, or is of another network or optimiser.
    """
    if not checkpoint.manifest.progress:
        raise OvertoneError(f"{path} holds weights but no state of a training; go on from the run's last checkpoint")
    state = State(**checkpoint.manifest.progress)
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
