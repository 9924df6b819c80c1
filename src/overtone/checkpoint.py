"""The one format of weights and training state: a safetensors file whose header carries a manifest.

A file holds the network's tensors under their own names and, where a training can resume from it, further tensors whose
names begin with `training/`. The header's manifest (JSON) says what the network is: architecture, labels,
preprocessing, recipe, figures, versions; and a SHA-256 over the manifest and all tensors, which is verified on reading.
Nothing in the file is code, and no pickle is ever read from it. The SHA-256 finds damage, not malice: whoever writes a
file writes its hash too, so what the manifest says is checked wherever it is used (`models.arguments`).
"""

import hashlib
import json
import os
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, is_dataclass
from pathlib import Path
from typing import Any, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from overtone.config import Preprocess, Recipe, from_dict, to_dict
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json
from overtone.replacing import flush

FORMAT = 2
SUFFIX = ".safetensors"
BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"  # of a run folder
TRAINING_PREFIX = "training/"
_MANIFEST, _PROOF = "overtone", "overtone.sha256"
_TEMPORARY = re.compile(r"\..+\.\d+\.tmp")


class DamagedCheckpoint(OvertoneError):
    """A file that is not, or no longer, what was written: cut, altered, unreadable or without its manifest."""


@dataclass(frozen=True)
class Manifest:
    """What a checkpoint holds, apart from the tensors.

    Attributes:
        architecture: the name that builds the network, ours or timm's; `model_args` are the constructor's arguments.
        labels: names of the outputs, in their order; checkpoints of format 1 call them `classes`.
        preprocess: from a decoded image to the input.
        recipe: the resolved recipe as plain values, if the network was trained here.
        metrics: figures of the network at this point, such as `top1` (percent) on the validation images.
        progress: where the training was (`epoch`, `step`, …), empty for weights alone.
        versions: of overtone and the packages under it.
        source: where weights that were not trained here come from, as a sentence; never parsed.
        task: what the network does, a name in `overtone.tasks`.
        head: the dense head over the backbone; None for a network that is whole by itself.
        settings: what the task found beside the weights, as plain values, such as a threshold per label.
        split: how validation samples were chosen: `seeded`, and digests of the training's sources.
        published: full name of the published row whose weights these are, for a converted file.
    """

    architecture: str
    labels: tuple[str, ...]
    preprocess: Preprocess
    model_args: Mapping[str, Any] = field(default_factory=dict)
    recipe: Mapping[str, Any] | None = None
    metrics: Mapping[str, Any] = field(default_factory=dict)
    progress: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    source: str | None = None
    task: str = "classification"
    head: str | None = None
    settings: Mapping[str, Any] = field(default_factory=dict)
    split: Mapping[str, Any] = field(default_factory=dict)
    published: str | None = None
    format: int = FORMAT


@dataclass(frozen=True)
class Checkpoint:
    """A checkpoint in memory: `weights` for `load_state_dict`, `training` for the engine (may be empty)."""

    manifest: Manifest
    weights: dict[str, Tensor]
    training: dict[str, Tensor]


def write_checkpoint(
    path: Path, manifest: Manifest, weights: Mapping[str, Tensor], training: Mapping[str, Tensor] | None = None
) -> None:
    """Write a checkpoint so that `path` is either the old file or the whole new one, whatever happens.

    Raises:
        OvertoneError: the file cannot be written (disk full, no permission); the old file is unchanged.
    """
    write_tensors(path, manifest, copied(weights, training))


def copied(weights: Mapping[str, Tensor], training: Mapping[str, Tensor] | None = None) -> dict[str, Tensor]:
    """Copy the tensors of a checkpoint as they are now, under the names they have in the file.

    Returns:
        Dense copies on the CPU in row-major order, each with memory of its own: the originals may change.
    """
    tensors = {key: _plain(value) for key, value in weights.items()}
    return tensors | {TRAINING_PREFIX + key: _plain(value) for key, value in (training or {}).items()}


def write_tensors(
    path: Path, manifest: Manifest, tensors: Mapping[str, Tensor], before_naming: Callable[[], object] | None = None
) -> None:
    """Write tensors that `copied` returned.

    Args:
        path: the file.
        manifest: what the tensors are.
        tensors: the tensors.
        before_naming: see `replacing`.

    Raises:
        OvertoneError: as `write_checkpoint`.
    """
    text = json.dumps(to_dict(manifest))
    metadata = {_MANIFEST: text, _PROOF: _sha256(text, tensors)}
    with replacing(path, before_naming) as temporary:
        save_file(dict(tensors), temporary, metadata=metadata)


def read_manifest(path: Path) -> Manifest:
    """The manifest of a checkpoint, from the header alone (the tensors are not verified).

    Raises:
        OvertoneError: no such file, damaged, or not a checkpoint of overtone.
    """
    with _opened(path) as file:
        return _manifest_of(path, file.metadata())


def has_manifest(path: Path) -> bool:
    """Whether a file is a checkpoint of overtone rather than bare tensors."""
    if path.suffix != SUFFIX or not path.is_file():
        return False
    with _opened(path) as file:
        return _MANIFEST in (file.metadata() or {})


def read_checkpoint(path: Path) -> Checkpoint:
    """Read a checkpoint onto the CPU and verify its SHA-256.

    Raises:
        DamagedCheckpoint: cut or altered (a flipped bit is enough), or not a checkpoint of overtone.
        OvertoneError: no such file, or written by a newer overtone.
    """
    with _opened(path) as file:
        metadata = _with_manifest(path, file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    if _sha256(metadata[_MANIFEST], tensors) != metadata.get(_PROOF):
        raise DamagedCheckpoint(
            f"{path} is damaged: its content does not match the SHA-256 it was written with; use another copy"
        )
    manifest = _manifest_of(path, metadata)
    weights = {key: value for key, value in tensors.items() if not key.startswith(TRAINING_PREFIX)}
    training = {
        key.removeprefix(TRAINING_PREFIX): value for key, value in tensors.items() if key.startswith(TRAINING_PREFIX)
    }
    return Checkpoint(manifest, weights, training)


def verify_checkpoint(path: Path) -> Manifest:
    """Verify a checkpoint that is not needed now, such as a run's best one when the run resumes.

    Returns:
        Its manifest.

    Raises:
        DamagedCheckpoint: cut or altered, or not a checkpoint of overtone.
        OvertoneError: no such file, or written by a newer overtone.
    """
    return read_checkpoint(path).manifest


@contextmanager
def replacing(path: Path, before_naming: Callable[[], object] | None = None) -> Iterator[Path]:
    """A temporary path beside `path` that takes its name when the block ends without an error.

    The file is flushed to the disk before the renaming, the folder after it: a crash leaves the old or the new file.

    Args:
        path: the name that the file is to have.
        before_naming: called when the new file is complete and on the disk, and `path` is still the old one.

    Raises:
        OvertoneError: the file cannot be written; the old one is unchanged and the temporary one is removed.
    """
    temporary = temporary_beside(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.touch()
        mode = temporary.stat().st_mode  # by the user's umask; safetensors would let only the owner read
        yield temporary
        temporary.chmod(mode)
        flush(temporary)
        if before_naming is not None:
            before_naming()
        os.replace(temporary, path)
        flush(path.parent)
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise OvertoneError(
            f"{path} could not be written: {reason}; free some space or choose another folder"
        ) from error
    finally:
        with suppress(OSError):
            temporary.unlink(missing_ok=True)


def temporary_beside(path: Path) -> Path:
    """Where this process writes what is to become `path`."""
    return path.with_name(f".{path.name}.{os.getpid()}.tmp")


def is_temporary(path: Path) -> bool:
    """Whether a file has a name that `temporary_beside` gives: it is being written, or its writer is dead."""
    return _TEMPORARY.fullmatch(path.name) is not None


def write_text(path: Path, text: str) -> None:
    """Write a text file whole or not at all (see `replacing`)."""
    with replacing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_with(path: Path, write: Callable[[Path], object]) -> None:
    """Let `write` create a file, which gets its name when it is complete (see `replacing`)."""
    with replacing(path) as temporary:
        write(temporary)


def _plain(tensor: Tensor) -> Tensor:
    """A dense copy on the CPU in row-major order, with memory of its own."""
    return torch.empty(tensor.shape, dtype=tensor.dtype).copy_(tensor.detach())


def _sha256(manifest: str, tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over the manifest and, in the order of their names, each tensor's name, type, shape and bytes."""
    digest = hashlib.sha256(manifest.encode())
    for name in sorted(tensors):
        tensor = tensors[name]
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.contiguous().reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


@contextmanager
def _opened(path: Path) -> Iterator[Any]:
    if not path.is_file():
        raise OvertoneError(f"{path} is not there; give the path of a checkpoint file or of a run folder")
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except SafetensorError as error:
        raise DamagedCheckpoint(f"{path} is not a complete safetensors file ({error}); use another copy") from error
    except OSError as error:
        # a cut file cannot be mapped, a bad sector cannot be read: the name exists, the content does not
        kind = OvertoneError if isinstance(error, PermissionError) else DamagedCheckpoint
        raise kind(f"{path} cannot be read as a safetensors file ({error}); use another copy") from error


def _with_manifest(path: Path, metadata: Mapping[str, str] | None) -> Mapping[str, str]:
    if not metadata or _MANIFEST not in metadata:
        raise DamagedCheckpoint(f"{path} holds tensors but no overtone manifest; give the architecture's name with it")
    return metadata


def _manifest_of(path: Path, metadata: Mapping[str, str] | None) -> Manifest:
    metadata = _with_manifest(path, metadata)
    try:
        values = parse_json(metadata[_MANIFEST])
        _check_shape(values)
        newer = values.get("format", 0) > FORMAT
        if "classes" in values:  # format 1
            values["labels"] = values.pop("classes")
        manifest = None if newer else from_dict(Manifest, values)
    except (ValueError, TypeError, AttributeError, RecursionError, OvertoneError) as error:
        reason = "it is nested too deeply" if isinstance(error, RecursionError) else error
        raise DamagedCheckpoint(
            f"{path} is damaged: its manifest cannot be read ({reason}); use another copy"
        ) from error
    if manifest is None:
        raise OvertoneError(f"{path} was written by a newer overtone (format {values['format']}); update overtone")
    return manifest


_DEEPEST = 16
_SECTIONS = frozenset(name for name, kind in get_type_hints(Recipe).items() if is_dataclass(kind))
_MAPPINGS = ("model_args", "metrics", "progress", "versions", "settings", "split", "preprocess")


def _check_shape(values: Any) -> None:
    """Raise ValueError where a manifest's plain values are not of the kinds that its fields have."""
    _check_depth(values)
    if not isinstance(values, dict):
        raise ValueError("it is no mapping")
    recipe = values.get("recipe")
    mappings = {name: values[name] for name in _MAPPINGS if name in values}
    if recipe is not None:
        mappings["recipe"] = recipe
        for name in _SECTIONS.intersection(recipe) if isinstance(recipe, dict) else ():
            mappings[f"recipe.{name}"] = recipe[name]
    for name, value in mappings.items():
        if not isinstance(value, dict):
            raise ValueError(f"{name} is {value!r:.60}, not a mapping")
    if type(values.get("preprocess", {}).get("size", 0)) is not int:  # a recipe may leave it open, weights have it
        raise ValueError("its preprocess.size is no number")
    labels = values.get("labels", values.get("classes"))
    if not isinstance(labels, list) or not all(isinstance(label, str) for label in labels):
        raise ValueError("its labels are no list of names")
    if not isinstance(values.get("architecture"), str) or type(values.get("format", 0)) is not int:
        raise ValueError("its architecture is no name, or its format no number")


def _check_depth(values: Any) -> None:
    """Raise ValueError where plain values are nested deeper than any manifest's; what walks them recurses."""
    level = [values]
    for _ in range(_DEEPEST):
        level = [
            inner
            for value in level
            if isinstance(value, (dict, list))
            for inner in (value.values() if isinstance(value, dict) else value)
        ]
        if not level:
            return
    raise ValueError("it is nested too deeply")
