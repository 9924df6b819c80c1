"""What a recipe leaves open is chosen when the training starts, on record, and kept when it is resumed."""

import dataclasses
import json

import pytest
import torch
from tiny_runs import assert_same_end, recipe_for, run_for
from tiny_training import listed

from overtone.checkpoint import Manifest, read_checkpoint, read_manifest, write_checkpoint
from overtone.config import AUTO, Augment, Model, Preprocess, Recipe, Run
from overtone.engine import automatic, session
from overtone.engine import folder as files
from overtone.engine.automatic import chosen_size, settled
from overtone.engine.distributed import World
from overtone.errors import OvertoneError
from overtone.verbs.train import train


def sized(recipe, size):
    preprocess = dataclasses.replace(recipe.data.preprocess, size=size)
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, preprocess=preprocess))


def test_the_size_grows_with_the_images_between_two_bounds():
    assert [chosen_size(side) for side in (1, 32, 50, 64.5, 96, 375)] == [40, 40, 48, 64, 96, 128]
    sizes = [chosen_size(side) for side in range(1, 300)]
    assert sizes == sorted(sizes)


@pytest.mark.usefixtures("tiny_from_zoo")
def test_it_is_said_recorded_and_kept(images, tmp_path, monkeypatch, capsys):
    recipe, folder = sized(recipe_for(images, epochs=2), AUTO), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=2), "try")
    said = capsys.readouterr().err
    assert "size auto: 40 px; 12 px is the median" in said and "of 26 training images" in said
    assert json.loads((folder / files.RECIPE).read_text())["recipe"]["data"]["preprocess"]["size"] == 40
    manifest = read_manifest(folder / files.LAST)
    assert manifest.preprocess.size == manifest.recipe["data"]["preprocess"]["size"] == 40
    monkeypatch.setattr(automatic, "chosen_size", lambda median: 1 / 0)
    train(recipe, run_for(folder), "try")
    train(sized(recipe, 40), run_for(tmp_path / "plain"), "try")
    assert_same_end(tmp_path / "plain", folder)


@pytest.mark.usefixtures("tiny_from_zoo")
def test_batch_norm_is_frozen_where_batches_are_small_and_weights_given(images, tmp_path, capsys):
    recipe, folder = recipe_for(images, epochs=2, freeze_bn=AUTO), tmp_path / "run"
    recipe = dataclasses.replace(recipe, model=Model(name="hbonet_x010", weights="of-the-fixture"))
    train(recipe, run_for(folder, max_steps=2), "try")
    assert "freeze_bn auto: on, as a forward pass has 8 images" in capsys.readouterr().err
    assert read_manifest(folder / files.LAST).recipe["train"]["freeze_bn"] == "on"
    train(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, batch_size=8)), run_for(folder), "try")
    end = read_checkpoint(folder / files.LAST).training
    assert end["model/bn.num_batches_tracked"] == 0 and not torch.equal(end["model/bn.weight"], torch.ones(8))


def test_images_of_a_forward_pass_and_weights_decide_on_batch_norm():
    alone = World()

    def chosen(world=alone, micro_batch=None, weights="some", **train_options):
        recipe = recipe_for(None, freeze_bn=AUTO, **({"batch_size": 64} | train_options))
        recipe = dataclasses.replace(recipe, model=Model(weights=weights))
        return settled(recipe, Run(micro_batch=micro_batch), listed("a", (1,)), world)[0].train.freeze_bn

    assert chosen() == chosen(micro_batch=16) == chosen(World(size=4)) == chosen(World(size=8), sync_bn=True) == "off"
    assert chosen(batch_size=15) == chosen(micro_batch=15) == chosen(World(size=8)) == "on"
    assert chosen(batch_size=8, weights=None) == "off"
    with pytest.raises(OvertoneError, match=r"train.freeze_bn is on.*model.weights"):
        recipe_for(None, freeze_bn="on")


def test_images_that_cannot_be_read_and_dense_tasks_are_refused(tmp_path):
    with pytest.raises(OvertoneError, match=r"size is auto.*0\.png"):
        settled(sized(recipe_for(None), AUTO), Run(), listed("ab", (1, 1)), World())
    dense = dataclasses.replace(sized(recipe_for(tmp_path), AUTO), task="segmentation")
    with pytest.raises(OvertoneError, match=r"size is auto.*segmentation; give a number"):
        train(dense, run_for(tmp_path / "run"), "try")


def test_weights_have_a_number_and_a_size_is_never_none(tmp_path):
    path = tmp_path / "weights.safetensors"
    write_checkpoint(path, Manifest("hbonet_x010", ("a",), Preprocess(size=AUTO), recipe=None), {})
    with pytest.raises(OvertoneError, match=r"preprocess.size is no number"):
        read_manifest(path)
    for size in (None, "large"):
        with pytest.raises(OvertoneError, match=r"preprocess.size is"):
            sized(Recipe(), size)


def strong(recipe, epochs=None, minutes=None, **augment):
    """The recipe with automatic augmentation."""
    epochs = epochs or recipe.train.epochs
    return dataclasses.replace(
        recipe,
        augment=Augment(strength=AUTO, **augment),
        train=dataclasses.replace(recipe.train, epochs=epochs, minutes=minutes),
    )


def test_augmentation_grows_with_the_epochs_and_never_replaces_what_is_given():
    chosen = [automatic.strengthened(strong(Recipe(), epochs)).augment for epochs in (1, 15, 16, 24, 25, 1000)]
    assert [augment.scale[0] for augment in chosen] == [0.6, 0.6, 0.35, 0.35, 0.35, 0.35]
    assert [augment.cutmix > 0 for augment in chosen] == [False] * 4 + [True] * 2
    once = automatic.strengthened(strong(Recipe(), 30))
    assert automatic.strengthened(once) == once
    plain = dataclasses.replace(Recipe(), augment=Augment(scale=(0.5, 1.0)))
    assert automatic.strengthened(plain) is plain
    with pytest.raises(OvertoneError, match=r"augment\.scale is given.*--augment\.strength given"):
        automatic.strengthened(strong(Recipe(), 30, scale=(0.5, 1.0)))


@pytest.mark.usefixtures("tiny_from_zoo")
def test_augmentation_follows_the_epochs_that_fit_and_is_kept(images, tmp_path, monkeypatch, capsys):
    recipe, folder = strong(recipe_for(images), minutes=5.0), tmp_path / "run"

    def two_epochs(recipe, *_):
        return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=2)), "minutes 5: 2 epochs"

    monkeypatch.setattr(session, "fitted", two_epochs)
    train(recipe, run_for(folder, max_steps=2), "try")
    assert "augment auto, for 2 epochs: crops from 60% of the area" in capsys.readouterr().err
    assert json.loads((folder / files.RECIPE).read_text())["recipe"]["augment"]["scale"] == [0.6, 1.0]
    train(recipe, run_for(folder), "try")
    assert json.loads((folder / files.RECIPE).read_text())["recipe"]["augment"]["scale"] == [0.6, 1.0]
    assert read_manifest(folder / files.LAST).recipe["augment"]["scale"] == [0.6, 1.0]
