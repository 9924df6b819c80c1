"""`overtone evaluate`: how often a network is right on labelled images."""

import dataclasses
import time
from pathlib import Path
from typing import Any, Literal

from overtone import options
from overtone.checkpoint import write_text
from overtone.config import Data, from_dict, to_dict
from overtone.data.imagenet import NUM_CLASSES, readable, synsets
from overtone.data.sources import ImageList, find_evaluation
from overtone.engine.folder import RECIPE, SPLIT
from overtone.engine.loop import evaluate as measure
from overtone.errors import OvertoneError
from overtone.tasks.classification import Classification, ClassificationReport
from overtone.verbs.class_names import classes_of, supposed_classes
from overtone.verbs.console import as_json, note, print_json, print_line, print_table, progress, warn
from overtone.verbs.inference import Inference, introduce, loaded_for, num_outputs, ready
from overtone.verbs.plots import plot_confusion
from overtone.verbs.running import in_runtime, runtime_of
from overtone.zoo import LoadedModel

_REPORT, _PLOT = "evaluation.json", "confusion.png"
_MOST_CLASSES_SHOWN = 20
_MOST_CLASSES_IN_MATRIX = 16
_MOST_CONFUSIONS = 10


def evaluate(chosen: options.Evaluate) -> int:
    """Evaluate and print; 1 if images could not be read and that is not allowed.

    Raises:
        OvertoneError: no such model or data, classes that are not the model's, or files that would be overwritten.
    """
    _refuse_to_overwrite(chosen)
    loaded, images = _model_and_images(chosen)
    introduce(loaded)
    inference = ready(*in_runtime(loaded, chosen))
    name = loaded.source if loaded.published is None else loaded.published.full_name
    where = "" if chosen.runtime == "torch" else f"; in {runtime_of(loaded, chosen)}"
    note(f"{name}: {len(images)} images of {len(set(images.targets))} classes, {images.origin}{where}")
    started = time.perf_counter()
    with progress("evaluating", len(images)) as done:
        task = Classification(images.classes)
        report = measure(task, inference.model, inference.loader(images), inference.placement, done)
    result = _result(chosen, loaded, images, inference, report, time.perf_counter() - started)
    if chosen.json:
        print_json(result)
    else:
        _print(report, chosen.per_class)
    if chosen.out is not None:
        _write(chosen.out, result, report)
    for path in report.bad:
        warn(f"{path} could not be read; it is left out of every figure")
    if report.bad and not chosen.allow_bad:
        note(f"{len(report.bad)} of {report.num_expected} images could not be read (exit code 1; --allow-bad: 0)")
        return 1
    return 0


def accuracy(
    model: str, root: Path, split: Literal["auto", "train", "val", "test", "all"], run: options.Device, of: options.Tune
) -> float:
    """Top-1 in percent of a network, or of an export of it, as `evaluate` measures it; `of` says how to load it.

    Raises:
        OvertoneError: as `evaluate`.
    """
    data = options.EvaluationData(root, split)
    loaded, images = _model_and_images(
        options.Evaluate(model, data, run, weights_dir=of.weights_dir, architecture=of.architecture, ema=of.ema)
    )
    inference = ready(loaded, run)
    return measure(Classification(images.classes), inference.model, inference.loader(images), inference.placement).top1


def check_classes(loaded: LoadedModel, images: ImageList, root: Path) -> None:
    """Make sure that output i of the network means class i of the data.

    Raises:
        OvertoneError: it does not, by number, by name or by order; the message shows the difference.
    """
    if loaded.labels is None:
        outputs = num_outputs(loaded)
        if outputs != len(images.classes):
            raise OvertoneError(
                f"{loaded.source} tells {outputs} classes apart and {root} has {len(images.classes)}; "
                "evaluate on the classes that it was trained on"
            )
        return
    if loaded.labels == images.classes:
        return
    only_model = [name for name in loaded.labels if name not in set(images.classes)]
    only_data = [name for name in images.classes if name not in set(loaded.labels)]
    if only_model or only_data:
        sides = (("the model", only_model), ("the data", only_data))
        difference = "; ".join(f"only in {side}: {_some(names)}" for side, names in sides if names)
    else:
        pairs = zip(loaded.labels, images.classes, strict=True)
        at, (theirs, ours) = next((at, pair) for at, pair in enumerate(pairs) if pair[0] != pair[1])
        difference = f"their order: class {at} is {theirs!r} in the model and {ours!r} in the data"
    raise OvertoneError(
        f"the classes of {loaded.source} ({len(loaded.labels)}) and of {root} ({len(images.classes)}) differ: "
        f"{difference}; name the class folders as the model's classes"
    )


def _model_and_images(chosen: options.Evaluate) -> tuple[LoadedModel, ImageList]:
    loaded = loaded_for(chosen)
    trained_on = _trained_on(loaded)
    allow_empty = trained_on is not None and trained_on.allow_empty_classes
    data = chosen.data
    assert data.root is not None  # `options.Evaluate` makes sure of it
    held_out = trained_on if _was_split_by_seed(loaded) else None
    images = find_evaluation(data.root, data.split, held_out, allow_empty_classes=allow_empty)
    if not loaded.trained:
        loaded = loaded_for(chosen, num_classes=len(images.classes))
    elif _of_imagenet(images) and _knows_more_than_imagenet(loaded):
        loaded = loaded_for(chosen, num_classes=NUM_CLASSES)  # the published way to measure a network of ImageNet-22K
    return loaded, _matched(loaded, images, data.root)


def _matched(loaded: LoadedModel, images: ImageList, root: Path) -> ImageList:
    """The images with the network's classes: as their folders have them, or ImageNet's where these are part of it."""
    classes = classes_of(loaded) if loaded.trained else None
    if classes is None or not _of_imagenet(images) or not set(images.classes) <= set(classes):
        check_classes(loaded, images, root)
        if loaded.trained and loaded.labels is None and not _of_imagenet(images):
            names = _some(list(images.classes))
            note(f"weights: they have no class names; the outputs are taken for the folders in their order ({names})")
        return images
    supposed = supposed_classes(loaded)
    if supposed is not None:
        note(f"weights: {supposed}")
    position = {name: index for index, name in enumerate(classes)}
    targets = tuple(position[images.classes[target]] for target in images.targets)
    return dataclasses.replace(images, classes=classes, targets=targets)


def _of_imagenet(images: ImageList) -> bool:
    """Whether the class folders are named by WordNet ids of ImageNet-1K."""
    return set(images.classes) <= set(synsets())


def _knows_more_than_imagenet(loaded: LoadedModel) -> bool:
    classes = classes_of(loaded)
    return classes is not None and set(classes) > set(synsets())


def _trained_on(loaded: LoadedModel) -> Data | None:
    """The images that a network was trained on here, and how they were split."""
    if loaded.manifest is None or loaded.manifest.recipe is None or "data" not in loaded.manifest.recipe:
        return None
    return from_dict(Data, loaded.manifest.recipe["data"])


def _was_split_by_seed(loaded: LoadedModel) -> bool:
    """Whether part of one folder was held out; then that part, and no other, is new to the network.

    A run folder tells. A checkpoint that was taken out of its run does not; then it is supposed, to be safe.
    """
    folder = Path(loaded.source).parent
    return not (folder / RECIPE).is_file() or (folder / SPLIT).is_file()


def _refuse_to_overwrite(chosen: options.Evaluate) -> None:
    if chosen.out is None or chosen.overwrite:
        return
    there = [str(chosen.out / name) for name in (_REPORT, _PLOT) if (chosen.out / name).exists()]
    if there:
        raise OvertoneError(f"{' and '.join(there)} would be overwritten; choose another --out or add --overwrite")


def _result(
    chosen: options.Evaluate,
    loaded: LoadedModel,
    images: ImageList,
    inference: Inference,
    report: ClassificationReport,
    seconds: float,
) -> dict[str, Any]:
    return {
        "model": loaded.source,
        "architecture": loaded.architecture,
        "data": str(chosen.data.root),
        "images": images.origin,
        "preprocess": to_dict(inference.preprocess),
        "placement": str(inference.placement),
        "runtime": runtime_of(loaded, chosen),
        "seconds": round(seconds, 3),
        **report.to_dict(),
    }


def _print(report: ClassificationReport, every_class: bool) -> None:
    used = f"{report.num_used} of {report.num_expected}"
    print_table(
        ("images used", "top-1", "correct", "top-5", "correct", "loss"),
        [
            (
                used,
                f"{report.top1:.2f} %",
                report.correct_top1,
                f"{report.top5:.2f} %",
                report.correct_top5,
                f"{report.loss:.4f}",
            )
        ],
    )
    print_line()
    _print_classes(report, every_class)
    if report.confusion:
        print_line()
        _print_confusion(report)


def _print_classes(report: ClassificationReport, every_class: bool) -> None:
    rows = list(zip(report.classes, report.class_counts, report.class_correct, report.per_class, strict=True))
    if len(rows) > _MOST_CLASSES_SHOWN and not every_class:
        worst = sorted((share, at) for at, share in enumerate(report.per_class) if share is not None)
        rows = [rows[at] for _, at in worst[:_MOST_CLASSES_SHOWN]]
        print_line(f"the {len(rows)} worst of {len(report.classes)} classes (--per-class shows all)")
    print_table(
        ("class", "images", "correct", "top-1"),
        [
            (readable(name), count, correct, None if share is None else f"{share:.2f} %")
            for name, count, correct, share in rows
        ],
    )


def _print_confusion(report: ClassificationReport) -> None:
    if len(report.classes) <= _MOST_CLASSES_IN_MATRIX:
        print_line("confusion matrix: rows are the true classes, columns what the network says")
        print_table(
            ("", *map(readable, report.classes)),
            [(readable(name), *row) for name, row in zip(report.classes, report.confusion, strict=True)],
        )
        return
    mistakes = [
        (count, readable(report.classes[true]), readable(report.classes[said]))
        for true, row in enumerate(report.confusion)
        for said, count in enumerate(row)
        if count and true != said
    ]
    mistakes.sort(key=lambda mistake: (-mistake[0], mistake[1:]))
    print_line("most frequent mistakes (the whole confusion matrix: --json, or --out)")
    rows = [(true, said, count) for count, true, said in mistakes[:_MOST_CONFUSIONS]]
    print_table(("true class", "taken for", "images"), rows, left=2)


def _write(out: Path, result: dict[str, Any], report: ClassificationReport) -> None:
    write_text(out / _REPORT, as_json(result))
    written = [_REPORT]
    if report.confusion:
        plot_confusion(report, out / _PLOT)
        written.append(_PLOT)
    note(f"{out}: {' and '.join(written)} written")


def _some(names: list[str], limit: int = 8) -> str:
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")
