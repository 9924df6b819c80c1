"""From a name or a path to a network with its weights: the one resolver that every verb uses.

Three kinds of thing are understood: the name of an architecture (ours or timm's, `architecture.tag` for published
weights), a checkpoint file, and the folder of a run (its best checkpoint).
"""

import difflib
import pickle
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file
from timm.data.config import resolve_model_data_config
from torch import Tensor, nn

from overtone import config
from overtone.checkpoint import SUFFIX, Checkpoint, Manifest, has_manifest, read_checkpoint
from overtone.config import Preprocess
from overtone.errors import OvertoneError
from overtone.models import list_architectures
from overtone.models._cfg import unwrap_state_dict

BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to evaluate: on the CPU, float32, eval mode.

    Attributes:
        model: the network.
        architecture: its name; `model_args` are the constructor's arguments beside the number of classes.
        classes: names in the order of the outputs, or None where the weights do not tell.
        preprocess: what its input must have gone through.
        manifest: of the checkpoint, or None for a bare architecture.
        source: what was loaded, for people.
        trained: whether it has weights from a training rather than random ones.
    """

    model: nn.Module
    architecture: str
    classes: tuple[str, ...] | None
    preprocess: Preprocess
    source: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    trained: bool = True


def load_model(spec: str, *, num_classes: int | None = None) -> LoadedModel:
    """The network that `spec` names.

    Args:
        spec: an architecture (random weights), `architecture.tag` (published weights, through timm), a checkpoint of
            overtone, or a run folder (its best checkpoint).
        num_classes: outputs of a bare architecture; a checkpoint has its own.

    Raises:
        OvertoneError: nothing by that name, or a file that cannot be read or does not fit.
    """
    path = _checkpoint_path(spec)
    if path is not None:
        return _from_checkpoint(path)
    tagged = "." in spec
    arguments = {} if num_classes is None else {"num_classes": num_classes}
    model = build(spec, pretrained=tagged, **arguments)
    return LoadedModel(
        model=model.eval(),
        architecture=spec.partition(".")[0],
        classes=None,
        preprocess=preprocess_of(model),
        source=spec if tagged else f"{spec} with random weights",
        trained=tagged,
    )


def build(name: str, **arguments: Any) -> nn.Module:
    """A network by its name, ours or timm's.

    Raises:
        OvertoneError: no such architecture (with the names closest to it), or arguments that it does not take.
    """
    if not timm.is_model(name):
        known = list_architectures() + timm.list_models()
        close = difflib.get_close_matches(name.partition(".")[0], known, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "`overtone models` lists them"
        raise OvertoneError(f"{name!r} is neither a model nor a checkpoint file nor a run folder; {hint}")
    try:
        return timm.create_model(name, **arguments)
    except TypeError as error:
        raise OvertoneError(f"{name} cannot be built with {_spelled(arguments)}: {error}") from error
    except RuntimeError as error:
        if not arguments.get("pretrained"):
            raise
        raise OvertoneError(f"the weights of {name} could not be had: {error}") from error


def build_for_training(settings: config.Model, num_classes: int) -> nn.Module:
    """The network that a recipe trains: built, started from `weights` if it names some, frozen if asked.

    A start from weights is strict but for the classifier, which is made new when its number of classes differs.

    Raises:
        OvertoneError: see `build` and `load_weights`.
    """
    arguments = dict(settings.args)
    if settings.drop_rate:
        arguments["drop_rate"] = settings.drop_rate
    if settings.drop_path_rate:
        arguments["drop_path_rate"] = settings.drop_path_rate
    tagged = "." in settings.name
    model = build(settings.name, pretrained=tagged, num_classes=num_classes, **arguments)
    if settings.weights is not None:
        load_weights(model, settings.weights)
    if settings.freeze:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in classifier_of(model).parameters():
            parameter.requires_grad_(True)
    return model


def load_weights(model: nn.Module, spec: str) -> None:
    """Load a checkpoint, a run's best checkpoint or a published state dict into `model`, new classes allowed.

    Raises:
        OvertoneError: no such file, or keys or shapes that do not fit, other than those of the classifier.
    """
    path = _checkpoint_path(spec)
    if path is None:
        raise OvertoneError(
            f"{spec} is neither a checkpoint file nor a run folder; give the path of one as --model.weights"
        )
    state = read_state_dict(path)
    own = model.state_dict()
    head = {f"{name}.{key}" for name in _classifier_names(model) for key in ("weight", "bias")}
    replaced = {key for key in head & state.keys() & own.keys() if state[key].shape != own[key].shape}
    _load_strictly(model, state | {key: own[key] for key in replaced}, path)


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a checkpoint of overtone, a safetensors file or a PyTorch file, by their names, on the CPU.

    A PyTorch file is read with `weights_only=True`: nothing in it can run.

    Raises:
        OvertoneError: no such file, damaged, or a pickle that asks for more than tensors.
    """
    if has_manifest(path):
        return read_checkpoint(path).weights
    if not path.is_file():
        raise OvertoneError(f"{path} is not there; give the path of a checkpoint file or of a run folder")
    try:
        state = load_file(path) if path.suffix == SUFFIX else torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        reason = "it asks for more than tensors, and nothing but tensors is ever unpickled"
        raise OvertoneError(f"{path} is refused: {reason}; use a file of plain tensors") from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError) as error:
        raise OvertoneError(f"{path} cannot be read: {str(error).splitlines()[0]}; use another copy") from error
    if not isinstance(state, Mapping):
        raise OvertoneError(f"{path} holds a {type(state).__name__}, not a state dict; save `model.state_dict()`")
    return unwrap_state_dict(state)


def preprocess_of(model: nn.Module) -> Preprocess:
    """What timm's `pretrained_cfg` of a network says about its input, as our record."""
    cfg = resolve_model_data_config(model)
    return Preprocess(
        size=int(cfg["input_size"][-1]),
        resize="squash" if cfg["crop_mode"] == "squash" else "shorter",
        crop_fraction=float(cfg["crop_pct"]),
        interpolation=cfg["interpolation"] if cfg["interpolation"] != "random" else "bicubic",
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )


def classifier_of(model: nn.Module) -> nn.Module:
    """The last layer(s), which `reset_classifier` replaces.

    Raises:
        OvertoneError: the network has none (`num_classes=0`).
    """
    classifier = model.get_classifier()  # type: ignore[operator]  # timm's contract
    if isinstance(classifier, nn.Identity):
        raise OvertoneError("the model has no classifier to train; leave --model.args num_classes alone")
    return nn.ModuleList(classifier) if isinstance(classifier, (tuple, list)) else classifier


def _classifier_names(model: nn.Module) -> tuple[str, ...]:
    names = getattr(model, "pretrained_cfg", {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


def _checkpoint_path(spec: str) -> Path | None:
    """The file that a path names: itself, or the best (else the last) checkpoint of a run folder; None for no path."""
    path = Path(spec)
    if path.is_file():
        return path
    if path.is_dir():
        for name in (BEST, LAST):
            if (path / name).is_file():
                return path / name
        raise OvertoneError(f"{path} is a folder without {BEST} or {LAST}; give a run folder that has trained")
    if len(path.parts) > 1 or path.suffix in (SUFFIX, ".pth", ".pt", ".tar"):
        raise OvertoneError(f"{spec} is not there; give the path of a checkpoint file or of a run folder")
    return None


def _from_checkpoint(path: Path) -> LoadedModel:
    if not has_manifest(path):
        raise OvertoneError(
            f"{path} does not say what network it is; build the network by name and load the file's state dict into it"
        )
    checkpoint: Checkpoint = read_checkpoint(path)
    manifest = checkpoint.manifest
    model = build(manifest.architecture, num_classes=len(manifest.classes), **manifest.model_args)
    _load_strictly(model, checkpoint.weights, path)
    return LoadedModel(
        model=model.eval(),
        architecture=manifest.architecture,
        model_args=manifest.model_args,
        classes=manifest.classes,
        preprocess=manifest.preprocess,
        manifest=manifest,
        source=str(path),
    )


def _load_strictly(model: nn.Module, state: Mapping[str, Tensor], path: Path) -> None:
    try:
        model.load_state_dict(state, strict=True)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise OvertoneError(f"{path} does not fit {type(model).__name__}: {' '.join(lines)[:2000]}") from error


def _spelled(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
