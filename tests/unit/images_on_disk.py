"""Images that the tests of the data package read."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from overtone.data.pipeline import ImagePipeline, class_of

MakeImages = Callable[..., Path]


def classes_of(transform: Callable[..., object], *, channels_last: bool = False) -> ImagePipeline:
    """Images by a transform, with their classes."""
    return ImagePipeline(transform, class_of, torch.empty(0, dtype=torch.int64), channels_last=channels_last)  # type: ignore[arg-type]


def noise(width: int = 24, height: int = 18, seed: int = 0) -> Image.Image:
    """An image in RGB whose every pixel differs."""
    return Image.fromarray(np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8))


def make_images(root: Path, counts: dict[str, int], size: tuple[int, int] = (24, 18)) -> Path:
    """A folder of class folders with so many PNG images each, `0.png`, `1.png`, …"""
    for position, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True, exist_ok=True)
        for number in range(count):
            noise(*size, seed=1000 * position + number).save(root / name / f"{number}.png")
    return root
