"""How a training ended: the best epoch, its figures, and the classes it is worst at."""

import json
from dataclasses import dataclass
from pathlib import Path

from overtone.engine import folder as files
from overtone.engine.log import duration
from overtone.tasks.classification import ClassificationReport
from overtone.verbs.console import print_line, print_table

_WORST = 10
_MOST_CLASSES_LISTED = 20


@dataclass(frozen=True)
class Summary:
    """How a training ended.

    Attributes:
        folder: the run folder.
        epochs: epochs done; `best_epoch` is the one (from 1) that best.safetensors is of.
        seconds: time spent, over all parts of the run.
        report: the best epoch's, on the validation images; None where there are none.
    """

    folder: Path
    epochs: int
    best_epoch: int
    seconds: float
    report: ClassificationReport | None


def print_summary(summary: Summary) -> None:
    """Say how the training ended, on standard output."""
    report, best = summary.report, summary.folder / files.BEST
    if report is None:
        print_line(
            f"{summary.epochs} epochs without validation images, in {duration(summary.seconds)}; "
            f"{best} is the network of the last one; curves, log and figures are beside it"
        )
        return
    rows = list(zip(report.classes, report.class_counts, report.class_correct, report.per_class, strict=True))
    print_line(
        f"best epoch {summary.best_epoch} of {summary.epochs}: top-1 {report.top1:.2f} %, top-5 {report.top5:.2f} %, "
        f"loss {report.loss:.4f} on {report.num_used} of {report.num_expected} validation images; "
        f"{duration(summary.seconds)} in all"
    )
    if len(rows) > _MOST_CLASSES_LISTED:
        rows = sorted((row for row in rows if row[3] is not None), key=lambda row: row[3] or 0.0)[:_WORST]
        print_line(f"the {len(rows)} classes with the lowest accuracy, of {len(report.classes)}:")
    print_table(
        ("class", "images", "correct", "top-1"),
        [(name, count, correct, "" if share is None else f"{share:.2f} %") for name, count, correct, share in rows],
    )
    print_line(f"{best} is the best network; curves, log and figures are beside it")


def read_report(folder: Path) -> ClassificationReport | None:
    """The best epoch's report that the run folder holds, if it does."""
    path = folder / files.REPORT
    return ClassificationReport.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None
