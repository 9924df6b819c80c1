"""OpenVINO: float32, bfloat16 by its inference hint, int8 by NNCF."""

import importlib.util
import sys
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from overtone.deployment.artifact import INPUT, OUTPUT
from overtone.deployment.centred import centre_maps
from overtone.deployment.channels_first import with_channels_first
from overtone.deployment.quiet import quiet
from overtone.deployment.runtimes import Job, Predictor, Runtime
from overtone.models.hornet import HorNet

_SUMS_AND_FILTERS = r".*/aten\.(add|bmm)\..*"


class OpenVinoPredictor(Predictor):
    """A compiled model on the CPU."""

    def __init__(self, path: Path, precision: str, batch: int | None) -> None:
        super().__init__(batch)
        openvino = _openvino()
        settings = {
            "INFERENCE_PRECISION_HINT": _hint(precision),
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
        }
        self.request = openvino.Core().compile_model(path, "CPU", settings).create_infer_request()

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch."""
        return np.array(self.request.infer({INPUT: images})[OUTPUT], dtype=np.float32)


class OpenVino(Runtime):
    """OpenVINO's intermediate representation: model.xml and model.bin."""

    name, title, extra, file = "openvino", "OpenVINO", "openvino", "model.xml"
    modules = ("openvino",)
    precisions = ("float32", "bfloat16", "int8", "int8+bfloat16")

    def import_library(self) -> None:
        """Import OpenVINO."""
        _openvino()

    def missing(self, precision: str = "float32", *, to_write: bool = True) -> str | None:
        """Why it is not there; int8 needs NNCF to be written."""
        if to_write and precision.startswith("int8") and importlib.util.find_spec("nncf") is None:
            return 'int8 for OpenVINO needs nncf, which is not installed: pip install "overtone[openvino]"'
        return super().missing(precision, to_write=to_write)

    def write(self, job: Job, folder: Path) -> None:
        """Write model.xml and model.bin."""
        openvino = _openvino()
        net = with_channels_first(job.net)
        centre_maps(net)
        program = job.program(net)
        with quiet():
            model = openvino.convert_model(program)
            if job.kind != "picture":  # sizes that are left open cost speed
                images = -1 if job.dynamic_batch else len(job.example)
                model.reshape([images, *job.example.shape[1:]])
            model.inputs[0].get_tensor().set_names({INPUT})
            model.outputs[0].get_tensor().set_names({OUTPUT})
            if job.precision.startswith("int8"):
                model = _quantised(model, job)
            openvino.save_model(model, folder / self.file, compress_to_fp16=False)

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.xml."""
        return OpenVinoPredictor(folder / self.file, precision, batch)

    def script(self, precision: str) -> tuple[str, str]:
        """Lines for run.py."""
        return "openvino", (
            f'settings = {{"INFERENCE_PRECISION_HINT": "{_hint(precision)}"}}\n'
            f'net = openvino.Core().compile_model(here / "{self.file}", "CPU", settings)\n'
            "logits = net(images)[0][0]"
        )

    def version(self) -> dict[str, str]:
        """Version of OpenVINO."""
        return {"openvino": version("openvino")}


def _openvino() -> Any:
    """The package, without its telemetry, which reports to its makers unless it cannot be imported."""
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


def _hint(precision: str) -> str:
    return "bf16" if "bfloat16" in precision else "f32"


def _quantised(model: Any, job: Job) -> Any:
    import nncf

    # HorNet's sums, above all of its residual maps, lose the most and gain nothing: without them the logits are off by
    # half as much. Its global filters in int8 are nothing that every processor's plugin compiles, and no faster.
    is_hornet = any(isinstance(module, HorNet) for module in job.net.modules())
    return nncf.quantize(
        model,
        nncf.Dataset(list(job.calibration), lambda image: {INPUT: image}),
        preset=nncf.QuantizationPreset.MIXED,
        subset_size=len(job.calibration),
        ignored_scope=nncf.IgnoredScope(patterns=[_SUMS_AND_FILTERS], validate=False) if is_hornet else None,
    )
