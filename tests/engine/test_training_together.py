"""`train` in several processes: stopped, killed, resumed, in company or alone."""

import dataclasses
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from kill_loop import recipe_for
from ranks import run_ranks
from tiny_training import Tiny, draw

from overtone import zoo
from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.config import Recipe, Run
from overtone.engine import folder as files
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError, Preempted
from overtone.verbs.train import train

COUNTS = {"blue": 8, "green": 9, "red": 9}


@pytest.fixture
def images(tmp_path: Path) -> Path:
    draw(tmp_path / "data" / "train", COUNTS)
    draw(tmp_path / "data" / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return tmp_path / "data"


def recipe_of(root: Path, **options) -> Recipe:
    recipe = recipe_for(root)
    return dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=3, **options))


def run_in(folder: Path) -> Run:
    return Run(out=folder, device="cpu", workers=0, tensorboard=False, plots=False, timeout=60)


def train_here(rank: int, root: Path, folder: Path, stop_at: int | None = None, stopped_rank: int = 1) -> str:
    """Train as one of the processes that are there; SIGTERM comes to one of them before a step."""
    zoo.build_for_training = lambda task, settings, labels, say=None: Tiny(len(labels))
    original = Trainer.step

    def step(self, batch, number, *agreement):
        if number == stop_at and rank == stopped_rank:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch, number, *agreement)

    Trainer.step = step
    try:
        train(recipe_of(root), run_in(folder), "together")
    except Preempted as error:
        return str(error)
    return "finished"


def weights_of(folder: Path) -> dict[str, torch.Tensor]:
    checkpoint = read_checkpoint(folder / files.LAST)
    return checkpoint.weights | checkpoint.training


def test_stopped_by_a_signal_on_one_rank_two_processes_come_to_the_same_end(images, tmp_path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    assert run_ranks(train_here, 2, images, whole, join=False) == ["finished"] * 2
    stopped = run_ranks(train_here, 2, images, parts, 5, join=False)
    assert [type(answer) for answer in stopped] == [str, str] and "finished" not in stopped
    progress = read_manifest(parts / files.LAST).progress
    assert (progress["epoch"], progress["batch"]) == (1, 2)  # nobody takes a step after the sixth
    assert run_ranks(train_here, 2, images, parts, join=False) == ["finished"] * 2
    one, two = weights_of(whole), weights_of(parts)
    assert one.keys() == two.keys()
    assert all(torch.equal(one[key], two[key]) for key in one)


def test_a_run_of_two_processes_is_resumed_by_one(images, tmp_path, monkeypatch) -> None:
    folder = tmp_path / "run"
    run_ranks(train_here, 2, images, folder, 5, join=False)
    monkeypatch.setattr(zoo, "build_for_training", lambda task, settings, labels, say=None: Tiny(len(labels)))
    summary = train(recipe_of(images), run_in(folder), "together")
    assert summary.epochs == 3
    rows = [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [4, 8, 12]


def test_a_batch_that_the_processes_cannot_share_is_refused(images, tmp_path) -> None:
    recipe = recipe_of(images, batch_size=9, processes=2)
    with pytest.raises(OvertoneError, match=r"--train.batch-size 8 or 10"):
        train(recipe, run_in(tmp_path / "run"), "together")
    assert not (tmp_path / "run").exists()


def command(root: Path, folder: Path, *options: str) -> list[str]:
    return [
        *(sys.executable, "-m", "overtone", "train", "scratch", "--model.name", "hbonet_x010"),
        *("--data.root", str(root), "--run.out", str(folder), "--data.preprocess.size", "32"),
        *("--train.batch-size", "4", "--train.epochs", "200", "--run.device", "cpu", "--run.workers", "0"),
        *("--run.save-steps", "2", "--run.timeout", "20", "--run.no-tensorboard", *options),
    ]


def environment() -> dict[str, str]:
    return os.environ | {"OMP_NUM_THREADS": "1", "PYTHONWARNINGS": "ignore"}


def wait_for(holds, seconds: float, process: subprocess.Popen) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert process.poll() is None, f"ended with {process.returncode}"
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.1)


def step_of(folder: Path) -> int:
    try:
        return read_manifest(folder / files.LAST).progress["step"]
    except OvertoneError:
        return -1


def worker_with_rank(rank: int, parent: int) -> int:
    """The process of that rank below torchrun's."""
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            about = (entry / "stat").read_text().rpartition(")")[2].split()
            variables = (entry / "environ").read_bytes().split(b"\0")
        except OSError:
            continue
        if int(about[1]) == parent and f"RANK={rank}".encode() in variables:
            return int(entry.name)
    raise AssertionError(f"no process of rank {rank}")


@pytest.mark.slow
@pytest.mark.skipif(not Path("/proc/self/environ").exists(), reason="finds the processes in /proc")
def test_a_killed_rank_ends_the_job_or_restarts_it_from_the_last_checkpoint(images, tmp_path) -> None:
    folder = tmp_path / "run"
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    line = [*torchrun, "--max-restarts", "1", *command(images, folder)[1:]]
    with (tmp_path / "out.txt").open("w") as out:
        job = subprocess.Popen(line, env=environment(), stdout=out, stderr=subprocess.STDOUT)
    try:
        wait_for(lambda: step_of(folder) >= 4, 90, job)
        os.kill(worker_with_rank(1, job.pid), signal.SIGKILL)
        log = folder / files.LOG
        wait_for(lambda: "resumed at" in log.read_text(), 90, job)
        resumed = int(re.findall(r"resumed at .* step (\d+)", log.read_text())[-1])
        assert resumed >= 4
        wait_for(lambda: step_of(folder) > resumed, 60, job)
        os.kill(worker_with_rank(1, job.pid), signal.SIGKILL)
        assert job.wait(timeout=60) != 0  # no restart is left
    finally:
        job.kill()
        job.wait()
    assert read_checkpoint(folder / files.LAST).manifest.progress["step"] > resumed
