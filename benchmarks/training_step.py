"""A training step of the naive published networks against ours: time, memory, and where the time goes, in one run.

    python benchmarks/training_step.py [NAME ...] [--threads 2] [--rounds 10] [--json training_step.json]

Forward, cross entropy, backward and a step of SGD with momentum; batch 32 for the mobile networks, 8 for the large
ones, or `--batch`. What is measured:

  naive            the module of `benchmarks/naive`, NCHW, in a process as it starts
  ours             as `overtone train` computes: channels_last, and the process keeps freed memory (engine/allocator.py)
  ours, given      the same without that setting of the process: what is left is the network's and the layout's share
  naive, kept      the naive module with that setting
  ours, bfloat16   as `--run.precision bfloat16`; where the processor has it
  ours, by layers  ours without fused bottlenecks (layers/fused_bottleneck.py); only where `--kinds` asks for it
  ours, compiled   as `--run.compile`; only where `--kinds` asks for it, as it needs a C++ compiler and minutes

The setting is one of the whole process, so each has a process of its own; they take turns step by step, the others
waiting. All begin with the same weights, and the losses of the first step must agree. MB: the highest point of a step
beyond the process with the network and the batch built.

The least time is that of the multiply-adds (three for each of the forward pass) at the rate at which this machine
multiplies large matrices in float32. The profile is that of `ours` and, in other columns, of `ours, bfloat16` and
`ours, by layers`.
"""

import argparse
import contextlib
import math
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from naive import NAMES, proved_pair
from results import keep
from step_profile import profile_of

from overtone.config import Optim
from overtone.deployment.runtimes.runtime import computes_bfloat16
from overtone.deployment.timing.race import Timing, gemm, gemm_gflops
from overtone.engine.allocator import keep_freed_memory
from overtone.engine.optim import build_optimizer
from overtone.layers import fused_bottleneck
from overtone.machine import forget_peak, peak_bytes, resident_bytes
from overtone.models.multiply_adds import count_multiply_adds
from overtone.verbs.benchmark_report import machine

COMPILED, BFLOAT16, BY_LAYERS = "ours, compiled", "ours, bfloat16", "ours, by layers"
KINDS = ("naive", "ours", "ours, given", "naive, kept", BFLOAT16, BY_LAYERS, COMPILED)
KEPT = ("ours", "naive, kept", BFLOAT16, BY_LAYERS, COMPILED)
PROFILED = ("ours", BFLOAT16, BY_LAYERS)
BY_REQUEST = (BY_LAYERS, COMPILED)
BATCHES = {"mobilenetv2_x100": 32, "hbonet_x100": 32}
LARGE_BATCH = 8
SAME_LOSS, SAME_LOSS_BFLOAT16 = 1e-3, 5e-2
PRODUCTS = 10
PASSES = 3  # forward, gradient of the inputs, gradient of the weights


class Step:
    """A network of one kind with its optimiser; calling it takes a step and gives the loss."""

    def __init__(self, name: str, kind: str, batch: int, size: int) -> None:
        naive, ours = proved_pair(name, size)
        self.net = (naive if kind.startswith("naive") else ours).train()
        generator = torch.Generator().manual_seed(0)
        self.images = torch.randn(batch, 3, size, size, generator=generator)
        self.targets = torch.arange(batch)
        self.half = kind == BFLOAT16
        self.optimizer: torch.optim.Optimizer = torch.optim.SGD(self.net.parameters(), lr=1e-3, momentum=0.9)
        if kind.startswith("ours"):
            self.net = self.net.to(memory_format=torch.channels_last)
            self.images = self.images.contiguous(memory_format=torch.channels_last)
            self.optimizer = build_optimizer(self.net, Optim(name="sgd", lr=1e-3, momentum=0.9))
        if kind == COMPILED:
            self.net.compile()

    def __call__(self) -> float:
        """Take the step."""
        with torch.autocast("cpu", torch.bfloat16) if self.half else contextlib.nullcontext():
            logits = self.net(self.images)
        loss = F.cross_entropy(logits.float(), self.targets)
        loss.backward()
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return loss.item()


def work(connection: Connection, name: str, kind: str, batch: int, args: argparse.Namespace) -> None:
    """Take a step for every word that comes, and answer with its seconds and its loss."""
    torch.set_num_threads(args.threads)
    if kind == BY_LAYERS:
        fused_bottleneck._LEAST_BYTES = math.inf
    if kind in KEPT:
        keep_freed_memory()
    step = Step(name, kind, batch, args.size)
    before = resident_bytes()
    forget_peak()
    connection.send("ready")
    while connection.recv() == "step":
        started = time.perf_counter()
        loss = step()
        connection.send((time.perf_counter() - started, loss))
    memory = (peak_bytes() - before) / 1e6
    connection.send((memory, profile_of(step) if kind in PROFILED else None))


def measure(name: str, args: argparse.Namespace) -> dict:
    """Steps of every kind in turn."""
    batch = args.batch or BATCHES.get(name, LARGE_BATCH)
    context = multiprocessing.get_context("spawn")
    workers, pipes = [], []
    for kind in args.kinds:
        pipe, far_end = context.Pipe()
        worker = context.Process(target=work, args=(far_end, name, kind, batch, args), daemon=True)
        worker.start()
        far_end.close()
        assert pipe.recv() == "ready"  # one after the other: building takes threads
        workers.append(worker)
        pipes.append(pipe)
    seconds: list[list[float]] = [[] for _ in pipes]
    losses: list[float] = []
    for number in range(args.warm_up + args.rounds):
        for step in range(len(pipes)):
            index = (number + step) % len(pipes)
            pipes[index].send("step")
            taken, loss = pipes[index].recv()
            if number == 0:
                losses.append(loss)
            if number >= args.warm_up:
                seconds[index].append(taken)
    ends = []
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send("end")
        ends.append(pipe.recv())
        worker.join()
    check_losses(name, args.kinds, losses)
    rows = [
        {
            "kind": kind,
            "ms": 1000 * statistics.median(found),
            "fastest_ms": 1000 * min(found),
            "images_per_second": batch / statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(seconds[0], found, strict=True)),
            "peak_mb": megabytes,
            "profile": profile,
        }
        for kind, found, (megabytes, profile) in zip(args.kinds, seconds, ends, strict=True)
    ]
    shape = {"model": name, "batch": batch, "size": args.size, "rounds": args.rounds}
    return shape | {"least_ms": least_ms(name, batch, args.size)} | {"rows": rows}


def check_losses(name: str, kinds: list[str], losses: list[float]) -> None:
    """Refuse results of networks that do not compute the same."""
    for kind, loss in zip(kinds, losses, strict=True):
        bound = SAME_LOSS_BFLOAT16 if kind == BFLOAT16 else SAME_LOSS
        if abs(loss - losses[0]) > bound * losses[0]:
            raise SystemExit(f"{name}: the losses of the first step differ: {dict(zip(kinds, losses, strict=True))}")


def least_ms(name: str, batch: int, size: int) -> float:
    """What the multiply-adds of a step would take at the rate of a product of large matrices in float32."""
    _, ours = proved_pair(name, size)
    operations = 2 * PASSES * batch * count_multiply_adds(ours, (3, size, size))
    product, seconds = gemm(torch.float32), []
    for _ in range(PRODUCTS):
        started = time.perf_counter()
        product()
        seconds.append(time.perf_counter() - started)
    return operations / gemm_gflops(Timing(tuple(seconds))) / 1e6


def show(result: dict) -> None:
    """Print the times and the profile of one network."""
    print(
        f"\n{result['model']}, batch {result['batch']}, {result['size']} pixels, {result['rounds']} steps of each; "
        f"multiply-adds at the machine's float32 rate: {result['least_ms']:.0f} ms"
    )
    print(f"{'':16}{'ms':>9}{'fastest':>9}{'images/s':>10}{'ratio':>8}{'MB':>8}")
    for row in result["rows"]:
        print(
            f"{row['kind']:16}{row['ms']:9.1f}{row['fastest_ms']:9.1f}{row['images_per_second']:10.1f}"
            f"{row['ratio']:8.2f}{row['peak_mb']:8.0f}"
        )
    profiles = {row["kind"]: row["profile"] for row in result["rows"] if row["profile"]}
    print(f"{'ms in one step':44}" + "".join(f"{kind:>16}" for kind in profiles))
    for group in {group: None for found in profiles.values() for group in found}:
        cells = (f"{found.get(group, 0):16.0f}" for found in profiles.values())
        print(f"  {group:42}" + "".join(cells), flush=True)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, help="ratios are to the first")
    parser.add_argument("--json", type=Path, help="file; results of other networks and processors in it stay")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no naive form of {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    args.kinds = args.kinds or [
        kind for kind in KINDS if kind not in BY_REQUEST and (kind != BFLOAT16 or computes_bfloat16())
    ]
    torch.set_num_threads(args.threads)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    for name in args.names or NAMES:
        result = measure(name, args)
        show(result)
        if args.json is not None:
            keep(args.json, about, result)
    return 0


if __name__ == "__main__":
    sys.exit(main())
