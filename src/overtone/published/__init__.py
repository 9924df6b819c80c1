"""Every published checkpoint and figure, as data, a module per system: the one place where these numbers live.

Each module without a leading underscore that has `ROWS` (records `Published`) and `SYSTEM` is found here; its docstring
names the sources. Rows without addresses were published without weights. Parameters are in millions, multiply-adds
(which the papers call FLOPs) in millions, counting convolutions and linears for one image at `resolution`; accuracies
are percentages on the ImageNet-1K validation set, single centre crop. Detection and segmentation networks have records
of their own (`PublishedDense`), with what they share with the others under the same names. Standard library only.
"""

import importlib
import pkgutil
from collections.abc import Mapping
from fnmatch import fnmatchcase

from overtone.errors import OvertoneError
from overtone.published.dense_row import PublishedDense
from overtone.published.row import IMAGENET_MEAN, IMAGENET_STD, Counting, Published, System, TestTimePooling

__all__ = [
    "DENSE",
    "IMAGENET_MEAN",
    "IMAGENET_STD",
    "PUBLISHED",
    "SYSTEMS",
    "Counting",
    "Published",
    "PublishedDense",
    "PublishedRow",
    "System",
    "TestTimePooling",
    "find",
    "matching",
    "rows_of",
    "select",
]

_ALL = [importlib.import_module(f"{__name__}.{info.name}") for info in pkgutil.iter_modules(__path__)]
_MODULES = [module for module in _ALL if hasattr(module, "ROWS")]

PUBLISHED: tuple[Published, ...] = tuple(row for module in _MODULES for row in module.ROWS)
DENSE: tuple[PublishedDense, ...] = tuple(row for module in _ALL for row in getattr(module, "DENSE_ROWS", ()))
"""Published networks of detection and segmentation."""
SYSTEMS: Mapping[str, System] = {module.SYSTEM.family: module.SYSTEM for module in _MODULES}
PublishedRow = Published | PublishedDense
_BY_NAME: Mapping[str, PublishedRow] = {row.full_name: row for row in (*PUBLISHED, *DENSE)}


def find(full_name: str) -> PublishedRow | None:
    """Return the row called `architecture.tag`, or None."""
    return _BY_NAME.get(full_name)


def rows_of(architecture: str) -> tuple[Published, ...]:
    """Return all rows of a classifier's architecture, the default of `architecture` alone first."""
    return tuple(row for row in PUBLISHED if row.architecture == architecture)


def matching(pattern: str) -> tuple[PublishedRow, ...]:
    """Return rows whose full name, architecture or family matches a shell pattern."""
    return tuple(
        row
        for row in (*PUBLISHED, *DENSE)
        if any(fnmatchcase(name, pattern) for name in (row.full_name, row.architecture, row.family))
    )


def select(pattern: str) -> tuple[PublishedRow, ...]:
    """Return rows by a shell pattern as `matching`, or by a part of the full name.

    Raises:
        OvertoneError: no row matches.
    """
    rows = matching(pattern) or tuple(row for row in (*PUBLISHED, *DENSE) if pattern in row.full_name)
    if not rows:
        raise OvertoneError(f"no published row matches {pattern!r}; overtone weights list names them all")
    return rows
