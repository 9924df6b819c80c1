"""Several things timed in turns, so that whatever else the machine does falls on all of them."""

import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import torch

_GEMM_SIDE = 1024


@dataclass(frozen=True)
class Timing:
    """How long the calls of one contender took.

    Attributes:
        seconds: of each call, in the order of the rounds.
    """

    seconds: tuple[float, ...]

    @property
    def median(self) -> float:
        """Milliseconds: the 50th percentile."""
        return 1000 * statistics.median(self.seconds)

    @property
    def p95(self) -> float:
        """Milliseconds: the 95th percentile (the slowest call where there are fewer than 20)."""
        return 1000 * sorted(self.seconds)[min(len(self.seconds) - 1, int(0.95 * len(self.seconds)))]

    @property
    def spread(self) -> float:
        """Milliseconds between the quartiles."""
        if len(self.seconds) < 2:
            return 0.0
        first, _, third = statistics.quantiles(self.seconds, n=4, method="inclusive")
        return 1000 * (third - first)


def race(turns: Sequence[Callable[[], Sequence[float]]], rounds: int) -> list[Timing]:
    """Give every contender a turn in each round; each round begins with another one.

    Args:
        turns: one of each contender, such as `Lane.turn`: it makes some calls and returns the seconds of each.
        rounds: how many turns each has.
    """
    seconds: list[list[float]] = [[] for _ in turns]
    for number in range(rounds):
        for step in range(len(turns)):
            index = (number + step) % len(turns)
            seconds[index] += turns[index]()
    return [Timing(tuple(found)) for found in seconds]


def gemm(dtype: torch.dtype) -> Callable[[], object]:
    """A product of two square matrices by PyTorch's library for them (MKL on x86)."""
    left, right = _square(dtype), _square(dtype)
    out = torch.empty(_GEMM_SIDE, _GEMM_SIDE, dtype=dtype)
    return lambda: torch.mm(left, right, out=out)


def gemm_as_convolution(dtype: torch.dtype) -> Callable[[], object]:
    """The same product as a 1x1 convolution, which oneDNN computes: on AMD it is faster."""
    # 64 images: of fewer than 16 PyTorch takes the library of `gemm` where there is one thread.
    images = _square(dtype).view(64, 4, -1, _GEMM_SIDE).permute(0, 3, 1, 2)
    filters = _square(dtype)[:, :, None, None].contiguous(memory_format=torch.channels_last)
    return torch.inference_mode()(lambda: torch.conv2d(images, filters))


GEMMS = (gemm, gemm_as_convolution)
"""Ways to a product of two square matrices; the fastest is what the machine can do at best."""


def _square(dtype: torch.dtype) -> torch.Tensor:
    generator = torch.Generator().manual_seed(0)
    return torch.randn(_GEMM_SIDE, _GEMM_SIDE, generator=generator).to(dtype)


def gemm_gflops(timing: Timing) -> float:
    """Billions of operations a second, two for each multiply-add, by the median of one of `GEMMS`."""
    return 2 * _GEMM_SIDE**3 / (timing.median * 1e6)
