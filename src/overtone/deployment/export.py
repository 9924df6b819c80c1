"""A network written for a runtime, and verified there before its folder gets its name."""

import dataclasses
import errno
import os
import platform
import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn

from overtone import __version__
from overtone.config import Preprocess
from overtone.deployment.artifact import (
    FILES,
    FORM,
    SCRIPT,
    About,
    Input,
    admit,
    is_export,
    write_about,
)
from overtone.deployment.images import generated_images, given_images, read_images
from overtone.deployment.inputs import InputKind, as_batch, example_input, input_transform, with_input
from overtone.deployment.parity import LOGITS_OF_CLASSES
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.run_script import lines_to_logits, run_script
from overtone.deployment.runtimes import runtime_named
from overtone.deployment.runtimes.runtime import LOGITS, Job, Predictor, Runtime, in_one_line
from overtone.deployment.sizes import check_any_size, check_size
from overtone.deployment.trust import record, sha256
from overtone.deployment.verifying import reference, verified, verified_answers, write_golden
from overtone.errors import OvertoneError
from overtone.replacing import check_replaceable, flush, replacing_folder
from overtone.tasks.classification.task import SCRIPT as CLASSIFY
from overtone.tasks.classification.task import Classification
from overtone.tasks.export_forms import ExportForm, GraphForm
from overtone.tasks.task import OutputSpec

CHECKED, CALIBRATED = 32, 256
_GOLDEN_IMAGES, _GOLDEN_SEED = 4, 1
_OPEN_SIZE = 96


@dataclass(frozen=True)
class Origin:
    """What a network is and where it comes from, which `model.json` repeats, and what it returns."""

    architecture: str
    preprocess: Preprocess
    source: str
    classes: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    proof: str | None = None
    published: str | None = None
    trained: bool = True
    data: Mapping[str, Any] | None = None
    task: str = "classification"
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    outputs: tuple[OutputSpec, ...] = (LOGITS_OF_CLASSES,)
    script: tuple[str, ...] = CLASSIFY
    script_does: str = Classification.script_does
    form: ExportForm | GraphForm | None = None

    @property
    def graph_form(self) -> GraphForm | None:
        """The form, where another graph than the network is exported."""
        return None if isinstance(self.form, ExportForm) else self.form

    def for_runtime(self, runtime: Runtime, sizes: Sequence[tuple[int, int]] = ()) -> "Origin":
        """With the form that a runtime has, for images of about these heights and widths.

        Raises:
            OvertoneError: the network cannot be exported for the runtime.
        """
        if self.graph_form is None:
            return self
        form = self.graph_form.for_outputs(dynamic=runtime.dynamic_outputs).for_images(sizes)
        return dataclasses.replace(self, form=form, preprocess=form.preprocess)

    def image_transform(self, kind: InputKind) -> Callable[[Any], Any]:
        """From Pillow's image in RGB to an input of the export, without the batch dimension."""
        return input_transform(kind, self.preprocess) if self.form is None else self.form.inputs


@dataclass(frozen=True)
class Request:
    """The form of an export.

    Attributes:
        runtime: see `runtimes.RUNTIMES`.
        precision: see `runtime.PRECISIONS`.
        dynamic_batch: any number of images in a call, rather than one.
        dynamic_size: any height and width, rather than one size; for tasks that have a form for it.
        with_preprocessing: normalisation in the graph, and the resize where runtime and precision allow it.
        image_folder: folder of images to check with, and to take int8's ranges from; None: generated ones.
        checked: how many images to check with.
    """

    runtime: str = "onnx"
    precision: str = "float32"
    dynamic_batch: bool = False
    with_preprocessing: bool = False
    image_folder: Path | None = None
    checked: int = CHECKED
    dynamic_size: bool = False

    def generated_size(self, preprocess: Preprocess) -> int:
        """For which size images are generated: networks that take any have a least one, of a few strides."""
        return max(preprocess.size, _OPEN_SIZE) if self.dynamic_size else preprocess.size

    def kind(self, preprocess: Preprocess) -> InputKind:
        """What the artifact takes.

        The resize stays outside in half precision, which would spoil its weights, and where it does not keep the ratio
        of the sides, because the order of Pillow's two passes then depends on Pillow's version.
        """
        if not self.with_preprocessing:
            return "normalised"
        whole = runtime_named(self.runtime).takes_images and self.precision == "float32"
        return "image" if whole and preprocess.resize == "shorter" else "pixels"


@dataclass(frozen=True)
class _Images:
    checked: list[Image.Image]
    calibrated: list[Image.Image]
    kind: str


def export(model: nn.Module, origin: Origin, request: Request, out: Path, *, overwrite: bool = False) -> About:
    """Write a network for a runtime into a folder that appears once its outputs are verified.

    What can carry code is recorded as trusted on this machine (see `trust`).

    Args:
        model: the network, on the CPU in float32 and eval mode; it is not changed.
        origin: what it is.
        request: the form of the export.
        out: the folder.
        overwrite: replace an earlier export.

    Raises:
        OvertoneError: what cannot be had (`check_request`), a folder that is in use, or outputs that do not agree.
    """
    check_request(request)
    check_folder(out, overwrite)
    _check_form(request, origin)
    check_size(model, origin.architecture, origin.preprocess)
    try:
        with replacing_folder(out, FILES) as folder:
            folder.mkdir()
            return _write(model, origin, request, folder)
    except OSError as error:
        raise OvertoneError(f"{out} could not be written: {error.strerror or error}; choose another --out") from error


def check_request(request: Request) -> None:
    """Refuse what is impossible, before any work.

    Raises:
        OvertoneError: a runtime that is not installed, a precision that it or the processor lacks, int8 without
            images, an open number of images where the runtime needs a fixed one, or a folder without images.
    """
    runtime = runtime_named(request.runtime)
    runtime.check(request.precision, to_write=True)
    if request.precision.startswith("int8") and request.image_folder is None:
        raise OvertoneError(
            "int8 takes its ranges from images like those to come: add --calibration DIR with some hundred of them"
        )
    if request.dynamic_batch and not runtime.takes_any_batch:
        raise OvertoneError(f"{runtime.title} takes a fixed number of images here; remove --dynamic-batch")
    if request.dynamic_size and not runtime.takes_any_size:
        raise OvertoneError(f"{runtime.title} takes images of one size here; export for one size, without --dynamic")
    if request.image_folder is not None:
        given_images(request.image_folder, 1)


def _check_form(request: Request, origin: Origin) -> None:
    """Refuse an input that the task's networks do not take."""
    form, task = origin.form, origin.task
    if request.dynamic_size and not isinstance(form, ExportForm):
        taken = "square crops" if form is None else "letterboxed images"
        raise OvertoneError(f"--dynamic is for outputs that are maps; a {task} takes {taken}, of --size pixels")
    if form is not None and request.with_preprocessing:
        raise OvertoneError(f"--with-preprocessing is for square crops, and a {task} takes none; remove it")
    if origin.graph_form is not None and request.dynamic_batch:
        raise OvertoneError(f"a {task} is exported for single letterboxed images; remove --dynamic-batch")


def predictor_for(model: nn.Module, origin: Origin, request: Request, folder: Path) -> Predictor:
    """A network in a runtime, without a check: the artifact goes into `folder`, which must outlive the predictor.

    `origin` is that of the runtime (`Origin.for_runtime`).

    Raises:
        OvertoneError: what cannot be had (`check_request`).
    """
    check_request(request)
    check_size(model, "the network", origin.preprocess)
    runtime = runtime_named(request.runtime)
    job = _job(model, origin, request, _images(request, origin.preprocess))
    _convert(runtime, job, folder)
    return runtime.open(folder, request.precision, None if request.dynamic_batch else 1)


def open_export(folder: Path) -> tuple[Predictor, About]:
    """Open an export; every artifact that a user names passes through here.

    Raises:
        OvertoneError: no export, damaged, not trusted although it can carry code, a runtime that is not installed, or a
            precision that this processor lacks.
    """
    about = admit(folder)
    return _opened(folder, about), about


def _opened(folder: Path, about: About) -> Predictor:
    runtime = runtime_named(about.runtime)
    runtime.check(about.precision, to_write=False)
    return runtime.open(folder, about.precision, about.input.shape[0])


def _write(model: nn.Module, origin: Origin, request: Request, folder: Path) -> About:
    runtime, images = runtime_named(request.runtime), _images(request, origin.preprocess)
    shown = images.checked if images.kind == "given" else []
    origin = origin.for_runtime(runtime, [(image.height, image.width) for image in shown])
    preprocess, form = origin.preprocess, origin.graph_form
    job = _job(model, origin, request, images, tuple(spec.name for spec in origin.outputs))
    _convert(runtime, job, folder)
    files = {name: sha256(folder / name) for name in runtime.files if (folder / name).is_file()}
    unknown = sorted(path.name for path in folder.iterdir() if path.name not in files)
    assert not unknown, f"{runtime.title} wrote {unknown}, which Runtime.files lacks"
    golden = generated_images(_GOLDEN_IMAGES, request.generated_size(preprocess), _GOLDEN_SEED)
    names = {field.name for field in dataclasses.fields(origin)} - {"outputs", "script", "script_does", "form"}
    kept = {name: getattr(origin, name) for name in names}
    if form is not None:
        kept["settings"] = {**origin.settings, FORM: dict(form.settings)}
    about = About(
        runtime=request.runtime,
        precision=request.precision,
        input=_input(job),
        num_classes=_num_classes(model, origin, golden[0]),
        **kept,
        task_settings=origin.form.settings if isinstance(origin.form, ExportForm) else {},
        output=job.outputs[0],
        more_outputs=job.outputs[1:],
        files=files,
        bytes=sum((folder / name).stat().st_size for name in files),
        calibrated=len(job.calibration),
        versions=_versions(runtime),
    )
    predictor = _opened(folder, about)
    transforms = origin.image_transform
    if form is not None:
        parity = verified_answers(model, form, about, predictor, images.checked, images.kind)
    else:
        parity = verified(model, origin.outputs, transforms, about, predictor, images.checked, images.kind)
    about = dataclasses.replace(about, parity=parity)
    if origin.script:
        pixels = lines_to_logits(job.kind, preprocess) if origin.form is None else []
        lines = runtime.script(request.precision)
        script = run_script(origin.script_does, pixels, preprocess.exif, lines, origin.script)
        (folder / SCRIPT).write_text(script, encoding="utf-8")
    few = golden if origin.form is None else golden[:1]  # maps are large
    write_golden(model if form is None else job.net, transforms, folder, about, predictor, few)
    if runtime.carries_code:
        record(files, origin.source)
    write_about(folder, about)
    for path in folder.iterdir():
        flush(path)
    flush(folder)
    return about


def _convert(runtime: Runtime, job: Job, folder: Path) -> None:
    """Write the artifact.

    Raises:
        OvertoneError: the converter of the runtime cannot take this network; their exceptions are of every kind.
    """
    try:
        how = ", at any size as --dynamic asks" if job.dynamic_size else ""
        with in_one_line(f"{runtime.title} cannot take this network in {job.precision}{how}"):
            runtime.write(job, folder)
    except OvertoneError as error:
        if shutil.disk_usage(folder).free < _bytes_of(job.net):  # not every converter says why it could not write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _bytes_of(net: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def _job(
    model: nn.Module, origin: Origin, request: Request, images: _Images, outputs: tuple[str, ...] = (LOGITS,)
) -> Job:
    preprocess, form = origin.preprocess, origin.graph_form
    kind = request.kind(preprocess)
    transform = origin.image_transform(kind)
    example = example_input(kind, preprocess, 1, any_size=request.dynamic_size)
    if form is None:
        net = with_input(deploy(model, preprocess.size), kind, preprocess)
    else:
        net, example = form.graph(deploy(model, form.size)), example.new_zeros(1, 3, *form.size)
    if request.dynamic_size:
        check_any_size(net, origin.architecture, example)
    return Job(
        net=net,
        example=example,
        kind=kind,
        precision=request.precision,
        dynamic_batch=request.dynamic_batch,
        dynamic_size=request.dynamic_size,
        calibration=tuple(as_batch(transform, image).numpy() for image in images.calibrated),
        outputs=outputs if form is None else form.outputs,
        dynamic_outputs=form is not None and runtime_named(request.runtime).dynamic_outputs,
        has_coordinates=form is not None,
    )


def _num_classes(model: nn.Module, origin: Origin, image: Image.Image) -> int:
    """Channels of the first output, or what another graph's outputs are about."""
    if origin.graph_form is not None:
        return origin.graph_form.num_classes
    return reference(model, origin.image_transform, [image])[0][0].shape[1]


def takes_any_size(model: nn.Module, origin: Origin) -> bool:
    """Whether a network can be exported for any height and width."""
    if not isinstance(origin.form, ExportForm):
        return False
    example = example_input("normalised", origin.preprocess, 1, any_size=True)
    try:
        check_any_size(deploy(model, origin.preprocess.size), origin.architecture, example)
    except OvertoneError:
        return False
    return True


def _input(job: Job) -> Input:
    sizes = job.open_sizes()
    shape = tuple(None if axis in sizes else side for axis, side in enumerate(job.example.shape))
    return Input(job.kind, shape, str(job.example.dtype).removeprefix("torch."))


def _images(request: Request, preprocess: Preprocess) -> _Images:
    """Those to check with, and for int8 others to calibrate with where there are enough."""
    quantised = request.precision.startswith("int8")
    if request.image_folder is None:
        return _Images(generated_images(request.checked, request.generated_size(preprocess)), [], "generated")
    paths = given_images(request.image_folder, request.checked + (CALIBRATED if quantised else 0))
    every = max(2, round(len(paths) / request.checked)) if quantised else 1
    checked = paths[::every][: request.checked]
    others = [path for path in paths if path not in set(checked)] if quantised else []
    return _Images(
        list(read_images(checked, preprocess.exif)),
        list(read_images(others or checked, preprocess.exif)) if quantised else [],
        "given",
    )


def _versions(runtime: Runtime) -> dict[str, str]:
    return {
        "overtone": __version__,
        "torch": str(torch.__version__),
        "timm": version("timm"),
        **runtime.version(),
        "python": platform.python_version(),
    }


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse a folder that must not be replaced.

    Raises:
        OvertoneError: it holds an earlier export and `overwrite` is not set, or a file that is not of an export.
    """
    try:
        if is_export(out) and not overwrite:
            raise OvertoneError(f"{out} holds an earlier export; replace it with --overwrite, or choose another --out")
        check_replaceable(out, FILES if is_export(out) else (), "choose another --out")
    except OSError as error:
        raise OvertoneError(f"{out} cannot be used: {error.strerror or error}; choose another --out") from error
