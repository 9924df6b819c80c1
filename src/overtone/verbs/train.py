"""`overtone train`: from a recipe and labelled samples to a run folder with the trained network."""

import math
import os

from overtone.config import Recipe, Run
from overtone.engine import folder as files
from overtone.engine.distributed import is_first
from overtone.engine.log import duration
from overtone.engine.summary import Summary
from overtone.engine.training import train as run_training
from overtone.reports.plots import Artist
from overtone.tasks.task import Report
from overtone.verbs.console import print_line, print_tables


def train(recipe: Recipe, run: Run, name: str, resume: bool = False) -> Summary:
    """Train by a recipe and print how it ended, the first of several processes for all; see `engine.training.train`."""
    summary = run_training(recipe, run, name, resume, artist=Artist())
    if is_first(os.environ):
        print_summary(summary)
    return summary


def print_summary(summary: Summary) -> None:
    """Print how the training ended, on standard output."""
    report, best = summary.report, summary.folder / files.BEST
    if report is None:
        print_line(
            f"{summary.epochs} epochs without validation images, in {duration(summary.seconds)}; "
            f"{best} is the network of the last one; curves, log and figures are beside it"
        )
        return
    print_line(
        f"best epoch {summary.best_epoch} of {summary.epochs}: {_scored(report)} "
        f"on {report.num_used} of {report.num_expected} validation images; "
        f"{duration(summary.seconds)} in all"
    )
    print_tables(report.tables()[1:2])
    if summary.test is not None:
        test = summary.test
        print_line(f"test: {_scored(test)} on {test.num_used} of {test.num_expected} images that no choice depended on")
    print_line(f"{best} is the best network; curves, log and figures are beside it")


def _scored(report: Report) -> str:
    """The score, and the loss where the task measures one."""
    score = f"{report.score_name} {report.score:.2f} %"
    return score if math.isnan(report.loss) else f"{score}, loss {report.loss:.4f}"
