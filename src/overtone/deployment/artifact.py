"""The folder of an export: what is in it, and `model.json`, which describes it.

A folder may come from anyone. `read_about` accepts only what `write_about` writes: known fields, each of its type and
in its range, and names of files that the runtime has. `admit` is the one gate in front of every runtime.
"""

import json
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.config import Data, Preprocess, from_dict, to_dict
from overtone.deployment.inputs import InputKind, input_shape
from overtone.deployment.runtimes import RUNTIMES, runtime_named
from overtone.deployment.runtimes.runtime import INPUT, LOGITS
from overtone.deployment.trust import check_trusted, record, sha256
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json
from overtone.tasks import recipe_from_dict

FORMAT = 1
FORM = "form"  # in `About.settings`: what a `tasks.export_forms.GraphForm` keeps
ABOUT, SCRIPT, GOLDEN, GOLDEN_IMAGE = "model.json", "run.py", "golden.npz", "golden.png"
# Every file that an export can consist of, in the order of removal; without model.json it is no export any more.
FILES = (*dict.fromkeys(name for runtime in RUNTIMES.values() for name in runtime.files), SCRIPT, GOLDEN)
FILES += (GOLDEN_IMAGE, ABOUT)
_LARGEST_ABOUT = 16 << 20  # bytes; 21,841 classes with names take one hundredth
_LARGEST_SIZE, _MOST_CLASSES = 1 << 13, 1 << 24
_SHA256 = re.compile("[0-9a-f]{64}")


@dataclass(frozen=True)
class Input:
    """The input of an artifact.

    Attributes:
        kind: `normalised`, `pixels` (cropped, not normalised) or `image` (as decoded).
        shape: None where any number goes.
        dtype: float32 or uint8.
        name: in the runtime.
    """

    kind: InputKind
    shape: tuple[int | None, ...]
    dtype: str
    name: str = INPUT


@dataclass(frozen=True)
class About:
    """The content of `model.json`.

    Attributes:
        runtime: what runs it: onnx, openvino, executorch, torch or aoti; `precision` is that of its arithmetic.
        num_classes: channels of its first output; `classes` are their names in order, as of class folders, and `labels`
            those to display; None where the weights have none.
        preprocess: from a decoded image to the normalised input, whatever part of it is in the graph.
        source: where the weights come from; `proof` is the hash that was compared, `published` the row of the published
            table; `trained` is False for random weights.
        task: what the network does; `settings` are what its training found beside the weights, such as thresholds.
        task_settings: the recipe's settings of the task, where exports need them (`tasks.export_forms.ExportForm`).
        data: how the images of its training were split, if it was trained with overtone; never where they are.
        output: name of the first output; `more_outputs` are those of the others.
        files: SHA-256 of every file that the runtime reads.
        bytes: of those files.
        calibrated: number of images that int8 took its ranges from.
        parity: how far its outputs are from those of the network in PyTorch; see `parity.Parity`.
        versions: of what wrote it.
    """

    architecture: str
    runtime: str
    precision: str
    input: Input
    num_classes: int
    classes: tuple[str, ...] | None
    preprocess: Preprocess
    source: str
    labels: tuple[str, ...] | None = None
    proof: str | None = None
    published: str | None = None
    trained: bool = True
    data: Mapping[str, Any] | None = None
    task: str = "classification"
    settings: Mapping[str, Any] = field(default_factory=dict)
    task_settings: Mapping[str, Any] = field(default_factory=dict)
    output: str = LOGITS
    more_outputs: tuple[str, ...] = ()
    files: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0
    calibrated: int = 0
    parity: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT

    @property
    def outputs(self) -> tuple[str, ...]:
        """Names of all outputs, in order."""
        return (self.output, *self.more_outputs)


def is_export(folder: Path) -> bool:
    """Whether a folder is an export."""
    try:
        return (folder / ABOUT).is_file()
    except (OSError, ValueError):  # no permission, a name that is too long or holds NUL
        return False


def write_about(folder: Path, about: About) -> None:
    """Write `model.json`."""
    text = json.dumps(to_dict(about), indent=2, ensure_ascii=False)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")


def admit(folder: Path) -> About:
    """The description of an export that may be opened: whole, of known files, and trusted where it can carry code.

    Raises:
        OvertoneError: it may not, or `read_about` refuses it.
    """
    about = read_about(folder)
    runtime = runtime_named(about.runtime)
    try:
        runtime.verify(folder, about.files)
    except OSError as error:
        raise OvertoneError(f"{folder / runtime.file} cannot be read: {error.strerror or error}") from error
    if runtime.carries_code:
        check_trusted(folder, about.files, runtime.title)
    return about


def trust(folder: Path) -> About:
    """Trust the files of an export on this machine from now on, though its runtime can run code that they bring.

    Raises:
        OvertoneError: `read_about` refuses it, or the record of trusted files cannot be written.
    """
    about = read_about(folder)
    record(about.files, about.source)
    return about


def read_about(folder: Path) -> About:
    """The description of an export, after the hashes of its files were verified.

    Raises:
        OvertoneError: no export, one of a newer version, a description that cannot be, or a damaged file.
    """
    path = folder / ABOUT
    if not is_export(folder):
        raise OvertoneError(f"{folder} is not an export: it has no {ABOUT}; give a folder that overtone export wrote")
    try:
        about = _parsed(path)
        _verify_files(folder, about)
    except OSError as error:
        raise OvertoneError(f"{error.filename or path} cannot be read: {error.strerror or error}") from error
    return about


def _parsed(path: Path) -> About:
    try:
        if path.stat().st_size > _LARGEST_ABOUT:
            raise ValueError(f"larger than {_LARGEST_ABOUT >> 20} MiB")
        values = parse_json(path.read_text(encoding="utf-8"))
        newer = values.get("format", 0) > FORMAT
        if not newer and values["input"].get("kind") == "picture":  # what `image` was called at first
            values["input"]["kind"] = "image"
        about = None if newer else from_dict(About, values)
        if about is not None:
            _check(about)
    except (ValueError, TypeError, AttributeError, KeyError, StopIteration, RecursionError, OvertoneError) as error:
        reason = str(error) or type(error).__name__
        raise OvertoneError(f"{path} is damaged ({reason}); export again") from error
    if about is None:
        raise OvertoneError(f"{path} was written by a newer overtone (format {values['format']}); update overtone")
    return about


def _check(about: About) -> None:
    """Refuse values of the right type that no export has.

    Raises:
        ValueError: one of them, by name.
    """
    preprocess, kind, names = about.preprocess, about.input.kind, (about.classes, about.labels)
    numbers = (*preprocess.mean, *preprocess.std, preprocess.crop_fraction)
    shapes: list[tuple[int | None, ...]] = [(None, None, None, 3)]
    if kind != "image":
        shapes = [input_shape(kind, preprocess.size)]
    if kind == "normalised":
        shapes.append((1, 3, None, None))
    if FORM in about.settings:  # of a letterbox, which `read_form` holds against the form's own
        sides = about.input.shape[2:]
        shapes = [(1, 3, *(side for side in sides if side is not None and 0 < side <= preprocess.size))]
    runtime = RUNTIMES.get(about.runtime)
    conditions = {
        "runtime": runtime is not None,
        "precision": runtime is not None and about.precision in runtime.precisions,
        "preprocess": preprocess.size <= _LARGEST_SIZE and len(numbers) == 7 and all(map(math.isfinite, numbers)),
        "num_classes": type(about.num_classes) is int and 1 <= about.num_classes <= _MOST_CLASSES,
        "classes or labels": all(found is None or len(found) == about.num_classes for found in names),
        "input.shape": about.input.shape[1:] in [shape[1:] for shape in shapes]
        and about.input.shape[:1] in ((None,), (1,)),
        "input": (about.input.name, about.input.dtype) == (INPUT, "float32" if kind == "normalised" else "uint8"),
        "output": len(set(about.outputs)) == len(about.outputs),
        "files": _are_hashes(about.files) and runtime is not None and runtime.file in about.files,
        "parity, versions or settings": all(
            isinstance(found, Mapping) for found in (about.parity, about.versions, about.settings, about.task_settings)
        ),
    }
    for name, holds in conditions.items():
        if not holds:
            raise ValueError(f"{name} is not what an export has")
    if about.task_settings:
        recipe_from_dict({"task": about.task, "settings": about.task_settings})
    if about.data is not None:
        if not isinstance(about.data, Mapping) or {"root", "preprocess"} & set(about.data):
            raise ValueError("data is not what an export has")
        from_dict(Data, about.data)


def _are_hashes(files: object) -> bool:
    return isinstance(files, Mapping) and all(isinstance(v, str) and _SHA256.fullmatch(v) for v in files.values())


def _verify_files(folder: Path, about: About) -> None:
    """Verify the hash of every file that the runtime would read.

    Raises:
        OvertoneError: a file is missing, damaged, unknown to the runtime, not listed, or a link out of the folder.
    """
    known = RUNTIMES[about.runtime].files
    for name in about.files:
        if name not in known:
            raise OvertoneError(f"{folder / ABOUT} is damaged: {name!r} is no file of an export; export again")
    for name in known:
        path = folder / name
        if not path.is_file():
            if name in about.files or path.is_symlink() or path.exists():
                raise OvertoneError(f"{path} is missing or is not a file, and {ABOUT} names it; export again")
            continue
        if path.resolve().parent != folder.resolve():
            raise OvertoneError(f"{path} is a link to another folder; copy the file itself into the export")
        if name not in about.files:
            raise OvertoneError(f"{path} is not listed in {ABOUT}, and would be read; export again")
        if sha256(path) != about.files[name]:
            raise OvertoneError(f"{path} is damaged: it does not have the SHA-256 in {ABOUT}; export again")
