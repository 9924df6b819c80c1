"""ONNX Runtime: float32, and int8 by static quantisation (QDQ, per channel)."""

import tempfile
from importlib.metadata import version
from pathlib import Path

import numpy as np
import torch

from overtone.deployment.artifact import INPUT, OUTPUT
from overtone.deployment.quiet import quiet
from overtone.deployment.runtimes import Job, Predictor, Runtime


class OnnxPredictor(Predictor):
    """A session on the CPU."""

    def __init__(self, path: Path, batch: int | None) -> None:
        import onnxruntime

        super().__init__(batch)
        settings = onnxruntime.SessionOptions()
        settings.intra_op_num_threads = torch.get_num_threads()
        settings.log_severity_level = 3
        self.session = onnxruntime.InferenceSession(str(path), settings, providers=["CPUExecutionProvider"])

    def run(self, images: np.ndarray) -> np.ndarray:
        """Logits of a batch."""
        return np.asarray(self.session.run([OUTPUT], {INPUT: images})[0])


class OnnxRuntime(Runtime):
    """An ONNX file."""

    name, title, extra, file = "onnx", "ONNX Runtime", "onnx", "model.onnx"
    modules, tools = ("onnxruntime",), ("onnx", "onnxscript")
    precisions = ("float32", "int8")

    def write(self, job: Job, folder: Path) -> None:
        """Write model.onnx."""
        program = job.program()
        with quiet(), torch.no_grad():
            converted = torch.onnx.export(
                program, (), dynamo=True, verbose=False, input_names=[INPUT], output_names=[OUTPUT]
            )
            assert converted is not None
            if job.precision == "float32":
                converted.save(str(folder / self.file))
                return
            with tempfile.TemporaryDirectory(dir=folder) as scratch:
                whole = Path(scratch) / "float32.onnx"
                converted.save(str(whole))
                _quantise(whole, folder / self.file, job)

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.onnx."""
        return OnnxPredictor(folder / self.file, batch)

    def script(self, precision: str) -> tuple[str, str]:
        """Lines for run.py."""
        return "onnxruntime", (
            f'net = onnxruntime.InferenceSession(str(here / "{self.file}"), providers=["CPUExecutionProvider"])\n'
            f'logits = net.run(["{OUTPUT}"], {{"{INPUT}": images}})[0][0]'
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
        op_types_to_quantize=["Conv", "Gemm", "MatMul", "Add"],
    )
