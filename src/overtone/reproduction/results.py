"""The measurements of `overtone reproduce` as files: CSV, which a later call continues, and a Markdown table."""

import csv
import dataclasses
import io
from collections.abc import Sequence
from pathlib import Path

from overtone.checkpoint import write_text
from overtone.errors import OvertoneError
from overtone.published import PUBLISHED
from overtone.reproduction.accuracy import Measurement


def read_results(path: Path) -> list[Measurement]:
    """Read the measurements of a CSV file; an unfinished last line is ignored.

    Raises:
        OvertoneError: the file is not such a table.
    """
    if not path.exists():
        return []
    names = [field.name for field in dataclasses.fields(Measurement)]
    text = path.read_text(encoding="utf-8")
    rows = list(csv.reader(io.StringIO(text[: text.rfind("\n") + 1])))
    if not rows or rows[0] != names:
        raise OvertoneError(f"{path} is not a table of overtone reproduce; choose another folder with --out")
    return [_from_cells(dict(zip(names, row, strict=True))) for row in rows[1:] if len(row) == len(names)]


def write_results(path: Path, measurements: list[Measurement]) -> None:
    """Write the CSV file atomically."""
    names = [field.name for field in dataclasses.fields(Measurement)]
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(names)
    for measurement in measurements:
        values = (getattr(measurement, name) for name in names)
        writer.writerow(["" if value is None else value for value in values])
    write_text(path, text.getvalue())


def _from_cells(cells: dict[str, str]) -> Measurement:
    integers = {"resolution", "images", "unreadable", "correct_top1", "correct_top5"}
    numbers = {"crop_fraction", "top1", "top5", "published_top1", "published_top5", "seconds"}
    values: dict[str, object] = {}
    for name, cell in cells.items():
        if name in integers:
            values[name] = int(cell)
        elif name in numbers:
            values[name] = float(cell) if cell else None
        else:
            values[name] = cell
    return Measurement(**values)  # type: ignore[arg-type]  # by the names of its fields


def as_markdown(results: Sequence[Measurement]) -> str:
    """Format the measurements as a Markdown table, in the order of the published rows."""
    head = "| published row | protocol | images | top-1 | published | top-5 | published | verdict |"
    order = {row.full_name: place for place, row in enumerate(PUBLISHED)}
    lines = [head, "|---|---|---:|---:|---:|---:|---:|---|"]
    for result in sorted(results, key=lambda result: order.get(result.model, len(order))):
        published = ["" if value is None else f"{value:g}" for value in (result.published_top1, result.published_top5)]
        way = f"{result.protocol}, {result.resolution} pixels, {result.interpolation}"
        lines.append(
            f"| `{result.model}` | {way} | {result.images} | {result.top1:.3f} | {published[0]} | {result.top5:.3f} "
            f"| {published[1]} | {result.verdict} |"
        )
    return "\n".join(lines) + "\n"
