"""Predictions of many images as Parquet parts, by any number of processes on any number of machines, resumable.

The source is cut into parts of equal numbers of neighbours; each part is one file, written whole or not at all, and is
written by one process. A later call, of another number of processes too, writes the parts that are missing, so that
all together hold every image exactly once.
"""

import hashlib
import importlib
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from overtone.data.caching import write_whole
from overtone.data.sources import Record, Source
from overtone.engine.distributed import World
from overtone.engine.inference import Inference
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

ABOUT = "predictions.json"
PART_SIZE = 8192
"""Images of a part."""

Dtype = Literal["float32", "float16"]


@dataclass(frozen=True)
class Wanted:
    """What is predicted.

    Attributes:
        top_k: most answers for an image; None: the task's usual number.
        threshold: lowest score of an answer; None: the task's own.
        features: write the pooled features before the classifier instead of answers.
        dtype: of the features.
        part_size: images of a part.
    """

    top_k: int | None = None
    threshold: float | None = None
    features: bool = False
    dtype: Dtype = "float32"
    part_size: int = PART_SIZE


@dataclass(frozen=True)
class Written:
    """What a process has written.

    Attributes:
        images: number of images, those that could not be read among them.
        parts: number of files.
        kept: parts of this process's share that were there.
        bad: name and reason of each image that could not be read.
    """

    images: int
    parts: int
    kept: int
    bad: tuple[tuple[str, str], ...]


def write_parts(
    inference: Inference,
    source: Source,
    folder: Path,
    wanted: Wanted,
    *,
    model: str,
    warn: Callable[[str], object],
    progress: Callable[[int], object] | None = None,
    world: World | None = None,
) -> Written:
    """Write this process's parts of the predictions of all images of a source.

    Args:
        inference: the network.
        source: the images.
        folder: for the parts and `predictions.json`, which says what they are of.
        wanted: what to predict.
        model: display name of the network.
        warn: called with a line when fewer processes read than was wanted.
        progress: called with the number of this process's images done so far.
        world: the processes that share the images.

    Raises:
        OvertoneError: pyarrow is not installed, the folder holds predictions of other images or of another network, or
            the network has no features.
    """
    world = world or World()
    arrow, parquet = pyarrow_modules()
    begin(folder, inference, source, wanted, model, world)
    answer = _features(inference, wanted.dtype) if wanted.features else _answers(inference, wanted)
    mine = range(world.rank, -(-len(source) // wanted.part_size), world.size)
    missing = [part for part in mine if not part_path(folder, part).exists()]
    spans = [range(part * wanted.part_size, min((part + 1) * wanted.part_size, len(source))) for part in missing]
    bad: list[tuple[str, str]] = []
    done = 0
    if missing:
        rows = PartRows(source, spans)
        loader = inference.loader(rows, warn)
        try:
            for batch in loader:
                if batch.num_samples:
                    with torch.inference_mode():
                        found = answer(inference.placement.inputs(batch.inputs))
                    rows.put(batch.ids.tolist(), found)
                rows.put([at for at, _ in batch.bad], [{"error": reason} for _, reason in batch.bad])
                bad += [(rows.name(at), reason) for at, reason in batch.bad]
                done += batch.num_samples + len(batch.bad)
                for at, complete in rows.complete():
                    table = arrow.Table.from_pylist(complete, schema=schema_of(arrow, wanted, complete, inference.task))
                    path = part_path(folder, missing[at])
                    write_whole(path, lambda part, table=table: parquet.write_table(table, part))
                if progress is not None:
                    progress(done)
        finally:
            loader.close()
    return Written(done, len(missing), len(mine) - len(missing), tuple(bad))


class PartRows:
    """The images of some parts as a source, and the rows of those that are not complete."""

    def __init__(self, source: Source, spans: Sequence[range]) -> None:
        self._source, self._spans = source, tuple(spans)
        self._ends = np.cumsum([len(span) for span in spans])
        self._rows: list[dict[str, Any]] = []
        self._first = 0  # part that the rows begin with

    @property
    def labels(self) -> tuple[str, ...]:
        """The source's."""
        return self._source.labels

    @property
    def origin(self) -> str:
        """The source's."""
        return self._source.origin

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_rows": []}

    def __len__(self) -> int:
        return int(self._ends[-1])

    def _at(self, position: int) -> int:
        part = int(np.searchsorted(self._ends, position, side="right"))
        return self._spans[part][position - (int(self._ends[part - 1]) if part else 0)]

    def name(self, position: int) -> str:
        """The source's name of the image."""
        return self._source.name(self._at(position))

    def read(self, position: int) -> Record:
        """The source's record."""
        return self._source.read(self._at(position))

    def put(self, positions: Sequence[int], found: Sequence[dict[str, Any]]) -> None:
        """Keep what was found of images."""
        for position, values in zip(positions, found, strict=True):
            self._rows.append({"position": self._at(position), "key": self.name(position), "error": None, **values})

    def complete(self) -> list[tuple[int, list[dict[str, Any]]]]:
        """The parts that have become complete, and their rows in order; images come in order, batch by batch."""
        found = []
        while self._first < len(self._spans) and len(self._rows) >= len(self._spans[self._first]):
            size = len(self._spans[self._first])
            self._rows.sort(key=lambda row: row["position"])
            found.append((self._first, self._rows[:size]))
            self._rows = self._rows[size:]
            self._first += 1
        return found


def _answers(inference: Inference, wanted: Wanted) -> Callable[[Tensor], list[dict[str, Any]]]:
    forward = inference.placement.forward(inference.model)

    def answer(inputs: Tensor) -> list[dict[str, Any]]:
        outputs = inference.task.predict(forward, inputs)
        return answers_of(inference, outputs, wanted)

    return answer


def answers_of(inference: Inference, outputs: Any, wanted: Wanted) -> list[dict[str, Any]]:
    """What the rows of some images hold of what the network gave."""
    found = inference.task.predictions(outputs, wanted.top_k, wanted.threshold)
    return [getattr(one, "to_row", one.to_dict)() for one in found]


def _features(inference: Inference, dtype: Dtype) -> Callable[[Tensor], list[dict[str, Any]]]:
    """Pooled features as timm's networks give them: what their classifier takes.

    Raises:
        OvertoneError: the network has none.
    """
    if not hasattr(inference.model, "forward_head"):
        name = type(inference.model).__name__
        raise OvertoneError(f"{name} gives no features; take a classifier, in the runtime torch")
    network: Any = inference.model

    def pooled(inputs: Tensor) -> Tensor:
        return network.forward_head(network.forward_features(inputs), pre_logits=True)

    forward = inference.placement.forward(pooled)

    def answer(inputs: Tensor) -> list[dict[str, Any]]:
        features = forward(inputs).flatten(1).cpu().numpy().astype(dtype)
        return [{"features": row} for row in features]

    return answer


def schema_of(arrow: Any, wanted: Wanted, rows: Sequence[dict[str, Any]], task: Any) -> Any:
    """Columns of a part; those of answers are found from its rows."""
    columns = [("position", arrow.int64()), ("key", arrow.string()), ("error", arrow.string())]
    if wanted.features:
        kind = arrow.float16() if wanted.dtype == "float16" else arrow.float32()
        return arrow.schema([*columns, ("features", arrow.list_(kind))])
    found = next((row for row in rows if row["error"] is None), {})
    names = [name for name in found if name not in ("position", "key", "error")]
    answers = [{name: row.get(name) for name in names} for row in rows]
    examples = [{name: example.get(name) for name in names} for example in _examples(task)]
    inferred = arrow.Table.from_pylist([*answers, *examples]).schema if names else ()
    return arrow.schema([*columns, *((field.name, field.type) for field in inferred)])


def _examples(task: Any) -> list[dict[str, Any]]:
    """A row with every field, where the task gives one: lists that are empty in all images leave their types open."""
    example = getattr(task, "example_row", None)
    return [] if example is None else [example]


def part_path(folder: Path, part: int) -> Path:
    """The file of a part."""
    return folder / f"part-{part:06}.parquet"


def begin(
    folder: Path, inference: Inference, source: Source, wanted: Wanted, model: str, world: World, kind: str = ""
) -> None:
    """Make the folder, or make sure that what is there is of the same images, network and kind.

    Raises:
        OvertoneError: it is not; every process raises it.
    """
    problem = ""
    if world.is_first:
        about = _about(source, wanted, model, kind) | _of_network(inference)
        path = folder / ABOUT
        try:
            if path.exists():
                earlier = parse_json(path.read_bytes().decode())
                differing = [name for name in about if earlier.get(name) != about[name]]
                if differing:
                    problem = f"{folder} holds predictions with another {some(differing)}; choose another folder"
            else:
                text = json.dumps(about, indent=1) + "\n"
                write_whole(path, lambda part: part.write_text(text, encoding="utf-8"))
        except (OSError, ValueError, AttributeError) as error:
            problem = f"{path} cannot be read or written ({error}); choose another folder"
    problem = problem if world.is_alone else world.from_first(problem)
    if problem:
        raise OvertoneError(problem)


def _about(source: Source, wanted: Wanted, model: str, kind: str) -> dict[str, Any]:
    names = hashlib.sha256()
    for position in range(len(source)):
        names.update(source.name(position).encode("utf-8", "surrogateescape") + b"\0")
    if not kind:
        kind = f"answers, {wanted.top_k or 'the usual number'} at most"
        kind += "" if wanted.threshold is None else f", of score {wanted.threshold:g}"
        kind = f"features, {wanted.dtype}" if wanted.features else kind
    return {
        "model": model,
        "kind": kind,
        "images": len(source),
        "part_size": wanted.part_size,
        "names_sha256": names.hexdigest(),
    }


def _of_network(inference: Inference) -> dict[str, str]:
    """What the answers depend on: a run that was trained further has the same name."""
    digest = hashlib.sha256()
    for key, values in (inference.loaded or inference.model).state_dict().items():
        digest.update(key.encode())
        if isinstance(values, Tensor):
            digest.update(values.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
    return {"weights_sha256": digest.hexdigest(), "preprocess": str(inference.preprocess)}


def pyarrow_modules() -> tuple[Any, Any]:
    """Pyarrow and its Parquet.

    Raises:
        OvertoneError: it is not installed.
    """
    try:
        return importlib.import_module("pyarrow"), importlib.import_module("pyarrow.parquet")
    except ImportError as error:
        raise OvertoneError("writing Parquet parts needs pyarrow: pip install pyarrow") from error
