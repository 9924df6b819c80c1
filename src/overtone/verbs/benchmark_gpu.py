"""`overtone benchmark --gpu-suite`: what only a GPU can show, as tables and a file."""

import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from overtone import options
from overtone.checkpoint import write_text
from overtone.errors import OvertoneError
from overtone.reproduction.gpu.place import Place
from overtone.reproduction.gpu.suite import PARTS, Part, failures, run_suite
from overtone.verbs.benchmark_report import machine
from overtone.verbs.console import as_json, note, print_json, print_line, print_table

FILE = "gpu.json"
DRY = "cpu (dry run)"
_DRY_NOTE = "figures of the CPU, of a few small images: they only show that the code runs, and say nothing of a GPU"


def gpu_suite(chosen: options.Benchmark) -> int:
    """Measure, print, and write; 1 if a case failed.

    Raises:
        OvertoneError: an unknown part, networks of the user's, or a file that is there.
    """
    if chosen.models or chosen.against:
        raise OvertoneError("--gpu-suite has networks of its own; leave out the names, or --gpu-suite")
    parts, path = parts_of(chosen.gpu_parts), None if chosen.out is None else chosen.out / FILE
    if path is not None and path.exists() and not chosen.overwrite:
        raise OvertoneError(f"{path} is there; replace it with --overwrite, or choose another --out")
    report = measured(Place(device_for(chosen.dry)), parts)
    print_json(report) if chosen.json else show(report)
    if path is not None:
        keep(report, path)
    return 1 if failures(report["rows"]) else 0


def parts_of(text: str) -> list[Part]:
    """Parts by their names, with commas between; `all`.

    Raises:
        OvertoneError: there is no such part.
    """
    names = [part.name for part in PARTS]
    words = names if text == "all" else text.split(",")
    for word in words:
        if word not in names:
            raise OvertoneError(f"the GPU suite has no part {word!r}; there are {', '.join(names)}, and all")
    return [part for part in PARTS if part.name in words]


def device_for(dry: bool) -> str:
    """The first GPU, or the CPU where there is none or a dry run is asked for."""
    return "cpu" if dry or not torch.cuda.is_available() else "cuda:0"


def measured(place: Place, parts: Sequence[Part]) -> dict[str, Any]:
    """Run the parts and say where that was."""
    about, started = machine(), time.monotonic()
    if place.is_dry:
        note(f"dry run: {_DRY_NOTE}")
        head = {"device": DRY, "note": _DRY_NOTE}
    else:
        found = torch.cuda.get_device_properties(place.device)
        head = {"device": found.name, "memory_gb": found.total_memory / 1e9, "cuda": torch.version.cuda}
        head |= {"capability": f"{found.major}.{found.minor}", "cudnn": torch.backends.cudnn.version()}
    rows = [{key: _rounded(value) for key, value in row.items()} for row in run_suite(place, parts, say=note)]
    return {**head, "machine": about, "seconds": time.monotonic() - started, "rows": rows}


def keep(report: dict[str, Any], path: Path) -> None:
    """Write a report as JSON."""
    path.parent.mkdir(parents=True, exist_ok=True)
    write_text(path, as_json(report))
    note(f"written: {path}")


def show(report: dict[str, Any]) -> None:
    """Print a table for each part, then what failed."""
    for part in dict.fromkeys(row["part"] for row in report["rows"]):
        rows = [row for row in report["rows"] if row["part"] == part]
        columns = list(dict.fromkeys(key for row in rows for key in row if key not in ("part", "error", "skipped")))
        print_line(f"\n{part}, {report['device']}")
        cells = [[_cell(row.get(column)) for column in columns] + [_status(row)] for row in rows]
        print_table([*columns, ""], cells, left=2 if "form" in columns else 1)
    print_line(f"\n{report['device']}: {report['seconds']:.0f} s; {report.get('note', 'PyTorch ' + torch.__version__)}")
    for row in failures(report["rows"]):
        print_line(f"failed: {row['part']}, {row['case']}: {row.get('error', 'the check was not passed')}")


def _rounded(value: Any) -> Any:
    return float(f"{value:.4g}") if isinstance(value, float) else value


def _status(row: dict[str, Any]) -> str:
    return "failed" if failures([row]) else row.get("skipped", "")


def _cell(value: object) -> object:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if not isinstance(value, float):
        return value
    return f"{value:.2f}" if value == 0 or abs(value) >= 0.1 else f"{value:.1e}"
