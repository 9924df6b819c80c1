"""HorNet's global filter in every form that computes the same, at the map sizes of the published networks.

    python benchmarks/global_filter.py [--threads 1 2] [--runs 60] [--cpu-time]

Each row is one size (pixels x pixels x channels of the global half) and one number of threads, batch 1, float32, on
channels-last maps; the numbers are medians in microseconds over runs that take turns, so that what else the machine
does falls on every form. `--cpu-time` counts the process's own seconds instead of the clock's: with one thread that is
hardly touched by other jobs. Deployed networks take "whole map" up to 64 pixels and "separable" above.
"""

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.layers.circular_conv import SeparableCircularConv, WholeMapCircularConv, circular_kernel

SIZES = ((7, 496), (14, 240), (12, 496), (24, 240), (28, 112), (56, 64))  # HorNet-T at 224 and at 384; larger images
Form = Callable[[Tensor], Tensor]


def fourier(complex_weight: Tensor) -> Form:
    """As published: real Fourier transform, complex product, and back."""
    weight = torch.view_as_complex(complex_weight)

    def run(x: Tensor) -> Tensor:
        maps = x.permute(0, 3, 1, 2).contiguous()
        spectrum = torch.fft.rfft2(maps, norm="ortho") * weight
        return torch.fft.irfft2(spectrum, s=x.shape[1:3], norm="ortho").permute(0, 2, 3, 1)

    return run


def depthwise(kernel: Tensor) -> Form:
    """A circular depthwise convolution with a kernel as large as the map."""
    weight = kernel.flip(1, 2)[:, None].float().contiguous()

    def run(x: Tensor) -> Tensor:
        wrapped = torch.cat((x[:, 1:], x), 1)
        wrapped = torch.cat((wrapped[:, :, 1:], wrapped), 2)
        return F.conv2d(wrapped.permute(0, 3, 1, 2), weight, groups=x.shape[3]).permute(0, 2, 3, 1)

    return run


def dense(kernel: Tensor) -> Form:
    """A matrix over all pixels for each channel."""
    _, height, width = kernel.shape
    pixel = torch.arange(height * width)
    row, column = pixel // width, pixel % width
    matrices = kernel[:, (row[:, None] - row) % height, (column[:, None] - column) % width].float().contiguous()

    def run(x: Tensor) -> Tensor:
        return torch.bmm(matrices, x.flatten(1, 2).permute(2, 1, 0)).permute(2, 1, 0).reshape(x.shape)

    return run


def forms(size: int, channels: int) -> dict[str, Form]:
    """The forms that fit into memory sensibly at this size, the published one first."""
    complex_weight = torch.randn(channels, size, size // 2 + 1, 2)
    kernel = circular_kernel(complex_weight, size, size)
    found: dict[str, Form] = {
        "Fourier": fourier(complex_weight),
        "separable": SeparableCircularConv(kernel, torch.float32),
    }
    if size <= 28:
        found |= {"whole map": WholeMapCircularConv(kernel, torch.float32), "depthwise": depthwise(kernel)}
    if size <= 14:
        found["dense"] = dense(kernel)
    return found


def race(candidates: dict[str, Form], x: Tensor, runs: int, clock: Callable[[], float]) -> dict[str, float]:
    """Median microseconds of each, taking turns; they must agree with the first."""
    expected = next(iter(candidates.values()))(x)
    seconds: dict[str, list[float]] = {name: [] for name in candidates}
    for name, form in candidates.items():
        error = (form(x) - expected).abs().max() / expected.abs().max()
        if error > 1e-5:
            raise SystemExit(f"{name} differs by {error:.1e} at {tuple(x.shape)}")
    for _ in range(runs):
        for name, form in candidates.items():
            start = clock()
            form(x)
            seconds[name].append(clock() - start)
    return {name: statistics.median(taken) * 1e6 for name, taken in seconds.items()}


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, nargs="+", default=[1, 2])
    parser.add_argument("--runs", type=int, default=60)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    columns = ["Fourier", "separable", "whole map", "depthwise", "dense"]
    print(f"torch {torch.__version__}, load {os.getloadavg()[0]:.1f} at the start; microseconds")
    print(f"{'map':>12} {'threads':>7} " + " ".join(f"{name:>10}" for name in columns))
    for threads in args.threads:
        torch.set_num_threads(threads)
        for size, channels in SIZES:
            torch.manual_seed(0)
            with torch.inference_mode():
                x = torch.randn(1, size, size, channels)
                clock = time.process_time if args.cpu_time else time.perf_counter
                taken = race(forms(size, channels), x, args.runs, clock)
            cells = " ".join(f"{taken[name]:10.0f}" if name in taken else f"{'':>10}" for name in columns)
            print(f"{f'{size}x{size}x{channels}':>12} {threads:7d} {cells}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
