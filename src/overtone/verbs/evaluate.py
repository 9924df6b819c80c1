"""`overtone evaluate`: how often a network is right on labelled samples."""

import functools
import os
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from overtone import options
from overtone.checkpoint import write_text, write_with
from overtone.config import Run, to_dict
from overtone.data.sources import Source
from overtone.engine.distributed import WEEK, World, joined
from overtone.engine.evaluation import Evaluation, measure, model_and_source
from overtone.engine.evaluation_parts import measure_parts
from overtone.engine.inference import Inference, ready
from overtone.engine.interrupt import StopRequest
from overtone.engine.prediction_parts import Wanted
from overtone.engine.showing import examples_of, write_beside_truth
from overtone.errors import OvertoneError
from overtone.reports.confusion import IMAGES, Judged, add_judged, write_images
from overtone.reports.plots import Artist
from overtone.verbs.console import as_json, note, print_json, print_tables, progress, warn
from overtone.verbs.loading import computing, introduce, loaded_for
from overtone.verbs.running import inference_in_runtime, runtime_of
from overtone.zoo import LoadedModel

_REPORT, _EXAMPLES = "evaluation.json", "examples"


def evaluate(chosen: options.Evaluate) -> int:
    """Evaluate and print; 1 if samples could not be read and that is not allowed.

    Under torchrun or Slurm the processes share the samples, and the first one prints.

    Raises:
        OvertoneError: no such model or data, labels that are not the model's, or files that would be overwritten.
    """
    if chosen.parts is None:
        with joined(Run(device=chosen.run.device)) as world:
            return _evaluate(chosen, world)
    # a share may take hours longer than another, so nobody is given up for that
    with StopRequest().handled(), joined(Run(device=chosen.run.device, timeout=WEEK)) as world:
        return _evaluate(chosen, world)


def _evaluate(chosen: options.Evaluate, world: World) -> int:
    _refuse_to_overwrite(chosen, [_REPORT, IMAGES])  # before it takes its time
    say, alarm = (note, warn) if world.is_first else (_nothing, _nothing)
    data, part = chosen.data.as_data(), chosen.data.split
    loaded, source = model_and_source(functools.partial(loaded_for, chosen), data, part, say, world)
    if world.is_first:
        introduce(loaded)
    inference = inference_in_runtime(loaded, tuple(source.labels), chosen, len(source))
    name = loaded.source if loaded.published is None else loaded.published.full_name
    where = "" if chosen.runtime == "torch" else f"; in {runtime_of(loaded, chosen)}"
    say(f"{name}: {len(source)} images of {len(source.labels)} classes, {source.origin}{where}")
    judged: list[Judged] | None = [] if _keeps_images(chosen, loaded, world) else None
    seen = None if judged is None else functools.partial(add_judged, judged, source)
    with progress("evaluating", len(source)) as done:
        if chosen.parts is None:
            found = measure(inference, source, done, warn=alarm, world=world, seen=seen)
        else:
            found = _measure_parts(chosen, chosen.parts, inference, source, name, done, world)
    return _finish(chosen, loaded, inference, found, judged) if world.is_first else 0


def _keeps_images(chosen: options.Evaluate, loaded: LoadedModel, world: World) -> bool:
    """Whether a line is written for each image, for the page that shows what is behind a confusion."""
    wanted = chosen.out is not None and chosen.parts is None
    return wanted and loaded.task == "classification" and world.is_alone


def _measure_parts(
    chosen: options.Evaluate,
    folder: Path,
    inference: Inference,
    source: Source,
    name: str,
    done: Callable[[int], object],
    world: World,
) -> Evaluation:
    alarm, started = warn if world.is_first else _nothing, time.perf_counter()
    wanted = Wanted(part_size=chosen.part_size)
    report = measure_parts(inference, source, folder, wanted, model=name, warn=alarm, progress=done, world=world)
    return Evaluation(report, source, time.perf_counter() - started)


def _finish(
    chosen: options.Evaluate,
    loaded: LoadedModel,
    inference: Inference,
    found: Evaluation,
    judged: Sequence[Judged] | None,
) -> int:
    report = found.report
    result = _result(chosen, loaded, inference, found)
    plots = [] if chosen.out is None else report.plots()
    shows = [_EXAMPLES] if getattr(report, "worst", ()) else []
    _refuse_to_overwrite(chosen, [_REPORT, *(f"{plot.name}.png" for plot in plots), *shows])
    if chosen.json:
        print_json(result)
    else:
        print_tables(report.tables(full=chosen.per_class))
    if chosen.out is not None:
        write_text(chosen.out / _REPORT, as_json(result))
        for plot in plots:
            Artist().plot(plot, chosen.out / f"{plot.name}.png")
        positions = examples_of(report, found.source).items()
        placed = inference.model, inference.placement, found.source, positions, chosen.out / _EXAMPLES
        shown = write_beside_truth(inference.task, *placed, inference.transform)
        kept = [*([] if judged is None else [IMAGES]), *([f"{_EXAMPLES}/"] if shown else [])]
        if judged is not None:
            write_with(chosen.out / IMAGES, lambda path: write_images(path, judged))
        note(f"{chosen.out}: {' and '.join([_REPORT, *(f'{plot.name}.png' for plot in plots), *kept])} written")
    for path in report.bad:
        reason = found.reasons.get(path, "its part says why")
        warn(f"{path} could not be read: {reason}; it is left out of every figure")
    if report.bad and not chosen.allow_bad:
        note(f"{len(report.bad)} of {report.num_expected} images could not be read (exit code 1; --allow-bad: 0)")
        return 1
    return 0


def report_of(model: str, run: options.Device, of: options.Tune) -> Any:
    """Report of a network, or of an export of it, as `evaluate` measures it; `of` says how to load it, and the data.

    Raises:
        OvertoneError: as `evaluate`.
    """
    chosen = options.Evaluate(
        model,
        data=of.data,
        run=run,
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
