"""Settings and data of which nothing is learned end with an error, and never with the report of a success (row 33)."""

import dataclasses
import json

import pytest
import torch
from tiny_runs import recipe_for, rows_of, run_for

from overtone import cli
from overtone.checkpoint import read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Train
from overtone.engine import folder as files
from overtone.engine.training import train
from overtone.errors import OvertoneError


@pytest.mark.parametrize("more", ["", " --train.sync-bn", " --train.ema-decay 0.9"])
def test_a_batch_of_one_image_is_refused_where_there_is_batch_norm(images, tmp_path, capsys, more):
    words = f"train scratch --data.root {images} --run.out {tmp_path / 'run'} --run.device cpu --run.workers 0"
    words += f" --model.name hbonet_x010 --data.preprocess.size 32 --train.batch-size 1{more}"
    assert cli.main(words.split()) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert all(word in line for word in ("train.batch_size is 1", "hbonet_x010", "batch norm", "at least 2"))
    assert not (tmp_path / "run" / files.BEST).exists() and not (tmp_path / "run" / files.SUMMARY).exists()


@pytest.mark.usefixtures("tiny_from_zoo")
def test_a_batch_of_one_image_does_where_batch_norm_is_frozen(images, tmp_path):
    recipe = recipe_for(images, epochs=1, batch_size=1, ema_decay=None)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, freeze=True))
    train(recipe, run_for(tmp_path / "run"), "try")
    (row,) = rows_of(tmp_path / "run")
    assert row["step"] == 26 and row["train_loss"] > 0.1


def test_a_batch_of_one_image_trains_a_network_without_batch_norm(images, tmp_path):
    small = {"depths": (1, 1, 2, 1), "base_dim": 16}
    recipe = Recipe(
        model=Model(name="hornet_tiny_7x7", args=small),
        data=Data(root=images, preprocess=Preprocess(size=32)),
        augment=Augment(crop="none"),
        optim=Optim(name="adamw", lr=1e-3),
        train=Train(epochs=1, batch_size=1),
    )
    train(recipe, run_for(tmp_path / "one"), "try")
    still = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=0.0))
    train(still, run_for(tmp_path / "still"), "try")
    (row,) = rows_of(tmp_path / "one")
    assert row["step"] == 26 and row["train_loss"] > 0.01
    one, before = (read_checkpoint(tmp_path / name / files.LAST).weights for name in ("one", "still"))
    assert any(not torch.equal(one[key], before[key]) for key in one)


@pytest.mark.usefixtures("tiny_from_zoo")
@pytest.mark.parametrize("max_steps", [None, 2])
def test_images_of_which_none_can_be_read(images, tmp_path, max_steps):
    for path in (images / "train").rglob("*.png"):
        path.write_bytes(b"")
    recipe = recipe_for(images)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_bad_fraction=1.0))
    with pytest.raises(OvertoneError, match="no step could be taken in epoch 1, so nothing was trained"):
        train(recipe, run_for(tmp_path / "run", max_steps=max_steps), "try")
    assert json.loads((tmp_path / "run" / files.STATUS).read_text())["status"] == "failed"
    assert not rows_of(tmp_path / "run") and not (tmp_path / "run" / files.SUMMARY).exists()


@pytest.mark.usefixtures("tiny_from_zoo")
def test_a_lone_image_with_batch_norm(images, tmp_path):
    for path in (images / "train").rglob("*.png"):
        if path.name != "0.png" or path.parent.name != "red":
            path.unlink()
    recipe = recipe_for(images)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, allow_empty_classes=True))
    with pytest.raises(OvertoneError, match=r"no step could be taken in epoch 1.* one image"):
        train(recipe, run_for(tmp_path / "run"), "try")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_no_steps_at_all(images, tmp_path):
    with pytest.raises(OvertoneError, match=r"run\.max_steps is 0"):
        train(recipe_for(images), run_for(tmp_path / "run", max_steps=0), "try")
