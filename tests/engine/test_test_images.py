"""Test images beside the training ones: measured once at the end, and chosen by nothing unless it is asked for."""

import dataclasses
import json
import os
import signal

import pytest
from tiny_runs import recipe_for, rows_of, run_for

from overtone import zoo
from overtone.config import Augment, Data, Preprocess, Recipe, Run
from overtone.data.loader import Loader
from overtone.data.sources.class_folders import find_evaluation
from overtone.engine import folder as files
from overtone.engine.loop import evaluate
from overtone.engine.placement import place
from overtone.engine.session import Session
from overtone.engine.training import train
from overtone.errors import Preempted
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup


@pytest.fixture
def tested(images):
    """`train/` and `test/`, without `val/`."""
    (images / "val").rename(images / "test")
    return images


@pytest.fixture
def measured(monkeypatch):
    """What was measured, in its order: part and number of images."""
    found = []
    original = Session._measured

    def measure(self, source, loader, what):
        found.append((what, len(source)))
        return original(self, source, loader, what)

    monkeypatch.setattr(Session, "_measured", measure)
    return found


def test_measured_once_at_the_end_by_the_best_network(tested, tmp_path, measured, capsys):
    folder = tmp_path / "run"
    recipe = dataclasses.replace(recipe_for(tested, epochs=3, ema_decay=None), augment=Augment(crop="none"))
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, preprocess=Preprocess(size=32)))
    summary = train(recipe, run_for(folder), "try")
    assert measured == [("validation", 6)] * 3 + [("test", 9)]
    assert "20 to train, 6 to validate, 9 to measure the best network on at the end" in capsys.readouterr().err
    written = json.loads((folder / files.SUMMARY).read_text())
    assert summary.report.num_used == written["num_used"] == 6 and written["test"]["num_used"] == 9
    loaded = zoo.load_model(str(folder))  # the best network
    images = find_evaluation(tested, "test")
    task = Classification(Setup(images.labels, Recipe(data=Data(preprocess=loaded.preprocess))))
    placement = place(Run(device="cpu"))
    loader = Loader(images, task.pipeline(train=False), batch_size=8)
    assert evaluate(task, placement.model(loaded.model), loader, placement) == summary.test
    assert written["test"]["score"] == written["test"]["top1"] == summary.test.top1


@pytest.mark.usefixtures("tiny_from_zoo")
def test_validated_on_by_wish(tested, tmp_path, measured):
    folder, recipe = tmp_path / "run", recipe_for(tested, epochs=2)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validate_on="test"))
    summary = train(recipe, run_for(folder), "try")
    assert measured == [("validation", 9)] * 2 and summary.test is None
    assert "test" not in json.loads((folder / files.SUMMARY).read_text())
    assert [row["step"] for row in rows_of(folder)] == [4, 8]  # all 26 images are trained on


@pytest.mark.usefixtures("tiny_from_zoo")
def test_stopped_while_they_are_measured(tested, tmp_path, monkeypatch):
    recipe, straight, parts = recipe_for(tested, epochs=2), tmp_path / "straight", tmp_path / "parts"
    whole = train(recipe, run_for(straight), "try")
    original = Session._test

    def test(self, best):
        os.kill(os.getpid(), signal.SIGTERM)
        return original(self, best)

    monkeypatch.setattr(Session, "_test", test)
    with pytest.raises(Preempted):
        train(recipe, run_for(parts), "try")
    assert not (parts / files.SUMMARY).exists()
    monkeypatch.setattr(Session, "_test", original)
    again = train(recipe, run_for(parts), "try")
    assert (again.test, again.report, again.best_epoch) == (whole.test, whole.report, whole.best_epoch)


@pytest.mark.usefixtures("tiny_from_zoo")
def test_nothing_is_held_out_by_wish_and_the_last_network_is_measured(tested, tmp_path):
    recipe = recipe_for(tested, epochs=2)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, val_fraction=0.0))
    summary = train(recipe, run_for(tmp_path / "run"), "try")
    assert summary.report is None and summary.test is not None and summary.test.num_used == 9
    assert "test" in json.loads((tmp_path / "run" / files.SUMMARY).read_text())
