"""Every recipe is a literal document, holds the published values, and trains."""

import ast
import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import timm
from PIL import Image

import overtone.models  # noqa: F401 - registers the architectures
from overtone import recipes
from overtone.config import Recipe, Run, from_dict, to_dict
from overtone.errors import OvertoneError
from overtone.verbs.train import train

NAMES = tuple(recipes.list_recipes())
FILES = {path.stem: path for path in Path(recipes.__file__).parent.glob("*/[!_]*.py")}


def value_of(recipe: Recipe, path: str) -> object:
    record: object = recipe
    for name in path.split("."):
        record = getattr(record, name)
    return record


PUBLISHED = {
    "mobilenetv2_in1k": {
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.nesterov": False,
        "optim.weight_decay": 4e-5,
        "optim.decay": "all",
        "optim.lr": 0.05,
        "train.batch_size": 256,
        "schedule.name": "cosine",
        "schedule.min_lr": 0.0,
        "schedule.warmup_epochs": 0,
        "train.epochs": 150,
        "train.label_smoothing": 0.0,
        "augment.crop": "random_resized",
        "augment.scale": (0.08, 1.0),
        "data.preprocess.interpolation": "bilinear",
    },
    "hbonet_in1k": {
        "optim.weight_decay": 4e-5,
        "optim.lr": 0.05,
        "train.batch_size": 256,
        "schedule.name": "cosine",
        "train.epochs": 300,
    },
    "harm_resnet_in1k": {
        "optim.weight_decay": 1e-4,
        "optim.lr": 0.1,
        "schedule.name": "step",
        "schedule.step_epochs": 30,
        "schedule.gamma": 0.1,
        "train.epochs": 100,
        "train.batch_size": 256,
        "data.preprocess.size": 224,
    },
    "cifar10_harm_wrn16_4": {
        "optim.nesterov": True,
        "optim.momentum": 0.9,
        "optim.weight_decay": 5e-4,
        "optim.lr": 0.1,
        "schedule.name": "multistep",
        "schedule.milestones": (60, 120, 160),
        "schedule.gamma": 0.2,
        "train.epochs": 200,
        "train.batch_size": 128,
        "model.drop_rate": 0.3,
        "augment.crop": "pad",
        "augment.pad_mode": "reflect",
        "data.preprocess.size": 32,
        "data.preprocess.mean": (125.3 / 255, 123.0 / 255, 113.9 / 255),
        "data.preprocess.std": (63.0 / 255, 62.1 / 255, 66.7 / 255),
    },
    "hornet_tiny_7x7_in1k": {
        "optim.name": "adamw",
        "optim.betas": (0.9, 0.999),
        "optim.eps": 1e-8,
        "optim.lr": 4e-3,
        "optim.weight_decay": 0.05,
        "optim.decay": "no_norm_bias",
        "optim.clip_grad": 100.0,
        "train.batch_size": 4 * 8 * 128,
        "train.epochs": 300,
        "train.label_smoothing": 0.1,
        "train.ema_decay": 0.9999,
        "schedule.name": "cosine",
        "schedule.min_lr": 1e-6,
        "schedule.warmup_epochs": 20,
        "schedule.warmup_lr": 0.0,
        "model.drop_path_rate": 0.2,
        "augment.mixup": 0.8,
        "augment.cutmix": 1.0,
        "augment.mix_switch_prob": 0.5,
        "augment.rand_augment": "rand-m9-mstd0.5-inc1",
        "augment.color_jitter": 0.4,
        "augment.random_erasing": 0.25,
        "data.preprocess.interpolation": "bicubic",
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    recipe = recipes.load_recipe(name)
    assert {path: value_of(recipe, path) for path in PUBLISHED[name]} == PUBLISHED[name]


def test_every_file_is_found():
    assert set(NAMES) == set(FILES)
    assert {"digits", "scratch", "finetune", "cifar10_hbonet", *PUBLISHED} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_one_literal(name):
    body = ast.parse(FILES[name].read_text(encoding="utf-8")).body
    names = [target.id for node in body if isinstance(node, ast.Assign) for target in node.targets]
    assert set(names) <= {"RECIPE", "NEEDS_WEIGHTS"}
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in body)
    (recipe,) = (node.value for node in body if isinstance(node, ast.Assign) and node.targets[0].id == "RECIPE")
    called = {node.func.id for node in ast.walk(recipe) if isinstance(node, ast.Call)}
    assert called <= {"Recipe", "Model", "Data", "Preprocess", "Augment", "Optim", "Schedule", "Train"}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_document(name):
    document = recipes.recipe_document(name)
    for heading in ("Source:", "Command: overtone ", "Published result:", "Ours:", "Deviations:"):
        assert f"\n{heading}" in document
    summary = recipes.list_recipes()[name]
    assert summary.endswith(".") and len(summary) <= 110


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_round_trips(name):
    recipe = recipes.load_recipe(name)
    assert from_dict(Recipe, json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_an_architecture(name):
    assert timm.is_model(recipes.load_recipe(name).model.name)


def test_an_unknown_recipe_offers_the_closest():
    with pytest.raises(OvertoneError, match="no recipe 'hbonet_in1'; did you mean hbonet_in1k"):
        recipes.load_recipe("hbonet_in1")


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("pictures")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(5):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_trains_two_steps(name, pictures, tmp_path):
    recipe = recipes.load_recipe(name)
    data = recipe.data
    small = dataclasses.replace(
        recipe,
        data=dataclasses.replace(data, root=pictures, preprocess=dataclasses.replace(data.preprocess, size=32)),
        train=dataclasses.replace(recipe.train, batch_size=4),
        # the rate is for the recipe's batch; at four images it would take a ResNet out of float32 in two steps
        optim=dataclasses.replace(recipe.optim, lr=recipe.optim.lr * 4 / recipe.train.batch_size),
    )
    run = Run(out=tmp_path / "run", device="cpu", workers=0, tensorboard=False, plots=False, max_steps=2)
    summary = train(small, run, name)
    assert summary.report.num_used == 2
    assert np.isfinite(summary.report.loss)
    rows = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [2]
    assert np.isfinite(rows[0]["train_loss"])
