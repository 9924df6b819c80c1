"""PyTorch as a runtime: an exported program, a package compiled ahead of time, or compiled as it runs."""

import copy
import io
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves, tree_map

from overtone.deployment.quiet import quiet
from overtone.deployment.runtimes.pt2_archive import load_program, save_program
from overtone.deployment.runtimes.runtime import Job, Predictor, Runtime, check_compiler

_IMPORTS = "torch\nfrom torch.utils._pytree import tree_leaves"
_CALL = "[output.detach().numpy() for output in tree_leaves(net(torch.from_numpy(images)))]"  # of run.py


class InBfloat16(nn.Module):
    """A network whose weights and arithmetic are bfloat16, between an input and outputs in float32."""

    def __init__(self, net: nn.Module) -> None:
        super().__init__()
        self.net = net.to(torch.bfloat16)

    def forward(self, images: Tensor) -> Any:
        """The outputs in float32."""
        return tree_map(lambda output: output.to(torch.float32), self.net(images.to(torch.bfloat16)))


class TorchPredictor(Predictor):
    """Anything callable on tensors."""

    def __init__(self, function: Any, batch: int | None) -> None:
        super().__init__(batch)
        self.function = function

    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs of a batch."""
        with torch.inference_mode():
            outputs = tree_leaves(self.function(torch.from_numpy(images)))
        return tuple(output.float().cpu().numpy() for output in outputs)


class TorchExported(Runtime):
    """`torch.export`'s file, which PyTorch reads on any machine."""

    name, title = "torch", "PyTorch"
    files, carries_code = ("model.pt2",), True  # a graph may name any function of PyTorch's modules
    precisions = ("float32", "bfloat16")

    def write(self, job: Job, folder: Path) -> None:
        """Write model.pt2."""
        program = job.program(_in_precision(job))
        with quiet():
            content = save_program(program)
        # Through memory: PyTorch's own writer ends the process where the disk is full.
        (folder / self.file).write_bytes(content)

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.pt2."""
        with quiet():
            module = load_program(folder / self.file).module()
        return TorchPredictor(module, batch)

    def script(self, precision: str) -> tuple[str, str, str]:
        """Lines for run.py."""
        return _IMPORTS, f'net = torch.export.load(here / "{self.file}").module()', _CALL

    def version(self) -> dict[str, str]:
        """PyTorch's version is in every model.json."""
        return {}


class AheadOfTime(TorchExported):
    """AOTInductor: a shared library for this kind of machine, which PyTorch loads without compiling."""

    name, title = "aoti", "AOTInductor"

    def check(self, precision: str, *, to_write: bool) -> None:
        """Refuse what is impossible, and compiling without a compiler."""
        super().check(precision, to_write=to_write)
        if to_write:
            check_compiler()

    def write(self, job: Job, folder: Path) -> None:
        """Compile into model.pt2."""
        program = job.program(_in_precision(job))
        content = io.BytesIO()
        with quiet(), torch.no_grad():
            torch._inductor.aoti_compile_and_package(program, package_path=content)
        (folder / self.file).write_bytes(content.getbuffer())

    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read model.pt2."""
        with quiet():
            return TorchPredictor(torch._inductor.aoti_load_package(str(folder / self.file)), batch)

    def script(self, precision: str) -> tuple[str, str, str]:
        """Lines for run.py."""
        return _IMPORTS, f'net = torch._inductor.aoti_load_package(str(here / "{self.file}"))', _CALL


def _in_precision(job: Job) -> nn.Module:
    return InBfloat16(copy.deepcopy(job.net)) if job.precision == "bfloat16" else job.net
