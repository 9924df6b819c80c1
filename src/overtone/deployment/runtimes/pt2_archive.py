"""A `.pt2` of `torch.export`, read without a pickle.

`torch.export.load` unpickles whatever it finds where weights, constants or sample inputs are declared to be pickled,
and `weights_only` is not kept to. So the archive is inspected first, by PyTorch's own reader of archives, and is
refused unless each of its records is one that holds no pickle. Files that `save_program` writes are such.
"""

import io
import json
import re
from pathlib import Path
from typing import Any

import torch
from torch.export import ExportedProgram

from overtone.errors import OvertoneError

_PLAIN = re.compile(
    r"data/weights/weight_\d+|data/constants/tensor_\d+|models/\w+\.json|archive_format|archive_version|byteorder"
    r"|(\.data/)?version|\.data/serialization_id"
)
_CONFIG = re.compile(r"data/(weights|constants)/\w+_config\.json")
_SAMPLES = re.compile(r"data/sample_inputs/\w+\.pt")


def save_program(program: ExportedProgram) -> bytes:
    """The archive of a program, without its sample inputs, which PyTorch would pickle."""
    program._example_inputs = None
    content = io.BytesIO()
    torch.export.save(program, content)
    return content.getvalue()


def load_program(path: Path) -> ExportedProgram:
    """A program from an archive, which is read once: what was inspected is what is loaded.

    Raises:
        OvertoneError: it holds a pickle, or anything that `save_program` does not write.
    """
    content = path.read_bytes()
    found = _not_plain(content)
    if found is not None:
        raise OvertoneError(
            f"{path} is refused: {found}, and loading it could run code; export the network again with overtone"
        )
    return torch.export.load(io.BytesIO(content))


def _not_plain(content: bytes) -> str | None:
    """What in an archive may be unpickled, in words; None if nothing is."""
    try:
        reader: Any = torch._C.PyTorchFileReader(io.BytesIO(content))
        names = list(reader.get_all_records())
    except RuntimeError:
        return "it is not an archive of torch.export"  # PyTorch would try an older format, which is pickled
    if len(set(names)) < len(names):
        return "it holds two records of one name"
    for name in names:
        if _CONFIG.fullmatch(name):
            if not _declares_no_pickle(reader.get_record(name)):
                return f"its record {name!r} declares pickled data"
        elif _SAMPLES.fullmatch(name):
            if reader.get_record(name):
                return f"its record {name!r} is a pickle"
        elif not _PLAIN.fullmatch(name):
            return f"it holds the record {name!r}"
    if "archive_format" not in names or reader.get_record("archive_format") != b"pt2":
        return "it is not an archive of torch.export"
    return None


def _declares_no_pickle(config: bytes) -> bool:
    try:
        entries = json.loads(config)["config"].values()
        return all(entry["use_pickle"] is False for entry in entries)
    except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False
