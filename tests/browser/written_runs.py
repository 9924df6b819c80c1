"""Run folders as a training leaves them, written by hand: nothing is trained."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from overtone.config import Data, Model, Preprocess, Recipe, to_dict
from overtone.reports.confusion import IMAGES, Judged, write_images

CLASSES = ("cat", "dog", "owl")


def epoch(number: int, **figures: Any) -> dict[str, Any]:
    """A line of `metrics.jsonl`."""
    row = {"epoch": number, "train_loss": 2 / number, "score": 50.0 + number, "score_name": "top-1", "seconds": 1.5}
    return row | {"is_best": True} | figures


def add_epoch(folder: Path, number: int, **figures: Any) -> None:
    """Add a line to `metrics.jsonl`."""
    with (folder / "metrics.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(epoch(number, **figures)) + "\n")


def write_run(folder: Path, *, epochs: int = 3, lr: float = 0.1, root: str = "photos") -> Path:
    """A run of a classifier of three classes, without weights."""
    folder.mkdir(parents=True)
    recipe = to_dict(
        Recipe(model=Model(name="hbonet_x100"), data=Data(root=Path(root), preprocess=Preprocess(size=64)))
    )
    recipe["optim"]["lr"] = lr
    record = {"name": "scratch", "recipe": recipe, "run": {}, "classes": list(CLASSES)}
    (folder / "recipe.json").write_text(json.dumps(record), encoding="utf-8")
    (folder / "status.json").write_text('{"status": "finished"}', encoding="utf-8")
    for number in range(1, epochs + 1):
        add_epoch(folder, number)
    report = {"classes": list(CLASSES), "confusion": [[4, 1, 0], [2, 3, 0], [0, 0, 5]]}
    (folder / "report.json").write_text(json.dumps(report), encoding="utf-8")
    return folder


def add_images(run: Path, samples: Sequence[tuple[str, str, float]]) -> list[Path]:
    """Write the images of an evaluation: target, predicted and probability of each; gives their files."""
    paths = []
    for number, (target, _, _) in enumerate(samples):
        paths.append(run.parent.parent / "photos" / target / f"{number}.png")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((30, 40, 3), 40 * number, np.uint8)).save(paths[-1])
    (run / "evaluation").mkdir()
    judged = [
        Judged(f"{path.parent.name}/{path.name}", *sample, str(path))
        for path, sample in zip(paths, samples, strict=True)
    ]
    write_images(run / "evaluation" / IMAGES, judged)
    return paths
