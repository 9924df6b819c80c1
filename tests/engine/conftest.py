"""A network and a folder of pictures small enough for a training to take a second."""

from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from overtone import zoo


class Tiny(nn.Module):
    """Convolution, batch norm, dropout, classifier."""

    def __init__(self, num_classes: int = 3, drop_rate: float = 0.2) -> None:
        super().__init__()
        self.num_classes = num_classes
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(drop_rate)
        self.head = nn.Linear(8, num_classes)

    def forward(self, x):
        return self.head(self.drop(torch.relu(self.bn(self.conv(x))).mean((2, 3))))


@pytest.fixture
def tiny():
    torch.manual_seed(0)
    return Tiny()


@pytest.fixture
def tiny_from_zoo(monkeypatch):
    """Every recipe trains a `Tiny`."""

    def build(settings, num_classes, tell=None):
        model = Tiny(num_classes)
        if settings.freeze:
            for part in (model.conv, model.bn):
                part.requires_grad_(False)
        return model

    monkeypatch.setattr(zoo, "build_for_training", build)


def draw(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Pictures of 12x12 noise, tinted by class."""
    random = np.random.default_rng(seed)
    for position, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 150, (12, 12, 3), dtype=np.uint8)
            pixels[..., position % 3] += 90
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root


@pytest.fixture
def pictures(tmp_path):
    """A folder with 26 training and 9 validation images of three classes."""
    draw(tmp_path / "data" / "train", {"blue": 8, "green": 9, "red": 9})
    draw(tmp_path / "data" / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return tmp_path / "data"
