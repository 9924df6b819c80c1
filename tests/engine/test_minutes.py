"""`train.minutes`: the epochs that fit into a time, on record and in a resumed run."""

import dataclasses
import json

import pytest
from tiny_runs import assert_same_end, recipe_for, run_for

from overtone.checkpoint import read_manifest
from overtone.engine import folder as files
from overtone.engine import trial
from overtone.errors import OvertoneError
from overtone.verbs.train import train

pytestmark = pytest.mark.usefixtures("tiny_from_zoo")


def on_record(folder):
    return json.loads((folder / files.RECIPE).read_text())["recipe"]["train"]


def test_the_steps_that_fit_are_said_recorded_and_kept(images, tmp_path, monkeypatch, capsys):
    seconds = iter([2.0] * 9)
    monkeypatch.setattr(trial, "seconds_of_step", lambda *_: next(seconds) / 4)  # of 4 steps in an epoch
    recipe, folder = recipe_for(images, epochs=100, minutes=0.1), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=5), "try")
    assert "minutes 0.1: about 2." in capsys.readouterr().err
    steps, recorded = on_record(folder)["steps"], read_manifest(folder / files.LAST).recipe["train"]
    assert recorded["epochs"] == on_record(folder)["epochs"] == 3 and 8 < steps < 12 and recorded["steps"] == steps
    monkeypatch.setattr(trial, "seconds_of_step", lambda *_: 1 / 0)
    summary = train(recipe, run_for(folder), "try")
    assert summary.epochs == 3 and on_record(folder)["steps"] == steps
    plain = recipe_for(images, epochs=3, steps=steps)
    train(plain, run_for(tmp_path / "plain"), "try")
    assert_same_end(tmp_path / "plain", folder)  # the trial steps have left no trace
    longer = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, minutes=0.2))
    with pytest.raises(OvertoneError, match=r"minutes was 0\.1 and is 0\.2"):
        train(longer, run_for(folder), "try")


def test_epochs_that_find_their_images_decoded_take_less_of_the_minutes(images, tmp_path, monkeypatch, capsys):
    seconds, measure = iter([0.5, 0.25, 0.5]), trial.seconds_of_step
    monkeypatch.setattr(trial, "seconds_of_step", lambda *given: measure(*given) and next(seconds))
    train(recipe_for(images, epochs=100, minutes=0.1), run_for(tmp_path / "run", max_steps=1), "try")
    assert "4 steps of 250 ms (500 ms in the first" in capsys.readouterr().err
    assert 13 <= on_record(tmp_path / "run")["steps"] <= 20  # of 6 s 2 in the first epoch; all at 500 ms would be 12
    train(recipe_for(images, epochs=100, minutes=0.1), run_for(tmp_path / "full", max_steps=1, cache_mb=0), "try")
    assert "4 steps of 500 ms and" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("left", "least", "steps"),
    [
        (100, 1, 40),  # 10 epochs of 4 steps of 2 seconds and 2 of validation
        (109, 1, 40),
        (95, 1, 37),  # ten validations, of which the last is of a tenth epoch of a step
        (15, 1, 5),
        (7, 1, 2),
        (1, 1, 1),
        (15, 3, 9),
    ],
)
def test_the_last_of_few_epochs_is_cut_short(left, least, steps):
    assert trial._steps_within(left, 4, 2.0, 2.0, least) == steps


def test_measured_steps_take_about_the_time(images, tmp_path):
    summary = train(recipe_for(images, epochs=1, minutes=0.03), run_for(tmp_path / "run"), "try")
    assert summary.epochs == on_record(tmp_path / "run")["epochs"] > 1 and summary.seconds < 20


def test_there_is_a_step_and_it_excludes_a_number_of_them(images, tmp_path, capsys):
    train(recipe_for(images, epochs=3, minutes=1e-4), run_for(tmp_path / "run"), "try")
    assert "about 0.25 epochs, the fewest there can be" in capsys.readouterr().err
    assert on_record(tmp_path / "run")["steps"] == 1
    with pytest.raises(OvertoneError, match=r"train.minutes.*train.steps"):
        train(recipe_for(images, epochs=3, minutes=1, steps=4), run_for(tmp_path / "both"), "try")
