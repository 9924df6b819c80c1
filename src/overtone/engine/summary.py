"""How a training ended: the best epoch and its report."""

import hashlib
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from overtone.checkpoint import write_text
from overtone.engine import folder as files
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json
from overtone.tasks.task import Report, Task

_DIGEST = "sha256"


@dataclass(frozen=True)
class Summary:
    """How a training ended.

    Attributes:
        folder: the run folder.
        epochs: epochs done; `best_epoch` is the one (from 1) that best.safetensors is of.
        seconds: time spent, over all parts of the run.
        report: the best epoch's, on the validation samples; None where there are none.
        test: the report of the best network on samples that no choice depended on; None where there are none.
    """

    folder: Path
    epochs: int
    best_epoch: int
    seconds: float
    report: Any | None
    test: Any | None = None

    def to_dict(self) -> dict[str, Any]:
        """What `summary.json` holds."""
        report = self.report
        record = {"epochs": self.epochs, "best_epoch": self.best_epoch, "seconds": self.seconds}
        if report is not None:
            counts = {"num_used": report.num_used, "num_expected": report.num_expected}
            record |= {"score": report.score, "score_name": report.score_name, **figures_of(report), **counts}
        if self.test is not None:
            record["test"] = {"score": self.test.score, **figures_of(self.test), "num_used": self.test.num_used}
        return record


def figures_of(report: Report) -> dict[str, float]:
    """The figures of a report as checkpoints and summaries name them."""
    return {name.removeprefix("val_"): value for name, value in report.figures().items()}


def report_text(report: Report) -> str:
    """A report as JSON with its own digest, so that damage is found when it is read."""
    values = report.to_dict()
    return json.dumps({_DIGEST: _digest(values), **values})


def write_report(path: Path, report: Report) -> None:
    """Write a report whole or not at all."""
    write_text(path, report_text(report))


def read_report(folder: Path, task: type[Task]) -> Any | None:
    """The best epoch's report that a run folder holds, if it does.

    Raises:
        OvertoneError: it is damaged.
    """
    path = next((folder / name for name in (files.REPORT, files.OLD_REPORT) if (folder / name).is_file()), None)
    if path is None:
        return None
    try:
        values = parse_json(path.read_text(encoding="utf-8"))
        digest = values.pop(_DIGEST, None)
        if digest is not None and digest != _digest(values):
            raise ValueError("its content does not have the SHA-256 that it was written with")
        return task.report_type.from_dict(values)
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise OvertoneError(
            f"{path} is damaged: {error}; evaluate the run's network to get its report again"
        ) from error


def _digest(values: Any) -> str:
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()
