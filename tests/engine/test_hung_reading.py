"""A scheduler's signal while an image is waited for that never comes: saved and gone within 30 seconds (row 34)."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from ranks import free_port

from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.engine import folder as files
from overtone.errors import OvertoneError

pytestmark = pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="needs a pipe with a name")
SCRIPT = Path(__file__).with_name("hanging_source.py")
SECONDS = 30.0


def start(root: Path, folder: Path, fifo: Path, workers: int, **environment: str) -> subprocess.Popen:
    words = f"train scratch --model.name hbonet_x010 --data.root {root} --run.out {folder} --run.device cpu"
    words += f" --run.workers {workers} --data.preprocess.size 32 --train.batch-size 4 --train.epochs 900"
    words += " --run.no-tensorboard --run.no-plots --run.keep-last 1 --run.timeout 60 --run.cache-mb 0"
    line = [sys.executable, str(SCRIPT), str(fifo), *words.split()]
    path = os.pathsep.join(filter(None, sys.path))
    # what it reports would only be in the way of a failure's own message
    return subprocess.Popen(
        line, stderr=subprocess.DEVNULL, env=os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": path} | environment
    )


def wait_for(holds, processes: list[subprocess.Popen], seconds: float = 120) -> None:
    end = time.monotonic() + seconds
    while not holds():
        assert all(process.poll() is None for process in processes), [process.returncode for process in processes]
        assert time.monotonic() < end, "waited for too long"
        time.sleep(0.05)


def step_of(folder: Path) -> int:
    try:
        return read_manifest(folder / files.LAST).progress["step"]
    except OvertoneError:
        return -1


def hang_and_signal(processes: list[subprocess.Popen], folder: Path, fifo: Path) -> int:
    """Let the images hang after the first checkpoint; gives the step of that."""
    try:
        wait_for(lambda: step_of(folder) > 0, processes)
        saved = step_of(folder)
        os.mkfifo(fifo)
        wait_for(fifo.with_suffix(".reached").exists, processes)
        time.sleep(1.0)  # what was read ahead is used up
        started = time.monotonic()
        for process in processes:
            process.send_signal(signal.SIGTERM)
        codes = [process.wait(timeout=SECONDS + 10) for process in processes]
        assert time.monotonic() - started < SECONDS
        assert codes == [75] * len(processes)
    finally:
        for process in processes:
            process.kill()
            process.wait()
    return saved


@pytest.mark.parametrize("workers", [0, 1])
def test_saved_and_gone_although_reading_hangs(images, tmp_path, workers):
    folder, fifo = tmp_path / "run", tmp_path / "pipe"
    saved = hang_and_signal([start(images, folder, fifo, workers)], folder, fifo)
    assert step_of(folder) >= saved and read_checkpoint(folder / files.LAST).training
    assert "To resume, give the same command again" in (folder / files.LOG).read_text()


@pytest.mark.slow
def test_two_processes_one_of_which_hangs(images, tmp_path):
    folder, fifo, other = tmp_path / "run", tmp_path / "pipe", tmp_path / "none"
    address = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()), "WORLD_SIZE": "2"}
    ranks = [
        start(images, folder, where, 0, RANK=str(rank), LOCAL_RANK=str(rank), **address)
        for rank, where in enumerate((other, fifo))
    ]
    saved = hang_and_signal(ranks, folder, fifo)
    assert step_of(folder) >= saved and read_checkpoint(folder / files.LAST).training
