"""A network written for a runtime, and verified there before its folder gets its name."""

import dataclasses
import errno
import os
import platform
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from PIL import Image
from torch import nn
from torch.utils._pytree import tree_leaves

from overtone import __version__
from overtone.config import Preprocess, to_dict
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
from overtone.deployment.inputs import InputKind, example_input, with_input
from overtone.deployment.parity import LOGITS_OF_CLASSES, bound_of, compare, refuse
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.run_script import run_script
from overtone.deployment.runtimes import runtime_named
from overtone.deployment.runtimes.runtime import LOGITS, Job, Predictor, Runtime, first_line, in_one_line
from overtone.deployment.side_by_side import input_of, outputs_of, reference_of, write_golden
from overtone.deployment.trust import record, sha256
from overtone.errors import OvertoneError
from overtone.replacing import check_replaceable, flush, replacing_folder
from overtone.tasks.classification.task import SCRIPT as CLASSIFY
from overtone.tasks.task import Form, OutputSpec

CHECKED, CALIBRATED = 32, 256
_GOLDEN_IMAGES, _GOLDEN_SEED = 4, 1


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
    form: Form | None = None

    def form_in(self, runtime: Runtime) -> Form | None:
        """The form of its task in a runtime."""
        return None if self.form is None else self.form.for_outputs(dynamic=runtime.dynamic_outputs)


@dataclass(frozen=True)
class Request:
    """The form of an export.

    Attributes:
        runtime: see `runtimes.RUNTIMES`.
        precision: see `runtime.PRECISIONS`.
        dynamic_batch: any number of images in a call, rather than one.
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
    check_form(request, origin.form)
    check_folder(out, overwrite)
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
    if request.image_folder is not None:
        given_images(request.image_folder, 1)


def check_form(request: Request, form: Form | None) -> None:
    """Refuse what a task with a form of its own has not.

    Raises:
        OvertoneError: an open number of images, or preprocessing in the graph.
    """
    asked = {"--dynamic-batch": request.dynamic_batch, "--with-preprocessing": request.with_preprocessing}
    for option, is_set in asked.items():
        if form is not None and is_set:
            raise OvertoneError(f"this network is exported for single letterboxed images; remove {option}")


def predictor_for(
    model: nn.Module, preprocess: Preprocess, request: Request, folder: Path, form: Form | None = None
) -> Predictor:
    """A network in a runtime, without a check: the artifact goes into `folder`, which must outlive the predictor.

    Raises:
        OvertoneError: what cannot be had (`check_request`).
    """
    check_request(request)
    check_size(model, "the network", preprocess)
    runtime = runtime_named(request.runtime)
    _convert(runtime, _job(model, preprocess, request, _images(request, preprocess), form=form), folder)
    return runtime.open(folder, request.precision, None if request.dynamic_batch else 1)


def check_size(model: nn.Module, name: str, preprocess: Preprocess) -> None:
    """Make sure that the network takes images of this size.

    Raises:
        OvertoneError: it does not; networks say so with exceptions of every kind.
    """
    size = preprocess.size
    try:
        with torch.inference_mode():
            model(example_input("normalised", preprocess, 1))
    except (RuntimeError, ValueError, AssertionError) as error:
        raise OvertoneError(
            f"{name} cannot take images of {size}x{size} pixels ({first_line(error)}); choose another --size"
        ) from error


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
    runtime, preprocess = runtime_named(request.runtime), origin.preprocess
    images, form = _images(request, preprocess), origin.form_in(runtime)
    if form is not None:
        shown = images.checked if images.kind == "given" else []
        form = form.for_images([(image.height, image.width) for image in shown])
        origin = dataclasses.replace(origin, form=form, preprocess=form.preprocess)
        preprocess = origin.preprocess
    job = _job(model, preprocess, request, images, tuple(spec.name for spec in origin.outputs), form)
    _convert(runtime, job, folder)
    files = {name: sha256(folder / name) for name in runtime.files if (folder / name).is_file()}
    unknown = sorted(path.name for path in folder.iterdir() if path.name not in files)
    assert not unknown, f"{runtime.title} wrote {unknown}, which Runtime.files lacks"
    golden = generated_images(_GOLDEN_IMAGES, preprocess.size, _GOLDEN_SEED)
    names = {field.name for field in dataclasses.fields(origin)} - {"outputs", "script", "form"}
    kept = {name: getattr(origin, name) for name in names}
    if form is not None:
        kept["settings"] = {**origin.settings, FORM: dict(form.settings)}
    about = About(
        runtime=request.runtime,
        precision=request.precision,
        input=_input(job),
        num_classes=_num_classes(model, origin),
        **kept,
        output=job.outputs[0],
        more_outputs=job.outputs[1:],
        files=files,
        bytes=sum((folder / name).stat().st_size for name in files),
        calibrated=len(job.calibration),
        versions=_versions(runtime),
    )
    predictor = _opened(folder, about)
    about = dataclasses.replace(about, parity=_verified(model, origin, about, predictor, images, form))
    script = origin.script if form is None else form.script()
    if script:
        prepare = None if form is None else form.prepare()
        text = run_script(job.kind, preprocess, *runtime.script(request.precision), script, prepare)
        (folder / SCRIPT).write_text(text, encoding="utf-8")
    write_golden(job.net if form else model, folder, about, predictor, golden[:1] if form else golden, form)
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
        with in_one_line(f"{runtime.title} cannot take this network in {job.precision}"):
            runtime.write(job, folder)
    except OvertoneError as error:
        if shutil.disk_usage(folder).free < _bytes_of(job.net):  # not every converter says why it could not write
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC)) from error
        raise


def _bytes_of(net: nn.Module) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in net.state_dict().values())


def _job(
    model: nn.Module,
    preprocess: Preprocess,
    request: Request,
    images: _Images,
    outputs: tuple[str, ...] = (LOGITS,),
    form: Form | None = None,
) -> Job:
    kind = request.kind(preprocess)
    taken, net = input_of(kind, preprocess, form), deploy(model, preprocess.size if form is None else form.size)
    example = example_input(kind, preprocess, 1)
    return Job(
        net=with_input(net, kind, preprocess) if form is None else form.graph(net),
        example=example if form is None else example.new_zeros(1, 3, *form.size),
        kind=kind,
        precision=request.precision,
        dynamic_batch=request.dynamic_batch,
        calibration=tuple(taken(image).numpy() for image in images.calibrated),
        outputs=outputs if form is None else form.outputs,
        dynamic_outputs=form is not None and runtime_named(request.runtime).dynamic_outputs,
        has_coordinates=form is not None,
    )


def _num_classes(model: nn.Module, origin: Origin) -> int:
    """Channels of the first output; of a form the number of its labels."""
    if origin.form is not None:
        return origin.form.num_classes
    with torch.inference_mode():
        return tree_leaves(model(example_input("normalised", origin.preprocess, 1)))[0].shape[1]


def _input(job: Job) -> Input:
    shape: list[int | None] = list(job.example.shape)
    if job.dynamic_batch:
        shape[0] = None
    if job.kind == "image":
        shape[1] = shape[2] = None
    return Input(job.kind, tuple(shape), str(job.example.dtype).removeprefix("torch."))


def _images(request: Request, preprocess: Preprocess) -> _Images:
    """Those to check with, and for int8 others to calibrate with where there are enough."""
    quantised = request.precision.startswith("int8")
    if request.image_folder is None:
        return _Images(generated_images(request.checked, preprocess.size), [], "generated")
    paths = given_images(request.image_folder, request.checked + (CALIBRATED if quantised else 0))
    every = max(2, round(len(paths) / request.checked)) if quantised else 1
    checked = paths[::every][: request.checked]
    others = [path for path in paths if path not in set(checked)] if quantised else []
    return _Images(
        list(read_images(checked, preprocess.exif)),
        list(read_images(others or checked, preprocess.exif)) if quantised else [],
        "given",
    )


def _verified(
    model: nn.Module, origin: Origin, about: About, predictor: Predictor, images: _Images, form: Form | None
) -> dict[str, Any]:
    """How far the outputs are from the network's: the first one's agreement, and `more` by name for the others.

    Raises:
        OvertoneError: the runtime cannot run the network here, or an output does not agree.
    """
    title, found = runtime_named(about.runtime).title, dict[str, dict[str, Any]]()
    with in_one_line(f"{title} cannot run this network in {about.precision} on this machine"), torch.inference_mode():
        if form is not None:
            inputs = [form.inputs(image) for image in images.checked]
            answers = [form.answer(predictor.outputs, one) for one in inputs]
            record, failures = form.compare([model(one) for one in inputs], answers, about.precision)
            what = f"the {title} form in {about.precision}"
            refuse(what, failures, f"{len(inputs)} {images.kind}", is_exact=about.precision == "float32")
            return {"images": len(inputs), "pictures": images.kind, **record}
        outputs = outputs_of(predictor, input_of(about.input.kind, about.preprocess), images.checked)
    references = reference_of(model, input_of("normalised", about.preprocess), images.checked)
    for spec, reference, output in zip(origin.outputs, references, outputs, strict=True):
        agreement = compare(reference, output, bound_of(about.precision, about.input.kind), images.kind, spec)
        agreement.check(f"the {title} form in {about.precision}")
        found[spec.name] = to_dict(agreement)
    first, *others = found.items()
    return first[1] | ({"more": dict(others)} if others else {})


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
