"""Processes that a training starts beside itself."""

import multiprocessing
import os
from pathlib import Path

from overtone.engine.companions import companions


def write_rank(path: Path) -> None:
    path.write_text(os.environ["RANK"])


def have_it_written(path: Path) -> None:
    process = multiprocessing.get_context("spawn").Process(target=write_rank, args=(path,), daemon=True)
    process.start()
    process.join()


def test_a_companion_may_start_processes_that_read_images(tmp_path):
    before = dict(os.environ)
    with companions(2, have_it_written, (tmp_path / "rank",)):
        assert os.environ["RANK"] == "0" and os.environ["WORLD_SIZE"] == "2"
    assert (tmp_path / "rank").read_text() == "1"
    assert dict(os.environ) == before
