"""Where the suite runs, how large its work is there, and how time and memory are taken."""

import functools
import gc
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from overtone.deployment.timing.lane import reason_of
from overtone.deployment.timing.race import Timing, race
from overtone.engine.placement import Placement
from overtone.machine import forget_peak, peak_bytes, resident_bytes

NETS = ("mobilenetv2_x100", "hbonet_x100", "harm_resnet50", "hornet_tiny_7x7", "hornet_tiny_gf")
Row = dict[str, Any]
Cases = Mapping[str, Callable[[], Sequence[Row]]]
"""What is done, by name; each gives its rows of figures."""
_ROOMY = 30e9  # bytes of a device that takes the larger batch
_CALLS, _ROUNDS, _WARM_UP = 5, 5, 4


class Skipped(Exception):
    """A case that this place cannot have; the message says what it needs. No error: a row without figures."""


@dataclass(frozen=True)
class Place:
    """A device and the work for it: on a CPU a dry run, which only shows that the code runs.

    Attributes:
        device: `cuda:0` or `cpu`.
        naive: makes a network in its published formulation, by the name of ours; None: they are not at hand.
        nets: what is measured; the last one takes the 200 steps.
        compiles: how many of them are compiled on a CPU.
    """

    device: str = "cuda:0"
    naive: Callable[[str], nn.Module] | None = None
    nets: tuple[str, ...] = NETS
    compiles: int = 1

    @property
    def is_dry(self) -> bool:
        """Whether the work is small and its figures say nothing of a GPU."""
        return self.device == "cpu"

    @property
    def size(self) -> int:
        """Side of the images, pixels."""
        return 32 if self.is_dry else 224

    @property
    def batch(self) -> int:
        """Images of a training step: 128 where the device has the memory of a server's."""
        if self.is_dry:
            return 4
        return 128 if torch.cuda.get_device_properties(self.device).total_memory > _ROOMY else 32

    def compiled(self, every: int = 1) -> tuple[str, ...]:
        """The networks that are compiled, or some of them where that would take too long."""
        return self.nets[: self.compiles] if self.is_dry else self.nets[::every]

    def compile(self, net: nn.Module) -> None:
        """Compile in place; a dry run only traces."""
        net.compile(backend="eager" if self.is_dry else "inductor")

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
    """Something called until it is warm, and what that cost.

    Args:
        place: where.
        make: returns what is called.

    Attributes:
        call: what was made.
        seconds: until the end of the first call: building, choosing kernels, compiling.
        megabytes: the highest point of memory beyond that before: weights, state and maps (of a CPU's process little is
            known, which keeps and uses again what earlier forms have freed).
    """

    def __init__(self, place: Place, make: Callable[[], Callable[[], Any]]) -> None:
        place.wait()
        cuda, started = not place.is_dry, time.perf_counter()
        before = torch.cuda.memory_allocated() if cuda else resident_bytes()
        torch.cuda.reset_peak_memory_stats() if cuda else forget_peak()
        self.call = make()
        self.call()
        place.wait()
        self.seconds = time.perf_counter() - started
        for _ in range(_WARM_UP if cuda else 0):
            self.call()
        place.wait()
        peak = torch.cuda.max_memory_allocated() if cuda else peak_bytes()
        self.megabytes = max(peak - before, 0) / 1e6


def warmed_forms(
    place: Place, forms: Sequence[str], make: Callable[[str], Callable[[], Any]]
) -> tuple[dict[str, Warmed], list[Row]]:
    """Each form made and warm, and a row for each that cannot be had."""
    warmed: dict[str, Warmed] = {}
    rows: list[Row] = []
    for form in forms:
        try:
            warmed[form] = Warmed(place, functools.partial(make, form))
        except Skipped as reason:
            rows.append({"form": form, "skipped": str(reason)})
        except Exception as error:  # out of memory, say: the other forms are still compared
            rows.append({"form": form, "error": reason_of(error)})
    return warmed, rows


def raced_forms(place: Place, warmed: Mapping[str, Warmed], images: int) -> list[Row]:
    """Figures of forms that take turns; a ratio is that of the first one's median to theirs, above 1 if faster."""
    timings = place.race([one.call for one in warmed.values()])
    return [
        {
            "form": form,
            "images": images,
            "ms": timing.median,
            "fastest_ms": 1000 * min(timing.seconds),
            "images_per_second": 1000 * images / timing.median,
            "ratio": timings[0].median / timing.median,
            "peak_mb": one.megabytes,
            "start_s": one.seconds,
        }
        for (form, one), timing in zip(warmed.items(), timings, strict=True)
    ]


def difference(found: Tensor, expected: Tensor) -> float:
    """The largest difference as a share of the largest expected value."""
    found, expected = found.double(), expected.double()
    return float((found - expected).abs().max() / expected.abs().max())
