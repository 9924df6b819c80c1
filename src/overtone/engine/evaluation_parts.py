"""An evaluation in parts, by any number of processes, resumable: what the network says of each image, and the figures.

Beside each Parquet part lies what was counted of its images (`*.counts.safetensors`), written after it, so that a later
call counts the missing parts alone and makes the figures of all of them.
"""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from overtone.data.caching import write_whole
from overtone.data.sources import Source
from overtone.engine.distributed import World
from overtone.engine.inference import Inference
from overtone.engine.prediction_parts import (
    PartRows,
    Wanted,
    answers_of,
    begin,
    part_path,
    pyarrow_modules,
    schema_of,
)
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json


def measure_parts(
    inference: Inference,
    source: Source,
    folder: Path,
    wanted: Wanted,
    *,
    model: str,
    warn: Callable[[str], object],
    progress: Callable[[int], object] | None = None,
    world: World | None = None,
) -> Any:
    """Write this process's parts, and report on all of them.

    Args:
        inference: the network.
        source: labelled samples.
        folder: for the parts; the processes share it.
        wanted: answers and images of a part.
        model: display name of the network.
        warn: called with a line when fewer processes read than was wanted.
        progress: called with the number of this process's images done so far.
        world: the processes that evaluate together.

    Returns:
        The task's report on the first process, None on the others.

    Raises:
        OvertoneError: as `write_parts`; or a task whose counts cannot be written, or not a single image that can be
            read.
    """
    world = world or World()
    _to_json(inference.task.tally().counted(), [])
    pyarrow_modules()
    begin(folder, inference, source, wanted, model, world, f"evaluation, {wanted.top_k} answers at most")
    number, done = -(-len(source) // wanted.part_size), 0
    for part in range(world.rank, number, world.size):
        span = range(part * wanted.part_size, min((part + 1) * wanted.part_size, len(source)))
        if not _counts_path(folder, part).exists():
            _write_part(inference, source, span, part_path(folder, part), wanted, warn)
        done += len(span)
        if progress is not None:
            progress(done)
    world.gather(None)  # all parts are there
    return _report(inference, folder, number) if world.is_first else None


def _write_part(
    inference: Inference, source: Source, span: range, path: Path, wanted: Wanted, warn: Callable[[str], object]
) -> None:
    arrow, parquet = pyarrow_modules()
    task, rows = inference.task, PartRows(source, [span])
    tally, forward, bad = task.tally(), inference.placement.forward(inference.model), []
    loader = inference.loader(rows, warn)
    try:
        with torch.no_grad():
            for batch in loader:
                if batch.num_samples:
                    outputs = task.predict(forward, inference.placement.inputs(batch.inputs))
                    names = [rows.name(at) for at in batch.ids.tolist()]
                    tally.add(outputs, inference.placement.targets(batch.targets), names)
                    rows.put(batch.ids.tolist(), answers_of(inference, outputs, wanted))
                rows.put([at for at, _ in batch.bad], [{"error": reason} for _, reason in batch.bad])
                bad += [rows.name(at) for at, _ in batch.bad]
    finally:
        loader.close()
    ((_, found),) = rows.complete()
    table = arrow.Table.from_pylist(found, schema=schema_of(arrow, wanted, found, task))
    entry = getattr(source, "entry", None)
    if entry is not None:
        expected = arrow.array([entry(position)[1] for position in span], arrow.string())
        table = table.add_column(3, "expected", expected)
    write_whole(path, lambda part: parquet.write_table(table, part))
    tensors: list[Tensor] = []
    about = json.dumps({"counted": _to_json(tally.counted(), tensors), "bad": bad, "used": len(span) - len(bad)})
    named = {str(at): tensor.contiguous() for at, tensor in enumerate(tensors)}
    counts = path.with_suffix(_COUNTS)
    write_whole(counts, lambda part: save_file(named, part, metadata={"about": about}))


def _report(inference: Inference, folder: Path, number: int) -> Any:
    counted, bad, used = [], [], 0
    for part in range(number):
        path = _counts_path(folder, part)
        try:
            with safe_open(path, "pt") as file:
                about = parse_json((file.metadata() or {})["about"])
                counted.append(_from_json(about["counted"], file))
            bad += about["bad"]
            used += about["used"]
        except (OSError, SafetensorError, ValueError, KeyError, TypeError) as error:
            raise OvertoneError(
                f"{path} cannot be read ({error}); remove it and give the same command again"
            ) from error
    if not used:
        raise OvertoneError(f"none of the {len(bad)} images could be read ({', '.join(bad[:1])} …); check the files")
    return inference.task.tally().joined(counted).report(bad)


_COUNTS = ".counts.safetensors"


def _counts_path(folder: Path, part: int) -> Path:
    return part_path(folder, part).with_suffix(_COUNTS)


def _to_json(value: Any, tensors: list[Tensor]) -> Any:
    """What a tally counted as JSON values, its tensors by their numbers.

    Raises:
        OvertoneError: it holds something else.
    """
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if isinstance(value, (list, tuple)):
        values = [_to_json(one, tensors) for one in value]
        return {"tuple": values} if isinstance(value, tuple) else values
    if isinstance(value, (int, float, str)):
        return value
    raise OvertoneError("this task cannot be evaluated in parts; leave --parts out")


def _from_json(value: Any, file: Any) -> Any:
    if isinstance(value, dict):
        if "tensor" in value:
            return file.get_tensor(str(value["tensor"]))
        return tuple(_from_json(one, file) for one in value["tuple"])
    return [_from_json(one, file) for one in value] if isinstance(value, list) else value
