"""`data.preprocess.size` auto: chosen from the images, on record as a number, kept when resumed."""

import dataclasses
import json

import pytest
from tiny_runs import assert_same_end, recipe_for, run_for
from tiny_training import listed

from overtone.checkpoint import Manifest, read_manifest, write_checkpoint
from overtone.config import AUTO, Preprocess, Recipe
from overtone.engine import folder as files
from overtone.engine import input_size
from overtone.engine.input_size import chosen_size, with_size
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
    monkeypatch.setattr(input_size, "chosen_size", lambda median: 1 / 0)
    train(recipe, run_for(folder), "try")
    train(sized(recipe, 40), run_for(tmp_path / "plain"), "try")
    assert_same_end(tmp_path / "plain", folder)


def test_images_that_cannot_be_read_and_dense_tasks_are_refused(tmp_path):
    with pytest.raises(OvertoneError, match=r"size is auto.*0\.png"):
        with_size(sized(recipe_for(None), AUTO), listed("ab", (1, 1)))
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
