"""Kills a short training with SIGKILL again and again, and holds its end against that of an uninterrupted one.

    python tests/engine/kill_loop.py --kills 100

This process imports everything once and never computes; each training is a fork of it, so that a start costs little. A
kill comes at a random time, or while a file is being written. After each one the checkpoints under their final names
must be whole; each run that reaches its end must have the same weights, state, log and report, bit for bit. Exit code 0
if all is so.
"""

import argparse
import contextlib
import json
import os
import random
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from pathlib import Path

os.environ.setdefault("OMP_NUM_THREADS", "1")

import torch
from tiny_training import Tiny, draw

from overtone import zoo
from overtone.checkpoint import is_temporary, read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Schedule, Train
from overtone.engine import folder as files
from overtone.verbs.train import train

_TIMES = ("seconds", "images_per_second", "data_wait", "memory_mb")  # what no two runs have alike


def recipe_for(root: Path) -> Recipe:
    return Recipe(
        model=Model(name="hbonet_x010"),
        data=Data(root=root, preprocess=Preprocess(size=12, resize="squash", crop_fraction=1.0)),
        augment=Augment(crop="pad", mixup=0.4, cutmix=1.0, mix_prob=0.5, random_erasing=0.5),
        optim=Optim(name="adamw", lr=0.01, decay="no_norm_bias", clip_grad=5.0),
        schedule=Schedule(warmup_epochs=1),
        train=Train(epochs=4, batch_size=8, label_smoothing=0.1, ema_decay=0.8),
    )


def train_in(root: Path, folder: Path, keep_last: int) -> None:
    torch.set_num_threads(1)
    zoo.build_for_training = lambda task, settings, labels, say=None: Tiny(len(labels))
    quiet = {"device": "cpu", "workers": 0, "tensorboard": False, "plots": False}
    train(recipe_for(root), Run(out=folder, micro_batch=5, save_steps=1, keep_last=keep_last, **quiet), "killed")


def end_of(folder: Path) -> dict:
    """All of a finished run that must not depend on how often it was interrupted."""
    last, best = read_checkpoint(folder / files.LAST), read_checkpoint(folder / files.BEST)
    rows = [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()]
    summary = json.loads((folder / files.SUMMARY).read_text())
    return {
        "last": last.weights,
        "training": last.training,
        "best": best.weights,
        "progress": _timeless(last.manifest.progress),
        "figures": (last.manifest.metrics, best.manifest.metrics),
        "rows": [_timeless(row) for row in rows],
        "summary": _timeless(summary),
        "report": (folder / files.REPORT).read_text(),
    }


def _timeless(values: dict) -> dict:
    return {key: value for key, value in values.items() if key not in _TIMES}


def assert_same(one: dict, two: dict) -> None:
    for part in one:
        if part in ("last", "training", "best"):
            assert one[part].keys() == two[part].keys(), part
            for key, value in one[part].items():
                assert torch.equal(value, two[part][key]), (part, key)
        else:
            assert one[part] == two[part], (part, one[part], two[part])


def assert_whole(folder: Path) -> None:
    """Whatever has a final name is whole."""
    found = files.checkpoints(folder)
    for path in (*found, folder / files.BEST):
        if path.exists():
            read_checkpoint(path)
    for name in (files.RECIPE, files.REPORT, files.SUMMARY):
        if (folder / name).exists():
            json.loads((folder / name).read_text())


def assert_finished(folder: Path, straight: Path) -> None:
    assert not [path for path in folder.iterdir() if is_temporary(path)]
    assert_same(end_of(straight), end_of(folder))


def is_finished(folder: Path) -> bool:
    status = folder / files.STATUS
    return status.exists() and json.loads(status.read_text())["status"] == "finished"


def forked(function: Callable[..., None], *args: object, log: Path) -> int:
    """Start `function` in a fork of this process; gives its id."""
    sys.stdout.flush()
    child = os.fork()
    if child:
        return child
    code = 1
    with log.open("a") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        try:
            function(*args)
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)


def ended_well(child: int, log: Path) -> None:
    _, status = os.waitpid(child, 0)
    if status:
        raise SystemExit(f"ended with status {status}:\n{log.read_text()[-3000:]}")


def killed(child: int, moment: Callable[[], bool]) -> bool:
    """Kill the child when `moment` says so; False if it has ended before, which it must have done well."""
    while not moment():
        ended, status = os.waitpid(child, os.WNOHANG)
        if ended:
            if status:
                raise SystemExit(f"a training ended with status {status}")
            return False
    os.kill(child, signal.SIGKILL)
    _, status = os.waitpid(child, 0)
    return os.WIFSIGNALED(status)


def random_moment(rng: random.Random, folder: Path, seconds: float) -> Callable[[], bool]:
    """A random time, or shortly after a file has begun to be written, after a few others."""
    end = time.monotonic() + rng.uniform(0, seconds)
    if rng.random() < 0.5:

        def at_time() -> bool:
            time.sleep(min(0.002, max(end - time.monotonic(), 0)))
            return time.monotonic() >= end

        return at_time
    pause = rng.choice((0.0, 0.0, 0.001, 0.003))

    def in_save() -> bool:
        if time.monotonic() < end:
            time.sleep(0.002)
            return False
        with contextlib.suppress(OSError):
            if any(entry.name.startswith((".last", ".best")) for entry in os.scandir(folder)):
                time.sleep(pause)
                return True
        time.sleep(0.0002)
        return False

    return in_save


def main(kills: int, seed: int) -> None:
    rng, started = random.Random(seed), time.monotonic()
    home = Path(tempfile.mkdtemp(prefix="kill_loop."))
    # two of the classes look alike, so that the best epoch is not the first one
    draw(home / "data" / "train", {"blue": 8, "green": 6, "red": 6, "sky": 6})
    draw(home / "data" / "val", {"blue": 3, "green": 3, "red": 3, "sky": 5}, seed=1)
    log, straight, folder = home / "said.txt", home / "straight", home / "run"
    ended_well(forked(train_in, home / "data", straight, 2, log=log), log)
    before = time.monotonic()
    ended_well(forked(train_in, home / "data", home / "timed", 2, log=log), log)
    seconds = time.monotonic() - before  # within which a kill comes; follows the machine, whose load may change
    done = in_save = finished = of_this_run = 0
    while done < kills or folder.exists():
        child = forked(train_in, home / "data", folder, 1 + finished % 3, log=log)
        moment = random_moment(rng, folder, seconds) if done < kills else lambda: bool(time.sleep(0.01))
        if killed(child, moment):
            done, of_this_run, seconds = done + 1, of_this_run + 1, seconds * 1.05
            in_save += folder.exists() and any(map(is_temporary, folder.iterdir()))
            ended_well(forked(assert_whole, folder, log=log), log)
        if is_finished(folder):
            ended_well(forked(assert_finished, folder, straight, log=log), log)
            finished, of_this_run, seconds = finished + (of_this_run > 0), 0, seconds * 0.7
            shutil.rmtree(folder)
    print(
        f"{done} kills, {in_save} of them while a file was written; all were resumed, and the {finished} runs they hit "
        f"ended exactly as the uninterrupted one ({time.monotonic() - started:.0f} s)"
    )
    shutil.rmtree(home)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    main(arguments.kills, arguments.seed)
