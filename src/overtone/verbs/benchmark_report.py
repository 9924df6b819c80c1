"""What `overtone benchmark` found: rows, the machine, and the files that keep them."""

import csv
import os
import platform
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import torch
from matplotlib.axes import Axes
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from overtone.checkpoint import write_with
from overtone.errors import OvertoneError
from overtone.verbs.console import as_json

CSV, JSON, PLOT = "benchmark.csv", "benchmark.json", "benchmark.png"
_LIBRARIES = ("overtone", "timm", "onnxruntime", "openvino", "executorch")
# distinct with impaired colour vision too (Okabe and Ito, without the yellow)
_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#56b4e9", "#e69f00", "#000000")
_MARKERS = "os^vDPX*"


@dataclass(frozen=True)
class Row:
    """One contender.

    Attributes:
        task: inference or training.
        latency_ms: median (the 50th percentile) of a call; p95_ms is the 95th, spread_ms the distance of the quartiles.
        images_per_second: by the median.
        peak_memory_mb: highest point of a call beyond the process without the network; None if not measured.
        multiply_adds: of one image, forward, in the published form of the network; None if it cannot be followed.
        gflops: billions of operations a second, two for each multiply-add; a training step counts three forward passes.
        gemm_share: of what the machine does in a product of matrices in this precision, measured in the same run.
        top1: published, percent, at this size.
    """

    model: str
    task: str
    runtime: str
    precision: str
    batch: int
    size: int
    threads: int
    rounds: int
    latency_ms: float
    p95_ms: float
    spread_ms: float
    images_per_second: float
    peak_memory_mb: float | None
    parameters: int
    multiply_adds: int | None
    gflops: float | None
    gemm_share: float | None
    top1: float | None


@dataclass(frozen=True)
class Report:
    """Everything of one run; `left_out` says why something could not be measured."""

    machine: Mapping[str, Any]
    gemm_gflops: Mapping[str, float]
    rows: tuple[Row, ...]
    left_out: tuple[str, ...]


def machine() -> dict[str, Any]:
    """The processor, its load before the run, and versions."""
    return {
        "processor": _processor(),
        "cores": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "load": round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None,
        "system": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        "torch": str(torch.__version__),  # which build it is, too
        **{name: found for name in _LIBRARIES if (found := _version(name)) is not None},
    }


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def _processor() -> str:
    path = Path("/proc/cpuinfo")
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines() if path.exists() else []
    named = (line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    return next(named, platform.processor() or platform.machine())


def check_out(out: Path, overwrite: bool) -> None:
    """Make the folder, and refuse to replace an earlier report unless that is asked for.

    Raises:
        OvertoneError: there is one, or the folder cannot be made.
    """
    there = [name for name in (CSV, JSON, PLOT) if (out / name).exists()]
    if there and not overwrite:
        raise OvertoneError(f"{out} holds {', '.join(there)}; replace with --overwrite, or choose another --out")
    try:
        out.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OvertoneError(f"{out} cannot be made: {error.strerror}; choose another --out") from error


def write_report(report: Report, out: Path) -> list[Path]:
    """Write the files; those that were written. The plot needs published accuracies."""
    write_with(out / JSON, lambda path: path.write_text(as_json(as_dict(report)), encoding="utf-8"))
    write_with(out / CSV, lambda path: _write_csv(report.rows, path))
    placed = [row for row in report.rows if row.top1 is not None and row.task == "inference"]
    if not placed:
        (out / PLOT).unlink(missing_ok=True)
        return [out / CSV, out / JSON]
    _plot(placed, report.machine, out / PLOT)
    return [out / CSV, out / JSON, out / PLOT]


def as_dict(report: Report) -> dict[str, Any]:
    """The report as JSON takes it."""
    return asdict(report)


def _write_csv(rows: Sequence[Row], path: Path) -> None:
    with path.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, [field.name for field in fields(Row)])
        writer.writeheader()
        writer.writerows(asdict(row) for row in rows)


def _plot(rows: Sequence[Row], machine: Mapping[str, Any], path: Path) -> None:
    """Published accuracy against the latency of one call, and against the multiply-adds, as a PNG."""
    figure = Figure(figsize=(12, 4.8), layout="constrained")
    latency, cost = figure.subplots(1, 2)
    batch = min(row.batch for row in rows)
    kinds = list(dict.fromkeys((row.runtime, row.precision) for row in rows))
    for number, kind in enumerate(kinds):
        found = [row for row in rows if (row.runtime, row.precision) == kind and row.batch == batch]
        latency.plot(
            [row.latency_ms for row in found],
            [row.top1 for row in found],
            linestyle="none",
            color=_COLOURS[number % len(_COLOURS)],
            marker=_MARKERS[number // len(_COLOURS) % len(_MARKERS)],
            label=", ".join(kind),
        )
    fastest: dict[tuple[str, int], Row] = {}
    for row in sorted((row for row in rows if row.batch == batch), key=lambda row: row.latency_ms):
        fastest.setdefault((row.model, row.size), row)
    for row in fastest.values():
        _name(latency, row.model, row.latency_ms, row.top1)
        if row.multiply_adds is not None:
            cost.plot(row.multiply_adds / 1e6, row.top1, "o", color=_COLOURS[0])
            _name(cost, row.model, row.multiply_adds / 1e6, row.top1)
    latency.set(xlabel=f"milliseconds for a batch of {batch} (median), {machine['threads']} threads")
    cost.set(xlabel="multiply-adds of one image (millions)")
    for axes in (latency, cost):
        axes.set(ylabel="published top-1 (%), float32", xscale="log")
        axes.grid(alpha=0.25)
        axes.margins(x=0.15, y=0.15)
        axes.spines[["top", "right"]].set_visible(False)
    figure.legend(*latency.get_legend_handles_labels(), loc="outside lower center", ncols=4, frameon=False)
    figure.suptitle(str(machine["processor"]))
    canvas = FigureCanvasAgg(figure)
    write_with(path, lambda temporary: canvas.print_png(str(temporary)))


def _name(axes: Axes, name: str, x: float, y: float | None) -> None:
    assert y is not None
    axes.annotate(name, (x, y), xytext=(4, 4), textcoords="offset points", fontsize=8, parse_math=False)
