"""The published detectors' recipes give the optimiser groups and the learning rates that were recorded."""

import json
from pathlib import Path

import pytest
import torch

from overtone import recipes
from overtone.engine.optim import lr_at, parameter_groups
from overtone.tasks.detection.coco_classes import COCO_CLASSES
from overtone.tasks.detection.task import Detection

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
