"""Linear layers by oneDNN against PyTorch's own library (`layers/onednn_linear.py`), alternating in one process.

    python benchmarks/onednn_linear.py --threads 1 --json benchmarks/onednn_linear.json

HorNet-T's training step and deployed inference, deployed inference of timm's nets, and HorNet's products by
themselves. Medians; with one thread of the processor's time, which what shares the machine does not count in, with more
of the clock. Ratios above 1: oneDNN is faster.
"""

import argparse
import json
import os
import statistics
import time
from collections.abc import Callable
from pathlib import Path

import timm
import torch
from torch.nn import functional as F

import overtone
from overtone.layers.onednn_linear import VARIABLE, linear
from overtone.verbs.benchmark_report import machine

HORNETS = ("hornet_tiny_7x7", "hornet_tiny_gf")
OTHERS = ("vit_small_patch16_224", "convnext_tiny")
SIZE = 224
ENOUGH, MOST_ROUNDS = 6.0, 60  # seconds of rounds, and rounds, of what is short


def compare(contender: Callable[[], object], rounds: int, threads: int) -> dict[str, float]:
    """Milliseconds without and with oneDNN's linears, and the ratio of the medians; more rounds of what is short."""
    clock = time.thread_time if threads == 1 else time.perf_counter

    def seconds(choice: str) -> float:
        os.environ[VARIABLE] = choice
        start = clock()
        contender()
        return clock() - start

    warm = min(seconds("0") + seconds("1") for _ in range(2))
    rounds = max(rounds, min(MOST_ROUNDS, int(ENOUGH / warm)))
    taken: dict[str, list[float]] = {"0": [], "1": []}
    for number in range(rounds):
        for choice in ("0", "1") if number % 2 else ("1", "0"):
            taken[choice].append(seconds(choice))
    without, with_onednn = (1000 * statistics.median(taken[choice]) for choice in ("0", "1"))
    ratio = without / with_onednn
    times = {"without_ms": round(without, 2), "with_ms": round(with_onednn, 2)}
    return {**times, "ratio": round(ratio, 3), "rounds": rounds}


def training_step(name: str, batch: int) -> Callable[[], object]:
    """Forward, backward and an optimiser's step."""
    net = overtone.create_model(name).train()
    optimiser = torch.optim.SGD(net.parameters(), 1e-3)
    images, classes = torch.randn(batch, 3, SIZE, SIZE), torch.randint(1000, (batch,))

    def step() -> None:
        optimiser.zero_grad()
        F.cross_entropy(net(images), classes).backward()
        optimiser.step()

    return step


def inference(name: str, batch: int) -> Callable[[], object]:
    """A call of the deployed network."""
    os.environ[VARIABLE] = "1"  # deploy decides by it
    net, images = overtone.deploy(timm.create_model(name).eval(), SIZE), torch.randn(batch, 3, SIZE, SIZE)
    return torch.inference_mode()(lambda: net(images))


def product(rows: int, inputs: int, outputs: int, *, backward: bool) -> Callable[[], object]:
    """One linear layer."""
    x, weight, bias = (torch.randn(*shape) for shape in ((rows, inputs), (outputs, inputs), (outputs,)))
    if not backward:
        return torch.inference_mode()(lambda: linear(x, weight, bias))
    leaves, grad = [t.requires_grad_() for t in (x, weight, bias)], torch.randn(rows, outputs)
    return lambda: torch.autograd.grad(linear(*leaves), leaves, grad)


def contenders(batch: int) -> dict[str, Callable[[], Callable[[], object]]]:
    """By name, how to make each."""
    made: dict[str, Callable[[], Callable[[], object]]] = {}
    for side, narrow in ((56, 64), (28, 128), (14, 256), (7, 512)):
        for shape in ((batch * side**2, narrow, 4 * narrow), (batch * side**2, 4 * narrow, narrow)):
            for backward in (False, True):
                what = "forward and backward" if backward else "forward"
                made[f"{shape}, {what}"] = lambda shape=shape, backward=backward: product(*shape, backward=backward)
    for name in HORNETS:
        made[f"{name}, training, batch {batch}"] = lambda name=name: training_step(name, batch)
    for name in (*HORNETS, *OTHERS):
        for images in (1, batch):
            made[f"{name}, inference, batch {images}"] = lambda name=name, images=images: inference(name, images)
    return made


def main() -> None:
    """Measure, print, and keep what is asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--only", default="", help="only names with this in them")
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    torch.set_num_threads(chosen.threads)
    found: dict[str, object] = {"machine": machine()}
    for name, make in contenders(chosen.batch).items():
        if chosen.only in name:
            found[name] = compare(make(), chosen.rounds, chosen.threads)
            print(f"{name}: {found[name]}", flush=True)
    found["load after"] = round(os.getloadavg()[0], 2)
    if chosen.json:
        chosen.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
