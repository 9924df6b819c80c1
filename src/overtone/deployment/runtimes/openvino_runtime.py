"""OpenVINO: float32, bfloat16 by its inference hint, int8 by NNCF."""

import dataclasses
import importlib.util
import re
import tempfile
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from overtone.deployment.inputs import FromPixels
from overtone.deployment.quiet import quiet
from overtone.deployment.rewrites.compiler_form import keep_logits_only, with_channels_first
from overtone.deployment.runtimes.onnx_runtime import OnnxRuntime
from overtone.deployment.runtimes.runtime import INPUT, Job, Predictor, Runtime
from overtone.errors import OvertoneError

_HEAD, _IS_IR = 1024, re.compile(rb"\s*(<\?xml[^<>]*\?>)?\s*<net[\s>]")
_OPERATIONS = r".*/aten\.({})\..*"


class OpenVinoPredictor(Predictor):
    """A compiled model on the CPU."""

    def __init__(self, openvino: Any, path: Path, precision: str, batch: int | None) -> None:
        super().__init__(batch)
        settings = {
            "INFERENCE_PRECISION_HINT": _hint(precision),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs of a batch."""
        found = self.request.infer({INPUT: images})
        return tuple(np.array(found[index], dtype=np.float32) for index in range(len(found)))


class OpenVino(Runtime):
    """OpenVINO's intermediate representation: model.xml and model.bin."""

    name, title, extra = "openvino", "OpenVINO", "openvino"
    files, carries_code = ("model.xml", "model.bin"), False
    modules = ("openvino",)
    precisions = ("float32", "bfloat16", "int8", "int8+bfloat16")

    @property
    def dynamic_outputs(self) -> bool:  # type: ignore[override]
        """Where ONNX files can be written, which such graphs come through."""
        return all(importlib.util.find_spec(name) for name in OnnxRuntime.tools)

    def missing(self, precision: str = "float32", *, to_write: bool = True) -> str | None:
        """Why it is not available; int8 needs NNCF to be written."""
        if to_write and precision.startswith("int8") and importlib.util.find_spec("nncf") is None:
            return 'int8 for OpenVINO needs nncf, which is not installed: pip install "overtone[openvino]"'
        return super().missing(precision, to_write=to_write)

    def write(self, job: Job, folder: Path) -> None:
        """Write model.xml and model.bin."""
        openvino = self.import_library()
        net = with_channels_first(job.net)
        keep_logits_only(net.net if isinstance(net, FromPixels) else net)
        model = _through_onnx(openvino, job, net, folder) if job.dynamic_outputs else None
        program = job.program(net) if model is None else None
        with quiet():
            model = openvino.convert_model(program) if model is None else model
            if job.kind != "image":  # sizes that are left open cost speed
                sizes = job.open_sizes()
                model.reshape([-1 if axis in sizes else side for axis, side in enumerate(job.example.shape)])
            model.inputs[0].get_tensor().set_names({INPUT})
            for output, name in zip(model.outputs, job.outputs, strict=True):
                output.get_tensor().set_names({name})
            if job.precision.startswith("int8"):
                model = _quantised(model, job)
            openvino.save_model(model, folder / self.file, compress_to_fp16=False)

    def verify(self, folder: Path, files: Collection[str]) -> None:
        """Refuse what is not OpenVINO's own format: it would read that of another framework under any name."""
        with (folder / self.file).open("rb") as file:
            head = file.read(_HEAD)
        if not _IS_IR.match(head):
            raise OvertoneError(f"{folder / self.file} is refused: it is not OpenVINO's format; export again")

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.xml."""
        return OpenVinoPredictor(self.import_library(), folder / self.file, precision, batch)

    def script(self, precision: str) -> tuple[str, str, str]:
        """Lines for run.py."""
        hint = f'{{"INFERENCE_PRECISION_HINT": "{_hint(precision)}"}}'
        return (
            "openvino",
            f'net = openvino.Core().compile_model(here / "{self.file}", "CPU", {hint})',
            "net(images).to_tuple()",
        )

    def version(self) -> dict[str, str]:
        """Version of OpenVINO."""
        return {"openvino": version("openvino")}


def _through_onnx(openvino: Any, job: Job, net: Any, folder: Path) -> Any:
    """The model by way of an ONNX file: OpenVINO's reader of PyTorch's graphs takes no shapes that depend on values."""
    with tempfile.TemporaryDirectory(dir=folder) as scratch, quiet():
        OnnxRuntime().write(dataclasses.replace(job, net=net, precision="float32"), Path(scratch))
        return openvino.convert_model(Path(scratch) / OnnxRuntime().file)


def _hint(precision: str) -> str:
    return "bf16" if "bfloat16" in precision else "f32"


def _quantised(model: Any, job: Job) -> Any:
    import nncf

    exempt = sorted({name for module in job.net.modules() for name in getattr(module, "int8_exempt", ())})
    return nncf.quantize(
        model,
        nncf.Dataset(list(job.calibration), lambda image: {INPUT: image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(job.calibration),
        ignored_scope=nncf.IgnoredScope(
            patterns=[_OPERATIONS.format("|".join(exempt))] if exempt else [],
            types=["Add", "Subtract", "Multiply", "Divide"] if job.has_coordinates else [],
            validate=False,
        )
        if exempt or job.has_coordinates
        else None,
    )
