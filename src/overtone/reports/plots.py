"""Plots as PNG: those of a report (`tasks.task.Plot`), and the curves of one run or of several."""

import math
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator, NullFormatter

from overtone.checkpoint import write_with
from overtone.reports.epochs import Row, best_of, score_name_of, score_of
from overtone.tasks.task import Plot

_GREY = "#6b6b6b"
# distinguishable with colour blindness (Okabe and Ito, without the yellow)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLES = ("-", "--", ":", "-.")
_MOST_COUNTS, _MOST_NAMES, _LONGEST_NAME, _LONGEST_LABEL = 20, 100, 24, 48
_FEW_POINTS = 30


class Artist:
    """Draws what a training asks for."""

    def curves(self, rows: Sequence[Row], path: Path, title: str) -> None:
        """Draw loss, score and learning rate by epoch."""
        plot_curves(rows, path, title)

    def plot(self, plot: Plot, path: Path) -> None:
        """Draw one plot of a report."""
        draw(plot, path)


def draw(plot: Plot, path: Path) -> None:
    """Draw a plot of a report as a PNG, which is written atomically.

    Raises:
        ValueError: a kind of plot that does not exist.
    """
    if plot.kind not in _KINDS:
        raise ValueError(f"no plot is of kind {plot.kind!r}; the kinds are {', '.join(_KINDS)}")
    _save(_KINDS[plot.kind](plot), path)


def plot_curves(rows: Sequence[Row], path: Path, title: str = "") -> None:
    """Draw loss, validation figures and learning rate over the epochs as a PNG.

    Args:
        rows: the lines of `metrics.jsonl`.
        path: the file, which is replaced atomically.
        title: over the plot.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    losses, scores, rates = figure.subplots(1, 3)
    _by_epoch(losses, rows, {"training": "train_loss", "validation": "val_loss"})
    losses.set(title="Loss")
    name = score_name_of(rows)
    values = [score_of(row) for row in rows]
    further = {"top-5": [row.get("top5") for row in rows]} if any(row.get("top5") is not None for row in rows) else {}
    _lines(scores, [row["epoch"] for row in rows], {name: values, **further})
    _mark_best(scores, rows)
    scores.set(title=f"Validation {name}")
    _by_epoch(rates, rows, {"learning rate": "lr"})
    rates.set(title="Learning rate (last step of the epoch)")
    rates.set_ylim(bottom=0)
    for axes in (losses, scores, rates):
        _style(axes, "epoch")
    losses.legend(frameon=False)
    scores.legend(frameon=False)
    if title:
        figure.suptitle(title)
    _save(figure, path)


def plot_comparison(runs: Mapping[str, Sequence[Row]], path: Path) -> None:
    """Draw losses and score of several runs over their epochs as a PNG.

    Args:
        runs: a name for each run and the lines of its `metrics.jsonl`.
        path: the file, which is replaced atomically.
    """
    figure = Figure(figsize=(12, 3.6 + 0.22 * math.ceil(len(runs) / 3)), layout="constrained")
    names = dict.fromkeys(score_name_of(rows) for rows in runs.values() if rows)
    panels: dict[str, Callable[[Row], Any]] = {
        "Training loss": lambda row: row.get("train_loss"),
        "Validation loss": lambda row: row.get("val_loss"),
        f"Validation {' or '.join(names) or 'score'}": score_of,
    }
    for axes, (title, value) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for position, rows in enumerate(runs.values()):
            _line(axes, [row["epoch"] for row in rows], [value(row) for row in rows], position)
        axes.set(title=title)
        _style(axes, "epoch")
    labels = [label if len(label) <= _LONGEST_LABEL else f"…{label[1 - _LONGEST_LABEL :]}" for label in runs]
    figure.legend(
        figure.axes[0].get_lines(), labels, loc="outside lower center", ncols=min(len(runs), 3), frameon=False
    )
    _save(figure, path)


def _matrix(plot: Plot) -> Figure:
    """Draw counts with the colours of their shares of a row; up to 20 rows with the counts, up to 100 with names."""
    counts = np.asarray(plot.values, dtype=np.int64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    size = len(plot.labels)
    side = min(max(4.0, 2.5 + 0.45 * size), 18.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the row", fraction=0.046, pad=0.02)
    axes.set(xlabel=plot.axes[0], ylabel=plot.axes[1])
    axes.set_title(plot.title)
    if size <= _MOST_NAMES:
        points = 9 if size <= _MOST_COUNTS else 6.5
        names = [_shortened(name) for name in plot.labels]
        axes.set_xticks(range(size), names, rotation=90, fontsize=points)
        axes.set_yticks(range(size), names, fontsize=points)
    if size <= _MOST_COUNTS:
        for row, column in np.argwhere(counts > 0):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8, color=color)
    return figure


def _curves(plot: Plot) -> Figure:
    figure = Figure(figsize=(7, 5), layout="constrained")
    axes = figure.subplots()
    for position, (name, (x, y)) in enumerate(plot.series.items()):
        _line(axes, x, y, position, _shortened(name))
    axes.set(title=plot.title, ylabel=plot.axes[1])
    _style(axes, plot.axes[0], whole=False)
    if len(plot.series) > 1:
        axes.legend(frameon=False, fontsize=8)
    return figure


def _log_curves(plot: Plot) -> Figure:
    """Draw curves over a logarithmic axis."""
    figure = _curves(plot)
    axis = figure.axes[0].xaxis
    figure.axes[0].set_xscale("log")
    axis.set_major_formatter(lambda value, _: f"{value:g}")  # the default is mathematics, which `_save` switches off
    axis.set_minor_formatter(NullFormatter())
    return figure


def _bars(plot: Plot) -> Figure:
    """Draw horizontal bars, one per label, from the top; each row of `values` is one series."""
    rows = np.asarray(plot.values, dtype=float)
    figure = Figure(figsize=(8, min(max(2.5, 1.2 + 0.28 * len(plot.labels)), 30.0)), layout="constrained")
    axes = figure.subplots()
    height = 0.8 / max(len(rows), 1)
    for position, row in enumerate(rows):
        places = np.arange(len(plot.labels)) + (position - (len(rows) - 1) / 2) * height
        axes.barh(places, row, height=height, color=_COLOURS[position % len(_COLOURS)])
    axes.set_yticks(range(len(plot.labels)), [_shortened(name) for name in plot.labels], fontsize=8)
    axes.invert_yaxis()
    axes.set(title=plot.title, ylabel=plot.axes[1])
    _style(axes, plot.axes[0], whole=False)
    return figure


_KINDS: Mapping[str, Callable[[Plot], Figure]] = {
    "matrix": _matrix,
    "curves": _curves,
    "bars": _bars,
    "log_curves": _log_curves,
}


def _by_epoch(axes: Axes, rows: Sequence[Row], names: Mapping[str, str]) -> None:
    series = {label: [row.get(name) for row in rows] for label, name in names.items()}
    _lines(axes, [row["epoch"] for row in rows], series)


def _lines(axes: Axes, x: Sequence[float], series: Mapping[str, Sequence[float | None]]) -> None:
    for position, (label, values) in enumerate(series.items()):
        _line(axes, x, values, position, label)


def _line(axes: Axes, x: Sequence[float], y: Sequence[float | None], position: int, label: str | None = None) -> None:
    axes.plot(
        x,
        [math.nan if value is None else value for value in y],
        color=_COLOURS[position % len(_COLOURS)],
        linestyle=_STYLES[position // len(_COLOURS) % len(_STYLES)],
        marker="o" if len(x) < _FEW_POINTS or None in y else None,  # not every epoch is evaluated
        markersize=3,
        linewidth=1.6,
        label=label,
    )


def _style(axes: Axes, xlabel: str, *, whole: bool = True) -> None:
    axes.set_xlabel(xlabel)
    if whole:
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)


def _mark_best(axes: Axes, rows: Sequence[Row]) -> None:
    best = best_of(rows)
    score = None if best is None else score_of(best)
    if best is not None and score is not None:
        axes.axvline(best["epoch"], color=_GREY, linewidth=1, linestyle=":")
        axes.plot(best["epoch"], score, "o", color=_GREY, label=f"best: {score:.2f} (epoch {best['epoch']})")


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def _save(figure: Figure, path: Path) -> None:
    # Matplotlib reads dollar signs in names as mathematics by default
    for text in figure.findobj(match=lambda artist: hasattr(artist, "set_parse_math")):
        text.set_parse_math(False)  # type: ignore[attr-defined]
    canvas = FigureCanvasAgg(figure)
    write_with(path, lambda temporary: canvas.print_png(str(temporary)))
