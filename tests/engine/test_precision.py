"""`run.precision` auto on a CPU: measured where the training is long, on record, kept when resumed."""

import json

import pytest
from tiny_runs import assert_same_end, recipe_for, run_for

from overtone.engine import folder as files
from overtone.engine import precision
from overtone.verbs.train import train

pytestmark = pytest.mark.usefixtures("tiny_from_zoo")


@pytest.fixture
def has_bfloat16(monkeypatch):
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: True)


@pytest.fixture
def timed(monkeypatch, has_bfloat16):
    """Sets the seconds of a step in each precision, of a training that counts as long."""

    def set_seconds(plain, rounded):
        def seconds(parts, *_):
            found = plain if parts.trainer.placement.autocast_dtype is None else rounded
            if isinstance(found, Exception):
                raise found
            return found

        monkeypatch.setattr(precision, "_LEAST_STEPS", 1)
        monkeypatch.setattr(precision, "_LEAST_PIXELS", 1)
        monkeypatch.setattr(precision, "seconds_of_step", seconds)

    return set_seconds


def on_record(folder):
    return json.loads((folder / files.RECIPE).read_text())["run"]["precision"]


def test_the_faster_precision_is_said_recorded_and_kept(images, tmp_path, timed, capsys):
    timed(100.0, 60.0)
    recipe, folder = recipe_for(images, epochs=2), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=7), "try")
    said = capsys.readouterr().err
    assert "bfloat16; a step takes 100,000 ms in float32, 60,000 ms in bfloat16" in said and "cpu, bfloat16" in said
    assert on_record(folder) == "bfloat16"
    timed(AssertionError("measured again"), None)
    train(recipe, run_for(folder), "try")
    assert "cpu, bfloat16" in capsys.readouterr().err
    train(recipe, run_for(tmp_path / "plain", precision="bfloat16"), "try")
    assert_same_end(tmp_path / "plain", folder)


@pytest.mark.parametrize("rounded", [95.0, RuntimeError("no such operation")])
def test_it_is_float32_where_bfloat16_gains_little_or_fails(images, tmp_path, timed, rounded, capsys):
    timed(100.0, rounded)
    train(recipe_for(images), run_for(tmp_path / "run", max_steps=7), "try")
    said = capsys.readouterr().err
    assert "precision auto: float32" in said and "cpu, float32" in said
    assert on_record(tmp_path / "run") == "float32"


def test_short_trainings_are_not_measured(images, tmp_path, timed, monkeypatch, capsys):
    timed(1.0, AssertionError("measured"))  # seven seconds in all
    train(recipe_for(images), run_for(tmp_path / "one", max_steps=7), "try")
    monkeypatch.setattr(precision, "_LEAST_PIXELS", 1e8)
    assert "precision auto" not in capsys.readouterr().err and on_record(tmp_path / "one") == "auto"
    for recipe, steps in ((recipe_for(None), 199), (recipe_for(None, minutes=1.9), None)):
        assert not precision._is_long(recipe, steps)
    assert precision._is_long(recipe_for(None, minutes=2), None)


def test_a_processor_without_it_resumes_in_float32(images, tmp_path, timed, monkeypatch, capsys):
    timed(100.0, 60.0)
    train(recipe_for(images), run_for(tmp_path / "run", max_steps=7), "try")
    monkeypatch.setattr(precision, "_has_bfloat16", lambda: False)
    train(recipe_for(images), run_for(tmp_path / "run", max_steps=9), "try")
    assert "this processor has no bfloat16" in capsys.readouterr().err.rpartition("resumed at")[0]


def test_real_steps_of_both_precisions_are_timed(images, tmp_path, monkeypatch, has_bfloat16, capsys):
    for name in ("_LEAST_STEPS", "_LEAST_PIXELS", "_LEAST_SECONDS", "_LONGEST"):
        monkeypatch.setattr(precision, name, 0)
    train(recipe_for(images), run_for(tmp_path / "run", max_steps=2), "try")
    assert "in bfloat16" in capsys.readouterr().err and on_record(tmp_path / "run") in ("float32", "bfloat16")
