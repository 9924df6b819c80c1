"""Options of a recipe that reach through a whole run: resolution, mixing and a teacher by epoch, no validation."""

import dataclasses
import json
import math

import pytest
import torch
from tiny_training import draw

from overtone import zoo
from overtone.checkpoint import read_checkpoint
from overtone.config import Augment, Data, Distill, Model, Optim, Preprocess, Recipe, Run, Schedule, Train
from overtone.engine import folder as files
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError
from overtone.tasks.classification.task import Classification
from overtone.verbs.train import train


def recipe_for(root, **train_options):
    return Recipe(
        model=Model(name="hbonet_x010"),
        data=Data(root=root, preprocess=Preprocess(size=32, resize="squash", crop_fraction=1.0)),
        augment=Augment(crop="pad"),
        optim=Optim(lr=0.01, weight_decay=0.01, decay="no_norm_bias", clip_grad=5.0),
        train=Train(**({"epochs": 2, "batch_size": 8} | train_options)),
    )


def run_for(folder, **options):
    quiet = {"device": "cpu", "workers": 0, "tensorboard": False, "plots": False}
    return Run(out=folder, **(quiet | options))


def rows_of(folder):
    return [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()]


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("images") / "data"
    draw(root / "train", {"blue": 8, "green": 9, "red": 9})
    draw(root / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return root


@pytest.fixture(scope="module")
def teacher(root, tmp_path_factory):
    """The folder of a run that has trained on these classes."""
    folder = tmp_path_factory.mktemp("teacher") / "run"
    train(recipe_for(root, epochs=1), run_for(folder), "try")
    return folder


@pytest.fixture
def watched(monkeypatch):
    """What each training step gave the task: side of the images, whether they were mixed; and the weight decays."""
    seen = []
    prepare, step = Classification.prepare, Trainer.step

    def prepared(self, batch, seed):
        batch = prepare(self, batch, seed)
        seen.append([seed[1], batch.inputs.shape[-1], batch.targets.ndim == 2])
        return batch

    def stepped(self, *arguments):
        step(self, *arguments)
        seen[-1].append([group["weight_decay"] for group in self.optimizer.param_groups])

    monkeypatch.setattr(Classification, "prepare", prepared)
    monkeypatch.setattr(Trainer, "step", stepped)
    return seen


def test_all_of_them_by_epoch_and_after_an_interruption(root, teacher, tmp_path, watched):
    recipe = dataclasses.replace(
        recipe_for(root, epochs=4, sizes=(24, 40), label_smoothing=0.1),
        augment=Augment(crop="pad", mixup=0.4, mix_off_epochs=1, random_erasing=0.5),
        schedule=Schedule(warmup_epochs=1, weight_decay_end=0.03),
        distill=Distill(teacher=str(teacher), weight=0.7, temperature=2.0),
    )
    train(recipe, run_for(tmp_path / "straight"), "try")
    straight = [list(entry) for entry in watched]
    assert [entry[0] for entry in straight] == list(range(16))
    assert [entry[1] for entry in straight] == [24] * 8 + [40] * 8
    assert [entry[2] for entry in straight] == [True] * 12 + [False] * 4
    # from 0.01 to 0.03 over 16 steps: a quarter, a half
    assert straight[0][3] == [0.0, 0.01] and straight[8][3] == [0.0, pytest.approx(0.02)]
    assert straight[4][3] == [0.0, pytest.approx(0.02 - 0.01 * math.sqrt(0.5))]
    watched.clear()
    train(recipe, run_for(tmp_path / "parts", max_steps=10, workers=2), "try")
    torch.rand(3)
    train(recipe, run_for(tmp_path / "parts", workers=2), "try", resume=True)
    assert watched == straight
    one, two = (read_checkpoint(tmp_path / name / files.LAST).weights for name in ("straight", "parts"))
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_learns_its_teachers_outputs(root, teacher, tmp_path):
    """Taught alone by a network that starts where it starts, the student stays: the divergence is near 0."""
    recipe = recipe_for(root, epochs=1)
    taught = dataclasses.replace(
        recipe,
        model=dataclasses.replace(recipe.model, weights=str(teacher), freeze=True),
        distill=Distill(teacher=str(teacher), weight=1.0, temperature=3.0),
    )
    train(taught, run_for(tmp_path / "taught"), "try")
    assert rows_of(tmp_path / "taught")[0]["train_loss"] < 1e-3
    train(dataclasses.replace(taught, distill=Distill()), run_for(tmp_path / "alone"), "try")
    assert rows_of(tmp_path / "alone")[0]["train_loss"] > 0.1


def test_a_teacher_of_other_classes_stops_the_run(teacher, tmp_path):
    other = draw(tmp_path / "data", {"blue": 4, "green": 4, "violet": 4})
    recipe = dataclasses.replace(recipe_for(other), distill=Distill(teacher=str(teacher)))
    with pytest.raises(OvertoneError, match="lacks violet; it has besides red"):
        train(recipe, run_for(tmp_path / "run"), "try")


def test_without_validation_the_last_epoch_is_the_best(root, tmp_path, capsys):
    folder, recipe = tmp_path / "run", recipe_for(root / "train", epochs=3)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, val_fraction=0.0))
    summary = train(recipe, run_for(folder, max_steps=6), "try")
    assert summary.report is None and (summary.epochs, summary.best_epoch) == (2, 2)
    train(recipe, run_for(folder, plots=True), "try", resume=True)
    rows = rows_of(folder)
    assert [row["is_best"] for row in rows] == [True] * 3 and not {"top1", "val_loss"} & rows[0].keys()
    last, best = (read_checkpoint(folder / name) for name in (files.LAST, files.BEST))
    assert all(torch.equal(last.weights[key], best.weights[key]) for key in best.weights)
    assert zoo.load_model(str(folder)).labels == ("blue", "green", "red")
    assert "3 epochs without validation images" in capsys.readouterr().out
    assert not {"top1", "score", "test"} & json.loads((folder / files.SUMMARY).read_text()).keys()
    patient = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, patience=2))
    with pytest.raises(OvertoneError, match=r"train\.patience waits for"):
        train(patient, run_for(tmp_path / "other"), "try")
