"""`train.minutes`: the epochs that fit into a time, on record and in a resumed run."""

import dataclasses
import json

import pytest
from tiny_runs import assert_same_end, recipe_for, run_for

from overtone.checkpoint import read_manifest
from overtone.config import Train
from overtone.engine import folder as files
from overtone.engine import trial
from overtone.errors import OvertoneError
from overtone.verbs.train import train

pytestmark = pytest.mark.usefixtures("tiny_from_zoo")


def epochs_on_record(folder):
    return json.loads((folder / files.RECIPE).read_text())["recipe"]["train"]["epochs"]


def test_the_epochs_that_fit_are_said_recorded_and_kept(images, tmp_path, monkeypatch, capsys):
    seconds = iter([2.0] * 9)
    monkeypatch.setattr(trial, "seconds_of_step", lambda *_: next(seconds) / 4)  # of 4 steps in an epoch
    recipe, folder = recipe_for(images, epochs=100, minutes=0.1), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=5), "try")
    assert "minutes 0.1: about 2 epochs;" in capsys.readouterr().err
    assert epochs_on_record(folder) == read_manifest(folder / files.LAST).recipe["train"]["epochs"] == 2
    monkeypatch.setattr(trial, "seconds_of_step", lambda *_: 1 / 0)
    summary = train(recipe, run_for(folder), "try")
    assert summary.epochs == 2 == epochs_on_record(folder)
    plain = recipe_for(images, epochs=2)
    train(plain, run_for(tmp_path / "plain"), "try")
    assert_same_end(tmp_path / "plain", folder)  # the trial steps have left no trace
    longer = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, minutes=0.2))
    with pytest.raises(OvertoneError, match=r"minutes was 0\.1 and is 0\.2"):
        train(longer, run_for(folder), "try")


def test_measured_steps_give_epochs_that_take_about_the_time(images, tmp_path):
    summary = train(recipe_for(images, epochs=1, minutes=0.03), run_for(tmp_path / "run"), "try")
    assert summary.epochs == epochs_on_record(tmp_path / "run") > 1 and summary.seconds < 20


def test_less_than_an_epoch_is_one_and_steps_exclude_it(images, tmp_path, capsys):
    train(recipe_for(images, epochs=3, minutes=1e-4), run_for(tmp_path / "run", max_steps=1), "try")
    assert "about 1 epochs, the fewest there can be" in capsys.readouterr().err
    with pytest.raises(OvertoneError, match=r"train.minutes.*train.steps"):
        Train(minutes=1, steps=4)
