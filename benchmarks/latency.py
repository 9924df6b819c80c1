"""The naive published networks against every runtime and precision of their deployed forms: one image, one run.

    python benchmarks/latency.py [NAME ...] [--threads 2] [--rounds 40] [--json latency.json]

For each network: the naive module of `benchmarks/naive` (eager, float32, NCHW), the same module exported by hand to
ONNX Runtime and OpenVINO, and what `overtone benchmark` can run. All take turns in one process; the table has medians,
the ratio to the naive module (of the medians), and how far the logits are from the naive ones as a share of their
scale. Weights are arbitrary, so int8's differences say little about accuracy. At the end, what was aimed at.
"""

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from naive import NAMES, proved_pair
from torch import Tensor, nn

from overtone.deployment.contenders import ALL, Contender, open_warm, why_not
from overtone.deployment.quiet import quiet
from overtone.deployment.race import gemm, gemm_gflops, race
from overtone.deployment.runtimes import PRECISIONS, Job, computes_bfloat16
from overtone.deployment.targets import runtime_named
from overtone.verbs.benchmark_report import machine

GOALS = {  # ratio to the naive module: the best in float32, the best in any other precision
    "mobilenetv2_x100": (7.0, 12.0),
    "hbonet_x100": (4.0, 6.0),
    "harm_resnet50": (5.0, 9.0),
    "hornet_tiny_7x7": (1.5, 2.6),
    "hornet_tiny_gf": (2.2, 3.8),
}
BY_HAND = ("onnx", "openvino")


@dataclass
class Racer:
    """What runs, and the logits that it gives."""

    label: str
    precision: str
    call: Callable[[], object]
    difference: float


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=40)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--runtimes", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no naive form of {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    torch.set_num_threads(args.threads)
    about, results = machine(), []
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or NAMES:
            results.append(measure(name, args, Path(folder) / name))
            show(results[-1])
    if args.json is not None:
        args.json.write_text(json.dumps({"machine": about, "results": results}, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict:
    """Everything about one network."""
    naive, ours = proved_pair(name, args.size)
    images = Contender(name, "built", "float32", 1, args.size, folder).images()
    with torch.inference_mode():
        expected = naive(images).numpy()
    racers, left_out = [eager(naive, images)], []
    for runtime in BY_HAND:
        if runtime in args.runtimes:
            add(
                racers,
                left_out,
                f"naive, {runtime}",
                "float32",
                partial(by_hand, naive, runtime, images, folder),
                expected,
            )
    for runtime in args.runtimes:
        for precision in args.precisions:
            if reason := why_not(runtime, precision):
                left_out.append(f"{runtime}, {precision}: {reason}")
                continue
            contender = Contender(name, runtime, precision, 1, args.size, folder / f"{runtime}-{precision}")
            add(racers, left_out, runtime, precision, partial(opened, contender, ours), expected)
    products = [gemm(torch.float32)] + ([gemm(torch.bfloat16)] if computes_bfloat16() else [])
    with quiet():
        timings = race([*products, *(racer.call for racer in racers)], args.rounds)
    rates = dict(zip(("float32", "bfloat16"), map(gemm_gflops, timings[: len(products)]), strict=False))
    timings = timings[len(products) :]
    rows = [
        {
            "form": racer.label,
            "precision": racer.precision,
            "ms": timing.median,
            "spread_ms": timing.spread,
            "ratio": timings[0].median / timing.median,
            "paired_ratio": statistics.median(a / b for a, b in zip(timings[0].seconds, timing.seconds, strict=True)),
            "difference": racer.difference,
        }
        for racer, timing in zip(racers, timings, strict=True)
    ]
    return {"model": name, "size": args.size, "gemm_gflops": rates, "rows": rows, "left_out": left_out}


def eager(naive: nn.Module, images: Tensor) -> Racer:
    """The naive module."""

    def call() -> object:
        with torch.inference_mode():
            return naive(images)

    for _ in range(3):
        call()
    return Racer("naive", "float32", call, 0.0)


def by_hand(naive: nn.Module, runtime: str, images: Tensor, folder: Path) -> Callable[[], object]:
    """The naive module exported as it is."""
    place = folder / f"naive-{runtime}"
    place.mkdir(parents=True)
    with quiet():
        runtime_named(runtime).write(Job(naive, images, "normalised", "float32"), place)
        predictor = runtime_named(runtime).open(place, "float32", 1)
    return lambda: predictor.predict(images.numpy())


def opened(contender: Contender, ours: nn.Module) -> Callable[[], object]:
    """Our network in a runtime."""
    with quiet():
        contender.write(ours)
    call, images = open_warm(contender), contender.images()
    return lambda: call(images)


def add(
    racers: list[Racer],
    left_out: list[str],
    label: str,
    precision: str,
    make: Callable[[], Callable[[], object]],
    expected: np.ndarray,
) -> None:
    """Add a racer, or the reason why there is none."""
    print(f"  {label}, {precision}", file=sys.stderr)
    try:
        call = make()
        for _ in range(3):
            logits = call()
    except Exception as error:  # an exporter that cannot take the network is a result
        line = str(error).strip().partition("\n")[0]
        left_out.append(f"{label}, {precision}: {type(error).__name__}: {line[:150]}")
        return
    found = np.asarray(logits, dtype=np.float32)
    racers.append(Racer(label, precision, call, float(np.abs(found - expected).max() / expected.std())))


def show(result: dict) -> None:
    """Print the table of one network, the fastest first, and what was aimed at."""
    rates = ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in result["gemm_gflops"].items())
    print(f"\n{result['model']}, {result['size']} pixels, batch 1; products of matrices: {rates}")
    print(f"{'form':20}{'precision':16}{'ms':>9}{'±':>8}{'ratio':>8}{'paired':>8}{'difference':>12}")
    for row in sorted(result["rows"], key=lambda row: row["ms"]):
        print(
            f"{row['form']:20}{row['precision']:16}{row['ms']:9.2f}{row['spread_ms']:8.2f}{row['ratio']:8.2f}"
            f"{row['paired_ratio']:8.2f}{row['difference']:12.1e}"
        )
    for line in result["left_out"]:
        print(f"left out: {line}")
    own = [row for row in result["rows"] if not row["form"].startswith("naive")]
    groups = {
        "float32": [row for row in own if row["precision"] == "float32"],
        "lower precision": [row for row in own if row["precision"] != "float32"],
    }
    for (what, rows), goal in zip(groups.items(), GOALS[result["model"]], strict=True):
        if rows:
            best = max(rows, key=lambda row: row["ratio"])
            verdict = "reached" if best["ratio"] >= goal else "missed"
            print(f"best in {what}: {best['ratio']:.2f}x ({best['form']}, {best['precision']}); aim {goal}x: {verdict}")


if __name__ == "__main__":
    sys.exit(main())
