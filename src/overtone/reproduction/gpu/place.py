"""Where the suite runs, how large its work is there, and how time and memory are taken."""

import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overtone.deployment.timing.race import Timing, race
from overtone.engine.placement import Placement
from overtone.machine import forget_peak, peak_bytes, resident_bytes

NETS = ("mobilenetv2_x100", "hbonet_x100", "harm_resnet50", "hornet_tiny_7x7", "hornet_tiny_gf")
Row = dict[str, Any]
Cases = Mapping[str, Callable[[], Sequence[Row]]]
"""What is done, by name; each gives its rows of figures."""
_ROOMY = 30e9  # bytes of a device that takes the larger batch
_CALLS, _ROUNDS = 5, 5


class Skipped(Exception):  # no error: a row that says why there are no figures
    """A case that this device cannot have; the message says what it needs."""


@dataclass(frozen=True)
class Place:
    """A device and the work for it: on a CPU a dry run, which only shows that the code runs.

    Attributes:
        device: `cuda` or `cpu`.
        naive: makes a network in its published formulation, by the name of ours; None: they are not at hand.
    """

    device: str = "cuda"
    naive: Callable[[str], nn.Module] | None = None

    @property
    def is_dry(self) -> bool:
        """Whether the work is small and its figures say nothing of a GPU."""
        return self.device == "cpu"

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return 64 if self.is_dry else 224

    @property
    def batch(self) -> int:
        """Images of a training step: 128 where the device has the memory of a server's."""
        if self.is_dry:
            return 2
        return 128 if torch.cuda.get_device_properties(0).total_memory > _ROOMY else 32

    @property
    def backend(self) -> str:
        """Of torch.compile; a dry run only traces."""
        return "aot_eager" if self.is_dry else "inductor"

    @property
    def compiled(self) -> tuple[str, ...]:
        """The networks that are compiled."""
        return NETS[:1] if self.is_dry else NETS

    def placement(self, dtype: torch.dtype | None = torch.bfloat16) -> Placement:
        """As `overtone train` computes here; None for float32."""
        return Placement(torch.device(self.device), dtype)

    def noise(self, *shape: int, dtype: torch.dtype = torch.float32) -> Tensor:
        """The same random numbers at every call."""
        return torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(self.device, dtype)

    def need_cuda(self) -> list[Row]:
        """A case without rows.

        Raises:
            Skipped: on a CPU.
        """
        if self.is_dry:
            raise Skipped("needs CUDA")
        return []

    def wait(self) -> None:
        """Wait for the device."""
        if not self.is_dry:
            torch.cuda.synchronize()

    def tidy(self) -> None:
        """Free what a case has left."""
        torch.compiler.reset()
        gc.collect()
        if not self.is_dry:
            torch.cuda.empty_cache()

    def race(self, calls: Sequence[Callable[[], object]]) -> list[Timing]:
        """Time several things, warm already, in turns; a second is that of a call among some in a row."""
        return race([self._turn(call) for call in calls], 1 if self.is_dry else _ROUNDS)

    def _turn(self, call: Callable[[], object]) -> Callable[[], list[float]]:
        count = 1 if self.is_dry else _CALLS

        def turn() -> list[float]:
            self.wait()
            started = time.perf_counter()
            for _ in range(count):
                call()
            self.wait()
            return [(time.perf_counter() - started) / count]

        return turn


class Warmed:
    """A few calls of something, the first of which makes it, for what they cost.

    Args:
        place: where.
        make: returns what is called.

    Attributes:
        call: what was made.
        seconds: until the end of the first call: building, choosing kernels, compiling.
        megabytes: the highest point of memory beyond that before: weights, state and maps.
    """

    def __init__(self, place: Place, make: Callable[[], Callable[[], object]]) -> None:
        place.wait()
        cuda, started = not place.is_dry, time.perf_counter()
        before = torch.cuda.memory_allocated() if cuda else resident_bytes()
        torch.cuda.reset_peak_memory_stats() if cuda else forget_peak()
        self.call = make()
        for number in range(1 if place.is_dry else 4):
            self.call()
            place.wait()
            if number == 0:
                self.seconds = time.perf_counter() - started
        after = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
        self.megabytes = (after - before) / 1e6


def figures(timing: Timing, images: int, warmed: Warmed, reference: Timing) -> Row:
    """The columns that every timed form has: the ratio is that of the medians to `reference`, above 1 if faster."""
    return {
        "images": images,
        "ms": timing.median,
        "fastest_ms": 1000 * min(timing.seconds),
        "images_per_second": 1000 * images / timing.median,
        "ratio": reference.median / timing.median,
        "peak_mb": warmed.megabytes,
        "start_s": warmed.seconds,
    }


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the expected values' standard deviation."""
    found, expected = found.double(), expected.double()
    return float((found - expected).abs().max() / expected.std())
