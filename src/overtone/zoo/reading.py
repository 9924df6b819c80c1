"""Any file of weights, read safely, and the state dict in it under its published keys.

Formats: safetensors, PyTorch's zip, and PyTorch's format before that (1.5 and older, as most published files have). No
code in a file is ever run: `weights_only=True` everywhere, after a scan that refuses by itself (see `pickles`). What a
file claims is compared with what it holds before memory is taken.
"""

import argparse
import pickle
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, Literal

import numpy as np
import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from overtone.checkpoint import SUFFIX, TRAINING_PREFIX, Manifest, has_manifest, read_checkpoint, read_manifest
from overtone.errors import OvertoneError
from overtone.models import families
from overtone.models._cfg import unwrap
from overtone.zoo.pickles import NAMESPACE, NUMPY_SCALARS, Refused, Scanned, TensorInfo, scan

Format = Literal["safetensors", "torch zip", "torch legacy"]
_LEGACY_MAGIC = 0x1950A86A20F9469CFC6C  # what every file of torch.save began with before the zip format
OWN_LAYOUT, HUB_LAYOUT = "overtone", "hub"
_SAFETENSORS_TYPES = {
    "F64": torch.float64,
    "F32": torch.float32,
    "F16": torch.float16,
    "BF16": torch.bfloat16,
    "I64": torch.int64,
    "I32": torch.int32,
    "I16": torch.int16,
    "I8": torch.int8,
    "U8": torch.uint8,
    "BOOL": torch.bool,
}


@dataclass(frozen=True)
class FileContents:
    """What is in a file of weights, without the numbers.

    Attributes:
        format: how it is written.
        values: its contents, with a `TensorInfo` for each tensor.
        size: bytes.
        metadata: the text in the header of a safetensors file.
        names: what a pickle names beside tensors, such as `argparse.Namespace`.
    """

    format: Format
    values: Any
    size: int
    metadata: Mapping[str, str] = field(default_factory=dict)
    names: frozenset[str] = frozenset()


def inspect_file(path: Path) -> FileContents:
    """Inspect a file of weights; no tensor is read and nothing is built.

    Raises:
        OvertoneError: no such file, damaged, not a file of weights, or one that asks for more than tensors.
    """
    if not path.is_file():
        raise OvertoneError(f"{path} is not there; give the path of a checkpoint file or of a run folder")
    try:
        with path.open("rb") as file:
            start = file.read(512)
            file.seek(0)
            # First, since the length of a safetensors header may begin with the byte that pickles begin with.
            is_safetensors = start[8:9] == b"{" and int.from_bytes(start[:8], "little") < path.stat().st_size
            if is_safetensors:
                return _inspect_safetensors(path)
            if start.startswith(b"PK\x03\x04"):
                return _inspect_zip(path, file)
            if start.startswith(b"\x80"):
                return _inspect_legacy(path, file)
        if path.suffix == SUFFIX or start[8:9] == b"{":
            return _inspect_safetensors(path)
    except Refused as error:
        raise OvertoneError(
            f"{path} is refused: {error}, and nothing but tensors and plain values is ever unpickled; "
            "use a file of plain tensors"
        ) from error
    except (SafetensorError, pickle.UnpicklingError, zipfile.BadZipFile, OSError, EOFError, ValueError) as error:
        raise OvertoneError(f"{path} cannot be read: {_first_line(error)}; use another copy") from error
    raise OvertoneError(f"{path} is not a file of weights: {_what_it_is(start)}; use another copy")


def read_values(path: Path, contents: FileContents | None = None) -> Any:
    """Read a file of weights, its tensors on the CPU.

    They may be mapped from the file: copy those that are kept.

    Args:
        path: the file.
        contents: what `inspect_file` returned for it, if it has been called already.

    Raises:
        OvertoneError: as `inspect_file`.
    """
    contents = contents or inspect_file(path)
    try:
        if contents.format == "safetensors":
            with safe_open(path, framework="pt", device="cpu") as file:
                return {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
        with torch.serialization.safe_globals(_harmless(contents.names)):
            values = torch.load(path, map_location="cpu", weights_only=True, mmap=contents.format == "torch zip")
    except pickle.UnpicklingError as error:
        raise OvertoneError(
            f"{path} is refused: it asks for more than tensors and plain values ({_first_line(error)}); "
            "use a file of plain tensors"
        ) from error
    except (SafetensorError, RuntimeError, OSError, EOFError, ValueError, KeyError, AssertionError) as error:
        raise OvertoneError(f"{path} cannot be read: {_first_line(error)}; use another copy") from error
    _check_same(path, contents.values, values)
    return values


def tensor_infos(values: Any) -> list[TensorInfo]:
    """Every tensor in the contents of a file, in the dictionaries and lists of any depth."""
    found, pending, seen = [], [values], set()
    while pending:
        value = pending.pop()
        if isinstance(value, TensorInfo):
            found.append(value)
        elif isinstance(value, (Mapping, list, tuple)) and id(value) not in seen:
            seen.add(id(value))
            pending += value.values() if isinstance(value, Mapping) else value
    return found


def _inspect_safetensors(path: Path) -> FileContents:
    values = {}
    with safe_open(path, framework="pt", device="cpu") as file:
        metadata = file.metadata() or {}
        for key in file.keys():  # noqa: SIM118 - not a mapping
            entry = file.get_slice(key)
            if entry.get_dtype() not in _SAFETENSORS_TYPES:
                raise ValueError(f"{key} has the type {entry.get_dtype()}, which no network here has")
            values[key] = TensorInfo(tuple(entry.get_shape()), _SAFETENSORS_TYPES[entry.get_dtype()])
    return FileContents("safetensors", values, path.stat().st_size, metadata)


def _inspect_zip(path: Path, file: BinaryIO) -> FileContents:
    size = path.stat().st_size
    with zipfile.ZipFile(file) as archive:
        entries = archive.infolist()
        if any(
            entry.compress_type != zipfile.ZIP_STORED or entry.file_size != entry.compress_size for entry in entries
        ):
            raise Refused("it holds compressed entries, which PyTorch never writes")
        if sum(entry.file_size for entry in entries) > size:
            raise Refused("its entries claim to be longer than the file")
        sizes = {entry.filename.partition("/")[2]: entry.file_size for entry in entries}
        if len(sizes) != len(entries) or "data.pkl" not in sizes:
            raise Refused("it is a zip file, but not one of torch.save")
        if "constants.pkl" in sizes:
            raise Refused("it is a TorchScript program")
        root = entries[0].filename.partition("/")[0]
        with archive.open(f"{root}/data.pkl") as stream:
            scanned = scan(stream, sizes["data.pkl"])  # type: ignore[arg-type]
    for key, storage in scanned.storages.items():
        if storage.nbytes > sizes.get(f"data/{key}", 0):
            raise Refused(f"its storage {key} claims {storage.nbytes} bytes and has {sizes.get(f'data/{key}', 0)}")
    return _contents("torch zip", scanned, size)


def _inspect_legacy(path: Path, file: BinaryIO) -> FileContents:
    size = path.stat().st_size

    def following() -> Scanned:
        return scan(file, size - file.tell())

    if following().values != _LEGACY_MAGIC or following().values != 1001:
        raise Refused("it is a pickle, but not one of torch.save")
    following()  # about the machine that wrote it
    scanned = following()
    keys = following().values
    if not isinstance(keys, list) or {str(key) for key in keys} != scanned.storages.keys():
        raise pickle.UnpicklingError("its list of storages is not that of its tensors")
    claimed = sum(8 + storage.nbytes for storage in scanned.storages.values())
    if claimed > size - file.tell():
        raise EOFError(f"its tensors claim {claimed} bytes and {size - file.tell()} are there: it is cut or altered")
    return _contents("torch legacy", scanned, size)


def _contents(format: Format, scanned: Scanned, size: int) -> FileContents:
    total = sum(info.nbytes for info in tensor_infos(scanned.values))
    if total > 4 * size:  # weights and their average may share storages, and there may be ties
        raise Refused(f"its tensors claim {total} bytes of a file of {size}")
    return FileContents(format, scanned.values, size, names=frozenset(scanned.names))


def _harmless(names: frozenset[str]) -> list[Any]:
    """What `torch.load` may make beside tensors: only what the file names, only what is on the list of `pickles`."""
    allowed: list[Any] = [argparse.Namespace] if NAMESPACE in names else []
    if names & NUMPY_SCALARS:
        scalar = np.float64(0).__reduce__()[0]
        kinds = [type(np.dtype(kind)) for kind in ("f8", "f4", "f2", "i8", "i4", "i2", "i1", "u1", "?")]
        allowed += [(scalar, name) for name in sorted(names & NUMPY_SCALARS) if name.endswith("scalar")]
        allowed += [np.dtype, *dict.fromkeys(kinds)]
    return allowed


def _check_same(path: Path, expected: Any, values: Any) -> None:
    """Raise OvertoneError where the scan and PyTorch saw different tensors: the file is made to deceive one of them."""
    pending = [(expected, values)]
    while pending:
        info, value = pending.pop()
        if isinstance(info, TensorInfo):
            if not isinstance(value, Tensor) or (info.shape, info.dtype) != (tuple(value.shape), value.dtype):
                raise OvertoneError(f"{path} is refused: it reads differently twice; use another copy")
        elif isinstance(info, Mapping) and isinstance(value, Mapping) and info.keys() == value.keys():
            pending += [(info[key], value[key]) for key in info]
        elif isinstance(info, (list, tuple)) and isinstance(value, (list, tuple)) and len(info) == len(value):
            pending += zip(info, value, strict=True)
        elif isinstance(info, (Mapping, list, tuple)) or isinstance(value, Tensor):
            raise OvertoneError(f"{path} is refused: it reads differently twice; use another copy")


def _first_line(error: BaseException) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]


def _what_it_is(start: bytes) -> str:
    if not start:
        return "it is empty"
    if start.startswith(b"version https://git-lfs"):
        return "it is a Git LFS pointer to the file"
    if start.lstrip()[:1] == b"<":
        return "it is a web page"
    if start[257:262] == b"ustar":
        return "it is a tar archive (of data, or of PyTorch 0.1)"
    return "it is neither safetensors nor of torch.save"


# --- the state dict in a file


@dataclass(frozen=True)
class State:
    """A state dict from a file.

    Attributes:
        layout: `overtone`; `hub`; `openmmlab`; else `bare` or the wrapper's key (`model`, `state_dict`, `params`,
            `model_ema`, `state_dict_ema`), followed by `+module` where every key had that prefix.
        entries: tensors, or `TensorInfo` where the file was only inspected, under published keys or ours.
        extra: plain values beside it, such as `epoch` and `best_prec1`.
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
    """The state dict in a file without its values, and what else is known of the file.

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
    if contents.format == "torch zip":  # they are mapped from the file
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


def plain_extra(extra: Mapping[str, Any]) -> dict[str, Any]:
    """The numbers and short texts among the values beside the weights."""
    numbers = {key: value.item() if _is_number(value) else value for key, value in extra.items()}
    return {
        key: value
        for key, value in numbers.items()
        if isinstance(value, (bool, int, float)) or (isinstance(value, str) and len(value) < 200)
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, np.generic) or (isinstance(value, Tensor) and value.numel() == 1)
