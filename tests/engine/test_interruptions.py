"""A training that is stopped, loses its machine or finds its files damaged is resumed to the same end."""

import dataclasses
import errno
import json
import multiprocessing
import os
import shutil
import signal
import time
from pathlib import Path

import pytest
import torch
from tiny_runs import assert_same_end, recipe_for, rows_of, run_for

from overtone import checkpoint, cli
from overtone.checkpoint import is_temporary, read_checkpoint, read_manifest
from overtone.config import Optim
from overtone.data.shared_memory import fitting_workers
from overtone.engine import folder as files
from overtone.engine import interrupt, saver, training
from overtone.engine.interrupt import StopRequest
from overtone.engine.session import Session
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError, Preempted
from overtone.verbs.train import train

pytestmark = pytest.mark.usefixtures("tiny_from_zoo")


def full_recipe(images, **options):
    """Everything on that keeps a state or draws at random: EMA, mixing, random erasing, dropout, warm-up, AdamW."""
    recipe = recipe_for(images, epochs=3, **options)
    return dataclasses.replace(recipe, optim=Optim(name="adamw", lr=0.01, decay="no_norm_bias", clip_grad=5.0))


def at_step(monkeypatch, step, act):
    """Call `act` once, just before the optimiser step of that number."""
    original, done = Trainer.step, []

    def step_and_act(self, batch, number, *agreement):
        if number == step and not done:
            done.append(True)
            act()
        original(self, batch, number, *agreement)

    monkeypatch.setattr(Trainer, "step", step_and_act)


def assert_same_files(first, second):
    """The best network, its report and the summary too."""
    assert_same_end(first, second)
    one, two = read_checkpoint(first / files.BEST), read_checkpoint(second / files.BEST)
    assert all(torch.equal(one.weights[key], two.weights[key]) for key in one.weights)
    assert one.manifest.metrics == two.manifest.metrics
    assert (first / files.REPORT).read_text() == (second / files.REPORT).read_text()
    summaries = [json.loads((folder / files.SUMMARY).read_text()) for folder in (first, second)]
    assert {**summaries[0], "seconds": 0} == {**summaries[1], "seconds": 0}
    assert not any(map(is_temporary, second.iterdir()))


def signalled(*numbers):
    def act():
        for child in multiprocessing.active_children():  # a scheduler signals every process of the job
            for number in numbers:
                os.kill(child.pid, number)
        for number in numbers:
            os.kill(os.getpid(), number)

    return act


@pytest.mark.parametrize(("number", "workers"), [(signal.SIGTERM, 2), (signal.SIGUSR1, 0)])
def test_a_schedulers_signal_stops_between_two_steps(images, tmp_path, monkeypatch, capsys, number, workers):
    recipe, straight, parts = full_recipe(images), tmp_path / "straight", tmp_path / "parts"
    options = {"micro_batch": 5, "workers": workers}
    train(recipe, run_for(straight, **options), "try")
    before = signal.getsignal(number)
    # twice, as torchrun and Slurm do it: the second one is the same wish
    at_step(monkeypatch, 5, signalled(number, number))
    started = time.perf_counter()
    with pytest.raises(Preempted, match=number.name):
        train(recipe, run_for(parts, **options), "try")
    assert time.perf_counter() - started < 30 and signal.getsignal(number) is before
    assert f"give the same command again with --run.out {parts}" in capsys.readouterr().err
    progress = read_manifest(parts / files.LAST).progress
    assert (progress["epoch"], progress["batch"], progress["step"]) == (1, 2, 6)
    train(recipe, run_for(parts, **options), "try")
    assert "resumed at epoch 2, batch 2, step 6" in capsys.readouterr().err
    assert_same_files(straight, parts)


def test_signal_during_validation(images, tmp_path, monkeypatch):
    recipe, straight, parts = full_recipe(images), tmp_path / "straight", tmp_path / "parts"
    train(recipe, run_for(straight), "try")
    original = Session._validate

    def validate(self):
        if self.state.epoch == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        return original(self)

    monkeypatch.setattr(Session, "_validate", validate)
    with pytest.raises(Preempted):
        train(recipe, run_for(parts), "try")
    progress = read_manifest(parts / files.LAST).progress
    assert (progress["epoch"], progress["batch"]) == (1, 4) and len(rows_of(parts)) == 1
    monkeypatch.setattr(Session, "_validate", original)
    train(recipe, run_for(parts), "try")
    assert_same_files(straight, parts)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGUSR1, 75), (signal.SIGINT, 130)])
def test_exit_codes_tell_who_stopped_it(images, tmp_path, monkeypatch, capsys, number, code):
    at_step(monkeypatch, 1, signalled(number))
    words = f"train scratch --data.root {images} --run.out {tmp_path / 'run'} --run.device cpu --run.workers 0"
    words += " --train.batch-size 8 --data.preprocess.size 12 --run.no-tensorboard --run.no-plots"
    assert cli.main(words.split()) == code
    said = capsys.readouterr().err.splitlines()[-1]
    assert said.startswith("overtone: error: stopped") and ("SIGUSR1" in said) == (code == 75)
    monkeypatch.undo()


def test_a_second_signal_does_not_wait(monkeypatch):
    stop = StopRequest()
    with stop.handled(), stop.patient():
        os.kill(os.getpid(), signal.SIGTERM)
        os.kill(os.getpid(), signal.SIGTERM)  # within a second: the same wish
        assert stop.is_set and stop.signal == signal.SIGTERM
        monkeypatch.setattr(interrupt, "_SAME_SECONDS", 0.0)
        with pytest.raises(Preempted, match="SIGUSR1"):
            os.kill(os.getpid(), signal.SIGUSR1)
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)
    assert isinstance(stop.exception(), Preempted)


def test_before_the_first_step_there_is_nothing_to_save(images, tmp_path, monkeypatch):
    def open_splits(data, target):
        os.kill(os.getpid(), signal.SIGTERM)

    monkeypatch.setattr(training, "open_splits", open_splits)
    with pytest.raises(Preempted):
        train(recipe_for(images), run_for(tmp_path / "run"), "try")
    assert not (tmp_path / "run").exists()


def test_saved_within_the_epoch_and_resumed_after_a_crash(images, tmp_path, monkeypatch, capsys):
    recipe, straight, parts = full_recipe(images), tmp_path / "straight", tmp_path / "parts"
    train(recipe, run_for(straight, micro_batch=5), "try")

    def crash():
        raise RuntimeError("a defect")

    options = {"micro_batch": 5, "save_steps": 3, "keep_last": 3}
    at_step(monkeypatch, 6, crash)
    with pytest.raises(RuntimeError, match="a defect"):
        train(recipe, run_for(parts, **options), "try")
    at = [read_manifest(path).progress for path in files.checkpoints(parts)]
    # a checkpoint is not begun while another is written, so a step later it may be
    assert at[0]["step"] in (4, 5, 6) and [entry["step"] for entry in at] == sorted({e["step"] for e in at})[::-1]
    (parts / ".last.safetensors.4242.tmp").write_bytes(b"half")
    train(recipe, run_for(parts, **options), "try")
    assert f"step {at[0]['step']}" in capsys.readouterr().err
    assert_same_files(straight, parts)


def test_minutes_within_the_epoch(images, tmp_path):
    train(recipe_for(images, epochs=1), run_for(tmp_path / "run", save_minutes=1e-9, keep_last=99), "try")
    steps = [read_manifest(path).progress["step"] for path in files.checkpoints(tmp_path / "run")]
    assert steps[0] == 4 and steps[-1] < 4


@pytest.mark.parametrize("damage", ["flipped bit", "cut"])
def test_damaged_newest_checkpoint(images, tmp_path, capsys, damage):
    recipe, straight, parts = full_recipe(images), tmp_path / "straight", tmp_path / "parts"
    train(recipe, run_for(straight), "try")
    train(recipe, run_for(parts, max_steps=8), "try")
    newest = parts / files.LAST
    content = bytearray(newest.read_bytes())
    content[-100] ^= 16
    newest.write_bytes(content if damage == "flipped bit" else content[:-5])
    # the log and the best network are of an epoch that the older checkpoint does not know of
    assert len(rows_of(parts)) == 2
    capsys.readouterr()
    train(recipe, run_for(parts), "try")
    said = capsys.readouterr().err
    assert f"{newest} is" in said and "last-1.safetensors is used" in said
    assert "resumed at epoch 2, batch 0, step 4" in said
    assert_same_files(straight, parts)


def test_every_checkpoint_damaged(images, tmp_path):
    recipe, folder = recipe_for(images, epochs=2), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=4, keep_last=1), "try")
    (folder / files.LAST).write_bytes(b"nothing of use")
    with pytest.raises(OvertoneError, match=r"no checkpoint .* is whole .*start over with --run\.overwrite"):
        train(recipe, run_for(folder), "try")


def test_the_same_command_resumes_or_says_why_not(images, tmp_path, capsys):
    recipe, folder = recipe_for(images, epochs=2), tmp_path / "run"
    folder.mkdir()
    (folder / files.RECIPE).write_text('{"what": "someone else\'s"}')
    with pytest.raises(OvertoneError, match=r"recipe\.json is not the record of a run"):
        train(recipe, run_for(folder), "try")
    train(recipe, run_for(folder, overwrite=True, max_steps=1), "try")
    for path in files.checkpoints(folder):
        path.unlink()
    other = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=3))
    with pytest.raises(OvertoneError, match=r"train\.epochs was 2 and is 3; .*--run\.out.*--model\.weights"):
        train(other, run_for(folder), "try")
    capsys.readouterr()
    train(recipe, run_for(folder, max_steps=4), "try")
    assert "has no checkpoint yet and starts over" in capsys.readouterr().err
    assert (folder / files.SUMMARY).is_file()
    train(recipe, run_for(folder), "try")
    assert "resumed at epoch 2" in capsys.readouterr().err
    for resume in (False, True):
        with pytest.raises(OvertoneError, match=r"is finished \(8 steps\); .*--run\.overwrite"):
            train(recipe, run_for(folder, resume=resume), "try")


def test_a_run_killed_before_its_summary_is_summed_up(images, tmp_path):
    recipe, folder = recipe_for(images, epochs=1), tmp_path / "run"
    summary = train(recipe, run_for(folder), "try")
    (folder / files.SUMMARY).unlink()
    again = train(recipe, run_for(folder), "try")
    assert dataclasses.replace(again, seconds=0) == dataclasses.replace(summary, seconds=0)
    assert (folder / files.SUMMARY).is_file()


def test_options_younger_than_the_run_have_their_defaults(images, tmp_path):
    recipe, folder = recipe_for(images, epochs=2), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=4), "try")
    record = json.loads((folder / files.RECIPE).read_text())
    del record["recipe"]["distill"], record["recipe"]["train"]["sizes"]
    (folder / files.RECIPE).write_text(json.dumps(record))
    train(recipe, run_for(folder), "try")
    assert len(rows_of(folder)) == 2


def test_full_disk_keeps_what_was_saved(images, tmp_path, monkeypatch):
    recipe, straight, parts = full_recipe(images), tmp_path / "straight", tmp_path / "parts"
    train(recipe, run_for(straight), "try")
    original, calls = checkpoint.save_file, []

    def save_file(tensors, path, metadata):
        calls.append(path)
        if len(calls) > 3:  # best and last of the first epoch, then there is room for one more
            Path(path).write_bytes(b"half of it")
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        original(tensors, path, metadata=metadata)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    with pytest.raises(OvertoneError, match=r"could not be written: No space left on device"):
        train(recipe, run_for(parts), "try")
    monkeypatch.setattr(checkpoint, "save_file", original)
    assert saver.read_last(parts, print) is not None and not any(map(is_temporary, parts.iterdir()))
    train(recipe, run_for(parts), "try")
    assert_same_files(straight, parts)


def test_a_dead_process_that_reads_images_is_reported_soon(images, tmp_path, monkeypatch):
    recipe, straight, parts = full_recipe(images), tmp_path / "straight", tmp_path / "parts"
    train(recipe, run_for(straight), "try")
    since = []

    def kill():
        since.append(time.perf_counter())
        os.kill(multiprocessing.active_children()[0].pid, signal.SIGKILL)

    at_step(monkeypatch, 5, kill)
    with pytest.raises(OvertoneError, match="a process that reads images died"):
        train(recipe, run_for(parts, workers=2), "try")
    assert time.perf_counter() - since[0] < 10
    train(recipe, run_for(parts), "try")
    assert_same_files(straight, parts)


def test_too_little_shared_memory_is_said_before_the_start(images, tmp_path, monkeypatch, capsys):
    mebibyte = 2**20
    said = []
    # a batch of 64 images of 128 pixels has 12 MiB; each process may have two of them ready, and one is in use
    assert fitting_workers(4, 64, 128, said.append, free=108 * mebibyte) == 4 and not said
    assert fitting_workers(4, 64, 128, said.append, free=108 * mebibyte - 1) == 3
    assert fitting_workers(4, 64, 128, said.append, free=35 * mebibyte) == 0
    assert fitting_workers(0, 64, 128, said.append, free=0) == 0
    assert "has 107 MiB free, and 4 processes that read images may need 108 MiB: 3 are used" in said[0]
    assert "in the main process" in said[1] and len(said) == 2
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage._replace(free=1000))
    train(recipe_for(images, epochs=1), run_for(tmp_path / "run", workers=2), "try")
    assert "2 processes that read images may need" in capsys.readouterr().err


def test_a_smaller_keep_last_makes_room_before_anything_is_written(images, tmp_path, monkeypatch):
    recipe, folder = recipe_for(images, epochs=4), tmp_path / "run"
    train(recipe, run_for(folder, keep_last=3, max_steps=12), "try")
    assert len(files.checkpoints(folder)) == 3
    seen = []
    at_step(monkeypatch, 12, lambda: seen.extend(files.checkpoints(folder)))
    train(recipe, run_for(folder, keep_last=1), "try")
    assert seen == [folder / files.LAST]


def test_best_network_of_an_epoch_that_came_out_worse_when_done_anew(images, tmp_path, capsys):
    recipe, folder = recipe_for(images, epochs=3), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=4, keep_last=1), "try")
    path = folder / files.BEST
    best = read_checkpoint(path)
    lost = dataclasses.replace(best.manifest, metrics={**best.manifest.metrics, "epoch": 3})
    last = read_checkpoint(folder / files.LAST)
    progress = {**last.manifest.progress, "best_score": 101.0}  # no epoch will be better
    checkpoint.write_checkpoint(
        folder / files.LAST, dataclasses.replace(last.manifest, progress=progress), last.weights, last.training
    )
    checkpoint.write_checkpoint(path, lost, best.weights)
    summary = train(recipe, run_for(folder), "try")
    assert summary.best_epoch == 3 == json.loads((folder / files.SUMMARY).read_text())["best_epoch"]
    assert f"{path} is of epoch 3 before it was done anew" in capsys.readouterr().err


def test_resume_may_be_said_in_one_word(images, tmp_path, capsys):
    words = f"train scratch --data.root {images} --run.out {tmp_path / 'run'} --run.device cpu --resume"
    assert cli.main(words.split()) == 2
    assert "has no last.safetensors to resume from" in capsys.readouterr().err
