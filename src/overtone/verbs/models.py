"""`overtone models`: the architectures with their size, cost and published accuracy."""

import difflib
from dataclasses import dataclass

import timm
import torch
from torch import nn

from overtone import options, registry, zoo
from overtone.config import to_dict
from overtone.errors import OvertoneError
from overtone.models.multiply_adds import count_multiply_adds
from overtone.models.shapes_only import ShapesOnly
from overtone.published import rows_of
from overtone.verbs.console import note, print_json, print_table

_ASK_FOR_A_PATTERN = 200  # timm has more than a thousand; each takes part of a second


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
        parameters: trainable, a count.
        multiply_adds: of convolutions and linears for one image at `resolution`; None if it cannot be followed.
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
    names = registry.list_models(chosen.pattern, with_timm=chosen.timm)
    if not names:
        everything = registry.list_models(with_timm=True)
        close = difflib.get_close_matches(chosen.pattern.strip("*"), everything, n=3)
        hint = f"did you mean {', '.join(close)}?" if close else "overtone models lists them"
        if not chosen.timm and registry.list_models(chosen.pattern, with_timm=True):
            hint = "timm has some: add --timm"
        raise OvertoneError(f"no architecture matches {chosen.pattern!r}; {hint}")
    if len(names) > _ASK_FOR_A_PATTERN:
        raise OvertoneError(f"{len(names)} architectures match; give a narrower pattern, such as 'resnet*'")
    rows = [describe(name) for name in names]
    if chosen.json:
        print_json([to_dict(row) for row in rows])
        return 0
    print_table(
        ("model", "parameters", "multiply-adds", "resolution", "published top-1"),
        [
            (
                row.name,
                f"{row.parameters / 1e6:.2f} M",
                _multiply_adds_for_people(row.multiply_adds),
                row.resolution,
                _published_for_people(row),
            )
            for row in rows
        ],
    )
    note(f"{len(rows)} models; top-1 in percent on ImageNet-1K, of the best published weights")
    return 0


def describe(name: str) -> ModelRow:
    """Measure one architecture; nothing is computed and no weights are made."""
    model = _without_weights(name)
    preprocess = zoo.preprocess_of(model)
    channels = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3,))[0]
    try:
        with ShapesOnly():
            multiply_adds = count_multiply_adds(model, (channels, preprocess.size, preprocess.size))
    except (RuntimeError, NotImplementedError, TypeError):
        multiply_adds = None  # some of timm's need values, which the meta device does not have
    return ModelRow(
        name=name,
        parameters=sum(p.numel() for p in model.parameters()),
        multiply_adds=multiply_adds,
        resolution=preprocess.size,
        published=_published(name),
    )


def _without_weights(name: str) -> nn.Module:
    try:
        with torch.device("meta"), ShapesOnly():
            return timm.create_model(name)
    except (RuntimeError, NotImplementedError):
        return timm.create_model(name)  # its constructor asks for values


def _published(name: str) -> tuple[PublishedTop1, ...]:
    found = [
        PublishedTop1(row.tag, row.resolution, row.top1, bool(row.urls))
        for row in rows_of(name)
        if row.top1 is not None
    ]
    return tuple(sorted(found, key=lambda row: -row.top1))


def _multiply_adds_for_people(count: int | None) -> str | None:
    if count is None:
        return None
    return f"{count / 1e9:.2f} G" if count >= 1e9 else f"{count / 1e6:.1f} M"


def _published_for_people(row: ModelRow) -> str | None:
    if not row.published:
        return None
    best = row.published[0]
    at = f" at {best.resolution}" if best.resolution != row.resolution else ""
    return f"{best.top1:.2f}{at}"
