"""What harmonic layers cost in training: harm_resnet50 against harm0_resnet50, the plain ResNet-50 of the same stem.

    python benchmarks/harmonic_training.py

Time: both nets in one process, one training step each in turn, so that what else the machine does falls on both; the
median of the ratios of neighbouring steps. Memory: each net alone in a fresh process; the peak of the resident set (of
the allocator on a GPU) beyond what was there before the net was built, and the bytes autograd keeps for the backward
pass. `--check` exits with 1 where a ratio is above `--limit`.
"""

import argparse
import json
import resource
import statistics
import subprocess
import sys
import time
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.models import harm_resnet

PAIR = {"harm_resnet50": {}, "harm0_resnet50": {"harm_root": False, "harm_res_blocks": False}}  # harmonic, plain


class TrainingStep:
    """One net with its optimiser; calling it takes one step of SGD with momentum and gives the seconds."""

    def __init__(self, name: str, args: argparse.Namespace) -> None:
        layout = torch.channels_last if args.channels_last else torch.contiguous_format
        torch.manual_seed(0)
        self.device, self.bf16 = torch.device(args.device), args.bf16
        self.net: nn.Module = harm_resnet(50, **PAIR[name]).to(self.device).to(memory_format=layout).train()
        self.optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)
        shape = (args.batch, 3, args.size, args.size)
        self.images = torch.randn(shape, device=self.device).to(memory_format=layout)
        self.targets = torch.arange(args.batch, device=self.device)

    def loss(self) -> Tensor:
        """Mean cross entropy of the batch."""
        with torch.autocast(self.device.type, torch.bfloat16, enabled=self.bf16):
            return F.cross_entropy(self.net(self.images), self.targets)

    def __call__(self) -> float:
        """Take the step; returns its seconds."""
        self._wait()
        start = time.perf_counter()
        self.loss().backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        self._wait()
        return time.perf_counter() - start

    def _wait(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def saved_bytes(self) -> int:
        """Bytes of the distinct storages that the forward pass keeps for the backward pass, parameters apart."""
        own = {p.untyped_storage().data_ptr() for p in self.net.parameters()} | {self.images.data_ptr()}
        kept: dict[int, int] = {}

        def note(tensor: Tensor) -> Tensor:
            storage = tensor.untyped_storage()
            if storage.data_ptr() not in own:
                kept[storage.data_ptr()] = storage.nbytes()
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
            loss = self.loss()
        total = sum(kept.values())
        del loss
        return total


def _max_rss() -> int:
    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit


def measure_memory(name: str, args: argparse.Namespace) -> dict[str, float]:
    """Peak and saved bytes of three training steps of one net; meant for a process of its own."""
    before = _max_rss()
    step = TrainingStep(name, args)
    for _ in range(3):
        step()
    peak = torch.cuda.max_memory_allocated() if step.device.type == "cuda" else _max_rss() - before
    return {"peak": peak, "saved": step.saved_bytes()}


def memory_ratios(args: argparse.Namespace, argv: list[str]) -> dict[str, float]:
    """Harmonic over plain: the median over `args.processes` processes of each kind."""
    found: dict[str, list[dict[str, float]]] = {name: [] for name in PAIR}
    for _ in range(args.processes):
        for name in PAIR:
            command = [sys.executable, str(Path(__file__).resolve()), *argv, "--memory-of", name]
            found[name].append(json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout))
    medians = {
        name: {key: statistics.median(run[key] for run in runs) for key in ("peak", "saved")}
        for name, runs in found.items()
    }
    for name, median in medians.items():
        print(f"{name:16s} peak {median['peak'] / 2**20:8.1f} MiB   saved {median['saved'] / 2**20:8.1f} MiB")
    harmonic, plain = medians.values()
    return {key: harmonic[key] / plain[key] for key in ("peak", "saved")}


def time_ratio(args: argparse.Namespace) -> float:
    """Harmonic over plain: the median over `args.steps` pairs of neighbouring steps."""
    steps = [TrainingStep(name, args) for name in PAIR]
    for step in steps * 2:
        step()
    times = [[step() for step in steps] for _ in range(args.steps)]
    for index, name in enumerate(PAIR):
        print(f"{name:16s} step {statistics.median(pair[index] for pair in times) * 1000:8.1f} ms")
    return statistics.median(harmonic / plain for harmonic, plain in times)


def main() -> int:
    """Measure and print the ratios; 1 where `--check` finds one above the limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--size", type=int, default=224, help="pixels, the side of the square images")
    parser.add_argument("--steps", type=int, default=7, help="pairs of timed steps")
    parser.add_argument("--processes", type=int, default=2, help="processes of each net whose memory is measured")
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--channels-last", action="store_true")
    parser.add_argument("--bf16", action="store_true", help="autocast to bfloat16")
    parser.add_argument("--check", action="store_true")
    parser.add_argument("--limit", type=float, default=1.10)
    parser.add_argument("--memory-of", choices=PAIR, help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_of:
        print(json.dumps(measure_memory(args.memory_of, args)))
        return 0
    memory = memory_ratios(args, sys.argv[1:])  # first: a process inherits the peak of the one that starts it
    ratios = {"peak memory": memory["peak"], "saved for backward": memory["saved"], "step time": time_ratio(args)}
    for what, ratio in ratios.items():
        print(f"{what:20s} {' / '.join(PAIR)} = {ratio:.3f}")
    return int(args.check and max(ratios.values()) > args.limit)


if __name__ == "__main__":
    sys.exit(main())
