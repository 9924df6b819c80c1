"""A loaded network put into a runtime, and an export as a loaded network: what evaluation and prediction take."""

import dataclasses
import shutil
import tempfile
import weakref
from pathlib import Path

import torch

from overtone import options
from overtone.checkpoint import Manifest
from overtone.deployment.artifact import About, is_export
from overtone.deployment.export import Request, check_request, open_export, predictor_for
from overtone.deployment.fold import deploy
from overtone.deployment.inputs import input_transform
from overtone.deployment.runtimes import RuntimeModule, check_compiler
from overtone.deployment.targets import runtime_named
from overtone.errors import OvertoneError
from overtone.zoo import LoadedModel

_IN_PYTORCH = ("torch", "compile")


def loaded_export(folder: Path) -> LoadedModel:
    """An export as a network with its classes and preprocessing.

    Raises:
        OvertoneError: damaged, or its runtime is not installed.
    """
    predictor, about = open_export(folder)
    model = RuntimeModule(predictor, about.num_classes, about.input.kind)
    model.transform = input_transform(about.input.kind, about.preprocess)
    return LoadedModel(
        model=model,
        architecture=about.architecture,
        labels=about.classes,
        preprocess=about.preprocess,
        manifest=_manifest(about),
        source=f"{folder} ({runtime_named(about.runtime).title}, {about.precision}; {about.source})",
        trained=about.trained,
    )


def in_runtime(loaded: LoadedModel, chosen: options.Evaluate | options.Predict) -> tuple[LoadedModel, options.Device]:
    """The network in the runtime that was asked for, and where and how it then computes.

    Raises:
        OvertoneError: a runtime or a precision that cannot be had, or an export that is asked to be another one.
    """
    settings = chosen.run
    _check_options(loaded, chosen)
    if isinstance(loaded.model, RuntimeModule):
        return loaded, dataclasses.replace(settings, device="cpu", precision="float32")
    if chosen.runtime in _IN_PYTORCH:
        if chosen.precision is not None:
            precision = "bfloat16" if chosen.precision == "bfloat16" else "float32"
            settings = dataclasses.replace(settings, precision=precision)
        if chosen.runtime == "torch":
            return loaded, settings
        check_compiler()
        model = torch.compile(deploy(loaded.model, settings.size or loaded.preprocess.size))
        return dataclasses.replace(loaded, model=model), settings
    if settings.threads is not None and settings.threads >= 1:
        torch.set_num_threads(settings.threads)  # what the runtime is opened with
    size = settings.size or loaded.preprocess.size
    preprocess = dataclasses.replace(loaded.preprocess, size=size)
    request = _request(chosen)
    check_request(request)
    folder = Path(tempfile.mkdtemp(prefix="overtone-"))
    try:
        predictor = predictor_for(loaded.model, preprocess, request, folder)
    except BaseException:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    model = RuntimeModule(predictor, int(getattr(loaded.model, "num_classes", 0)))
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return dataclasses.replace(loaded, model=model), dataclasses.replace(settings, device="cpu", precision="float32")


def runtime_of(loaded: LoadedModel, chosen: options.Evaluate | options.Predict) -> str:
    """What computes, for reports: `torch`, `ONNX Runtime, int8`, …."""
    if is_export(Path(chosen.model)):
        return loaded.source.partition("(")[2].partition(";")[0]
    if chosen.runtime in _IN_PYTORCH:
        return chosen.runtime
    return f"{runtime_named(chosen.runtime).title}, {_precision(chosen)}"


def _precision(chosen: options.Evaluate | options.Predict) -> str:
    return chosen.precision or ("bfloat16" if chosen.run.precision == "bfloat16" else "float32")


def _request(chosen: options.Evaluate | options.Predict) -> Request:
    precision = _precision(chosen)
    return Request(
        runtime=chosen.runtime,
        precision=precision,
        dynamic_batch=runtime_named(chosen.runtime).takes_any_batch,
        pictures=chosen.calibration if precision.startswith("int8") else None,
        checked=1,
    )


def _check_options(loaded: LoadedModel, chosen: options.Evaluate | options.Predict) -> None:
    """Refuse what would have no effect, or another one than it says."""
    quantised, device = (chosen.precision or "").startswith("int8"), chosen.run.device
    if isinstance(loaded.model, RuntimeModule):
        _check_export(loaded, chosen)
    elif chosen.runtime in _IN_PYTORCH:
        if quantised:
            raise OvertoneError(
                f"--runtime {chosen.runtime} has no {chosen.precision}; use onnx, openvino or executorch"
            )
        device = "cpu"  # or another one, as PyTorch has it
    if chosen.calibration is not None and not quantised:
        raise OvertoneError("--calibration is for int8 alone; add --precision int8, or leave it out")
    if device not in ("auto", "cpu"):
        raise OvertoneError(f"this runtime computes on the CPU, not on run.device {device!r}; leave --run.device out")


def _check_export(loaded: LoadedModel, chosen: options.Evaluate | options.Predict) -> None:
    if chosen.runtime != "torch" or chosen.precision is not None:
        raise OvertoneError(f"{chosen.model} is an export, with a runtime and a precision of its own; leave them out")
    if chosen.run.size not in (None, loaded.preprocess.size):
        raise OvertoneError(
            f"{chosen.model} is an export for {loaded.preprocess.size} pixels; "
            f"make another one of its network with overtone export --size {chosen.run.size}"
        )


def _manifest(about: About) -> Manifest | None:
    """How its training split the images, so that the same ones are held out for its evaluation."""
    if about.data is None or about.classes is None:
        return None
    return Manifest(about.architecture, about.classes, about.preprocess, recipe={"data": dict(about.data)})
