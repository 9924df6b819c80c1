"""A network and images small enough for a training to take a second."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from overtone.config import Recipe
from overtone.data.pipeline import Batch
from overtone.data.sources import ImageList
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup


class Tiny(nn.Module):
    """Convolution, batch norm, dropout, classifier."""

    def __init__(self, num_classes: int = 3, drop_rate: float = 0.2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(8, num_classes)

    def get_classifier(self):
        return self.head

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.bn(self.conv(x))).mean((2, 3))))


def draw(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Images of 12x12 noise, tinted by class."""
    random = np.random.default_rng(seed)
    for position, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 150, (12, 12, 3), dtype=np.uint8)
            pixels[..., position % 3] += 90
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


def listed(labels: Sequence[str], counts: Sequence[int]) -> ImageList:
    """So many images of each class, which are on no disk."""
    targets = [target for target, count in enumerate(counts) for _ in range(count)]
    return ImageList(tuple(labels), [Path(f"{number}.png") for number in range(len(targets))], targets)


def task_of(labels: Sequence[str], recipe: Recipe | None = None, **setup: Any) -> Classification:
    """A classification of these labels, to be trained on an image of each unless `setup` says otherwise."""
    setup = {"train": listed(labels, [1] * len(labels))} | setup
    return Classification(Setup(tuple(labels), recipe or Recipe(), **setup))


def loss_of(task: Classification, outputs: Tensor, targets: Tensor, images: Tensor | None = None) -> Tensor:
    """The loss of a network that gives these outputs."""
    images = torch.zeros(len(outputs), 3, 4, 4) if images is None else images
    return task.loss(lambda given: outputs, Batch(images, targets, torch.arange(len(outputs))))
