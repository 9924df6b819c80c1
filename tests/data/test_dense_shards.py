"""Shards of masks and of boxes, packed from folders: the batches and figures of the files, bit for bit."""

import dataclasses
import io
import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_shards import SIZE, image_bytes, to_json, write_tar
from PIL import Image

from overtone import api, cli
from overtone.config import Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.data.decoding import BadImage
from overtone.data.loader import Loader
from overtone.data.masks import IGNORED
from overtone.data.segments import pack, unpack
from overtone.data.sources import Objects, Splits, open_splits
from overtone.engine.training import train
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.task import Setup

sys.path.append(str(Path(__file__).parent.parent / "tasks"))
import drawn_boxes
import small_scenes


def segment(root: Path) -> Recipe:
    return small_scenes.recipe_for(root, epochs=1)


def detect(root: Path) -> Recipe:
    return Recipe(
        task="detection",
        settings=DetectionSettings(mosaic=0.5, jitter=(0.8, 1.2), longest=96, by_orientation=True),
        model=Model(name="mobilenetv2_x010", head="ssdlite"),
        data=Data(root=root, preprocess=Preprocess(size=64)),
        optim=Optim(lr=0.01),
        train=Train(epochs=1, batch_size=3),
    )


def draw_masks(root: Path) -> Path:
    for seed, part in enumerate(("train", "val")):
        small_scenes.draw(root, 7, part, seed)
    return root


def draw_boxes(root: Path, outlines: bool = True) -> Path:
    parts = {part: drawn_boxes.draw(root / part, 7, seed) for seed, part in enumerate(("train", "val"))}
    return drawn_boxes.write_coco(root, parts, outlines)


DRAWN = {"segmentation": (draw_masks, segment), "detection": (draw_boxes, detect)}


def packed(root: Path, task: str, out: Path) -> Path:
    """Shards in the order of the files, so that the same positions hold the same images."""
    assert cli.main(f"data pack {root} --task {task} --out {out} --size-mb 0.01 --listed".split()) == 0
    return out


def batches(recipe: Recipe, splits: Splits, part: str, *, is_train: bool) -> list[Any]:
    source: Any = getattr(splits, part)
    task = task_named(recipe.task)(Setup(splits.train.labels, recipe))
    pipeline = task.pipeline(train=is_train)
    loader = Loader(source, pipeline, batch_size=3 if is_train else 1, shuffle=is_train)
    if is_train:
        loader._order.groups = None  # the order of loose files
    return list(loader)


def same(one: Any, other: Any) -> bool:
    """Whether two values are equal, bit for bit."""
    if isinstance(one, torch.Tensor):
        return torch.equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, (list, tuple)):
        return len(one) == len(other) and all(map(same, one, other))
    return isinstance(one, str) or one == other  # names of files and of shards


@pytest.mark.parametrize("task", DRAWN)
def test_the_batches_of_the_files(tmp_path: Path, task: str) -> None:
    drawn, recipe_for = DRAWN[task]
    root = drawn(tmp_path / "files")
    shards = packed(root, task, tmp_path / "shards")
    target = task_named(task).target
    wanted, found = (open_splits(Data(root=folder), target) for folder in (root, shards))
    assert found.train.labels == wanted.train.labels and len(list(shards.glob("*.tar"))) > 2
    recipe = recipe_for(root)
    for part, is_train in (("train", True), ("train", False), ("val", False)):
        of_files, of_shards = (batches(recipe, splits, part, is_train=is_train) for splits in (wanted, found))
        assert len(of_files) == (3 if is_train else 7) and same(of_files, of_shards)
    if task == "detection":
        assert all(wanted.train.read(n)["boxes"] == found.train.read(n)["boxes"] for n in range(7))
        assert found.train.has_outlines and found.train.is_wide().all()  # type: ignore[attr-defined]
        assert len(found.train.part(found.train.usable(), "")) == 6  # type: ignore[attr-defined]
        dropped = open_splits(Data(root=shards, drop_empty=True), target)
        assert len(dropped.train) == 6 and len(dropped.val) == 7


@pytest.mark.parametrize("task", DRAWN)
def test_trained_and_measured(tmp_path: Path, task: str) -> None:
    drawn, recipe_for = DRAWN[task]
    root = drawn(tmp_path / "files")
    shards = packed(root, task, tmp_path / "shards")
    run = Run(out=tmp_path / "run", workers=0, plots=False, tensorboard=False)
    train(recipe_for(shards), run, task)
    reports = [api.evaluate(tmp_path / "run", folder, workers=0).report for folder in (root, shards)]
    assert reports[0].num_used == reports[1].num_used == 7
    assert reports[0].to_dict().keys() == reports[1].to_dict().keys()
    figures = [json.dumps(report.figures()) for report in reports]
    assert figures[0] == figures[1]


def test_outlines_keep_their_bytes() -> None:
    runs = {"size": [4, 4], "counts": [5, 2, 9]}
    for outline in ([[1.5, 2, 10, 2, 10, 9.25]], runs, None):
        assert unpack(pack(outline)) == outline and pack(unpack(pack(outline))) == pack(outline)
    assert pack({"size": [4, 4], "counts": "529"}) == pack(runs)


def png(values: np.ndarray) -> bytes:
    content = io.BytesIO()
    Image.fromarray(values.astype(np.uint8)).save(content, "PNG")
    return content.getvalue()


def opened(tmp_path: Path, target: str, **more: Any) -> Any:
    (tmp_path / "classes.txt").write_text("void\na\nb\n")
    return open_splits(Data(root=tmp_path, val_fraction=0, **more), target).train


def test_shards_of_others(tmp_path: Path) -> None:
    about = {"width": SIZE, "height": SIZE, "boxes": [[-2, 2, 8, 30], [1, 1, 4, 4.5]], "labels": ["b", 1]}
    mask = png(np.full((SIZE, SIZE), 2))
    write_tar(
        tmp_path / "train-0.tar", [("7.jpg", image_bytes("blue", 1)), ("7.png", mask), ("7.json", to_json(**about))]
    )
    objects: Objects = opened(tmp_path, "boxes").read(0)["boxes"]
    assert objects.boxes.tolist() == [[0, 2, 8, SIZE], [1, 1, 4, 4.5]] and objects.labels.tolist() == [2, 1]
    assert objects.outlines is None and objects.size == (SIZE, SIZE)
    found = opened(tmp_path, "mask")
    assert found.labels == ("a", "b") and (found.read(0)["mask"].pixels() == 1).all()
    ignoring = opened(tmp_path, "mask", ignore_index=2)
    assert ignoring.labels == ("a",) and (ignoring.read(0)["mask"].pixels() == IGNORED).all()
    assert (found.relabelled(("c", "b", "a")).read(0)["mask"].pixels() == 1).all()
    assert (found.relabelled(("c", "a", "b")).read(0)["mask"].pixels() == 2).all()
    assert opened(tmp_path, "boxes").relabelled(("b", "void", "a")).read(0)["boxes"].labels.tolist() == [0, 2]


GOOD: dict[str, Any] = {"width": SIZE, "height": SIZE, "boxes": [[1, 1, 4, 4]], "labels": ["a"]}


@pytest.mark.parametrize(
    ("wrong", "named"),
    [
        ({"labels": ["zebra"]}, "zebra"),
        ({"labels": []}, "lengths"),
        ({"boxes": [[4, 4, 4, 9]]}, "no size"),
        ({"boxes": [[40, 40, 50, 50]]}, "outside"),
        ({"boxes": [["x", 1, 2, 3]]}, "boxes"),
        ({"outlines": [[[1, 2]]]}, "three points"),
        ({"width": 0}, "no size"),
        ({"boxes": None}, "boxes"),
    ],
)
def test_boxes_that_are_none_are_named(tmp_path: Path, wrong: dict[str, Any], named: str) -> None:
    write_tar(tmp_path / "train-0.tar", [("7.jpg", image_bytes("blue", 1)), ("7.json", to_json(**(GOOD | wrong)))])
    with pytest.raises(BadImage, match=named):
        opened(tmp_path, "boxes").read(0)


def test_masks_that_are_none_are_named(tmp_path: Path) -> None:
    jpg = ("7.jpg", image_bytes("blue", 1))
    write_tar(tmp_path / "train-0.tar", [jpg, ("7.mask.png", png(np.full((SIZE, SIZE), 9)))])
    with pytest.raises(BadImage, match=r"train-0\.tar#7.* index 9"):
        opened(tmp_path, "mask").read(0)["mask"].pixels()
    write_tar(tmp_path / "train-0.tar", [jpg, ("7.mask.png", b"no image")])
    with pytest.raises(BadImage, match=r"train-0\.tar#7"):
        opened(tmp_path, "mask").read(0)["mask"].pixels()
    write_tar(tmp_path / "train-0.tar", [jpg])
    with pytest.raises(BadImage, match=r"mask\.png"):
        opened(tmp_path, "mask").read(0)


def test_what_cannot_be_trained_on_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = draw_boxes(tmp_path / "files", outlines=False)
    shards = packed(root, "detection", tmp_path / "shards")
    recipe = dataclasses.replace(detect(shards), model=Model(name="mobilenetv2_x010", head="mask_rcnn"))
    with pytest.raises(OvertoneError, match="boxes alone"):
        train(recipe, Run(out=tmp_path / "run", workers=0, plots=False, tensorboard=False), "detect")
    assert cli.main(f"data pack {root} --task detection --out {tmp_path / 'small'} --max-side 32".split()) == 2
    assert "--max-side" in capsys.readouterr().err
