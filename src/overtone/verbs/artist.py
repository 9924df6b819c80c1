"""What a training draws: its curves, and the plots of a report."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from overtone.engine.log import Row
from overtone.tasks.task import Plot
from overtone.verbs.plots import plot_confusion, plot_curves


class Artist:
    """Draws with matplotlib."""

    def curves(self, rows: Sequence[Row], path: Path, title: str) -> None:
        """Draw loss, score and learning rate by epoch."""
        plot_curves(rows, path, title)

    def plot(self, plot: Plot, path: Path) -> None:
        """Draw one plot of a report."""
        plot_confusion(cast(Any, SimpleNamespace(classes=plot.labels, confusion=plot.values, top1=0, num_used=0)), path)
