"""A loaded network in a runtime, and an export as a loaded network: what evaluation and prediction take."""

import dataclasses
import shutil
import tempfile
import weakref
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from overtone.checkpoint import Manifest
from overtone.deployment.artifact import FORM, About
from overtone.deployment.export import Origin, Request, check_request, open_export, predictor_for
from overtone.deployment.inputs import input_transform
from overtone.deployment.origin import origin_for
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.runtimes import runtime_named
from overtone.deployment.runtimes.runtime import RuntimeModule, check_compiler
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.tasks.export_forms import ReadsForm
from overtone.zoo import LoadedModel, num_outputs

MANY_IMAGES = 64
"""Images that repay deploying a network, which takes 0.1 to 0.5 seconds of a core for the published classifiers."""
_IN_PYTORCH = ("torch", "compile")


@dataclass(frozen=True)
class Computation:
    """Where and how a network is to compute.

    Attributes:
        runtime: `torch`, `compile` (torch.compile), or one of `runtimes.RUNTIMES`.
        precision: of the arithmetic; None: float32.
        calibration: folder of images that int8 takes its ranges from.
        size: pixels, side of the input; None: the model's own.
        threads: of arithmetic; None: PyTorch's.
        device: of PyTorch; every other runtime computes on the CPU.
    """

    runtime: str = "torch"
    precision: str | None = None
    calibration: Path | None = None
    size: int | None = None
    threads: int | None = None
    device: str = "auto"


def loaded_export(folder: Path) -> LoadedModel:
    """An export as a network with its labels and preprocessing.

    Raises:
        OvertoneError: as `open_export`.
    """
    predictor, about = open_export(folder)
    title = f"{runtime_named(about.runtime).title}, {about.precision}"
    model = RuntimeModule(predictor, about.num_classes, about.input.kind, about.outputs, title)
    task = task_named(about.task)
    if FORM in about.settings and issubclass(task, ReadsForm):
        model.form = task.read_form(about.settings[FORM], about.preprocess)
        if model.form.size != about.input.shape[2:]:
            raise OvertoneError(f"{folder} is damaged: its form is of {model.form.size} pixels; export again")
        model.transform = model.form.view
    elif about.input.kind != "normalised":  # the task's own otherwise
        model.transform = input_transform(about.input.kind, about.preprocess)
    return LoadedModel(
        model=model,
        architecture=about.architecture,
        labels=about.classes,
        preprocess=about.preprocess,
        manifest=_manifest(about),
        source=f"{folder} ({title}; {about.source})",
        trained=about.trained,
        task=about.task,
        path=folder,
    )


def fastest_form(model: nn.Module, size: int, *, any_size: bool) -> nn.Module:
    """The form of a network that PyTorch computes fastest, for `engine.inference.ready`; see `deploy`.

    What another runtime computes stays as it is, and so does a network that cannot be deployed, such as one that does
    not take images of this size: it then says so itself.
    """
    if isinstance(model, RuntimeModule):
        return model
    try:
        return deploy(model, size, any_size=any_size)
    except Exception:  # networks refuse sizes, and deploying any network at all, with exceptions of every kind
        return model


def in_runtime(loaded: LoadedModel, wanted: Computation) -> tuple[LoadedModel, Computation]:
    """The network in the runtime that was asked for, and how PyTorch is then to be set.

    Returns:
        The network, and `wanted` with the device and the precision that are left to PyTorch.

    Raises:
        OvertoneError: a runtime or a precision that cannot be had, or another one than that of an export.
    """
    _check(loaded, wanted)
    outside = dataclasses.replace(wanted, device="cpu", precision="float32")
    if isinstance(loaded.model, RuntimeModule):
        return loaded, outside
    size = wanted.size or loaded.preprocess.size
    if wanted.runtime == "torch":
        return loaded, wanted
    if wanted.runtime == "compile":
        check_compiler()
        return dataclasses.replace(loaded, model=torch.compile(deploy(loaded.model, size))), wanted
    if wanted.threads is not None and wanted.threads >= 1:
        torch.set_num_threads(wanted.threads)  # what the runtime is opened with
    request = _request(wanted)
    check_request(request)
    origin = origin_for(loaded, wanted.size, any_size=True).for_runtime(runtime_named(wanted.runtime))
    if origin.graph_form is not None:
        request = dataclasses.replace(request, dynamic_batch=False)
    elif origin.form is not None:
        _check_any_size(loaded, wanted)
        request = dataclasses.replace(request, dynamic_size=True)
    return dataclasses.replace(loaded, model=_module(loaded, origin, request)), outside


def _module(loaded: LoadedModel, origin: Origin, request: Request) -> RuntimeModule:
    """The network in its runtime, from an artifact in a temporary folder that goes with the module."""
    try:
        folder = Path(tempfile.mkdtemp(prefix="overtone-"))
        try:
            predictor = predictor_for(loaded.model, origin, request, folder)
        except BaseException:
            shutil.rmtree(folder, ignore_errors=True)
            raise
    except OSError as error:
        raise OvertoneError(
            f"{tempfile.gettempdir()}, the folder for temporary files, cannot be used ({error.strerror or error}); "
            "free some space, or set TMPDIR to another folder"
        ) from error
    model = RuntimeModule(predictor, int(getattr(loaded.model, "num_classes", 0)) or num_outputs(loaded))
    if origin.graph_form is not None:
        model.form, model.transform = origin.graph_form, origin.graph_form.view
    weakref.finalize(model, shutil.rmtree, folder, ignore_errors=True)
    return model


def name_of_runtime(loaded: LoadedModel, wanted: Computation) -> str:
    """What computes, for a report: `torch`, `compile`, `ONNX Runtime, int8`, …; `loaded` is what `in_runtime` took."""
    if isinstance(loaded.model, RuntimeModule):
        return loaded.model.title
    if wanted.runtime in _IN_PYTORCH:
        return wanted.runtime
    return f"{runtime_named(wanted.runtime).title}, {wanted.precision or 'float32'}"


def _request(wanted: Computation) -> Request:
    precision = wanted.precision or "float32"
    return Request(
        runtime=wanted.runtime,
        precision=precision,
        dynamic_batch=runtime_named(wanted.runtime).takes_any_batch,
        image_folder=wanted.calibration if precision.startswith("int8") else None,
        checked=1,
    )


def _check(loaded: LoadedModel, wanted: Computation) -> None:
    """Refuse an option that would have no effect, or another one than it says."""
    quantised, device = (wanted.precision or "").startswith("int8"), wanted.device
    if isinstance(loaded.model, RuntimeModule):
        _check_export(loaded, wanted)
    elif wanted.runtime in _IN_PYTORCH:
        if quantised:
            raise OvertoneError(
                f"--runtime {wanted.runtime} has no {wanted.precision}; use onnx, openvino or executorch"
            )
        device = "cpu"  # any other one is PyTorch's to check
    if wanted.calibration is not None and not quantised:
        raise OvertoneError("--calibration has an effect with int8 only; add --precision int8, or remove it")
    if device not in ("auto", "cpu"):
        raise OvertoneError(f"this runtime computes on the CPU, not on run.device {device!r}; remove --run.device")


def _check_any_size(loaded: LoadedModel, wanted: Computation) -> None:
    """Refuse a runtime of one size for a network whose images have any."""
    runtime = runtime_named(wanted.runtime)
    if not runtime.takes_any_size:
        raise OvertoneError(
            f"{runtime.title} takes images of one size, and a {loaded.task} is measured on images of any size; export "
            f"it for windows of one size (overtone export --to {runtime.name}) and give that folder, or choose another "
            "--runtime"
        )


def _check_export(loaded: LoadedModel, wanted: Computation) -> None:
    if wanted.runtime != "torch" or wanted.precision is not None:
        raise OvertoneError(
            f"{loaded.source} is an export, which has a runtime and a precision of its own; remove these options"
        )
    if wanted.size not in (None, loaded.preprocess.size):
        raise OvertoneError(
            f"{loaded.source} is an export for {loaded.preprocess.size} pixels; "
            f"export its network again with overtone export --size {wanted.size}"
        )


def _manifest(about: About) -> Manifest | None:
    """What its training found, and how it split the images, so that the same ones are held out for its evaluation."""
    recipe: dict[str, Any] = {} if about.data is None else {"data": dict(about.data)}
    if about.task_settings:
        recipe |= {"task": about.task, "model": {"name": about.architecture}, "settings": dict(about.task_settings)}
    elif about.classes is None and FORM not in about.settings:
        return None
    return Manifest(
        about.architecture,
        about.classes or tuple(map(str, range(about.num_classes))),
        about.preprocess,
        recipe=recipe or None,
        task=about.task,
        settings=about.settings,
    )
