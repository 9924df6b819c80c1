"""The published detectors' recipes give the optimiser groups and the learning rates that were recorded."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_boxes import draw, write_voc

from overtone import recipes
from overtone.config import Run
from overtone.engine.optim import lr_at, parameter_groups
from overtone.engine.training import train
from overtone.tasks.detection.coco_classes import COCO_CLASSES
from overtone.tasks.detection.task import Detection
from overtone.zoo.starting import fitted_to_weights

RECORDED = json.loads((Path(__file__).parent / "data" / "detection_recipes.json").read_text())
NAMES = sorted(set(RECORDED) - {"source"})


@pytest.mark.parametrize("name", NAMES)
def test_optimiser_groups_are_the_published_ones(name: str) -> None:
    recipe, record = recipes.load_recipe(name), RECORDED[name]
    with torch.device("meta"):
        network = Detection.build(recipe.model, COCO_CLASSES)
    found: dict[tuple[float, float], int] = {}
    for group in parameter_groups(network, recipe.optim):
        key = round(recipe.optim.lr * group["lr_scale"], 15), group["weight_decay"]
        found[key] = found.get(key, 0) + len(group["params"])
    expected: dict[tuple[float, float], int] = {}
    for lr, decay, tensors in record["groups"]:
        key = round(lr, 15), decay
        expected[key] = expected.get(key, 0) + tensors
    assert found == expected


@pytest.mark.parametrize("name", NAMES)
def test_learning_rates_and_lengths_are_the_published_ones(name: str) -> None:
    recipe, record = recipes.load_recipe(name), RECORDED[name]
    assert (recipe.optim.lr, recipe.train.epochs) == (record["lr"], record["epochs"])
    assert recipe.model.drop_path_rate == record["drop_path_rate"]
    for epoch, iteration, factor in record["factors"]:
        steps_per_epoch = 1000
        if epoch < recipe.train.epochs:
            assert iteration // steps_per_epoch == epoch
            assert lr_at(iteration, recipe, steps_per_epoch) / recipe.optim.lr == pytest.approx(factor, rel=1e-12)
    assert recipe.train.batch_size == 16 and recipe.train.sync_bn


@pytest.mark.slow
def test_recipes_for_your_own_boxes_train_one_from_the_other(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    root = write_voc(tmp_path, {"train": draw(tmp_path / "JPEGImages", 10)})
    first = recipes.load_recipe("detect")
    small = dataclasses.replace(first.data.preprocess, size=64)
    first = dataclasses.replace(first, data=dataclasses.replace(first.data, root=root, preprocess=small))
    run = Run(out=tmp_path / "first", workers=0, plots=False, tensorboard=False, max_steps=1)
    train(first, run, "detect")
    second = recipes.load_recipe("detect_finetune")
    model = dataclasses.replace(second.model, weights=str(tmp_path / "first"))
    second = fitted_to_weights(
        dataclasses.replace(second, model=model, data=dataclasses.replace(second.data, root=root))
    )
    assert second.data.preprocess == small and second.model.head == "fcos" and second.model.args == first.model.args
    summary: Any = train(second, dataclasses.replace(run, out=tmp_path / "second"), "detect_finetune")
    assert summary.report.num_used == 2 and recipes.needs_weights("detect_finetune")
