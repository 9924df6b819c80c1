"""What a training says while it runs: a progress line, a table line an epoch, `metrics.jsonl`, `log.txt`, TensorBoard.

Everything for people goes to standard error; on a terminal with a moving progress line, else one line an epoch.
"""

import json
import math
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn
from torch.utils.tensorboard import SummaryWriter

from overtone.checkpoint import write_text
from overtone.engine.folder import LOG, METRICS, TENSORBOARD
from overtone.engine.state import Snapshot

Row = Mapping[str, Any]
_PLACES = {"top1": 2, "top5": 2, "images_per_second": 0}
_HEADINGS = {"images_per_second": "images/s", "top1": "top-1", "top5": "top-5"}
_HIDDEN = ("step", "data_wait", "seconds", "is_best")


class Log:
    """The log of one run, from the start of its folder to the end.

    Args:
        folder: the run folder.
        tensorboard: whether to write TensorBoard files.
        rows: the epochs of an earlier part of the run, in which case its files are gone on with.
    """

    def __init__(self, folder: Path, *, tensorboard: bool = True, rows: Sequence[Row] | None = None) -> None:
        self.rows: list[Row] = list(rows or ())
        self._metrics = folder / METRICS
        # lines of epochs that the resumed state does not know of go
        write_text(self._metrics, "".join(_line(row) for row in self.rows))
        self._text = (folder / LOG).open("a", encoding="utf-8")
        self._console = Console(stderr=True, highlight=False, soft_wrap=True)
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            TextColumn("{task.fields[figures]}"),
            console=self._console,
            transient=True,
            auto_refresh=False,
        )
        self._bar = self._progress.add_task("", total=None, figures="", visible=False)
        self._headed = False
        step = self.rows[-1]["step"] + 1 if self.rows else None
        self._writer = SummaryWriter(str(folder / TENSORBOARD), purge_step=step) if tensorboard else None

    def __enter__(self) -> "Log":
        """Start the progress line if there is a terminal for it."""
        if self._console.is_terminal:
            self._progress.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Take the progress line away and close the files."""
        if self._progress.live.is_started:  # where it is not, stopping would print an empty line
            self._progress.stop()
        if self._writer is not None:
            self._writer.close()
        if error is not None:
            self._write(f"ended by {kind.__name__ if kind else ''}: {error}")
        self._text.close()

    def say(self, text: str) -> None:
        """A line, or several, for people and `log.txt`."""
        self._console.print(text, markup=False)
        self._write(text)

    def training(self, now: Snapshot) -> None:
        """Move the progress line within the training part of an epoch."""
        figures = (
            f"loss {now.loss:.4f}  lr {now.lr:.3g}  {now.images_per_second:,.0f} images/s  {duration(now.eta)} left"
        )
        if now.data_wait > 0.1:
            figures += f"  waiting for images {now.data_wait:.0%}"
        self._show(f"epoch {now.epoch}/{now.epochs}", now.batch, now.batches, figures)

    def validating(self, done: int, total: int) -> None:
        """Move the progress line within a validation."""
        self._show("validation", done, total, f"{done:,} of {total:,} images")

    def epoch(self, row: Row) -> None:
        """The result of an epoch: a table line, a line of JSON, points for TensorBoard."""
        self.rows.append(row)
        columns = [name for name in row if name not in _HIDDEN]
        if not self._headed:
            self.say("".join(_cell(_HEADINGS.get(name, name.replace("_", " "))) for name in columns) + _cell("time"))
            self._headed = True
        cells = [_cell(_figure(name, row[name])) for name in columns]
        self.say("".join(cells) + _cell(duration(row["seconds"])) + ("  best" if row["is_best"] else ""))
        with self._metrics.open("a", encoding="utf-8") as file:
            file.write(_line(row))
        if self._writer is not None:
            for name, value in row.items():
                if name not in ("epoch", "step", "is_best") and value is not None:
                    self._writer.add_scalar(name, value, row["step"])
            self._writer.flush()

    def _show(self, what: str, done: int, total: int, figures: str) -> None:
        if self._progress.live.is_started:
            self._progress.update(
                self._bar, description=what, completed=done, total=total, figures=figures, visible=True, refresh=True
            )

    def _write(self, text: str) -> None:
        stamp = time.strftime("%Y-%m-%d %H:%M:%S")
        self._text.writelines(f"{stamp}  {line}\n" for line in text.splitlines())
        self._text.flush()


def read_rows(folder: Path, epochs: int) -> list[Row]:
    """The lines of `metrics.jsonl` of the first `epochs` epochs; a line cut while it was written is left out."""
    path = folder / METRICS
    rows: dict[int, Row] = {}
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            row = json.loads(line)
        except ValueError:
            continue
        if row["epoch"] <= epochs:
            rows[row["epoch"]] = row
    return list(rows.values())


def duration(seconds: float) -> str:
    """Seconds as `m:ss` or `h:mm:ss`."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{rest:02}" if hours else f"{minutes}:{rest:02}"


def _cell(text: str) -> str:
    return f"{text:>12}"


def _figure(name: str, value: Any) -> str:
    if not isinstance(value, float):
        return str(value)
    if name == "lr":
        return f"{value:.3g}"
    return f"{value:,.{_PLACES.get(name, 4)}f}"


def _line(row: Row) -> str:
    finite = {
        key: None if isinstance(value, float) and not math.isfinite(value) else value for key, value in row.items()
    }
    return json.dumps(finite) + "\n"
