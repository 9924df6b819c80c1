"""What `overtone.deploy` gains in eager PyTorch: each network as built against its deployed form, one image at a time.

    python benchmarks/folding.py [NAME ...] [--threads 2] [--runs 40]

Both are in one process and take turns, so that what else the machine does falls on both; the medians, the fastest runs
and the median of the ratios of neighbouring runs are printed. With `--cpu-time` and one thread the process's own
seconds are counted, which other jobs hardly touch; PyTorch has another, slower 1x1 convolution for one thread.
"""

import argparse
import os
import statistics
import sys
import time

import torch
from torch import Tensor, nn

import overtone

NAMES = ("mobilenetv2_x100", "hbonet_x100", "harm_resnet50", "hornet_tiny_7x7", "hornet_tiny_gf")


def race(nets: list[nn.Module], images: Tensor, args: argparse.Namespace) -> list[tuple[float, ...]]:
    """Milliseconds of each net in each round."""
    clock = time.process_time if args.cpu_time else time.perf_counter
    rounds = []
    for index in range(args.runs + 3):
        taken = []
        for net in nets:
            start = clock()
            net(images)
            taken.append((clock() - start) * 1000)
        if index >= 3:  # the first ones warm up
            rounds.append(tuple(taken))
    return rounds


def main() -> int:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=list(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--runs", type=int, default=40)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--cpu-time", action="store_true")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    print(f"torch {torch.__version__}, {args.threads} threads, load {os.getloadavg()[0]:.1f}; milliseconds")
    print(f"{'':20} {'built':>16} {'deployed':>16} {'ratio':>6}\n{'':20} " + f"{'median':>9}{'least':>7} " * 2)
    for name in args.names:
        torch.manual_seed(0)
        net = overtone.create_model(name).eval()
        images = torch.randn(1, 3, args.size, args.size)
        with torch.inference_mode():
            rounds = race([net, overtone.deploy(net, args.size)], images, args)
        columns = zip(*rounds, strict=True)
        cells = " ".join(f"{statistics.median(column):9.1f}{min(column):7.1f}" for column in columns)
        print(f"{name:20} {cells} {statistics.median(a / b for a, b in rounds):6.2f}", flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
