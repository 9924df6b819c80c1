"""A network measured on labelled samples: whose outputs mean the samples' labels, by how much it is right."""

import dataclasses
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from overtone.config import Data
from overtone.data.imagenet import NUM_CLASSES, synsets
from overtone.data.pipeline import Batch
from overtone.data.sources import ImageList, Part, ShardImages, Source, open_evaluation
from overtone.engine.distributed import World
from overtone.engine.first_scan import scanned_first
from overtone.engine.inference import Inference, trained_on
from overtone.engine.loop import evaluate
from overtone.errors import OvertoneError, some
from overtone.tasks import task_named
from overtone.zoo import LoadedModel, classes_of, num_outputs, supposed_classes

Load = Callable[..., LoadedModel]


@dataclass(frozen=True)
class Evaluation:
    """What an evaluation found.

    Attributes:
        report: the task's report.
        source: what it was measured on.
        seconds: how long it took.
        reasons: why each sample that the report names could not be read, where it was read now.
    """

    report: Any
    source: Source
    seconds: float
    reasons: Mapping[str, str] = field(default_factory=dict)


def model_and_source(
    load: Load, data: Data, part: Part, say: Callable[[str], object], world: World | None = None
) -> tuple[LoadedModel, Source]:
    """A network and the samples to measure it on, with the network's labels.

    A network of ImageNet-22K is reduced to the classes of ImageNet-1K where the samples are of these: the published way
    to measure it. An untrained one gets as many outputs as there are labels.

    Args:
        load: gives the network; `num_classes` asks for other outputs than its own.
        data: where the samples are.
        part: which part of them.
        say: called with a line for each thing that had to be assumed.
        world: the processes that evaluate together.

    Raises:
        OvertoneError: no such network or data, or labels that are not the network's.
    """
    loaded = load()
    if data.ignore_index is None:
        data = dataclasses.replace(data, ignore_index=_ignored_in_training(loaded))
    target, chosen = task_named(loaded.task).target, data
    source = scanned_first(world or World(), lambda: open_evaluation(chosen, target, part, trained_on(loaded)))
    if not loaded.trained:
        loaded = load(num_classes=len(source.labels))
    elif _of_imagenet(source) and _has_more_than_imagenet(loaded):
        loaded = load(num_classes=NUM_CLASSES)
    return loaded, _matched(loaded, source, data, say)


def _ignored_in_training(loaded: LoadedModel) -> int | None:
    """The index of masks that the network's training ignored, which decides on the classes."""
    recipe = None if loaded.manifest is None else loaded.manifest.recipe
    return ((recipe or {}).get("data") or {}).get("ignore_index")


def measure(
    inference: Inference,
    source: Source,
    progress: Callable[[int], None] | None = None,
    *,
    warn: Callable[[str], object],
    world: World | None = None,
    seen: Callable[[Batch, Any], object] | None = None,
) -> Evaluation:
    """Evaluate a network on every sample of a source; several processes share it and all get the report.

    `seen` is called with each batch of this process and its outputs.
    """
    started, reasons = time.perf_counter(), dict[str, str]()
    loader = inference.loader(source, warn, world)
    ready = inference.task, inference.model, loader, inference.placement
    try:
        report = evaluate(*ready, progress, world=world, seen=seen, reasons=reasons)
    finally:
        loader.close()
    return Evaluation(report, source, time.perf_counter() - started, reasons)


def check_labels(loaded: LoadedModel, source: Source, data: Data) -> None:
    """Make sure that output i of the network means label i of the data.

    Raises:
        OvertoneError: it does not, by number, by name or by order; the message shows the difference.
    """
    root = data.table or data.root
    if loaded.labels is None:
        outputs = num_outputs(loaded)
        if outputs != len(source.labels):
            raise OvertoneError(
                f"{loaded.source} has {outputs} outputs and {root} has {len(source.labels)} classes; "
                "evaluate on the classes that it was trained on"
            )
        return
    if tuple(loaded.labels) == tuple(source.labels):
        return
    only_model, only_data = set(loaded.labels) - set(source.labels), set(source.labels) - set(loaded.labels)
    if only_model or only_data:
        sides = (("the model", only_model), ("the data", only_data))
        difference = "; ".join(f"only in {side}: {some(names)}" for side, names in sides if names)
    else:
        pairs = zip(loaded.labels, source.labels, strict=True)
        at, (theirs, ours) = next((at, pair) for at, pair in enumerate(pairs) if pair[0] != pair[1])
        difference = f"their order: class {at} is {theirs!r} in the model and {ours!r} in the data"
    raise OvertoneError(
        f"the classes of {loaded.source} ({len(loaded.labels)}) and of {root} ({len(source.labels)}) differ: "
        f"{difference}; name the class folders as the model's classes"
    )


def _matched(loaded: LoadedModel, source: Source, data: Data, say: Callable[[str], object]) -> Source:
    """The samples with the network's labels: as they have them, or ImageNet's where theirs are part of it."""
    relabelled = getattr(source, "relabelled", None)
    has_all = loaded.labels is not None and set(source.labels) <= set(loaded.labels)
    if relabelled is not None and has_all and task_named(loaded.task).target == "boxes":
        return relabelled(loaded.labels)  # images of a detection need not show every class
    classes = classes_of(loaded) if loaded.trained else None
    of_imagenet = _of_imagenet(source)
    if classes is None or not of_imagenet or not set(source.labels) <= set(classes):
        check_labels(loaded, source, data)
        if loaded.trained and loaded.labels is None and not of_imagenet:
            names = some(source.labels)
            say(f"weights: they have no class names; the outputs are taken for the folders in their order ({names})")
        return source
    supposed = supposed_classes(loaded)
    if supposed is not None:
        say(f"weights: {supposed}")
    assert relabelled is not None
    return relabelled(classes)


def _of_imagenet(source: Source) -> bool:
    """Whether these are classes named by WordNet ids of ImageNet-1K, by folders or in shards."""
    return isinstance(source, (ImageList, ShardImages)) and set(source.labels) <= set(synsets())


def _has_more_than_imagenet(loaded: LoadedModel) -> bool:
    classes = classes_of(loaded)
    return classes is not None and set(classes) > set(synsets())
