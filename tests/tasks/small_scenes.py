"""Images with masks small enough for a training to take a second, and a network for them."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Schedule, Train
from overtone.heads import TrainingLogits
from overtone.tasks.segmentation.settings import SegmentationSettings

CLASSES = ("ground", "disc", "bar")
COLOURS = ((120, 90, 60), (30, 160, 40), (200, 40, 90))


class Tiny(nn.Module):
    """Two convolutions with batch norm and dropout; an auxiliary map in training. Logits at stride 2."""

    def __init__(self, num_classes: int = 3, drop: float = 0.1) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 8, 3, stride=2, padding=1, bias=False)
        self.bn = nn.BatchNorm2d(8)
        self.drop = nn.Dropout(drop)
        self.head = nn.Conv2d(8, num_classes, 1)
        self.auxiliary = nn.Conv2d(8, num_classes, 1)

    def forward(self, x: Tensor) -> Tensor | TrainingLogits:
        maps = self.drop(torch.relu(self.bn(self.conv(x))))
        return TrainingLogits(self.head(maps), self.auxiliary(maps)) if self.training else self.head(maps)


def scene(random: np.random.Generator, height: int, width: int) -> tuple[np.ndarray, np.ndarray]:
    """A noisy image, uint8 (H, W, 3), and its mask with a border of 255, uint8 (H, W)."""
    rows, columns = np.mgrid[:height, :width]
    mask = np.zeros((height, width), dtype=np.uint8)
    y, x = random.uniform(0.3, 0.7, 2) * (height, width)
    mask[(rows - y) ** 2 + (columns - x) ** 2 < (0.25 * min(height, width)) ** 2] = 1
    top = random.integers(0, height - 3)
    mask[top : top + 3] = 2
    image = np.clip(np.array(COLOURS)[mask] + random.integers(-40, 40, (height, width, 3)), 0, 255).astype(np.uint8)
    mask[:, -1] = 255
    return image, mask


def draw(root: Path, count: int, part: str = "train", seed: int = 0, size: tuple[int, int] | None = None) -> Path:
    """Write scenes of several sizes as `images/<part>` and `masks/<part>`, and `classes.txt`."""
    random = np.random.default_rng(seed)
    for name in ("images", "masks"):
        (root / name / part).mkdir(parents=True, exist_ok=True)
    for number in range(count):
        height, width = size or ((24, 32), (30, 22), (26, 26))[number % 3]
        image, mask = scene(random, height, width)
        Image.fromarray(image).save(root / "images" / part / f"{number}.png")
        Image.fromarray(mask).save(root / "masks" / part / f"{number}.png")
    (root / "classes.txt").write_text("\n".join(CLASSES) + "\n")
    return root


def recipe_for(root: Path, epochs: int = 3, **train: object) -> Recipe:
    """Training on scenes with crops of 16 pixels."""
    return Recipe(
        task="segmentation",
        settings=SegmentationSettings(ratio=(0.8, 1.2)),
        model=Model(name="hbonet_x010", head="lraspp"),
        data=Data(root=root, preprocess=Preprocess(size=16)),
        augment=Augment(hflip=0.5, vflip=0.2),
        optim=Optim(name="adamw", lr=0.02, decay="no_norm_bias", clip_grad=5.0),
        schedule=Schedule(name="poly", power=0.9),
        train=Train(**{"epochs": epochs, "batch_size": 4, "ema_decay": 0.5, **train}),  # type: ignore[arg-type]
    )


def run_in(folder: Path, **options: object) -> Run:
    quiet = {"device": "cpu", "workers": 0, "tensorboard": False, "plots": False, "timeout": 60}
    return Run(out=folder, **{**quiet, **options})  # type: ignore[arg-type]
