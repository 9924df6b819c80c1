"""A training step of the naive published networks against ours: time and memory, in one run.

    python benchmarks/training_step.py [NAME ...] [--threads 2] [--rounds 10] [--json training.json]

Forward, cross entropy, backward and a step of SGD with momentum; batch 32 for the mobile networks, 8 for the large
ones, or `--batch`. What is measured:

  naive        the module of `benchmarks/naive`, NCHW, in a process as it starts
  ours         as `overtone train` computes: channels_last, and freed memory kept by the process (engine/allocator.py)
  ours, given  the same without that setting of the process: what is left is the network's and the layout's share
  naive, kept  the naive module with that setting

The setting is one of the whole process, so each has a process of its own; they take turns step by step, the others
waiting. All begin with the same weights, and the losses of the first step must agree. MB: the highest point of a step
beyond the process with the network and the batch built.
"""

import argparse
import json
import multiprocessing
import statistics
import sys
import time
from multiprocessing.connection import Connection
from pathlib import Path

import torch
import torch.nn.functional as F
from naive import NAMES, proved_pair

from overtone.config import Optim
from overtone.deployment.peak_memory import begin_peak, peak, resident
from overtone.engine.allocator import keep_freed_memory
from overtone.engine.optim import build_optimizer
from overtone.verbs.benchmark_report import machine

KINDS = ("naive", "ours", "ours, given", "naive, kept")
BATCHES = {"mobilenetv2_x100": 32, "hbonet_x100": 32}
LARGE_BATCH = 8
SAME_LOSS = 1e-3


def work(connection: Connection, name: str, kind: str, batch: int, args: argparse.Namespace) -> None:
    """Take a step for every word that comes, and answer with its seconds and its loss."""
    torch.set_num_threads(args.threads)
    if kind in ("ours", "naive, kept"):
        keep_freed_memory()
    naive, ours = proved_pair(name, args.size)
    net = (naive if kind.startswith("naive") else ours).train()
    del naive, ours
    generator = torch.Generator().manual_seed(0)
    images, targets = torch.randn(batch, 3, args.size, args.size, generator=generator), torch.arange(batch)
    optimizer: torch.optim.Optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    if kind.startswith("ours"):
        net = net.to(memory_format=torch.channels_last)
        images = images.contiguous(memory_format=torch.channels_last)
        optimizer = build_optimizer(net, Optim(name="sgd", lr=1e-3, momentum=0.9))
    before = resident()
    begin_peak()
    connection.send("ready")
    while connection.recv() == "step":
        started = time.perf_counter()
        loss = F.cross_entropy(net(images), targets)
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        connection.send((time.perf_counter() - started, loss.item()))
    connection.send(peak() - before)


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
    memory = []
    for pipe, worker in zip(pipes, workers, strict=True):
        pipe.send("end")
        memory.append(pipe.recv())
        worker.join()
    if max(losses) - min(losses) > SAME_LOSS * max(losses):
        raise SystemExit(f"{name}: the losses of the first step differ: {losses}")
    rows = [
        {
            "kind": kind,
            "ms": 1000 * statistics.median(found),
            "fastest_ms": 1000 * min(found),
            "images_per_second": batch / statistics.median(found),
            "ratio": statistics.median(a / b for a, b in zip(seconds[0], found, strict=True)),
            "peak_mb": megabytes,
        }
        for kind, found, megabytes in zip(args.kinds, seconds, memory, strict=True)
    ]
    return {"model": name, "batch": batch, "size": args.size, "rounds": args.rounds, "rows": rows}


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--warm-up", type=int, default=2)
    parser.add_argument("--batch", type=int)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=list(KINDS), help="ratios are to the first")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no naive form of {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    about, results = machine() | {"threads": args.threads}, []
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    for name in args.names or NAMES:
        results.append(measure(name, args))
        print(f"\n{name}, batch {results[-1]['batch']}, {args.size} pixels, {args.rounds} steps of each")
        print(f"{'':14}{'ms':>9}{'fastest':>9}{'images/s':>10}{'ratio':>8}{'MB':>8}")
        for row in results[-1]["rows"]:
            print(
                f"{row['kind']:14}{row['ms']:9.1f}{row['fastest_ms']:9.1f}{row['images_per_second']:10.1f}"
                f"{row['ratio']:8.2f}{row['peak_mb']:8.0f}",
                flush=True,
            )
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
