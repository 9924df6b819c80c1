"""`overtone models`: the architectures with their size, cost and published accuracy.

Ours are listed from generated data, without PyTorch; timm's are measured on request.
"""

import importlib
from dataclasses import dataclass
from fnmatch import fnmatchcase

import overtone
from overtone import architectures, options
from overtone.architectures import Size
from overtone.config import to_dict
from overtone.errors import OvertoneError, did_you_mean
from overtone.published import rows_of
from overtone.verbs.console import note, print_json, print_table

_MOST = 200  # timm has more than a thousand; each takes a fraction of a second


@dataclass(frozen=True)
class PublishedTop1:
    """A published accuracy: ImageNet-1K validation, single centre crop, percent."""

    tag: str
    resolution: int
    top1: float
    weights: bool


@dataclass(frozen=True)
class ModelRow:
    """One architecture, with its default number of classes.

    Attributes:
        name: the architecture.
        parameters: trainable, a count.
        multiply_adds: of convolutions and linears for one image at `resolution`; None if it cannot be counted.
        resolution: side of the default square input, pixels.
        published: accuracies of its published weights, best first.
    """

    name: str
    parameters: int
    multiply_adds: int | None
    resolution: int
    published: tuple[PublishedTop1, ...]


def models(chosen: options.Models) -> int:
    """Print the table, or JSON.

    Raises:
        OvertoneError: no architecture matches the pattern, or so many of timm's that it would take minutes.
    """
    names = _names(chosen)
    if len(names) > _MOST:
        raise OvertoneError(f"{len(names)} architectures match; give a narrower pattern, such as 'resnet*'")
    rows = [_row(name) for name in names]
    if chosen.json:
        print_json([to_dict(row) for row in rows])
        return 0
    print_table(
        ("model", "parameters", "multiply-adds", "resolution", "published top-1"),
        [
            (
                row.name,
                f"{row.parameters / 1e6:.2f} M",
                _format_count(row.multiply_adds),
                row.resolution,
                _format_best(row),
            )
            for row in rows
        ],
    )
    note(f"{len(rows)} models; top-1 in percent on ImageNet-1K, of the best published weights")
    return 0


def _names(chosen: options.Models) -> list[str]:
    pattern = chosen.pattern
    if chosen.timm or not architectures.is_complete():
        names = overtone.list_models(pattern, with_timm=chosen.timm)
    else:
        wanted = pattern if any(sign in pattern for sign in "*?[") else f"*{pattern}*"
        names = [name for name in architectures.sizes() if fnmatchcase(name, wanted)]
    if names:
        return names
    hint = did_you_mean(pattern.strip("*"), overtone.list_models(with_timm=True), "overtone models lists them")
    if not chosen.timm and overtone.list_models(pattern, with_timm=True):
        hint = "timm has some: add --timm"
    raise OvertoneError(f"no architecture matches {pattern!r}; {hint}")


def _row(name: str) -> ModelRow:
    size = architectures.sizes().get(name) or _measured(name)
    return ModelRow(name, size.parameters, size.multiply_adds, size.resolution, _published(name))


def _measured(name: str) -> Size:
    # imported only here: PyTorch takes seconds
    return importlib.import_module("overtone.reports.measured_sizes").measure(name)


def _published(name: str) -> tuple[PublishedTop1, ...]:
    found = [
        PublishedTop1(row.tag, row.resolution, row.top1, bool(row.urls))
        for row in rows_of(name)
        if row.top1 is not None
    ]
    return tuple(sorted(found, key=lambda row: -row.top1))


def _format_count(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _format_best(row: ModelRow) -> str | None:
    if not row.published:
        return None
    best = row.published[0]
    at = f" at {best.resolution}" if best.resolution != row.resolution else ""
    return f"{best.top1:.2f}{at}"
