"""Data that several processes open is scanned by one of them first, and what is wrong with it is said once."""

import contextlib
import dataclasses
import io
import os
import time
from pathlib import Path

import pytest
from ranks import run_ranks

from overtone import cli
from overtone.config import Run
from overtone.data import scan_progress, storage
from overtone.engine import first_scan
from overtone.engine.distributed import World
from overtone.engine.first_scan import scanned_first
from overtone.errors import OvertoneError, ReportedElsewhere
from overtone.recipes import load_recipe
from overtone.verbs import train as train_verb


def _scan(world: World, folder: Path) -> tuple[float, float]:
    """When this process began and ended; the first one takes a while, and the last one fails if it should."""
    first_scan._PATIENCE = 0.05

    def scan() -> tuple[float, float]:
        began = time.monotonic()
        if world.is_first:
            time.sleep(0.3)
        elif (folder / "broken").exists():
            raise OvertoneError("a shard is gone")
        return began, time.monotonic()

    return scanned_first(dataclasses.replace(world, local_rank=world.rank), scan)


def test_the_others_wait_for_the_first(tmp_path: Path) -> None:
    (_, ended), (began, _) = run_ranks(_scan, 2, tmp_path)
    assert ended <= began
    (tmp_path / "broken").touch()
    first, other = run_ranks(_scan, 2, tmp_path)
    assert type(first) is OvertoneError and "a shard is gone" in str(first) and isinstance(other, ReportedElsewhere)


def _command(rank: int, command: str) -> tuple[int, str]:
    storage.WAITS[:] = [0.01]
    os.environ["LOCAL_RANK"] = str(rank)
    with contextlib.redirect_stderr(io.StringIO()) as printed:
        return cli.main(command.split()), printed.getvalue()


def test_an_unreachable_address_is_one_error(tmp_path: Path) -> None:
    address = "http://127.0.0.1:9/shards"
    command = f"train scratch {address} --run.out {tmp_path / 'run'} --run.device cpu --run.timeout 60"
    (code, printed), others = run_ranks(_command, 2, command, join=False)
    assert code == 2 and printed.count("\n") == 1 and address in printed and "cannot be read" in printed
    assert others == (2, "") and not (tmp_path / "run" / "log.txt").exists()


@pytest.mark.parametrize(("rank", "expected"), [("0", ["ended"]), ("1", [])])
def test_the_first_process_prints_how_a_training_ended(
    monkeypatch: pytest.MonkeyPatch, rank: str, expected: list[str]
) -> None:
    printed: list[str] = []
    monkeypatch.setattr(train_verb, "run_training", lambda *_, **__: "ended")
    monkeypatch.setattr(train_verb, "print_summary", printed.append)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setenv("WORLD_SIZE", "2")
    train_verb.train(load_recipe("scratch"), Run(), "scratch")
    assert printed == expected


@pytest.mark.parametrize("is_terminal", [True, False])
def test_long_scans_say_how_far_they_are(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], is_terminal: bool
) -> None:
    with scan_progress.counted("short") as add:
        add(3)
    assert capsys.readouterr().err == ""
    monkeypatch.setattr(scan_progress, "FIRST", 0.0)
    monkeypatch.setattr("sys.stderr.isatty", lambda: is_terminal, raising=False)
    with scan_progress.counted("scanning x: files") as add:
        add(1500)
        add(20)
    printed = capsys.readouterr().err
    assert "scanning x: files: 1,500 so far" in printed and "1,520" not in printed
    assert printed.endswith("\x1b[K" if is_terminal else "\n")
