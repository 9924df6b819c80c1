"""Which layout a checkpoint has, and the state dict in it under its published keys."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.checkpoint import TRAINING_PREFIX, Manifest, has_manifest, read_checkpoint, read_manifest
from overtone.errors import OvertoneError
from overtone.models import families
from overtone.models._cfg import unwrap
from overtone.zoo.reading import FileContents, inspect_file, plain_extra, read_values

OWN_LAYOUT, HUB_LAYOUT = "overtone", "hub"


@dataclass(frozen=True)
class State:
    """A state dict out of a file.

    Attributes:
        layout: `overtone`; `hub`; `openmmlab`; else `bare` or the wrapper's key (`model`, `state_dict`, `params`,
            `model_ema`, `state_dict_ema`), followed by `+module` where every key had that prefix.
        entries: tensors, or `TensorInfo` where the file was only inspected, under published keys or ours.
        extra: plain values that stood beside it, such as `epoch` and `best_prec1`.
        has_ema: whether a moving average of the weights is there too.
        manifest: of a checkpoint of overtone.
    """

    layout: str
    entries: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    has_ema: bool = False
    manifest: Manifest | None = None

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Shapes by key."""
        return {key: tuple(value.shape) for key, value in self.entries.items()}


def inspect_state(path: Path) -> tuple[State, FileContents]:
    """The state dict in a file without its numbers, and what else is known of the file.

    Raises:
        OvertoneError: no such file, damaged, no file of weights, or refused.
    """
    contents = inspect_file(path)
    if has_manifest(path):
        weights = {key: info for key, info in contents.values.items() if not key.startswith(TRAINING_PREFIX)}
        return State(OWN_LAYOUT, weights, manifest=read_manifest(path)), contents
    return _recognised(path, contents.values, ema=False), contents


def read_state(path: Path, *, ema: bool = False) -> State:
    """The state dict in a file, its tensors on the CPU.

    Args:
        path: a checkpoint of any layout.
        ema: the moving average of the weights that a training checkpoint may have beside them.

    Raises:
        OvertoneError: as `inspect_state`, and where there is no moving average.
    """
    if has_manifest(path):
        if ema:
            raise OvertoneError(f"{path} has no moving average of the weights; load it without ema")
        checkpoint = read_checkpoint(path)
        return State(OWN_LAYOUT, checkpoint.weights, manifest=checkpoint.manifest)
    contents = inspect_file(path)
    state = _recognised(path, read_values(path, contents), ema=ema)
    if contents.format == "torch zip":  # they lie in the mapped file
        state.entries.update({key: value.clone() for key, value in state.entries.items()})
    return state


def published_entries(state_dict: Mapping[str, Any]) -> tuple[str, dict[str, Any]]:
    """Entries under the published keys, and the layout's name where they had others: see `foreign_layout`."""
    for family in families():
        found = getattr(family, "foreign_layout", lambda _: None)(state_dict)
        if found is not None:
            return found
    return "", dict(state_dict)


def _recognised(path: Path, values: Any, *, ema: bool) -> State:
    if not isinstance(values, Mapping):
        raise OvertoneError(f"{path} holds a {type(values).__name__}, not a state dict; save `model.state_dict()`")
    try:
        found = unwrap(values, ema=ema)
    except KeyError:
        raise OvertoneError(f"{path} has no moving average of the weights; load it without ema") from None
    except ValueError:
        held = ", ".join(map(str, list(values)[:8])) or "nothing"
        raise OvertoneError(f"{path} holds no tensors by name but {held}; save `model.state_dict()`") from None
    foreign, entries = published_entries(found.entries)
    return State(foreign or found.layout, entries, plain_extra(found.extra), found.has_ema)
