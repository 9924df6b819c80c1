"""Overtone from Python: the same functions that the verbs call.

`load` returns a network with its labels and preprocessing; `train`, `evaluate` and `export` take what the command line
takes and return what it prints.
"""

import dataclasses
import functools
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal, overload

from PIL import Image
from torch import nn

from overtone import zoo
from overtone.config import Data, Preprocess, Recipe, Run
from overtone.data.decoding import decode_image
from overtone.data.sources import ImageLike, MemoryImages, Part, Splits
from overtone.deployment.artifact import is_export
from overtone.deployment.export import Request, check_request
from overtone.deployment.origin import Exported, export_loaded
from overtone.deployment.running import MANY_IMAGES, fastest_form, loaded_export
from overtone.engine.evaluation import Evaluation, measure, model_and_source
from overtone.engine.inference import Computing, ready
from overtone.engine.prediction import predict
from overtone.engine.summary import Summary
from overtone.engine.training import train as run_training
from overtone.errors import OvertoneError
from overtone.recipes import check_start, load_recipe, needs_weights
from overtone.reports.display import Result
from overtone.reports.heat_maps import HeatMap, heat_maps
from overtone.reports.plots import Artist
from overtone.tasks import task_named
from overtone.zoo import LoadedModel, names_of
from overtone.zoo.starting import fitted_to_weights

_CHANNELS = 3


def load(
    spec: str | Path,
    *,
    device: str = "auto",
    precision: str = "auto",
    batch_size: int = 64,
    architecture: str | None = None,
    num_classes: int | None = None,
    ema: bool = False,
    weights_dir: Sequence[Path] = (),
    deploy: bool = True,
) -> "Network":
    """Load a network with its labels and preprocessing.

    Args:
        spec: anything that `overtone evaluate` takes: published weights by name, a run folder, a file of weights of any
            layout, an architecture, `hf-hub:owner/name`, or the folder of an export.
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto`, `float32` or `bfloat16`.
        batch_size: images that `predict` passes through the network at once.
        architecture: what a bare file is of, where it cannot be inferred from keys and shapes.
        num_classes: outputs, where they are not to be those of the weights.
        ema: take the averaged weights of a training checkpoint.
        weights_dir: folders to look in for published weights.
        deploy: predict with the network's fastest exact form, which the first `predict` makes of it
            (`overtone.deploy`); False: with `model` itself, such as one whose weights will change.

    Raises:
        OvertoneError: nothing by that name, or weights that cannot be had, read or verified, or that do not fit.
    """
    loaded = loaded_model(
        str(spec), architecture=architecture, num_classes=num_classes, ema=ema, weights_dir=tuple(weights_dir)
    )
    computing = Computing(device=device, precision=precision, batch_size=batch_size)
    return Network(loaded, computing, deploy=deploy)


class Network:
    """A network on its device with what is needed to use it.

    Attributes:
        model: the network as it was trained, in eval mode.
        labels: names of the outputs, in their order.
        preprocess: from an image to its input, as data.
        task: what it does, such as `classification`.
        source: display string of what was loaded.
        loaded: all that the zoo found out.
    """

    def __init__(self, loaded: LoadedModel, computing: Computing, *, deploy: bool = True) -> None:
        inference = ready(loaded, names_of(loaded), computing)
        self.loaded, self._inference = loaded, inference
        self._predicting = None if deploy else inference  # deployed by the first prediction
        self.model: nn.Module = inference.model
        self.labels: tuple[str, ...] = inference.task.labels
        self.preprocess: Preprocess = inference.preprocess
        self.task, self.source = loaded.task, loaded.source

    @property
    def transform(self) -> Any:
        """From Pillow's image in RGB to the network's input, as evaluation does it; usable in a torchvision dataset."""
        return self._inference.task.transform()

    @overload
    def predict(self, images: ImageLike, *, top_k: int | None = None, threshold: float | None = None) -> Result: ...
    @overload
    def predict(
        self, images: Sequence[ImageLike], *, top_k: int | None = None, threshold: float | None = None
    ) -> list[Result]: ...
    def predict(
        self, images: ImageLike | Sequence[ImageLike], *, top_k: int | None = None, threshold: float | None = None
    ) -> Result | list[Result]:
        """What the network says of an image, or of each of a list.

        Args:
            images: paths, Pillow's images, arrays `(H, W, 3)`, tensors `(3, H, W)`; uint8, or floating in 0..1.
            top_k: most answers for an image; None: 5, and all objects.
            threshold: lowest probability, score of an object or share of the pixels; None: the network's own, if any.

        Raises:
            OvertoneError: something that is no image, or a file that cannot be read.
        """
        if not isinstance(images, (list, tuple)):
            return self.predict([images], top_k=top_k, threshold=threshold)[0]  # type: ignore[list-item]
        if top_k is not None and top_k < 1:
            raise OvertoneError(f"top_k is {top_k}; it must be at least 1")
        if self._predicting is None:
            self._predicting = ready(self.loaded, self.labels, self._inference.computing, form=fastest_form)
        source, bad = MemoryImages(images, self.labels), []
        columns = task_named(self.task).prediction_columns
        results = [
            Result(_shown(source, one.position, self.preprocess), one.image, one.prediction, columns)
            for batch in predict(self._predicting, source, top_k, bad, _ignore, threshold=threshold)
            for one in batch
        ]
        if bad:
            name, reason = bad[0]
            raise OvertoneError(f"{name} could not be read: {reason}; leave it out or repair it")
        return results

    def explain(self, image: ImageLike, labels: Sequence[str] = (), *, top_k: int = 1) -> list[HeatMap]:
        """Where the network looks: Grad-CAM of an image for some labels, or the best ones (extra `explain`).

        Args:
            image: as for `predict`.
            labels: to explain; none: the `top_k` of the highest score.
            top_k: how many.

        Raises:
            OvertoneError: no image, no such label, or an export, which has no gradients.
        """
        shown = _shown(MemoryImages([image], self.labels), 0, self.preprocess)
        return heat_maps(self._inference, shown.convert("RGB"), labels, top_k=top_k)

    def __repr__(self) -> str:
        return f"Network({self.source!r}, {self.task}, {len(self.labels)} labels, on {self._inference.placement})"


def train(
    recipe: str | Recipe = "scratch",
    data: str | Path | Splits | None = None,
    out: str | Path | None = None,
    *,
    resume: bool = False,
    **overrides: Any,
) -> Summary:
    """Train by a recipe, as `overtone train` does, and return how it ended.

    Args:
        recipe: name of a recipe, or one of your own.
        data: the folder (`data.root`) or table (`data.table`), or `Splits` of any two sources.
        out: the run folder; default: runs/<recipe>-<date>-<time>. An unfinished run in it is resumed.
        resume: insist on resuming.
        overrides: any option of the recipe or the run by its field (`epochs=5`, `lr=0.1`, `workers=0`), with its
            section where several have one of that name (`model__name="hbonet_x035"`).

    Raises:
        OvertoneError: an unknown recipe or option, or as `overtone train`.
    """
    name = recipe if isinstance(recipe, str) else "recipe"
    settings = load_recipe(recipe) if isinstance(recipe, str) else recipe
    run = Run(out=None if out is None else Path(out))
    settings, run = overridden(settings, run, overrides)
    if isinstance(recipe, str) and needs_weights(recipe):
        check_start(recipe, settings)
        settings, run = overridden(fitted_to_weights(settings), run, overrides)
    if isinstance(data, (str, Path)):
        settings = dataclasses.replace(settings, data=_data(settings.data, data))
    return run_training(settings, run, name, resume, splits=data if isinstance(data, Splits) else None, artist=Artist())


def evaluate(
    spec: str | Path,
    data: str | Path | None = None,
    *,
    split: Part = "auto",
    table: str | Path | None = None,
    device: str = "auto",
    batch_size: int = 64,
    workers: int | None = None,
    size: int | None = None,
    settings: Mapping[str, Any] | None = None,
    deploy: bool = True,
    **loading: Any,
) -> Evaluation:
    """Measure a network on labelled samples, as `overtone evaluate` does.

    Args:
        spec: see `load`.
        data: the folder (`data.root`) or table (`data.table`).
        split: which part of it.
        table: a CSV or Parquet file of labels, where `data` is the folder of its images.
        device: see `load`.
        batch_size: samples in a batch.
        workers: processes that read samples.
        size: side of the input, pixels; default: the network's own.
        settings: of the task, in place of its recipe's, such as `{"flip": True}` of a segmentation.
        deploy: run the network's fastest exact form (`overtone.deploy`), from 64 images on; False: as it was trained.
        loading: further arguments of `load` about which weights are meant.

    Returns:
        The task's `report` with the `source` that it is of.

    Raises:
        OvertoneError: no such model or data, or labels that are not the network's.
    """
    found = _data(Data(table=None if table is None else Path(table)), data)
    loaded, source = model_and_source(functools.partial(loaded_model, str(spec), **loading), found, split, _ignore)
    computing = Computing(device=device, batch_size=batch_size, workers=workers, size=size)
    form = fastest_form if deploy and len(source) >= MANY_IMAGES else None
    return measure(ready(loaded, tuple(source.labels), computing, settings, form), source, warn=_ignore)


def export(
    spec: str | Path,
    to: Literal["onnx", "openvino", "executorch", "torch", "aoti"] = "onnx",
    out: str | Path | None = None,
    *,
    precision: Literal["float32", "bfloat16", "int8", "int8+bfloat16"] = "float32",
    size: int | None = None,
    calibration: str | Path | None = None,
    dynamic_batch: bool = False,
    dynamic: bool = False,
    with_preprocessing: bool = False,
    overwrite: bool = False,
    **loading: Any,
) -> Exported:
    """Export a network for a runtime into a folder, as `overtone export` does.

    Args:
        spec: see `load`; not an export.
        to: the runtime.
        out: the folder; None: `exports/` and a name from the model, the runtime and the precision.
        precision: of the arithmetic; int8 needs `calibration`.
        size: side of the input, pixels; None: the network's own.
        calibration: folder of images like those to come, for int8 and for the check; None: generated images for the
            check.
        dynamic_batch: any number of images in a call, rather than one.
        dynamic: any height and width, rather than one size, for outputs that are maps.
        with_preprocessing: the normalisation in the graph, and the resize where the runtime can.
        overwrite: replace an earlier export in that folder.
        loading: further arguments of `load` about which weights are meant.

    Raises:
        OvertoneError: as `overtone export`: no such model or runtime, a folder that is in use, or outputs that do not
            agree with the network's.
    """
    if is_export(Path(spec)):
        raise OvertoneError(f"{spec} is an export already; give the network that it was made from")
    calibrated_on = None if calibration is None else Path(calibration)
    request = Request(to, precision, dynamic_batch, with_preprocessing, calibrated_on, dynamic_size=dynamic)
    check_request(request)  # before the network is loaded
    loaded = loaded_model(str(spec), **loading)
    return export_loaded(loaded, request, None if out is None else Path(out), size=size, overwrite=overwrite)


def loaded_model(spec: str, *, num_classes: int | None = None, **loading: Any) -> LoadedModel:
    """A network, or an export as one, with a first layer for images of three channels, which is what files give."""
    if is_export(Path(spec)):
        return loaded_export(Path(spec))
    loaded = zoo.load_model(spec, num_classes=num_classes, **loading)
    if getattr(loaded.model, "in_chans", _CHANNELS) == _CHANNELS:
        return loaded
    return zoo.load_model(spec, num_classes=num_classes, in_chans=_CHANNELS, **loading)


def overridden(recipe: Recipe, run: Run, overrides: Mapping[str, Any]) -> tuple[Recipe, Run]:
    """A recipe and a run with some fields replaced.

    Raises:
        OvertoneError: no field of that name, or several.
    """
    sections = {field.name: getattr(recipe, field.name) for field in dataclasses.fields(recipe)}
    changed: dict[str, Any] = {}
    run_fields: dict[str, Any] = {}
    for key, value in overrides.items():
        section, _, field = key.replace(".", "__").partition("__")
        if not field and section in sections and not dataclasses.is_dataclass(value):
            if section == "model" and isinstance(value, str):
                section, field = "model", "name"
            elif section != "task":
                raise OvertoneError(f"{key} is a section of the recipe; give one of its fields, such as {key}__…")
        if not field and section not in sections:
            section, field = _section_of(key, sections, run)
        if section == "run":
            run_fields[field] = value
        elif field:
            changed[section] = _replaced(changed.get(section, sections[section]), field, value)
        else:
            changed[section] = value
    return dataclasses.replace(recipe, **changed), dataclasses.replace(run, **run_fields)


def _data(data: Data, path: str | Path | None) -> Data:
    """The data with a folder as its `root`, or with a file as its `table`."""
    if path is None:
        return data
    return dataclasses.replace(data, **{"table" if Path(path).is_file() else "root": Path(path)})


def _section_of(name: str, sections: Mapping[str, Any], run: Run) -> tuple[str, str]:
    found = [
        section
        for section, values in {**sections, "run": run}.items()
        if dataclasses.is_dataclass(values) and name in {field.name for field in dataclasses.fields(values)}
    ]
    if len(found) != 1:
        several = " or ".join(f"{section}__{name}" for section in found)
        raise OvertoneError(
            f"{name} is in several sections of the recipe: give {several}"
            if found
            else f"{name} is no option of a recipe or a run; overtone train RECIPE --help lists them"
        )
    return found[0], name


def _replaced(section: Any, field: str, value: Any) -> Any:
    name, _, inner = field.partition("__")
    if not hasattr(section, name):
        raise OvertoneError(f"{type(section).__name__.lower()} has no option {name}")
    if inner:
        value = _replaced(getattr(section, name), inner, value)
    return dataclasses.replace(section, **{name: value})


def _shown(source: MemoryImages, position: int, preprocess: Preprocess) -> Image.Image:
    image = source.read(position).get("image", b"")
    return image if isinstance(image, Image.Image) else decode_image(image, preprocess.exif)


def _ignore(text: str) -> None:
    """Say nothing: what a verb would print is in what is returned."""
