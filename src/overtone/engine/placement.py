"""Where the arithmetic happens: device, precision, memory format."""

import contextlib
from collections.abc import Callable
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor, nn
from torch.utils._pytree import tree_map

from overtone.config import Run
from overtone.data.pipeline import Batch
from overtone.errors import OvertoneError

M = TypeVar("M", bound=nn.Module)


@dataclass(frozen=True)
class Placement:
    """A device and how tensors lie on it.

    Attributes:
        device: where the network and the batches are.
        autocast_dtype: precision of the forward pass under autocast, or None for float32 throughout.
        channels_last: whether feature maps keep their channels innermost.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    channels_last: bool = True

    @property
    def memory_format(self) -> torch.memory_format:
        """Memory format of 4-D weights and of images."""
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def model(self, module: M) -> M:
        """Move a network here, in place."""
        return module.to(device=self.device, memory_format=self.memory_format)  # type: ignore[call-overload]

    def inputs(self, inputs: Any) -> Any:
        """Bring inputs here without waiting for the copy; images (B, 3, H, W) in this memory format."""
        return tree_map(self._image, inputs)

    def targets(self, targets: Any) -> Any:
        """Bring targets here without waiting for the copy."""
        return tree_map(lambda value: value.to(self.device, non_blocking=True) if _is_tensor(value) else value, targets)

    def batch(self, batch: Batch) -> Batch:
        """Bring a batch here without waiting for the copy; its ids stay."""
        return batch._replace(inputs=self.inputs(batch.inputs), targets=self.targets(batch.targets))

    def _image(self, value: Any) -> Any:
        if not _is_tensor(value):
            return value
        layout = {"memory_format": self.memory_format} if value.ndim == 4 else {}
        return value.to(self.device, non_blocking=True, **layout)

    def forward(self, network: Callable[..., Any]) -> Callable[..., Any]:
        """A network that computes in this precision and gives floating tensors of at least float32."""

        def call(*args: Any, **kwargs: Any) -> Any:
            with self.autocast():
                outputs = network(*args, **kwargs)
            return tree_map(_promoted, outputs)

        return call

    def autocast(self) -> AbstractContextManager[object]:
        """The context of a forward pass."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def seed(self, number: int) -> None:
        """Seed PyTorch's generators: the CPU's and this device's.

        Does what `torch.manual_seed` does for these two, without its cost on every other kind of device: it is called
        before each step.
        """
        torch.default_generator.manual_seed(number)
        if self.device.type == "cuda":
            torch.cuda.manual_seed(number)
        elif self.device.type == "mps":
            torch.mps.manual_seed(number)

    def __str__(self) -> str:
        """Readable: device and precision."""
        name = torch.cuda.get_device_name(self.device) if self.device.type == "cuda" else str(self.device)
        precision = "float32" if self.autocast_dtype is None else str(self.autocast_dtype).removeprefix("torch.")
        return f"{name}, {precision}" + (", channels last" if self.channels_last else "")


def place(run: Run) -> Placement:
    """The placement that a run asks for; also sets the number of CPU threads if it asks for one.

    Automatic precision is bfloat16 on a CUDA device that computes in it, else float32.

    Raises:
        OvertoneError: a device that is unknown or not there, or a precision that it does not have.
    """
    if run.threads is not None:
        torch.set_num_threads(run.threads)
    device = _device(run.device)
    dtype = None
    if run.precision == "bfloat16" or (run.precision == "auto" and device.type == "cuda"):
        dtype = torch.bfloat16
    if device.type == "cuda" and dtype is torch.bfloat16 and not _computes_bfloat16(device):
        if run.precision == "bfloat16":
            raise OvertoneError(f"{torch.cuda.get_device_name(device)} has no bfloat16; use --run.precision float32")
        dtype = None
    # PyTorch's MPS kernels gain nothing from channels_last
    return Placement(device, dtype, run.channels_last and device.type != "mps")


def _computes_bfloat16(device: torch.device) -> bool:
    return torch.cuda.get_device_capability(device) >= (8, 0) or torch.version.hip is not None


def _device(name: str) -> torch.device:
    if name == "auto":
        if torch.cuda.is_available():
            return torch.device("cuda", torch.cuda.current_device())
        return torch.device("mps" if torch.backends.mps.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError as error:
        raise OvertoneError(f"run.device {name!r} is not a device; use auto, cpu, cuda, cuda:1 or mps") from error
    if device.type == "cuda":
        count = torch.cuda.device_count() if torch.cuda.is_available() else 0
        if (device.index or 0) >= count:
            raise OvertoneError(
                f"run.device {name!r} is not there: PyTorch sees {count} CUDA devices; use --run.device cpu or auto"
            )
        return torch.device("cuda", device.index if device.index is not None else torch.cuda.current_device())
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise OvertoneError(f"run.device {name!r} is not there; use --run.device cpu or auto")
    if device.type not in ("cpu", "mps"):
        raise OvertoneError(f"run.device {name!r} is not supported; use auto, cpu, cuda, cuda:1 or mps")
    return device


def _is_tensor(value: Any) -> bool:
    return isinstance(value, Tensor)


def _promoted(value: Any) -> Any:
    is_floating = isinstance(value, Tensor) and value.is_floating_point()
    return value.to(torch.promote_types(value.dtype, torch.float32)) if is_floating else value
