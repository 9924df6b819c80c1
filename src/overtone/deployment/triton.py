"""A model repository for Triton and OpenVINO Model Server: a verified export in their layout, with its configuration.

`REPOSITORY/NAME/config.pbtxt`, `labels.txt`, `model.json` (what `overtone export` writes, preprocessing included),
`preprocessing.md`, and `1/` with the network. float32 and int8 run in the ONNX Runtime back end, precisions with
bfloat16 in that of OpenVINO. The configuration is Triton's `ModelConfig` as text:
https://github.com/triton-inference-server/common/blob/main/protobuf/model_config.proto
"""

import dataclasses
import shutil
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from overtone.config import Preprocess
from overtone.deployment.artifact import ABOUT, About
from overtone.deployment.export import Request, check_request, open_export
from overtone.deployment.origin import default_folder, export_loaded
from overtone.deployment.runtimes import RUNTIMES
from overtone.errors import OvertoneError, printable
from overtone.replacing import check_replaceable, replacing_folder
from overtone.zoo import LoadedModel

CONFIG, LABELS, NOTE, VERSION = "config.pbtxt", "labels.txt", "preprocessing.md", "1"
_BACKENDS = {"onnx": "onnxruntime", "openvino": "openvino"}
_TYPES = {"float32": "TYPE_FP32", "uint8": "TYPE_UINT8", "int64": "TYPE_INT64"}
_FILES = (CONFIG, LABELS, NOTE, *(f"{VERSION}/{name}" for kind in _BACKENDS for name in RUNTIMES[kind].files), ABOUT)
_DELAY_US = 3000


@dataclass(frozen=True)
class Tensor:
    """An input or output in a configuration: its name, NumPy type, and shape without the batch; -1: any number."""

    name: str
    dtype: str
    dims: tuple[int, ...]
    labels: bool = False


def backend_for(precision: str) -> str:
    """The runtime that serves a precision."""
    return "openvino" if "bfloat16" in precision else "onnx"


def export_repository(
    loaded: LoadedModel,
    request: Request,
    repository: Path | None = None,
    *,
    size: int | None = None,
    overwrite: bool = False,
    max_batch: int = 16,
) -> tuple[Path, About]:
    """Export a network, verified, into a model repository, which may hold others.

    Args:
        loaded: the network.
        request: precision, preprocessing and images; the runtime is that of `backend_for`, the batch open.
        repository: the folder; None: `exports/triton`.
        size: pixels, side of the input; None: the network's own.
        overwrite: replace an earlier export of the same name in it.
        max_batch: images of a batch at most.

    Returns:
        The folder of the model, and what was found when it was verified.

    Raises:
        OvertoneError: as `export`; or a network whose outputs have no batch.
    """
    request = dataclasses.replace(request, runtime=backend_for(request.precision), dynamic_batch=True)
    check_request(request)
    named = default_folder(loaded, "triton")
    out = (repository or named.parent / "triton") / named.name.removesuffix("-triton")
    if out.exists() and not overwrite:
        raise OvertoneError(f"{out} is there; replace it with --overwrite, or choose another --out")
    try:
        check_replaceable(out, _FILES, "choose another --out")
        with replacing_folder(out, _FILES) as folder:
            done = export_loaded(loaded, request, folder.with_name("export"), size=size)
            _lay_out(done.folder, done.about, folder, out.name, max_batch)
            shutil.rmtree(done.folder)
    except OSError as error:
        raise OvertoneError(f"{out} could not be written: {error.strerror or error}; choose another --out") from error
    return out, done.about


def _lay_out(export: Path, about: About, folder: Path, name: str, max_batch: int) -> None:
    """Write the folder of a model from its export."""
    outputs = _outputs(export, about)
    (folder / VERSION).mkdir(parents=True)
    for file in about.files:
        shutil.move(export / file, folder / VERSION / file)
    shutil.move(export / ABOUT, folder / ABOUT)
    inner = tuple(-1 if side is None else side for side in about.input.shape[1:])
    names = about.labels or about.classes
    if names:
        (folder / LABELS).write_text("".join(f"{printable(one)}\n" for one in names), encoding="utf-8")
    outputs = [dataclasses.replace(one, labels=bool(names) and one.dims == (about.num_classes,)) for one in outputs]
    taken = Tensor(about.input.name, about.input.dtype, inner)
    text = config_text(name, about, taken, outputs, max_batch)
    (folder / CONFIG).write_text(text, encoding="utf-8")
    (folder / NOTE).write_text(_note(name, about.input.kind, about.preprocess), encoding="utf-8")


def _outputs(export: Path, about: About) -> list[Tensor]:
    """The outputs, found by running the export on blank images.

    Raises:
        OvertoneError: one of them has no batch.
    """
    predictor, _ = open_export(export)
    size = about.preprocess.size
    shape = [2, *(size if side is None else side for side in about.input.shape[1:])]
    arrays = predictor.outputs(np.zeros(shape, dtype=about.input.dtype))
    found = []
    for name, array in zip(about.outputs, arrays, strict=True):
        if array.ndim < 2 or array.shape[0] != 2:
            raise OvertoneError(
                f"{about.architecture} gives {name} without a dimension of images, which Triton's batches need; "
                "serve it with overtone serve"
            )
        found.append(Tensor(name, str(array.dtype), array.shape[1:]))
    return found


def config_text(name: str, about: About, taken: Tensor, outputs: Sequence[Tensor], max_batch: int) -> str:
    """`config.pbtxt` of a model with dynamic batches."""
    backend, file = _BACKENDS[about.runtime], RUNTIMES[about.runtime].file
    lines = [
        f'name: "{name}"',
        f'backend: "{backend}"',
        f'default_model_filename: "{file}"',
        f"max_batch_size: {max_batch}",
        f"input [ {_field(taken)} ]",
        *(f"output [ {_field(output)} ]" for output in outputs),
        f"dynamic_batching {{ max_queue_delay_microseconds: {_DELAY_US} }}",
    ]
    if "bfloat16" in about.precision:
        lines.append('parameters { key: "HINT_BF16" value { string_value: "YES" } }')
    return "\n".join(lines) + "\n"


def _field(tensor: Tensor) -> str:
    dims = ", ".join(map(str, tensor.dims))
    labels = f' label_filename: "{LABELS}"' if tensor.labels else ""
    return f'{{ name: "{tensor.name}" data_type: {_TYPES[tensor.dtype]} dims: [ {dims} ]{labels} }}'


def _note(name: str, kind: str, preprocess: Preprocess) -> str:
    """What a client does to an image first."""
    size, mean, std = preprocess.size, list(preprocess.mean), list(preprocess.std)
    shorter = int(size / preprocess.crop_fraction)
    resize = (
        f"the whole image to {size}x{size} pixels"
        if preprocess.resize == "squash"
        else f"the shorter side to {shorter} pixels, then the {size}x{size} pixels in the middle"
    )
    steps = [
        f"Decode in RGB, 8 bits a channel; EXIF orientation: {preprocess.exif}.",
        f"Resize {resize} ({preprocess.interpolation}, with antialiasing as Pillow does it).",
        f"Divide by 255, subtract the mean {mean}, divide by {std}; float32, channels first: (N, 3, {size}, {size}).",
    ]
    kept = {"normalised": steps, "pixels": [*steps[:2], "Send uint8, channels last: (N, H, W, 3)."]}
    chosen = kept.get(kind, [steps[0], "Send uint8, channels last: (N, H, W, 3), of any size."])
    return f"# What {name} takes\n\n" + "".join(f"{at}. {step}\n" for at, step in enumerate(chosen, 1))
