"""What a benchmark measures: a network in a runtime and a precision, for batches of one size, kept in a folder."""

import copy
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from overtone.config import Preprocess
from overtone.deployment.images import generated_images
from overtone.deployment.inputs import as_batch, input_transform
from overtone.deployment.rewrites.deploy import deploy
from overtone.deployment.runtimes import RUNTIMES, runtime_named
from overtone.deployment.runtimes.runtime import LOGITS, Job, check_compiler, computes_bfloat16
from overtone.deployment.runtimes.torch_runtime import InBfloat16
from overtone.deployment.timing.lane import Lane
from overtone.deployment.timing.shipping import Shipped
from overtone.errors import OvertoneError
from overtone.tasks.export_forms import GraphForm

IN_PYTORCH = ("built", "torch", "compile")
"""built: eager, as it is built; torch: eager, in its fastest exact form; compile: that form through torch.compile."""
ALL = (*IN_PYTORCH, *(name for name in RUNTIMES if name != "torch"))
_PRECISIONS = ("float32", "bfloat16")  # of PyTorch
_CALIBRATION = 8  # images; the speed of int8 does not depend on its ranges

Call = Callable[[Tensor], object]


@dataclass(eq=False)
class Contender:
    """A network in a runtime.

    Attributes:
        model: its name.
        runtime: of `ALL`.
        precision: of the arithmetic.
        batch: images of a call.
        size: pixels, their side.
        folder: where `write` puts it.
        rewritten: whether the network gets its fastest exact form before a runtime has it.
        module: where `write` puts it instead for a runtime of `IN_PYTORCH`; another process gets it with the contender.
        form: where another graph than the network is exported.
    """

    model: str
    runtime: str
    precision: str
    batch: int
    size: int
    folder: Path
    rewritten: bool = True
    module: Shipped | None = None
    form: GraphForm | None = None

    def images(self) -> Tensor:
        """A batch for it, always the same."""
        height, width = (self.size, self.size) if self.form is None else self.form.size
        shape = (self.batch, 3, height, width)
        return torch.randn(shape, generator=torch.Generator().manual_seed(0))

    def write(self, net: nn.Module) -> None:
        """Write a network for the runtime.

        Raises:
            Exception: whatever the runtime's exporter raises for a network that it cannot take.
        """
        self.folder.mkdir(parents=True)
        if self.runtime in IN_PYTORCH:
            module = copy.deepcopy(net).eval() if self.runtime == "built" else deploy(net, self.size)
            module = InBfloat16(module) if self.precision == "bfloat16" else module
            self.module = Shipped(module.requires_grad_(False))
            return
        calibration: list[Tensor] = []
        if self.precision.startswith("int8"):
            transform = input_transform("normalised", Preprocess(size=self.size))
            images = generated_images(_CALIBRATION, self.size)
            calibration = [as_batch(transform, image).repeat(self.batch, 1, 1, 1) for image in images]
        runtime, form = runtime_named(self.runtime), None
        made = deploy(net, self.size) if self.rewritten else net
        if self.form is not None:
            if self.batch != 1:
                raise OvertoneError("such a network is exported for one image at a time")
            form = self.form = self.form.for_outputs(dynamic=runtime.dynamic_outputs)
            made = form.graph(made)
        job = Job(
            net=made,
            example=self.images(),
            kind="normalised",
            precision=self.precision,
            calibration=tuple(images.numpy() for images in calibration),
            outputs=(LOGITS,) if form is None else form.outputs,
            dynamic_outputs=form is not None and runtime.dynamic_outputs,
            has_coordinates=form is not None,
        )
        runtime.write(job, self.folder)

    def open(self) -> Call:
        """What computes the logits of `images()`, with as many threads as PyTorch has been given."""
        if self.runtime not in IN_PYTORCH:
            predictor = runtime_named(self.runtime).open(self.folder, self.precision, self.batch)
            form = self.form
            if form is not None:
                return lambda images: form.answer(predictor.outputs, images)
            return lambda images: predictor.predict(images.numpy())
        if self.module is None:
            raise ValueError("nothing was written yet")
        module = self.module.unpacked()
        function = torch.compile(module) if self.runtime == "compile" else module

        def call(images: Tensor) -> object:
            with torch.inference_mode():
                return function(images)

        return call


def lane_of(contender: Contender) -> Lane:
    """The contender in a process of its own, with as many threads as PyTorch has here.

    Raises:
        LaneError: it cannot be opened or run.
    """
    library = None if contender.runtime in IN_PYTORCH else runtime_named(contender.runtime).import_library
    return Lane(_call_of, contender, prepare=library)


def _call_of(contender: Contender) -> Callable[[], object]:
    images = contender.images()
    call = contender.open()
    return lambda: call(images)


def why_not(runtime: str, precision: str) -> str | None:
    """Why a runtime cannot be measured in a precision here, in words; None if it can."""
    if runtime not in IN_PYTORCH:
        found = RUNTIMES[runtime]
        reason = found.missing() or found.without(precision)
    elif precision not in _PRECISIONS:
        reason = f"PyTorch has no {precision} here; it has {', '.join(_PRECISIONS)}"
    elif precision == "bfloat16" and not computes_bfloat16():
        reason = "this processor has no bfloat16 arithmetic"
    else:
        reason = None
    if reason is None and runtime in ("compile", "aoti"):
        try:
            check_compiler()
        except OvertoneError as error:
            return str(error)
    return reason
