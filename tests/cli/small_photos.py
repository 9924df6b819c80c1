"""Images and settings with which a training takes a second."""

from pathlib import Path

import numpy as np
from PIL import Image

TINY = (
    "--model.name=hbonet_x010",
    "--data.preprocess.size=32",
    "--train.epochs=2",
    "--train.batch-size=8",
    "--run.workers=0",
    "--run.threads=1",
    "--run.no-tensorboard",
    "--run.no-plots",
)


def draw(root: Path, counts: dict[str, int], seed: int = 0) -> Path:
    """Class folders of PNG images of noise, each class in its own colour."""
    random = np.random.default_rng(seed)
    for position, (name, count) in enumerate(counts.items()):
        (root / name).mkdir(parents=True)
        for number in range(count):
            pixels = random.integers(0, 100, (20, 24, 3), dtype=np.uint8)
            pixels[..., position % 3] += 150
            Image.fromarray(pixels).save(root / name / f"{number}.png")
    return root
