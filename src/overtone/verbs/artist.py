"""What a training draws: its curves, and the plots of a report."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

from matplotlib.figure import Figure

from overtone.engine.log import Row
from overtone.tasks.task import Plot
from overtone.verbs.plots import plot_confusion, plot_curves, save_figure


class Artist:
    """Draws with matplotlib."""

    def curves(self, rows: Sequence[Row], path: Path, title: str) -> None:
        """Draw loss, score and learning rate by epoch."""
        plot_curves(rows, path, title)

    def plot(self, plot: Plot, path: Path) -> None:
        """Draw one plot of a report."""
        if plot.kind == "matrix":
            drawn = SimpleNamespace(classes=plot.labels, confusion=plot.values, top1=0, num_used=0)
            plot_confusion(cast(Any, drawn), path)
            return
        figure = Figure(figsize=(8, 3 + 0.22 * len(plot.labels)), layout="constrained")
        axes = figure.subplots()
        if plot.kind == "bars":
            places = range(len(plot.labels))
            axes.barh(places, [float(value) for row in plot.values for value in row])
            axes.set_yticks(places, plot.labels)
            axes.invert_yaxis()
            axes.set(xlabel=plot.axes[0])
        for name, (x, y) in plot.series.items():
            axes.plot(x, y, label=name)
            axes.set(xlabel=plot.axes[0], ylabel=plot.axes[1])
        if len(plot.series) > 1:
            axes.legend(fontsize=8)
        axes.set_title(plot.title)
        save_figure(figure, path)
