"""The interface of every runtime: how a network is written for it, verified, read again and run."""

import importlib
import importlib.util
import os
import shutil
from abc import ABC, abstractmethod
from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.export import Dim, ExportedProgram

from overtone.deployment.inputs import InputKind
from overtone.deployment.quiet import quiet
from overtone.deployment.telemetry import switch_off_telemetry
from overtone.errors import OvertoneError
from overtone.tasks.export_forms import GraphForm

INPUT, LOGITS = "images", "logits"
PRECISIONS = ("float32", "bfloat16", "int8", "int8+bfloat16")


@contextmanager
def in_one_line(what: str) -> Iterator[None]:
    """Translate the exceptions of exporters and runtimes, which are of every kind.

    Args:
        what: the beginning of the message: who cannot do what.

    Raises:
        OvertoneError: for them. Errors of the system, and an `OvertoneError`, pass unchanged.
    """
    try:
        yield
    except (OvertoneError, OSError, MemoryError):
        raise
    except Exception as error:
        reason = f"{type(error).__name__}: {first_line(error)}"
        raise OvertoneError(f"{what} ({reason}); try another runtime or precision") from error


def first_line(error: Exception) -> str:
    """The first line of an exception that is not merely its location."""
    lines = [line.strip().rstrip(".") for line in str(error).splitlines() if line.strip()]
    telling = (line for line in lines if not line.endswith(":"))
    return next((line[:300] for line in (*telling, *lines)), "no reason given")


class Predictor(ABC):
    """A network in some runtime.

    Args:
        batch: images that one call takes; None: any number.
    """

    def __init__(self, batch: int | None) -> None:
        self.batch = batch

    def predict(self, images: np.ndarray) -> np.ndarray:
        """The first output, float32, such as logits (B, K); see `outputs`."""
        return self.outputs(images)[0]

    def outputs(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """Every output of a batch of any size, which is run in pieces where the runtime takes a fixed number.

        Args:
            images: as the network takes them: float32 (B, 3, S, S), or uint8 (B, H, W, 3) with preprocessing inside.
        """
        images = np.require(images, requirements=["C", "W"])  # PyTorch warns of memory that it may not write
        if self.batch is None or len(images) == self.batch:
            return self.run(images)
        pieces = []
        for start in range(0, len(images), self.batch):
            piece = images[start : start + self.batch]
            missing = self.batch - len(piece)
            padded = np.concatenate([piece, np.repeat(piece[-1:], missing, axis=0)]) if missing else piece
            pieces.append([output[: len(piece)] for output in self.run(padded)])
        return tuple(map(np.concatenate, zip(*pieces, strict=True)))

    @abstractmethod
    def run(self, images: np.ndarray) -> tuple[np.ndarray, ...]:
        """The outputs, each (B, …), of a batch of a size that the runtime takes."""


@dataclass(frozen=True)
class Job:
    """What is to be written.

    Attributes:
        net: the network in its fastest exact form, on the CPU, behind its preprocessing where that was asked for.
        example: an input of it.
        kind: of the input.
        precision: of the arithmetic.
        dynamic_batch: whether any number of images is to go; otherwise `example`'s.
        dynamic_size: whether any height and width are to go; otherwise `example`'s.
        calibration: inputs (1, …) that int8 takes its ranges from.
        outputs: names of what the network returns, in order.
        dynamic_outputs: whether their shapes depend on the values of the input.
        has_coordinates: whether it ends in sums of pixels, which int8 would round.
    """

    net: nn.Module
    example: Tensor
    kind: InputKind
    precision: str
    dynamic_batch: bool = False
    dynamic_size: bool = False
    calibration: tuple[np.ndarray, ...] = ()
    outputs: tuple[str, ...] = (LOGITS,)
    dynamic_outputs: bool = False
    has_coordinates: bool = False

    def program(self, net: nn.Module | None = None) -> ExportedProgram:
        """The network as a graph (`torch.export`)."""
        # A size of 1 in an example is taken for a constant.
        example = self.example.repeat(2, *[1] * (self.example.dim() - 1)) if self.dynamic_batch else self.example
        with quiet(), torch.no_grad():
            return torch.export.export(
                self.net if net is None else net,
                (example,),
                dynamic_shapes=(self.open_sizes() or None,),
                strict=False,
                # What a pool of odd sizes needs holds for all of them, which the exporter cannot always show.
                prefer_deferred_runtime_asserts_over_guards=self.dynamic_size,
            )

    def open_sizes(self) -> dict[int, Any]:
        """The dimensions of the input that are left open, as `torch.export` takes them."""
        sizes: dict[int, Any] = {0: Dim("batch")} if self.dynamic_batch else {}
        if self.kind == "image":
            sizes |= {1: Dim("height", min=2), 2: Dim("width", min=2)}
        if self.dynamic_size:
            sizes |= {2: Dim.DYNAMIC, 3: Dim.DYNAMIC}  # from the least size on that the network takes
        return sizes


class Runtime(ABC):
    """A way to run networks."""

    name: str
    title: str
    extra: str | None = None
    """The extra of overtone's that installs it."""
    modules: tuple[str, ...] = ()
    """What has to be importable to run networks."""
    tools: tuple[str, ...] = ()
    """And what, beside that, to write them."""
    precisions: tuple[str, ...] = ("float32",)
    files: tuple[str, ...]
    """What an artifact consists of, the main file first; nothing else is read, or removed when it is replaced."""
    carries_code: bool
    """Whether opening a file of this format can run code that the file brings; see `deployment.trust`."""
    takes_images = True
    """Whether the resize of images of any size can be in the graph."""
    dynamic_outputs = False
    """Whether the shapes of outputs may depend on the values of the input, as after non-maximum suppression."""
    takes_any_batch = True
    """Whether the number of images can be left open."""
    takes_any_size = True
    """Whether the height and width of the images can be left open."""

    @property
    def file(self) -> str:
        """The artifact's main file."""
        return self.files[0]

    def import_library(self) -> Any:
        """Import what runs networks, without its telemetry; returns the last module."""
        switch_off_telemetry()
        return [importlib.import_module(module) for module in self.modules][-1]

    def missing(self, precision: str = "float32", *, to_write: bool = True) -> str | None:
        """Why this runtime is not available, in words; None if it is."""
        for module in self.modules + (self.tools if to_write else ()):
            if importlib.util.find_spec(module) is None:
                return f'{self.title} is not installed ({module}): pip install "overtone[{self.extra}]"'
        return None

    def without(self, precision: str) -> str | None:
        """Why this runtime has no such precision here, in words; None if it has."""
        if precision not in self.precisions:
            return f"{self.title} has no {precision} here; it has {', '.join(self.precisions)}"
        if "bfloat16" in precision and not computes_bfloat16():
            return "this processor has no bfloat16 arithmetic"
        return None

    def check(self, precision: str, *, to_write: bool) -> None:
        """Refuse what is impossible.

        Args:
            precision: of the arithmetic.
            to_write: whether a network is to be written, for which more must be there than to run one.

        Raises:
            OvertoneError: the runtime is not installed, or has no such precision, or the processor has not.
        """
        reason = self.missing(precision, to_write=to_write) or self.without(precision)
        if reason is not None:
            raise OvertoneError(f"{reason}; choose another runtime or precision" if "pip" not in reason else reason)

    @abstractmethod
    def write(self, job: Job, folder: Path) -> None:
        """Write the artifact into a folder."""

    def verify(self, folder: Path, files: Collection[str]) -> None:  # noqa: B027 - most formats name no other file
        """Refuse an artifact that would have the runtime open other files than its own.

        Args:
            folder: of the artifact.
            files: names of the files whose hashes were verified.

        Raises:
            OvertoneError: it would.
        """

    def open(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """Read an artifact that was verified; it computes with as many threads as PyTorch is set to.

        Raises:
            OvertoneError: the runtime cannot run it on this machine.
        """
        with in_one_line(f"{self.title} cannot run {folder / self.file} in {precision} on this machine"):
            return self.load(folder, precision, batch)

    @abstractmethod
    def load(self, folder: Path, precision: str, batch: int | None) -> Predictor:
        """What `open` returns; exceptions of the runtime's own are translated there."""

    @abstractmethod
    def script(self, precision: str) -> tuple[str, str, str]:
        """For `run.py`: what is imported, lines that open `net`, and its outputs for `images` as an expression.

        `images` is numpy's, a batch of one; the expression is a sequence of arrays.
        """

    def version(self) -> dict[str, str]:
        """Versions of what it consists of."""
        return {}


class RuntimeModule(nn.Module):
    """A predictor as a module, so that whatever evaluates networks evaluates it too.

    Args:
        predictor: the network.
        num_classes: channels of its first output.
        kind: of its input.
        names: of its outputs.
        title: of the runtime and its precision, for reports.
    """

    def __init__(
        self,
        predictor: Predictor,
        num_classes: int,
        kind: InputKind = "normalised",
        names: tuple[str, ...] = (LOGITS,),
        title: str = "",
    ) -> None:
        super().__init__()
        self.predictor, self.kind, self.names, self.title = predictor, kind, names, title
        self.transform: Any = None  # where it takes other inputs than the network it is of
        self.form: GraphForm | None = None  # where it is more than a map from images to scores
        self.num_classes = num_classes
        self.in_chans = 3

    def forward(self, images: Tensor, *context: Any) -> Any:
        """Logits (B, K), float32, on the device of the images; several outputs by name; or what the form answers.

        Raises:
            OvertoneError: the runtime returns other outputs than the export declares.
        """
        if self.form is not None:
            return self.form.answer(self.predictor.outputs, images, *context)
        with in_one_line(f"the network cannot take a batch of shape {tuple(images.shape)}"):
            arrays = self.predictor.outputs(images.cpu().numpy())
        is_one = len(arrays) == 1  # logits of images, or of their pixels
        if len(arrays) != len(self.names) or (is_one and arrays[0].shape[:2] != (len(images), self.num_classes)):
            raise OvertoneError(
                f"the export returns outputs of shape {', '.join(str(array.shape) for array in arrays)} instead of "
                f"{', '.join(self.names)} with {self.num_classes} classes; export again"
            )
        outputs = [torch.from_numpy(array).to(images.device) for array in arrays]
        return outputs[0] if len(outputs) == 1 else dict(zip(self.names, outputs, strict=True))


def computes_bfloat16() -> bool:
    """Whether the processor multiplies matrices in bfloat16."""
    return bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def check_compiler() -> None:
    """Make sure that there is a C++ compiler, which torch.compile needs.

    Raises:
        OvertoneError: there is none.
    """
    names = (os.environ.get("CXX"), "g++", "clang++", "c++")
    if not any(name and shutil.which(name) for name in names):
        raise OvertoneError(
            "torch.compile needs a C++ compiler and there is none (CXX, g++, clang++); install one, or choose another "
            "runtime"
        )
