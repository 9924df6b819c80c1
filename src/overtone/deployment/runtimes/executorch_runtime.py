"""ExecuTorch with XNNPACK's kernels: float32, and int8 by PyTorch 2 export quantisation (PT2E)."""

import importlib
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.export import ExportedProgram

from overtone.deployment.quiet import quiet_process
from overtone.deployment.runtimes.executorch_graph import in_xnnpack_operations
from overtone.deployment.runtimes.runtime import Job, Predictor, Runtime


class ExecuTorchPredictor(Predictor):
    """A program loaded by ExecuTorch's runtime."""

    def __init__(self, path: Path, batch: int | None) -> None:
        super().__init__(batch)
        with quiet_process():
            from executorch.runtime import Runtime as Library

            # The method lives on the program's memory.
            self.program = Library.get().load_program(path)
            self.method: Any = self.program.load_method("forward")

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs of a batch."""
        return tuple(output.clone().numpy() for output in self.method.execute([torch.from_numpy(images)]))


class ExecuTorch(Runtime):
    """A .pte file, as ExecuTorch's runtimes on phones and boards read it."""

    name, title, extra = "executorch", "ExecuTorch", "executorch"
    files, carries_code = ("model.pte",), True
    modules = ("executorch",)
    precisions = ("float32", "int8")
    takes_images = False
    takes_any_batch = False

    def import_library(self) -> Any:
        """Import ExecuTorch's runtime."""
        return importlib.import_module("executorch.runtime")

    def write(self, job: Job, folder: Path) -> None:
        """Write model.pte."""
        with quiet_process(), torch.no_grad():
            from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
            from executorch.exir import to_edge_transform_and_lower

            # Its passes refuse weights that are channels_last; XNNPACK lays them out itself.
            job.net.to(memory_format=torch.contiguous_format)  # type: ignore[call-overload]
            program = job.program(in_xnnpack_operations(job.program()))
            if job.precision == "int8":
                program = job.program(_quantised(program, job))
            lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()]).to_executorch()
        (folder / self.file).write_bytes(lowered.buffer)

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.pte."""
        return ExecuTorchPredictor(folder / self.file, batch)

    def script(self, precision: str) -> tuple[str, str]:
        """Lines for run.py."""
        return "torch\nfrom executorch.runtime import Runtime", (
            f'net = Runtime.get().load_program(here / "{self.file}").load_method("forward")\n'
            "outputs = [output.numpy() for output in net.execute([torch.from_numpy(images)])]"
        )

    def version(self) -> dict[str, str]:
        """Version of ExecuTorch."""
        return {"executorch": version("executorch")}


def _quantised(program: ExportedProgram, job: Job) -> Any:
    from executorch.backends.xnnpack.quantizer.xnnpack_quantizer import (
        XNNPACKQuantizer,
        get_symmetric_quantization_config,
    )
    from torchao.quantization.pt2e.quantize_pt2e import convert_pt2e, prepare_pt2e

    quantizer = XNNPACKQuantizer().set_global(get_symmetric_quantization_config(is_per_channel=True))
    observed = prepare_pt2e(program.module(), quantizer)
    for image in job.calibration:
        observed(torch.from_numpy(image))
    return convert_pt2e(observed)
