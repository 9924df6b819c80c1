"""Sizes and costs of architectures, measured: shapes are followed on the meta device, and no weights are made.

`python -m overtone.reports.measured_sizes` writes `architectures.json` anew (`make architectures`).
"""

import functools
import json
from collections.abc import Mapping
from typing import Any

import timm
import torch
from torch import nn

from overtone import zoo
from overtone.architectures import PATH, Size, families
from overtone.checkpoint import write_text
from overtone.errors import OvertoneError
from overtone.models import list_architectures
from overtone.models.multiply_adds import count_multiply_adds
from overtone.models.shapes_only import ShapesOnly
from overtone.tasks import recipe_from_dict, task_named


def measure(name: str) -> Size:
    """Measure one architecture, ours or timm's."""
    model = _without_weights(name)
    preprocess = zoo.preprocess_of(model)
    channels = (getattr(model, "pretrained_cfg", None) or {}).get("input_size", (3,))[0]
    try:
        with ShapesOnly():
            multiply_adds = count_multiply_adds(model, (channels, preprocess.size, preprocess.size))
    except (RuntimeError, NotImplementedError, TypeError):
        multiply_adds = None  # some of timm's need values, which the meta device does not have
    return Size(sum(p.numel() for p in model.parameters()), multiply_adds, preprocess.size)


def size_of_run(record: Mapping[str, Any]) -> Size | None:
    """Measure the network of a run from its `recipe.json`; None where it cannot be built from that."""
    return _size_of_run(json.dumps(record))


@functools.lru_cache(maxsize=1024)  # a list of runs is asked for again and again
def _size_of_run(text: str) -> Size | None:
    try:
        record = json.loads(text)
        recipe, labels = recipe_from_dict(record["recipe"]), tuple(record["classes"])
        with torch.device("meta"), ShapesOnly():
            model = task_named(recipe.task).build(recipe.model, labels)
        parameters, side = sum(p.numel() for p in model.parameters()), recipe.data.preprocess.size
    except (OvertoneError, RuntimeError, NotImplementedError, KeyError, TypeError, AttributeError):
        return None  # of another version, or damaged
    try:
        with ShapesOnly():
            return Size(parameters, count_multiply_adds(model, (3, side, side)), side)
    except (RuntimeError, NotImplementedError, TypeError, AttributeError):
        return Size(parameters, None, side)


def write() -> None:
    """Measure all our architectures and write the package's data, a line each."""
    rows = {name: measure(name) for name in list_architectures()}
    lines = (
        f"    {json.dumps(name)}: {json.dumps([size.parameters, size.multiply_adds, size.resolution])}"
        for name, size in rows.items()
    )
    body = ",\n".join(lines)
    write_text(PATH, f'{{\n  "families": {json.dumps(families())},\n  "architectures": {{\n{body}\n  }}\n}}\n')


def _without_weights(name: str) -> nn.Module:
    try:
        with torch.device("meta"), ShapesOnly():
            return timm.create_model(name)
    except (RuntimeError, NotImplementedError):
        return timm.create_model(name)  # its constructor needs values


if __name__ == "__main__":
    write()
