"""Every `overtone` command of README.md runs as it is printed there, on tiny images; its Python too."""

import csv
import re
import shlex
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_boxes import draw as draw_boxes
from drawn_boxes import write_voc
from PIL import Image
from small_photos import TINY, draw

from overtone import zoo

README = Path(__file__).parents[2] / "README.md"
NOT_HERE = {
    "overtone demo": "takes minutes; see test_demo.py",
    "resnet18.a1_in1k": "downloads weights of timm's",
    "overtone benchmark": "takes a minute; see test_benchmark.py",
    "overtone serve": "serves until it is stopped; see tests/serving",
}


# It stands for the published file, so that nothing is downloaded.
AT_HAND = "hbonet_x100.dli14_in1k"


def commands() -> list[str]:
    blocks = re.findall(r"^```console\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    return [line[2:].partition("  #")[0].strip() for line in lines if line.startswith("$ overtone ")]


def write_table(path: Path, column: str, rows: list[tuple[Path, str]]) -> None:
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([("image", column), *((str(image), label) for image, label in rows)])


def draw_masks(folder: Path) -> None:
    """Ten images with masks of two classes."""
    for kind in ("images", "masks"):
        (folder / kind).mkdir(parents=True)
    for number in range(10):
        mask = np.full((40, 48), number % 2, dtype=np.uint8)
        mask[number : number + 20, 10:30] = 1
        Image.fromarray(mask).save(folder / "masks" / f"{number}.png")
        Image.fromarray(np.repeat(100 + 80 * mask[..., None], 3, axis=2)).save(folder / "images" / f"{number}.png")


def write_tables(folder: Path) -> None:
    images = [(path.relative_to(folder), path.parent.name) for path in sorted((folder / "photos").rglob("*.png"))]
    write_table(folder / "photos.csv", "label", images)
    tagged = [(image, f"{name}|first" if at % 2 else name) for at, (image, name) in enumerate(images)]
    write_table(folder / "labels.csv", "labels", tagged)


@pytest.mark.slow
def test_the_commands_of_the_readme_run(overtone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos", {"cat": 10, "dog": 10})
    draw(tmp_path / "others", {"bird": 5, "fish": 5, "frog": 5}, seed=1)
    draw(tmp_path / "more", {"new": 2}, seed=2)
    draw_masks(tmp_path / "street")
    write_tables(tmp_path)
    write_voc(tmp_path / "cells", {"train": draw_boxes(tmp_path / "cells" / "JPEGImages", 6)})
    (tmp_path / "new.jpg").write_bytes((tmp_path / "more" / "new" / "0.png").read_bytes())
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(tmp_path / "weights"))
    (tmp_path / "weights").mkdir()
    for name, file, classes in (("hbonet_x100", "at_hand.pth", 1000), ("mobilenetv2_x010", "some.pth", 2)):
        torch.save(zoo.build(name, num_classes=classes).published_state_dict(), file)  # type: ignore[operator]
    assert overtone("weights", "convert", "at_hand.pth", "--out", f"weights/{AT_HAND}.safetensors").code == 0
    ran = []
    for command in commands():
        if any(part in command for part in NOT_HERE):
            continue
        words = shlex.split(command)[1:]
        settings = {"train": TINY, "tune": ("--precisions", "float32", "--rounds", "2")}.get(words[0], ())
        if "--model.weights" in words:  # they say which network it is
            settings = [setting for setting in settings if not setting.startswith("--model.name")]
        outcome = overtone(*words, *settings)
        assert outcome.code == 0, f"{command}\n{outcome.err}"
        ran.append(words[0])
    assert {"train", "evaluate", "predict", "export", "tune", "weights", "reproduce"} <= set(ran)


@pytest.mark.slow
def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw(tmp_path / "photos", {"cat": 10, "dog": 10})
    (tmp_path / "new.jpg").write_bytes((tmp_path / "photos" / "cat" / "0.png").read_bytes())
    tiny = 'epochs=1, model="hbonet_x010", data__preprocess__size=32, batch_size=8, workers=0, plots=False'
    blocks = re.findall(r"^```python\n(.*?)^```", README.read_text(encoding="utf-8"), flags=re.M | re.S)
    code = "".join(blocks).replace("epochs=30", tiny)
    assert len(blocks) == 2 and tiny in code
    found: dict[str, Any] = {}
    exec(code, found)
    assert found["result"].label in ("cat", "dog") and found["done"].folder == Path("exports/p")
    assert len(found["backbone"].feature_info.channels()) == 5
