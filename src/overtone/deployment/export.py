"""A network written for a runtime, and proved there before its folder gets its name."""

import dataclasses
import errno
import os
import platform
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn

from overtone import __version__
from overtone.checkpoint import flush
from overtone.config import Preprocess, to_dict
from overtone.deployment.artifact import (
    GOLDEN,
    GOLDEN_PICTURE,
    SCRIPT,
    About,
    Input,
    is_export,
    read_about,
    sha256,
    write_about,
)
from overtone.deployment.fold import deploy
from overtone.deployment.inputs import InputKind, as_batch, example_input, input_transform, with_input
from overtone.deployment.parity import Parity, bound_of, compare
from overtone.deployment.pictures import generated_pictures, given_pictures, read_pictures
from overtone.deployment.run_script import run_script
from overtone.deployment.runtimes import Job, Predictor, Runtime, first_line, in_one_line
from overtone.deployment.targets import runtime_named
from overtone.errors import OvertoneError

CHECKED, CALIBRATED, GOLDEN_PICTURES = 32, 256, 4
_GOLDEN_SEED = 1


@dataclass(frozen=True)
class Origin:
    """What a network is and where it comes from: what `model.json` repeats."""

    architecture: str
    preprocess: Preprocess
    source: str
    classes: tuple[str, ...] | None = None
    labels: tuple[str, ...] | None = None
    proof: str | None = None
    published: str | None = None
    trained: bool = True
    data: Mapping[str, Any] | None = None


@dataclass(frozen=True)
class Request:
    """What is asked for.

    Attributes:
        runtime: see `targets.RUNTIMES`.
        precision: see `runtimes.PRECISIONS`.
        dynamic_batch: any number of images in a call, rather than one.
        with_preprocessing: normalisation in the graph, and the resize where runtime and precision allow it.
        pictures: folder of real pictures to check with, and to take int8's ranges from; None: generated ones.
        checked: how many pictures to check with.
    """

    runtime: str = "onnx"
    precision: str = "float32"
    dynamic_batch: bool = False
    with_preprocessing: bool = False
    pictures: Path | None = None
    checked: int = CHECKED

    def kind(self, preprocess: Preprocess) -> InputKind:
        """What the artifact takes.

        The resize stays outside in half precision, which would spoil its weights, and where it does not keep the ratio
        of the sides, because the order of Pillow's two passes then depends on Pillow's version.
        """
        if not self.with_preprocessing:
            return "normalised"
        whole = runtime_named(self.runtime).takes_pictures and self.precision == "float32"
        return "picture" if whole and preprocess.resize == "shorter" else "pixels"


@dataclass(frozen=True)
class _Pictures:
    checked: list[Image.Image]
    calibrated: list[Image.Image]
    kind: str


def export(model: nn.Module, origin: Origin, request: Request, out: Path, *, overwrite: bool = False) -> About:
    """Write a network for a runtime into a folder that appears when it has been proved.

    Args:
        model: the network, on the CPU in float32 and eval mode; it is left as it is.
        origin: what it is.
        request: what is to be written.
        out: the folder.
        overwrite: replace an earlier export.

    Raises:
        OvertoneError: what cannot be had (`check_request`), a folder that is in use, or logits that do not agree.
    """
    check_request(request)
    check_folder(out, overwrite)
    check_size(model, origin.architecture, origin.preprocess)
    temporary = out.with_name(f".{out.name}.{os.getpid()}.tmp")
    shutil.rmtree(temporary, ignore_errors=True)
    try:
        temporary.mkdir(parents=True)
        about = _write(model, origin, request, temporary)
        move(temporary, out)
    except OSError as error:
        raise OvertoneError(f"{out} could not be written: {error.strerror or error}; choose another --out") from error
    finally:
        shutil.rmtree(temporary, ignore_errors=True)
    return about


def check_request(request: Request) -> None:
    """Refuse what cannot be, before any work.

    Raises:
        OvertoneError: a runtime that is not installed, a precision that it or the processor lacks, int8 without
            pictures, an open number of images where the runtime needs a fixed one, or a folder without pictures.
    """
    runtime = runtime_named(request.runtime)
    runtime.check(request.precision, to_write=True)
    if request.precision.startswith("int8") and request.pictures is None:
        raise OvertoneError(
            "int8 takes its ranges from pictures like those to come: add --calibration DIR, some hundred of them"
        )
    if request.dynamic_batch and not runtime.takes_any_batch:
        raise OvertoneError(f"{runtime.title} takes a fixed number of images here; leave --dynamic-batch out")
    if request.pictures is not None:
        given_pictures(request.pictures, 1)


def predictor_for(model: nn.Module, preprocess: Preprocess, request: Request, folder: Path) -> Predictor:
    """A network in a runtime, without a check: the artifact goes into `folder`, which must outlive the predictor.

    Raises:
        OvertoneError: what cannot be had (`check_request`).
    """
    check_request(request)
    check_size(model, "the network", preprocess)
    runtime = runtime_named(request.runtime)
    pictures = _pictures(request, preprocess)
    job = _job(model, preprocess, request, pictures)
    _convert(runtime, job, folder)
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
    """Read an export.

    Raises:
        OvertoneError: no export, damaged, a runtime that is not installed, or a precision that this processor lacks.
    """
    about = read_about(folder)
    runtime = runtime_named(about.runtime)
    runtime.check(about.precision, to_write=False)
    return runtime.open(folder, about.precision, about.input.shape[0]), about


def _write(model: nn.Module, origin: Origin, request: Request, folder: Path) -> About:
    runtime, preprocess = runtime_named(request.runtime), origin.preprocess
    pictures = _pictures(request, preprocess)
    job = _job(model, preprocess, request, pictures)
    _convert(runtime, job, folder)
    files = {path.name: sha256(path) for path in sorted(folder.iterdir())}
    golden = generated_pictures(GOLDEN_PICTURES, preprocess.size, _GOLDEN_SEED)
    reference = _reference(model, preprocess, golden[:1])
    about = About(
        runtime=request.runtime,
        precision=request.precision,
        input=_input(job),
        num_classes=reference.shape[1],
        **{field.name: getattr(origin, field.name) for field in dataclasses.fields(origin)},
        files=files,
        bytes=sum((folder / name).stat().st_size for name in files),
        calibrated=len(job.calibration),
        versions=_versions(runtime),
    )
    write_about(folder, about)
    parity = _prove(model, preprocess, request, pictures, folder)
    about = dataclasses.replace(about, parity=to_dict(parity))
    write_about(folder, about)
    (folder / SCRIPT).write_text(run_script(job.kind, preprocess, *runtime.script(request.precision)), encoding="utf-8")
    _write_golden(model, folder, golden)
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


def _job(model: nn.Module, preprocess: Preprocess, request: Request, pictures: _Pictures) -> Job:
    kind = request.kind(preprocess)
    transform = input_transform(kind, preprocess)
    return Job(
        net=with_input(deploy(model, preprocess.size), kind, preprocess),
        example=example_input(kind, preprocess, 1),
        kind=kind,
        precision=request.precision,
        dynamic_batch=request.dynamic_batch,
        calibration=tuple(as_batch(transform, picture).numpy() for picture in pictures.calibrated),
    )


def _input(job: Job) -> Input:
    shape: list[int | None] = list(job.example.shape)
    if job.dynamic_batch:
        shape[0] = None
    if job.kind == "picture":
        shape[1] = shape[2] = None
    return Input(job.kind, tuple(shape), str(job.example.dtype).removeprefix("torch."))


def _pictures(request: Request, preprocess: Preprocess) -> _Pictures:
    """Those to check with, and for int8 others to calibrate with where there are enough."""
    quantised = request.precision.startswith("int8")
    if request.pictures is None:
        return _Pictures(generated_pictures(request.checked, preprocess.size), [], "generated")
    paths = given_pictures(request.pictures, request.checked + (CALIBRATED if quantised else 0))
    every = max(2, round(len(paths) / request.checked)) if quantised else 1
    checked = paths[::every][: request.checked]
    others = [path for path in paths if path not in set(checked)] if quantised else []
    return _Pictures(
        list(read_pictures(checked, preprocess.exif)),
        list(read_pictures(others or checked, preprocess.exif)) if quantised else [],
        "given",
    )


def _prove(model: nn.Module, preprocess: Preprocess, request: Request, pictures: _Pictures, folder: Path) -> Parity:
    predictor, about = open_export(folder)
    title = runtime_named(request.runtime).title
    with in_one_line(f"{title} cannot run this network in {request.precision} on this machine"):
        logits = np.concatenate(list(_answers(predictor, about, pictures.checked)))
    bound = bound_of(request.precision, about.input.kind)
    parity = compare(_reference(model, preprocess, pictures.checked), logits, bound, pictures.kind)
    parity.check(f"the {title} form in {request.precision}")
    return parity


def _answers(predictor: Predictor, about: About, pictures: Sequence[Image.Image]) -> Iterator[np.ndarray]:
    transform = input_transform(about.input.kind, about.preprocess)
    for picture in pictures:
        yield predictor.predict(as_batch(transform, picture).numpy())


def _reference(model: nn.Module, preprocess: Preprocess, pictures: Sequence[Image.Image]) -> np.ndarray:
    """Logits (B, K) of the network itself, image by image."""
    transform = input_transform("normalised", preprocess)
    with torch.inference_mode():
        return np.concatenate([model(as_batch(transform, picture)).numpy() for picture in pictures])


def _write_golden(model: nn.Module, folder: Path, pictures: list[Image.Image]) -> None:
    """Inputs and outputs, from generated pictures: a user's own stay where they are."""
    predictor, about = open_export(folder)
    transform = input_transform(about.input.kind, about.preprocess)
    inputs = [as_batch(transform, picture).numpy()[0] for picture in pictures]
    first = inputs[0].shape
    kept = [position for position, values in enumerate(inputs) if values.shape == first]
    np.savez(
        folder / GOLDEN,
        inputs=np.stack([inputs[position] for position in kept]),
        outputs=np.concatenate([predictor.predict(inputs[position][None]) for position in kept]),
        reference=_reference(model, about.preprocess, [pictures[position] for position in kept]),
    )
    pictures[0].save(folder / GOLDEN_PICTURE)


def _versions(runtime: Runtime) -> dict[str, str]:
    return {
        "overtone": __version__,
        "torch": str(torch.__version__),
        "timm": version("timm"),
        **runtime.version(),
        "python": platform.python_version(),
    }


def check_folder(out: Path, overwrite: bool) -> None:
    """Refuse to replace what is not an export, or is one and may not be replaced.

    Raises:
        OvertoneError: so it is.
    """
    if not out.exists():
        return
    if not is_export(out):
        if out.is_dir() and not any(out.iterdir()):
            return
        raise OvertoneError(f"{out} holds something that is not an export; choose another folder with --out")
    if not overwrite:
        raise OvertoneError(f"{out} holds an earlier export; replace it with --overwrite, or choose another --out")


def move(temporary: Path, out: Path) -> None:
    """Give the finished folder its name; what was there goes when the new one has it."""
    old = out.with_name(f".{out.name}.{os.getpid()}.old")
    if out.exists():
        os.replace(out, old)
    try:
        os.replace(temporary, out)
    except OSError:
        if old.exists():
            os.replace(old, out)
        raise
    flush(out.absolute().parent)
    with suppress(OSError):
        shutil.rmtree(old, ignore_errors=True)
