"""What a training says: lines where there is no terminal, rows with memory, how it ended, trackers that fail."""

import json
import math
import mmap
import re
from collections import Counter
from pathlib import Path

import pytest

from overtone.engine import folder as files
from overtone.engine import log as log_module
from overtone.engine.log import Log, duration, memory_mb, read_rows
from overtone.engine.state import Snapshot
from overtone.errors import OvertoneError, Preempted

ROW = {"epoch": 1, "step": 5, "lr": 0.1, "train_loss": 2.0, "top1": 12.5, "seconds": 3.0, "is_best": True}


class Recording:
    """A tracker that keeps what it is given, and fails where it is asked to."""

    name = "Recording"

    def __init__(self, fails: str | None = None) -> None:
        self.said: list[tuple[str, object]] = []
        self.fails = fails

    def _say(self, what, value):
        self.said.append((what, value))
        if what == self.fails:
            raise ConnectionError("no answer\nfrom the server")

    def start(self, config):
        self._say("start", config)

    def metrics(self, row):
        self._say("metrics", row)

    def close(self, ending):
        self._say("close", ending)


@pytest.fixture
def clock(monkeypatch):
    """A clock that a test moves."""

    class Clock:
        now = 1000.0

        def monotonic(self):
            return self.now

    moved = Clock()
    monkeypatch.setattr(log_module.time, "monotonic", moved.monotonic)
    return moved


def snapshot(batch, **changes):
    values = {"epoch": 3, "epochs": 90, "batch": batch, "batches": 5004, "loss": 2.34567, "lr": 0.0123}
    return Snapshot(**(values | {"images_per_second": 1234.4, "data_wait": 0.123, "eta": 3723.0} | changes))


def status_of(folder: Path):
    return json.loads((folder / files.STATUS).read_text())


def test_a_long_epoch_says_now_and_then_how_far_it_is(tmp_path, clock, capfd):
    with Log(tmp_path) as log:
        for second in range(700):
            clock.now = 1000.0 + second
            log.training(snapshot(second))
    lines = capfd.readouterr().err.splitlines()
    # first after half a minute, then every three
    assert [int(re.search(r"batch (\d+) of 5,004", line)[1]) for line in lines] == [30, 210, 390, 570]
    assert re.fullmatch(
        r"epoch 3/90  batch 30 of 5,004  loss 2\.3457  1,234 images/s  data wait 12%  1:02:03 left  lr 0\.0123  "
        r"[\d.]+ [MG]B",
        lines[0],
    )
    assert [line.split("  ", 1)[1] for line in (tmp_path / files.LOG).read_text().splitlines()] == lines


def test_short_epochs_and_validations_in_between_say_nothing_more(tmp_path, clock, capfd):
    with Log(tmp_path, line_seconds=100) as log:
        for epoch in range(1, 6):
            clock.now += 60
            log.epoch({**ROW, "epoch": epoch})
            log.training(snapshot(1))
            log.validating(10, 50)
        clock.now += 100
        log.validating(20, 50)
    lines = capfd.readouterr().err.splitlines()
    assert len(lines) == 7 and lines[-1] == "validation  20 of 50 images"


def test_a_terminal_gets_a_moving_line_instead(tmp_path, clock, capfd, monkeypatch):
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    with Log(tmp_path) as log:
        clock.now += 500
        log.training(snapshot(2502))
    out = re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", capfd.readouterr().err)
    assert "epoch 3/90  50%  loss 2.3457  1,234 images/s  data wait 12%  1:02:03 left" in out
    assert "batch" not in out and not (tmp_path / files.LOG).read_text()


def test_rows_get_the_memory_and_stay_json(tmp_path):
    with Log(tmp_path) as log:
        log.epoch({**ROW, "train_loss": math.nan})
        (row,) = log.rows
    (written,) = read_rows(tmp_path)
    assert written == {**row, "train_loss": None}
    assert 10 < written["memory_mb"] < 10**6
    mapped = mmap.mmap(-1, 2**27)  # not a tensor: freed memory that the process has kept could hold that
    mapped.write(b"1" * 2**27)
    assert memory_mb() > written["memory_mb"] + 100
    mapped.close()


def test_rows_of_a_damaged_file(tmp_path):
    with Log(tmp_path, rows=[ROW]):
        pass
    with (tmp_path / files.METRICS).open("ab") as file:
        file.write(b'7\n"x"\n{"epoch": "2"}\n{"step": 1}\n\xff\n{"epoch": 2, "step": 6}\n{"epoch": 3, "st')
    assert [row["epoch"] for row in read_rows(tmp_path)] == [1, 2]
    assert [row["epoch"] for row in read_rows(tmp_path, 1)] == [1]
    assert read_rows(tmp_path / "nowhere") == []


@pytest.mark.parametrize(
    ("error", "status", "reason"),
    [
        (None, "finished", None),
        (KeyboardInterrupt(), "interrupted", "KeyboardInterrupt"),
        (Preempted("SIGUSR1"), "interrupted", "Preempted: SIGUSR1"),
        (OvertoneError("the loss is nan"), "failed", "the loss is nan"),
        (ValueError("two\nlines"), "failed", "ValueError: two lines"),
    ],
)
def test_status_says_how_it_ended(tmp_path, error, status, reason):
    tracker = Recording()
    try:
        with Log(tmp_path, trackers=[tracker], config={"optim": {"lr": 1}}):
            assert status_of(tmp_path)["status"] == "running"
            if error is not None:
                raise error
    except type(error):
        pass
    assert (status_of(tmp_path)["status"], status_of(tmp_path)["reason"]) == (status, reason)
    assert tracker.said == [("start", {"optim": {"lr": 1}}), ("close", status)]
    assert ("ended by" in (tmp_path / files.LOG).read_text()) == (error is not None)


def test_a_tracker_that_fails_does_not_end_the_training(tmp_path, capfd):
    broken, whole = Recording(fails="metrics"), Recording()
    with Log(tmp_path, trackers=[broken, whole]) as log:
        for epoch in (1, 2, 3):
            log.epoch({**ROW, "epoch": epoch})
    assert capfd.readouterr().err.count("Recording failed (no answer from the server); metrics.jsonl has all") == 1
    for tracker in (broken, whole):
        assert Counter(what for what, _ in tracker.said) == {"start": 1, "metrics": 3, "close": 1}
    assert len(read_rows(tmp_path)) == 3


def test_a_tracker_that_does_not_start_is_an_error_and_the_others_are_closed(tmp_path):
    first, broken, never = Recording(), Recording(fails="start"), Recording()
    with (
        pytest.raises(OvertoneError, match=r"Recording did not start .no answer from the server.; set it up"),
        Log(tmp_path, trackers=[first, broken, never]),
    ):
        raise AssertionError("the block must not be entered")
    assert first.said[-1] == ("close", "failed") and broken.said[-1] == ("close", "failed") and not never.said
    assert status_of(tmp_path)["status"] == "failed"


def test_metrics_that_cannot_be_written(tmp_path):
    with Log(tmp_path) as log:
        (tmp_path / files.METRICS).unlink()
        (tmp_path / files.METRICS).mkdir()
        with pytest.raises(OvertoneError, match=r"metrics\.jsonl cannot be written: .*; make room"):
            log.epoch(ROW)


def test_duration():
    assert [duration(s) for s in (0, 59.6, 61, 3600, 360000)] == ["0:00", "1:00", "1:01", "1:00:00", "100:00:00"]
