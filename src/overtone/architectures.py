"""Sizes and costs of our architectures, as generated data: listing them needs no PyTorch.

`architectures.json` is written by `make architectures`; a test compares it with the networks. Standard library only.
"""

import functools
import json
import pkgutil
import sys
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

PATH = Path(__file__).with_suffix(".json")
_FAMILIES = Path(__file__).parent / "models"


@dataclass(frozen=True)
class Size:
    """One architecture with its default number of classes.

    Attributes:
        parameters: trainable, a count.
        multiply_adds: of convolutions and linears for one image at `resolution`; None if it cannot be counted.
        resolution: side of the default square input, pixels.
    """

    parameters: int
    multiply_adds: int | None
    resolution: int


@functools.cache
def sizes() -> Mapping[str, Size]:
    """Return the generated sizes by architecture, in the order in which architectures are listed."""
    rows = json.loads(PATH.read_text(encoding="utf-8"))["architectures"]
    return {name: Size(*row) for name, row in rows.items()}


def families() -> list[str]:
    """Return the names of the modules that register architectures, without importing them."""
    modules = (info.name for info in pkgutil.iter_modules([str(_FAMILIES)]) if not info.name.startswith("_"))
    return sorted(name for name in modules if b"register_model" in (_FAMILIES / f"{name}.py").read_bytes())


def is_complete() -> bool:
    """Return whether the data has every family, and every architecture that is registered already."""
    if families() != json.loads(PATH.read_text(encoding="utf-8"))["families"]:
        return False
    imported = sys.modules.get("overtone.models")
    return imported is None or set(imported.list_architectures()) <= sizes().keys()
