"""What a run draws: its plots, and images with what a network gives beside the truth, where its task can draw it."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import nn

from overtone.checkpoint import write_with
from overtone.data.decoding import BadImage
from overtone.data.pipeline import NO_DRAW
from overtone.data.sources import Source
from overtone.engine.log import Row
from overtone.engine.placement import Placement
from overtone.tasks.task import Plot, Task

_MOST, _ALL = 4, 1_000_000  # images of a kind, answers


class Artist(Protocol):
    """Draws the plots of a run; `reports` has one."""

    def curves(self, rows: Sequence[Row], path: Path, title: str) -> None:
        """Draw loss, score and learning rate by epoch."""
        ...

    def plot(self, plot: Plot, path: Path) -> None:
        """Draw one plot of a report."""
        ...


def examples_of(report: Any, source: Source) -> dict[str, int]:
    """The samples to show, name of a file and position: the worst of a report, and some at even distances.

    None where the report has no `worst`: its task draws nothing.
    """
    if not hasattr(report, "worst"):
        return {}
    by_name = {source.name(position): position for position in range(len(source))}
    worst = [by_name[name] for name, *_ in report.worst[:_MOST] if name in by_name]
    others = [position for position in range(0, len(source), max(len(source) // _MOST, 1)) if position not in worst]
    return {f"worst-{at + 1}": position for at, position in enumerate(worst)} | {
        f"example-{at + 1}": position for at, position in enumerate(others[:_MOST])
    }


def write_beside_truth(
    task: Task[Any],
    model: nn.Module,
    placement: Placement,
    source: Source,
    positions: Iterable[tuple[str, int]],
    folder: Path,
    transform: Any = None,
) -> list[Path]:
    """Write `<name>-<image>.png` for samples; nothing where the task's predictions have no `beside`.

    Args:
        task: makes the predictions.
        model: the network, in eval mode.
        placement: where it is.
        source: the samples.
        positions: a name for each file, and the sample's position.
        folder: is made where it is not there.
        transform: of `Task.pipeline`.
    """
    forward, pipeline = placement.forward(model), task.pipeline(train=False, transform=transform)
    written: list[Path] = []
    for name, position in positions:
        try:
            record = source.read(position)
            sample = pipeline.transform(pipeline.decode(record), NO_DRAW)
        except (BadImage, OSError):
            continue  # it is named by the evaluation
        batch = pipeline.collate([sample], torch.tensor([position]), ())
        with torch.inference_mode():
            outputs = task.predict(forward, placement.inputs(batch.inputs))
        prediction = task.predictions(outputs, _ALL)[0]
        if not hasattr(prediction, "beside"):
            return written
        folder.mkdir(parents=True, exist_ok=True)
        path = folder / f"{name}-{Path(source.name(position)).stem}.png"
        drawn = prediction.beside(record.get("image", b""), record[task.target])
        write_with(path, lambda part, drawn=drawn: drawn.save(part, format="PNG"))
        written.append(path)
    return written
