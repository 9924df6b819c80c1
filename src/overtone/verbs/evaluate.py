"""`overtone evaluate`: how often a network is right on labelled samples."""

import functools
import os
from pathlib import Path
from typing import Any

from overtone import options
from overtone.checkpoint import write_text, write_with
from overtone.config import Run, to_dict
from overtone.data.sources import ImageList
from overtone.engine.distributed import World, joined
from overtone.engine.evaluation import Evaluation, measure, model_and_source
from overtone.engine.inference import Inference, ready
from overtone.engine.prediction import predict
from overtone.errors import OvertoneError
from overtone.reports.plots import Artist
from overtone.verbs.console import as_json, note, print_json, print_tables, progress, warn
from overtone.verbs.loading import computing, introduce, loaded_for
from overtone.verbs.running import in_runtime, runtime_of
from overtone.zoo import LoadedModel

_REPORT, _MOST_SHOWN = "evaluation.json", 12


def evaluate(chosen: options.Evaluate) -> int:
    """Evaluate and print; 1 if samples could not be read and that is not allowed.

    Under torchrun or Slurm the processes share the samples, and the first one prints.

    Raises:
        OvertoneError: no such model or data, labels that are not the model's, or files that would be overwritten.
    """
    with joined(Run(device=chosen.run.device)) as world:
        return _evaluate(chosen, world)


def _evaluate(chosen: options.Evaluate, world: World) -> int:
    _refuse_to_overwrite(chosen, [_REPORT])  # before it takes its time
    say, alarm = (note, warn) if world.is_first else (_nothing, _nothing)
    data, part = chosen.data.as_data(), chosen.data.split
    loaded, source = model_and_source(functools.partial(loaded_for, chosen), data, part, say)
    if world.is_first:
        introduce(loaded)
    running, settings = in_runtime(loaded, chosen)
    inference = ready(running, tuple(source.labels), computing(settings))
    name = loaded.source if loaded.published is None else loaded.published.full_name
    where = "" if chosen.runtime == "torch" else f"; in {runtime_of(loaded, chosen)}"
    say(f"{name}: {len(source)} images of {len(source.labels)} classes, {source.origin}{where}")
    with progress("evaluating", len(source)) as done:
        found = measure(inference, source, done, warn=alarm, world=world)
    return _finish(chosen, loaded, inference, found) if world.is_first else 0


def _finish(chosen: options.Evaluate, loaded: LoadedModel, inference: Inference, found: Evaluation) -> int:
    report = found.report
    result = _result(chosen, loaded, inference, found)
    plots = [] if chosen.out is None else report.plots()
    _refuse_to_overwrite(chosen, [_REPORT, *(f"{plot.name}.png" for plot in plots)])
    if chosen.json:
        print_json(result)
    else:
        print_tables(report.tables(full=chosen.per_class))
    if chosen.out is not None:
        shown = _show_worst(inference, found, chosen.out / "worst")
        write_text(chosen.out / _REPORT, as_json(result))
        for plot in plots:
            Artist().plot(plot, chosen.out / f"{plot.name}.png")
        shown = [] if not shown else [f"worst/ of {shown} images"]
        note(f"{chosen.out}: {' and '.join([_REPORT, *(f'{plot.name}.png' for plot in plots), *shown])} written")
    for path in report.bad:
        warn(f"{path} could not be read; it is left out of every figure")
    if report.bad and not chosen.allow_bad:
        note(f"{len(report.bad)} of {report.num_expected} images could not be read (exit code 1; --allow-bad: 0)")
        return 1
    return 0


def _show_worst(inference: Inference, found: Evaluation, folder: Path) -> int:
    """Draw the images with the most faults, what is marked beside what was found; the number of images.

    Only for tasks whose report names such images (`worst`), and whose predictions are drawn `beside` a record's.
    """
    report: Any = found.report
    source, faults = found.source, getattr(report, "worst", ())[:_MOST_SHOWN]
    worst: dict[str, int] = {fault[0]: rank for rank, fault in enumerate(faults, 1)}
    records: list[Any] = [source.read(at) for at in range(len(source)) if worst and source.name(at) in worst]
    if not records:
        return 0
    images = ImageList(source.labels, [record["image"] for record in records], [0] * len(records))
    folder.mkdir(parents=True, exist_ok=True)
    for earlier in folder.glob("[0-9][0-9]-*.png"):
        earlier.unlink()
    for part in predict(inference, images, None, [], warn):
        for one in part:
            record = records[one.position]
            drawn = one.prediction.beside(record["image"], record["boxes"])
            path = folder / f"{worst[one.image]:02}-{Path(one.image).stem}.png"
            write_with(path, lambda to, drawn=drawn: drawn.save(to, format="PNG"))
    return len(records)


def report_of(model: str, run: options.Device, of: options.Tune) -> Any:
    """Report of a network, or of an export of it, as `evaluate` measures it; `of` says how to load it, and the data.

    Raises:
        OvertoneError: as `evaluate`.
    """
    chosen = options.Evaluate(
        model,
        of.data,
        run,
        weights_dir=of.weights_dir,
        architecture=of.architecture,
        ema=of.ema,
    )
    load = functools.partial(loaded_for, chosen)
    loaded, source = model_and_source(load, of.data.as_data(), of.data.split, note)
    return measure(ready(loaded, tuple(source.labels), computing(run)), source, warn=warn).report


def _nothing(text: str) -> None:
    """Say nothing: the first process reports."""


def _refuse_to_overwrite(chosen: options.Evaluate, names: list[str]) -> None:
    if chosen.out is None or chosen.overwrite:
        return
    there = [str(chosen.out / name) for name in names if os.path.lexists(chosen.out / name)]
    if there:
        raise OvertoneError(f"{' and '.join(there)} would be overwritten; choose another --out or add --overwrite")


def _result(chosen: options.Evaluate, loaded: LoadedModel, inference: Inference, found: Evaluation) -> dict[str, Any]:
    return {
        "model": loaded.source,
        "architecture": loaded.architecture,
        "task": loaded.task,
        "data": str(chosen.data.table or chosen.data.root),
        "images": found.source.origin,
        "preprocess": to_dict(inference.preprocess),
        "placement": str(inference.placement),
        "runtime": runtime_of(loaded, chosen),
        "seconds": round(found.seconds, 3),
        **found.report.to_dict(),
    }
