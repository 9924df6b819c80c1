"""A network and pictures small enough for a training to take a second."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import nn


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
