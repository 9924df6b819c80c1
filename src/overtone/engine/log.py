"""What a training reports while it runs: a progress line, a table line an epoch, `metrics.jsonl`, `log.txt`, trackers.

Messages go to standard error: on a terminal with a moving progress line, elsewhere with a plain line
every few minutes. `status.json` says whether the run is running or how it ended.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import torch
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Column

from overtone.checkpoint import write_text
from overtone.engine.folder import LOG, METRICS, STATUS
from overtone.engine.state import Snapshot
from overtone.engine.trackers import Ending, Tracker
from overtone.errors import OvertoneError, printable
from overtone.machine import resident_bytes
from overtone.plain_json import parse_json

Row = Mapping[str, Any]
_COLUMNS = {"images_per_second": ("images/s", 0)}
_HIDDEN = ("step", "data_wait", "seconds", "is_best", "memory_mb", "score", "score_name")
_MIB, _WIDE = 2**20, 110
_FIRST_LINE_SECONDS, _LINE_SECONDS = 30.0, 180.0


class Log:
    """The log of one run, from the start of its folder to the end.

    Args:
        folder: the run folder.
        trackers: where the figures go beside `metrics.jsonl`; the log starts and closes them.
        config: the settings that the trackers show.
        rows: the epochs of an earlier part of the run, whose files are then appended to.
        device: whose memory is measured.
        columns: heading and decimal places of columns, by the name of the figure.
        line_seconds: how often a line says how far a long epoch has come where there is no terminal.
    """

    def __init__(
        self,
        folder: Path,
        *,
        trackers: Sequence[Tracker] = (),
        config: Row | None = None,
        rows: Sequence[Row] | None = None,
        device: torch.device | None = None,
        columns: Mapping[str, tuple[str, int]] | None = None,
        line_seconds: float = _LINE_SECONDS,
    ) -> None:
        self.rows: list[Row] = list(rows or ())
        self._folder, self._trackers, self._config = folder, list(trackers), dict(config or {})
        self._device, self._line_seconds = device, line_seconds
        self._columns = {**_COLUMNS, **(columns or {})}
        self._metrics = folder / METRICS
        # lines of epochs beyond the resumed state go
        write_text(self._metrics, "".join(_line(row) for row in self.rows))
        self._text = (folder / LOG).open("a", encoding="utf-8")
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        # what does not fit on the line is cut off, not wrapped: a second line would flicker
        text = TextColumn(
            "{task.description} {task.percentage:>3.0f}%  {task.fields[figures]}",
            table_column=Column(no_wrap=True, overflow="ellipsis"),
        )
        parts = (BarColumn(bar_width=16), text) if self._console.width >= _WIDE else (text,)
        self._progress = Progress(*parts, console=self._console, transient=True, auto_refresh=False)
        self._bar = self._progress.add_task("", total=None, figures="", visible=False)
        self._headed: list[str] = []
        self._failing: set[str] = set()
        self._next_line = time.monotonic() + min(line_seconds, _FIRST_LINE_SECONDS)

    def __enter__(self) -> "Log":
        """Start the trackers, and the progress line if there is a terminal for it.

        Raises:
            OvertoneError: a tracker could not start.
        """
        self._mark("running")
        started: list[Tracker] = []
        try:
            for tracker in self._trackers:
                started.append(tracker)
                _start(tracker, self._config)
        except BaseException as error:
            self._trackers = started
            self.__exit__(type(error), error, error.__traceback__)
            raise
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the progress line away, close the files and the trackers, and write down how the run ended."""
        if self._progress.live.is_started:  # where it is not, stopping would print an empty line
            self._progress.stop()
        ending = _ending(error)
        for tracker in self._trackers:
            self._guarded(tracker, tracker.close, ending)
        reason = None
        if error is not None:
            reason = " ".join(f"{type(error).__name__}: {error}".split()).rstrip(": ").removeprefix("OvertoneError: ")
            self._write(f"ended by {type(error).__name__}: {error}")
        self._text.close()
        with suppress(OvertoneError):  # what ended the run, a full disk say, is what is to be reported
            self._mark(ending, reason)

    def say(self, text: str) -> None:
        """Write a line, or several, to the terminal and `log.txt`."""
        self._console.print(printable(text, lines=True), markup=False)
        self._write(text)

    def training(self, now: Snapshot) -> None:
        """Move the progress line within the training part of an epoch."""
        figures = (
            f"loss {now.loss:.4f}  {now.images_per_second:,.0f} images/s  data wait {now.data_wait:.0%}  "
            f"{duration(now.eta)} left  lr {now.lr:.3g}  {_memory_text(memory_mb(self._device))}"
        )
        self._show(f"epoch {now.epoch}/{now.epochs}", now.batch, now.batches, "batch", figures)

    def validating(self, done: int, total: int, what: str = "validation") -> None:
        """Move the progress line within a validation."""
        self._show(what, done, total, "image", f"{done:,} of {total:,} images")

    def epoch(self, row: Row) -> None:
        """The result of an epoch: a table line, a line of JSON, points for the trackers.

        Raises:
            OvertoneError: `metrics.jsonl` cannot be written.
        """
        row = {**row, "memory_mb": round(memory_mb(self._device), 1)}
        self.rows.append(row)
        columns = [name for name in row if name not in _HIDDEN]
        if columns != self._headed:  # an epoch without an evaluation has fewer
            headings = (self._columns.get(name, (name.replace("_", " "),))[0] for name in columns)
            self.say("".join(map(_cell, headings)) + _cell("time"))
            self._headed = columns
        places = {name: places for name, (_, places) in self._columns.items()}
        cells = [_cell(_figure(name, row[name], places.get(name, 4))) for name in columns]
        self.say("".join(cells) + _cell(duration(row["seconds"])) + ("  best" if row["is_best"] else ""))
        self._next_line = time.monotonic() + self._line_seconds
        try:
            with self._metrics.open("a", encoding="utf-8") as file:
                file.write(_line(row))
        except OSError as error:
            raise OvertoneError(
                f"{self._metrics} cannot be written: {error.strerror}; make room, then give the same command again"
            ) from error
        for tracker in self._trackers:
            self._guarded(tracker, tracker.metrics, row)

    def _show(self, what: str, done: int, total: int, unit: str, figures: str) -> None:
        if self._progress.live.is_started:
            self._progress.update(
                self._bar, description=what, completed=done, total=total, figures=figures, visible=True, refresh=True
            )
        elif time.monotonic() >= self._next_line:
            self._next_line = time.monotonic() + self._line_seconds
            where = "" if unit == "image" else f"  {unit} {done:,} of {total:,}"
            self.say(f"{what}{where}  {figures}")

    def _guarded(self, tracker: Tracker, call: Any, value: Any) -> None:
        """Call a tracker; a training of days does not end because a server does not answer."""
        try:
            call(value)
        except Exception as error:
            if tracker.name not in self._failing:
                self._failing.add(tracker.name)
                self.say(f"{tracker.name} failed ({' '.join(str(error).split())}); metrics.jsonl has all the figures")

    def _mark(self, status: str, reason: str | None = None) -> None:
        record = {"status": status, "reason": reason, "time": time.strftime("%Y-%m-%dT%H:%M:%S%z")}
        write_text(self._folder / STATUS, json.dumps(record) + "\n")

    def _write(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        with suppress(OSError):  # a full disk: the checkpoint or `metrics.jsonl` will say so
            self._text.writelines(f"{stamp}  {line}\n" for line in text.splitlines())
            self._text.flush()


def memory_mb(device: torch.device | None = None) -> float:
    """Memory in MiB: the most that tensors have taken on a CUDA device so far, else what this process holds now.

    The processes that read images are not counted. NaN where the system does not say.
    """
    if device is not None and device.type == "cuda":
        return torch.cuda.max_memory_allocated(device) / _MIB
    return resident_bytes() / _MIB


def read_rows(folder: Path, epochs: int | None = None) -> list[Row]:
    """The lines of `metrics.jsonl` of the first `epochs` epochs; a line cut while it was written is left out."""
    path = folder / METRICS
    rows: dict[int, Row] = {}
    for line in path.read_text(encoding="utf-8", errors="replace").splitlines() if path.is_file() else ():
        try:
            row = parse_json(line)
        except ValueError:
            continue
        if isinstance(row, dict) and isinstance(row.get("epoch"), int) and (epochs is None or row["epoch"] <= epochs):
            rows[row["epoch"]] = row
    return list(rows.values())


def duration(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _start(tracker: Tracker, config: Row) -> None:
    try:
        tracker.start(config)
    except OvertoneError:
        raise
    except Exception as error:  # whatever it is, the training does not depend on it
        raise OvertoneError(
            f"{tracker.name} did not start ({' '.join(str(error).split())}); set it up, use it offline, or leave it out"
        ) from error


def _ending(error: BaseException | None) -> Ending:
    """An exception is a failure; Ctrl-C and exit codes are wishes."""
    if error is None:
        return "finished"
    return "failed" if isinstance(error, Exception) else "interrupted"


def _memory_text(mebibytes: float) -> str:
    if math.isnan(mebibytes):
        return ""
    return f"{mebibytes / 1024:.1f} GB" if mebibytes >= 1024 else f"{mebibytes:.0f} MB"


def _cell(text: str) -> str:
    return f"{text:>12}"


def _figure(name: str, value: Any, places: int) -> str:
    if not isinstance(value, float):
        return str(value)
    if name == "lr":
        return f"{value:.3g}"
    return f"{value:,.{places}f}"


def _line(row: Row) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(finite) + "\n"
