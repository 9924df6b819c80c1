"""Small networks for a site that a browser looks at."""

import io
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from overtone.checkpoint import Manifest
from overtone.config import Model, Preprocess
from overtone.deployment.running import Computation
from overtone.serving.models import Served, serve_model
from overtone.tasks import task_named
from overtone.zoo import LoadedModel

LABELS = ("ant", "bee", "cow", "doe", "eel", "fox", "gnu", "hen")


@dataclass
class Site:
    """A server that is running.

    Attributes:
        address: of it.
        runs: the folder of its runs.
        asked: addresses that the browser has asked for, over all tests.
        errors: what the console of the browser said, and what scripts raised.
    """

    address: str
    runs: Path
    asked: list[str] = field(default_factory=list)
    errors: list[str] = field(default_factory=list)


def served(task: str, head: str | None = None) -> Served:
    """A network of random weights behind the name of its task."""
    torch.manual_seed(0)
    name, preprocess = "hbonet_x010", Preprocess(size=32)
    network = LoadedModel(
        model=task_named(task).build(Model(name=name, head=head), LABELS).eval(),
        architecture=name,
        labels=LABELS,
        preprocess=preprocess,
        source="run",
        task=task,
        manifest=Manifest(name, LABELS, preprocess, recipe={"task": task, "model": {"name": name, "head": head}}),
    )
    return serve_model(task, network, Computation(threads=1))


def heat_map(model: Served, content: bytes, label: int | None) -> bytes:
    """A heat map that is red everywhere."""
    file = io.BytesIO()
    Image.fromarray(np.full((32, 32, 3), (255, 0, 0), np.uint8)).save(file, "PNG")
    return file.getvalue()
