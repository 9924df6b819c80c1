import dataclasses
import json
import os
import signal

import numpy as np
import pytest
import torch
from tiny_runs import assert_same_end, recipe_for, rows_of, run_for

from overtone import zoo
from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.config import Augment, Data, Optim, Preprocess, Recipe, Run, Schedule, to_dict
from overtone.data.loader import Loader
from overtone.data.sources.class_folders import find_evaluation
from overtone.engine import folder as files
from overtone.engine.folder import claimed
from overtone.engine.log import duration
from overtone.engine.loop import evaluate
from overtone.engine.placement import place
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError
from overtone.reports.plots import plot_confusion, plot_curves
from overtone.tasks.classification.report import ClassificationReport
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup
from overtone.verbs.train import train


@pytest.mark.usefixtures("tiny_from_zoo")
def test_run_folder_holds_what_it_should(pictures, tmp_path, capsys):
    folder = tmp_path / "run"
    recipe = recipe_for(pictures)
    summary = train(recipe, run_for(folder, tensorboard=True, plots=True, micro_batch=5), "try")
    names = {path.name for path in folder.iterdir()}
    assert names == {
        *(
            files.RECIPE,
            files.METRICS,
            files.LOG,
            files.STATUS,
            files.SAMPLES,
            files.BEST,
            files.LAST,
            files.REPORT,
            files.SUMMARY,
        ),
        *(files.CURVES, files.CONFUSION, "reliability.png", files.TENSORBOARD, "last-1.safetensors", ".lock"),
    }
    rows = rows_of(folder)
    assert [row["epoch"] for row in rows] == [1, 2, 3, 4] and rows[-1]["step"] == 16
    record = json.loads((folder / files.RECIPE).read_text())
    assert record["recipe"] == to_dict(recipe) and record["classes"] == ["blue", "green", "red"]
    manifest = read_manifest(folder / files.BEST)
    assert manifest.labels == ("blue", "green", "red") and manifest.preprocess == recipe.data.preprocess
    assert manifest.metrics["epoch"] == summary.best_epoch and manifest.versions["torch"] == torch.__version__
    best = max(rows, key=lambda row: row["top1"])
    assert summary.report.top1 == best["top1"] == manifest.metrics["top1"]
    assert not read_checkpoint(folder / files.BEST).training
    output = capsys.readouterr()
    assert f"best epoch {summary.best_epoch} of 4: top-1" in output.out and "green" in output.out
    assert "26 to train, 9 to validate, 3 classes" in output.err and "images/s" in output.err
    assert "26 to train" in (folder / files.LOG).read_text()
    assert list((folder / files.TENSORBOARD).iterdir())


def test_best_checkpoint_gives_the_reported_accuracy(pictures, tmp_path):
    folder = tmp_path / "run"
    recipe = dataclasses.replace(recipe_for(pictures, epochs=2, ema_decay=None), augment=Augment(crop="none"))
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, preprocess=Preprocess(size=32)))
    summary = train(recipe, run_for(folder), "try")
    loaded = zoo.load_model(str(folder))
    assert loaded.labels == ("blue", "green", "red")
    evaluation, images = _evaluated(loaded, pictures)
    assert evaluation == summary.report and len(images) == 9


def _evaluated(loaded, root):
    images = find_evaluation(root, "val")
    placement = place(Run(device="cpu"))
    task = Classification(Setup(images.labels, Recipe(data=Data(preprocess=loaded.preprocess))))
    loader = Loader(images, task.pipeline(train=False), batch_size=8)
    return evaluate(task, placement.model(loaded.model), loader, placement), images


@pytest.mark.usefixtures("tiny_from_zoo")
@pytest.mark.parametrize("first_part", [8, 11])
def test_resumed_training_equals_the_uninterrupted_one(pictures, tmp_path, first_part):
    recipe = recipe_for(pictures)
    train(recipe, run_for(tmp_path / "straight", micro_batch=5), "try")
    train(recipe, run_for(tmp_path / "parts", micro_batch=5, max_steps=first_part), "try")
    assert read_manifest(tmp_path / "parts" / files.LAST).progress["step"] == first_part
    torch.rand(5)
    train(recipe, run_for(tmp_path / "parts", micro_batch=5), "try", resume=True)
    assert_same_end(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_resumed_adamw_equals_the_uninterrupted_one(pictures, tmp_path):
    recipe = recipe_for(pictures, epochs=2, ema_decay=None)
    recipe = dataclasses.replace(recipe, optim=Optim(name="adamw", lr=0.01))
    train(recipe, run_for(tmp_path / "straight"), "try")
    train(recipe, run_for(tmp_path / "parts", max_steps=4), "try")
    train(recipe, run_for(tmp_path / "parts", resume=True), "try")
    assert_same_end(tmp_path / "straight", tmp_path / "parts")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_ctrl_c_saves_the_last_step_and_says_how_to_resume(pictures, tmp_path, monkeypatch, capsys):
    recipe, straight, parts = recipe_for(pictures, epochs=2), tmp_path / "straight", tmp_path / "parts"
    train(recipe, run_for(straight), "try")
    original = Trainer.step

    def step_and_interrupt(self, batch, step, *agreement):
        if step == 5:
            os.kill(os.getpid(), signal.SIGINT)
        original(self, batch, step, *agreement)

    monkeypatch.setattr(Trainer, "step", step_and_interrupt)
    before = signal.getsignal(signal.SIGINT)  # ignored in a shell's background job
    with pytest.raises(KeyboardInterrupt):
        train(recipe, run_for(parts), "try")
    assert "stopped in epoch 2, batch 2 of 4" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGINT) is before
    progress = read_manifest(parts / files.LAST).progress
    assert (progress["epoch"], progress["batch"], progress["step"]) == (1, 2, 6)
    monkeypatch.setattr(Trainer, "step", original)
    train(recipe, run_for(parts, resume=True), "try")
    assert_same_end(straight, parts)


@pytest.mark.usefixtures("tiny_from_zoo")
def test_folder_in_use_is_refused_and_overwriting_spares_what_is_not_ours(pictures, tmp_path):
    folder, recipe = tmp_path / "run", recipe_for(pictures, epochs=1)
    folder.mkdir()
    (folder / "notes.txt").write_text("mine")
    with pytest.raises(OvertoneError, match="is not empty"):
        train(recipe, run_for(folder), "try")
    train(recipe, run_for(folder, overwrite=True, tensorboard=True), "try")
    with pytest.raises(OvertoneError, match=r"is finished .* --run\.overwrite"):
        train(recipe, run_for(folder), "try")
    train(recipe, run_for(folder, overwrite=True), "try")
    assert (folder / "notes.txt").read_text() == "mine" and not (folder / files.TENSORBOARD).exists()
    assert len(rows_of(folder)) == 1


@pytest.mark.usefixtures("tiny_from_zoo")
def test_second_run_in_a_folder_is_refused(pictures, tmp_path):
    with claimed(tmp_path / "run"), pytest.raises(OvertoneError, match="another run is using"):
        train(recipe_for(pictures), run_for(tmp_path / "run"), "try")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_resume_refuses_what_would_not_be_the_same_training(pictures, tmp_path):
    folder, recipe = tmp_path / "run", recipe_for(pictures, epochs=2)
    with pytest.raises(OvertoneError, match=r"no last\.safetensors"):
        train(recipe, run_for(folder), "try", resume=True)
    with pytest.raises(OvertoneError, match=r"give it as --run\.out"):
        train(recipe, Run(resume=True), "try")
    train(recipe, run_for(folder, max_steps=4), "try")
    other = dataclasses.replace(recipe, optim=dataclasses.replace(recipe.optim, lr=0.5))
    with pytest.raises(OvertoneError, match=r"optim\.lr was 0\.05 and is 0\.5"):
        train(other, run_for(folder, resume=True), "try")
    for split in ("train", "val"):
        (pictures / split / "red").rename(pictures / split / "violet")
    with pytest.raises(OvertoneError, match="gone: red; new: violet"):
        train(recipe, run_for(folder, resume=True), "try")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_unreadable_training_images_are_named_once_and_too_many_stop_the_run(pictures, tmp_path):
    (pictures / "train" / "red" / "3.png").write_bytes(b"")
    folder, recipe = tmp_path / "run", recipe_for(pictures, epochs=3)
    with pytest.raises(OvertoneError, match=r"1 of 26 training images .*red/3\.png.*max-bad-fraction 0\.001"):
        train(recipe, run_for(folder), "try")
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_bad_fraction=0.05))
    train(recipe, run_for(folder, overwrite=True), "try")
    train(recipe, run_for(tmp_path / "again"), "try")
    assert (folder / files.LOG).read_text().count("3.png") == 1
    assert read_manifest(folder / files.LAST).progress["bad"] == [20]
    assert_same_end(folder, tmp_path / "again")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_unreadable_validation_images_are_stated(pictures, tmp_path, capsys):
    image = pictures / "val" / "red" / "1.png"
    image.write_bytes(image.read_bytes()[:60])
    summary = train(recipe_for(pictures, epochs=1), run_for(tmp_path / "run"), "try")
    assert (summary.report.num_used, summary.report.num_expected) == (8, 9)
    assert str(image) in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_from_zoo")
def test_step_that_is_not_finite_is_recorded(pictures, tmp_path):
    recipe = recipe_for(pictures)
    recipe = dataclasses.replace(recipe, optim=Optim(lr=1e30), schedule=Schedule(name="constant"))
    with pytest.raises(OvertoneError, match=r"loss is (nan|inf) at step .*not_finite\.json"):
        train(recipe, run_for(tmp_path / "run"), "try")
    record = json.loads((tmp_path / "run" / files.FAULT).read_text())
    assert record["step"] >= 1 and len(record["images"]) in (8, 2)
    assert all(entry["path"].endswith(".png") for entry in record["images"])
    assert "ended by OvertoneError" in (tmp_path / "run" / files.LOG).read_text()


@pytest.mark.usefixtures("tiny_from_zoo")
def test_frozen_backbone_stays_as_it_was(pictures, tmp_path):
    recipe = recipe_for(pictures, epochs=1, ema_decay=None)
    recipe = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, freeze=True))
    train(recipe, run_for(tmp_path / "run"), "try")
    weights = read_checkpoint(tmp_path / "run" / files.LAST).weights
    assert weights["bn.num_batches_tracked"] == 0 and torch.equal(weights["bn.weight"], torch.ones(8))


@pytest.mark.usefixtures("tiny_from_zoo")
def test_early_stopping(pictures, tmp_path, capsys):
    recipe = recipe_for(pictures, epochs=30, patience=2, ema_decay=None)
    recipe = dataclasses.replace(recipe, optim=Optim(lr=0.0))
    summary = train(recipe, run_for(tmp_path / "run"), "try")
    assert summary.epochs == summary.best_epoch + 2 < 30
    assert "ended early" in capsys.readouterr().err


@pytest.mark.usefixtures("tiny_from_zoo")
def test_workers_do_not_change_the_training(pictures, tmp_path):
    recipe = recipe_for(pictures, epochs=2)
    train(recipe, run_for(tmp_path / "none"), "try")
    train(recipe, run_for(tmp_path / "two", workers=2), "try")
    assert_same_end(tmp_path / "none", tmp_path / "two")


def test_plots_of_many_classes_and_odd_names(tmp_path):
    classes = tuple(f"class $x_{i} with a name that is rather long" for i in range(100))
    confusion = np.eye(100, dtype=int) * 3
    counts = tuple(int(n) for n in confusion.sum(1))
    report = ClassificationReport(
        classes, 300, 300, 300, 300, 0.1, counts, counts, tuple(map(tuple, confusion.tolist()))
    )
    plot_confusion(report, tmp_path / "confusion.png")
    rows = [{"epoch": 1, "train_loss": None, "val_loss": 1.0, "top1": 5.0, "top5": 9.0, "lr": 0.1}]
    plot_curves(rows, tmp_path / "curves.png", "50 $ recipe")
    for name in ("confusion.png", "curves.png"):
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")


def test_durations():
    assert [duration(seconds) for seconds in (0.4, 61, 3599.6, 7325)] == ["0:00", "1:01", "1:00:00", "2:02:05"]
