"""Pictures of a training: curves over the epochs, the confusion matrix."""

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from overtone.checkpoint import write_with
from overtone.tasks.classification.report import ClassificationReport

_BLUE, _ORANGE, _GREY = "#1f6fb4", "#d9730d", "#6b6b6b"
# told apart also by those who see fewer colours (Okabe and Ito, without the yellow)
_RUNS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_STYLES = ("-", "--", ":", "-.")
_MOST_COUNTS, _MOST_NAMES, _LONGEST_NAME, _LONGEST_LABEL = 20, 100, 24, 48


def plot_curves(rows: Sequence[Mapping[str, Any]], path: Path, title: str = "") -> None:
    """Loss, accuracy and learning rate over the epochs, as a PNG.

    Args:
        rows: the lines of `metrics.jsonl`.
        path: the file; replaced when whole.
        title: over the plot.
    """
    figure = Figure(figsize=(12, 3.6), layout="constrained")
    losses, accuracies, rates = figure.subplots(1, 3)
    epochs = [row["epoch"] for row in rows]
    marker = "o" if len(epochs) < 30 else None
    _lines(losses, epochs, rows, {"train_loss": "training", "val_loss": "validation"}, marker)
    losses.set(title="Loss (mean cross entropy)")
    _lines(accuracies, epochs, rows, {"top1": "top-1", "top5": "top-5"}, marker)
    _mark_best(accuracies, rows)
    accuracies.set(title="Validation accuracy (%)")
    _lines(rates, epochs, rows, {"lr": "learning rate"}, marker)
    rates.set(title="Learning rate (last step of the epoch)")
    rates.set_ylim(bottom=0)
    for axes in (losses, accuracies, rates):
        axes.set_xlabel("epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    losses.legend(frameon=False)
    accuracies.legend(frameon=False)
    if title:
        figure.suptitle(title)
    save_figure(figure, path)


def plot_comparison(runs: Mapping[str, Sequence[Mapping[str, Any]]], path: Path) -> None:
    """Losses and accuracy of several runs over their epochs, as a PNG.

    Args:
        runs: a name for each run and the lines of its `metrics.jsonl`.
        path: the file; replaced when whole.
    """
    figure = Figure(figsize=(12, 3.6 + 0.22 * math.ceil(len(runs) / 3)), layout="constrained")
    longest = max((len(rows) for rows in runs.values()), default=0)
    panels = {"train_loss": "Training loss", "val_loss": "Validation loss", "top1": "Validation top-1 (%)"}
    for axes, (name, title) in zip(figure.subplots(1, 3), panels.items(), strict=True):
        for position, rows in enumerate(runs.values()):
            values = [math.nan if row.get(name) is None else row[name] for row in rows]
            axes.plot(
                [row["epoch"] for row in rows],
                values,
                color=_RUNS[position % len(_RUNS)],
                linestyle=_STYLES[position // len(_RUNS) % len(_STYLES)],
                marker="o" if longest < 30 or len(rows) == 1 else None,
                markersize=3,
                linewidth=1.6,
            )
        axes.set(title=title, xlabel="epoch")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    labels = [label if len(label) <= _LONGEST_LABEL else f"…{label[1 - _LONGEST_LABEL :]}" for label in runs]
    figure.legend(
        figure.axes[0].get_lines(), labels, loc="outside lower center", ncols=min(len(runs), 3), frameon=False
    )
    save_figure(figure, path)


def plot_confusion(report: ClassificationReport, path: Path) -> None:
    """The confusion matrix as a PNG: a row is a true class, its colours are shares of that class's images.

    Up to 20 classes every cell also shows its count; up to 100 every class its name.

    Args:
        report: its `confusion` is drawn.
        path: the file; replaced when whole.
    """
    classes = report.classes
    counts = np.asarray(report.confusion, dtype=np.int64)
    totals = counts.sum(axis=1, keepdims=True)
    shares = counts / np.maximum(totals, 1)
    num_classes = len(classes)
    side = min(max(4.0, 2.5 + 0.45 * num_classes), 18.0)
    figure = Figure(figsize=(side + 1, side), layout="constrained")
    axes = figure.subplots()
    image = axes.imshow(shares, cmap="Blues", vmin=0, vmax=1, interpolation="nearest")
    figure.colorbar(image, ax=axes, label="share of the true class", fraction=0.046, pad=0.02)
    axes.set(xlabel="predicted", ylabel="true")
    axes.set_title(f"Confusion matrix: top-1 {report.top1:.2f} % of {report.num_used} images")
    if num_classes <= _MOST_NAMES:
        size = 9 if num_classes <= _MOST_COUNTS else 6.5
        names = [_shortened(name) for name in classes]
        axes.set_xticks(range(num_classes), names, rotation=90, fontsize=size)
        axes.set_yticks(range(num_classes), names, fontsize=size)
    if num_classes <= _MOST_COUNTS:
        for row, column in np.argwhere(counts > 0):
            color = "white" if shares[row, column] > 0.5 else "black"
            axes.text(column, row, f"{counts[row, column]}", ha="center", va="center", fontsize=8, color=color)
    save_figure(figure, path)


def _lines(
    axes: Axes, epochs: Sequence[int], rows: Sequence[Mapping[str, Any]], names: Mapping[str, str], marker: str | None
) -> None:
    for (name, label), color in zip(names.items(), (_BLUE, _ORANGE), strict=False):
        values = [math.nan if row.get(name) is None else row[name] for row in rows]
        axes.plot(epochs, values, color=color, label=label, marker=marker, markersize=3, linewidth=1.6)


def _mark_best(axes: Axes, rows: Sequence[Mapping[str, Any]]) -> None:
    best = max((row for row in rows if row.get("top1") is not None), key=lambda row: row["top1"], default=None)
    if best is not None:
        axes.axvline(best["epoch"], color=_GREY, linewidth=1, linestyle=":")
        axes.plot(
            best["epoch"], best["top1"], "o", color=_GREY, label=f"best: {best['top1']:.2f} (epoch {best['epoch']})"
        )


def _shortened(name: str) -> str:
    return name if len(name) <= _LONGEST_NAME else name[: _LONGEST_NAME - 1] + "…"


def save_figure(figure: Figure, path: Path) -> None:
    """Write a figure as a PNG; names in it are taken as they are."""
    # Matplotlib reads dollar signs in names as mathematics unless told otherwise
    for text in figure.findobj(match=lambda artist: hasattr(artist, "set_parse_math")):
        text.set_parse_math(False)  # type: ignore[attr-defined]
    canvas = FigureCanvasAgg(figure)
    write_with(path, lambda temporary: canvas.print_png(str(temporary)))
