"""ONNX Runtime: float32, and int8 by static quantisation (QDQ, per channel)."""

import tempfile
from collections.abc import Collection
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from overtone.deployment.quiet import quiet
from overtone.deployment.rewrites.adaptive_pools import make_pools_products
from overtone.deployment.runtimes.onnx_file import external_files
from overtone.deployment.runtimes.runtime import INPUT, Job, Predictor, Runtime
from overtone.errors import OvertoneError


class OnnxPredictor(Predictor):
    """A session on the CPU."""

    def __init__(self, onnxruntime: Any, path: Path, batch: int | None) -> None:
        super().__init__(batch)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs of a batch."""
        return tuple(map(np.asarray, self.session.run(None, {INPUT: images})))


class OnnxRuntime(Runtime):
    """An ONNX file."""

    name, title, extra = "onnx", "ONNX Runtime", "onnx"
    files, carries_code = ("model.onnx", "model.onnx.data"), False
    modules, tools = ("onnxruntime",), ("onnx", "onnxscript")
    precisions = ("float32", "int8")
    dynamic_outputs = True

    def write(self, job: Job, folder: Path) -> None:
        """Write model.onnx."""
        self.import_library()
        if job.dynamic_size:
            make_pools_products(job.net)
        program = job.program()
        with quiet(), torch.no_grad():
            converted = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=[INPUT], output_names=list(job.outputs)
            )
            assert converted is not None
            if job.precision == "float32":
                converted.save(str(folder / self.file))
                return
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                whole = Path(scratch) / "float32.onnx"
                converted.save(str(whole))
                _quantise(whole, folder / self.file, job)

    def verify(self, folder: Path, files: Collection[str]) -> None:
        """Refuse tensors that lie in other files than those of the export."""
        foreign = external_files(folder / self.file) - (set(files) - {self.file})
        if foreign:
            raise OvertoneError(
                f"{folder / self.file} is refused: it would open {sorted(foreign)[0]!r}, which is not a file of this "
                "export; export the network again"
            )

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.onnx."""
        return OnnxPredictor(self.import_library(), folder / self.file, batch)

    def script(self, precision: str) -> tuple[str, str, str]:
        """Lines for run.py."""
        return (
            "onnxruntime",
            f'net = onnxruntime.InferenceSession(str(here / "{self.file}"), providers=["CPUExecutionProvider"])',
            f'net.run(None, {{"{INPUT}": images}})',
        )

    def version(self) -> dict[str, str]:
        """Versions of ONNX and its runtime."""
        return {name: version(name) for name in self.modules + self.tools}


def _quantise(source: Path, target: Path, job: Job) -> None:
    """Int8 weights, one range per channel, and uint8 activations, whose ranges come from the calibration's images."""
    from onnxruntime import quantization
    from onnxruntime.quantization import shape_inference

    class Reader(quantization.CalibrationDataReader):
        def __init__(self) -> None:
            self.images = iter(job.calibration)

        def get_next(self) -> dict[str, np.ndarray] | None:
            image = next(self.images, None)
            return None if image is None else {INPUT: image}

    prepared = source.with_name("prepared.onnx")
    shape_inference.quant_pre_process(str(source), str(prepared), skip_symbolic_shape=True)
    quantization.quantize_static(
        str(prepared),
        str(target),
        Reader(),
        quant_format=quantization.QuantFormat.QDQ,
        per_channel=True,
        activation_type=quantization.QuantType.QUInt8,
        weight_type=quantization.QuantType.QInt8,
        op_types_to_quantize=["Conv", "Gemm", "MatMul", *([] if job.has_coordinates else ["Add"])],
    )
