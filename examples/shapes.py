"""Drawn images to run the examples on when no folder of photos is given."""

from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

CLASSES = ("circle", "square", "triangle")


def draw_folder(folder: Path, per_class: int = 40, side: int = 96, seed: int = 0) -> Path:
    """Write class folders of shapes in random places and colours; a folder that is there stays as it is."""
    random = np.random.default_rng(seed)
    for name in CLASSES:
        if (folder / name).is_dir():
            continue
        (folder / name).mkdir(parents=True)
        for number in range(per_class):
            draw(name, random, side).save(folder / name / f"{number:03}.png")
    return folder


def draw(name: str, random: np.random.Generator, side: int) -> Image.Image:
    """One shape on a noisy background."""
    noise = random.integers(0, 80, (side, side, 3), dtype=np.uint8)
    image = Image.fromarray(noise)
    radius = random.uniform(0.15, 0.3) * side
    x, y = random.uniform(radius, side - radius, 2)
    colour = tuple(int(value) for value in random.integers(120, 256, 3))
    pen = ImageDraw.Draw(image)
    if name == "circle":
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)
    elif name == "square":
        pen.rectangle((x - radius, y - radius, x + radius, y + radius), fill=colour)
    else:
        pen.polygon([(x, y - radius), (x - radius, y + radius), (x + radius, y + radius)], fill=colour)
    return image
