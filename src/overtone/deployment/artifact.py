"""The folder of an export: what is in it, and `model.json`, which says what it is."""

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.config import Preprocess, from_dict, to_dict
from overtone.deployment.inputs import InputKind
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json

FORMAT = 1
ABOUT, SCRIPT, GOLDEN, GOLDEN_PICTURE = "model.json", "run.py", "golden.npz", "golden.png"
INPUT, OUTPUT = "images", "logits"
_BLOCK = 1 << 20


@dataclass(frozen=True)
class Input:
    """What the artifact takes.

    Attributes:
        kind: `normalised`, `pixels` (cut to size, not normalised) or `picture` (as decoded).
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
    """What `model.json` says.

    Attributes:
        runtime: what runs it: onnx, openvino, executorch, torch or aoti; `precision` is that of its arithmetic.
        num_classes: outputs; `classes` are their names in order, as of class folders, and `labels` those for people;
            None where the weights do not tell.
        preprocess: from a decoded picture to the normalised input, whatever part of it is in the graph.
        source: where the weights come from; `proof` is what was compared, `published` the row of the published table;
            `trained` is False for random weights.
        data: how the images of its training were split, where it was trained with overtone; not where they lie.
        files: SHA-256 of every file that the runtime reads.
        bytes: of those files.
        calibrated: pictures that int8 took its ranges from.
        parity: how far its logits are from those of the network in PyTorch; see `Parity`.
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
    output: str = OUTPUT
    files: Mapping[str, str] = field(default_factory=dict)
    bytes: int = 0
    calibrated: int = 0
    parity: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, Any] = field(default_factory=dict)
    format: int = FORMAT


def is_export(folder: Path) -> bool:
    """Whether a folder is an export."""
    return (folder / ABOUT).is_file()


def write_about(folder: Path, about: About) -> None:
    """Write `model.json`."""
    text = json.dumps(to_dict(about), indent=2, ensure_ascii=False)
    (folder / ABOUT).write_text(text + "\n", encoding="utf-8")


def read_about(folder: Path) -> About:
    """What `model.json` says, after its files have been proved.

    Raises:
        OvertoneError: no export, one of a newer version, or a file that is not what was written.
    """
    path = folder / ABOUT
    if not path.is_file():
        raise OvertoneError(f"{folder} is not an export: it has no {ABOUT}; give a folder that overtone export wrote")
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        newer = values.get("format", 0) > FORMAT
        about = None if newer else from_dict(About, values)
    except (ValueError, TypeError, AttributeError, StopIteration) as error:
        raise OvertoneError(f"{path} is damaged ({error}); export again") from error
    if about is None:
        raise OvertoneError(f"{path} was written by a newer overtone (format {values['format']}); update overtone")
    for name, expected in about.files.items():
        if not (folder / name).is_file():
            raise OvertoneError(f"{folder / name} is not there, and {ABOUT} names it; export again")
        if sha256(folder / name) != expected:
            raise OvertoneError(f"{folder / name} is damaged: it does not have the SHA-256 in {ABOUT}; export again")
    return about


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    digest = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            digest.update(block)
    return digest.hexdigest()
