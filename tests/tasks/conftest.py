"""What the tests of the tasks start from."""

import csv
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

# the processes of tests/engine are those of these tests too
sys.path.append(str(Path(__file__).parent.parent / "engine"))

COLOURS = {"blue": (30, 40, 200), "green": (20, 180, 40), "red": (210, 30, 30)}
SIZE = 24


def draw_tagged(root: Path, count: int = 30, seed: int = 0) -> list[tuple[str, frozenset[str]]]:
    """Images whose thirds are tinted by the labels that hold of them; gives name and labels of each."""
    random = np.random.default_rng(seed)
    root.mkdir(parents=True, exist_ok=True)
    rows = []
    for number in range(count):
        tags = frozenset(name for at, name in enumerate(COLOURS) if (number + 1) >> at & 1 or random.random() < 0.2)
        pixels = random.integers(0, 60, (SIZE, SIZE, 3))
        for at, (name, colour) in enumerate(COLOURS.items()):
            if name in tags:
                pixels[:, at * SIZE // 3 : (at + 1) * SIZE // 3] += colour
        Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / f"{number}.png")
        rows.append((f"{number}.png", tags))
    return rows


def write_csv(path: Path, rows: list[list[object]]) -> Path:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows(rows)
    return path


@pytest.fixture
def tagged(tmp_path: Path) -> Path:
    """A table of 30 images with a column of 0 and 1 for each of three labels; gives its path."""
    rows = draw_tagged(tmp_path / "photos")
    head: list[object] = ["image", *COLOURS]
    return write_csv(
        tmp_path / "photos" / "labels.csv", [head, *([name, *(int(c in tags) for c in COLOURS)] for name, tags in rows)]
    )
