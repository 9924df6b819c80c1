"""The naive published networks against every runtime and precision of their deployed forms: one image, one run.

    python benchmarks/latency.py [NAME ...] [--threads 2] [--rounds 40] [--json latency.json]

For each network: the naive module of `benchmarks/naive` (eager, float32, NCHW), the same module exported by hand to
ONNX Runtime and OpenVINO, and what `overtone benchmark` can run. Each lives in a process of its own; they take turns.
The table has medians, the fastest call, the ratio to the naive module (of the medians), and how far the logits are from
the naive ones as a share of their scale. Weights are arbitrary, so int8's differences say little about accuracy. At the
end, what was aimed at.
"""

import argparse
import contextlib
import sys
import tempfile
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
import torch
from naive import NAMES, proved_pair
from results import keep
from torch import nn

from overtone.deployment.quiet import quiet
from overtone.deployment.runtimes.runtime import PRECISIONS, computes_bfloat16
from overtone.deployment.timing.contenders import ALL, Contender, lane_of, why_not
from overtone.deployment.timing.lane import Lane, reason_of
from overtone.deployment.timing.race import Timing, gemm, gemm_gflops, race
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
    """What runs."""

    label: str
    precision: str
    lane: Lane


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", default=[], help=", ".join(NAMES))
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--rounds", type=int, default=25)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--runtimes", nargs="+", choices=ALL, default=list(ALL))
    parser.add_argument("--precisions", nargs="+", choices=PRECISIONS, default=list(PRECISIONS))
    parser.add_argument("--json", type=Path, help="file; results of other networks and processors in it stay")
    args = parser.parse_args()
    unknown = set(args.names) - set(NAMES)
    if unknown:
        parser.error(f"no naive form of {', '.join(sorted(unknown))}; there are {', '.join(NAMES)}")
    torch.set_num_threads(args.threads)
    about = machine()
    print(", ".join(f"{key} {value}" for key, value in about.items()))
    with tempfile.TemporaryDirectory() as folder:
        for name in args.names or NAMES:
            result = measure(name, args, Path(folder) / name)
            show(result)
            if args.json is not None:
                keep(args.json, about, result)
    return 0


def measure(name: str, args: argparse.Namespace, folder: Path) -> dict:
    """Everything about one network."""
    naive, ours = proved_pair(name, args.size)
    contender = partial(Contender, name, batch=1, size=args.size)
    tries: list[tuple[str, Contender, nn.Module]] = [
        ("naive", contender("built", "float32", folder=folder / "n"), naive)
    ]
    for runtime in BY_HAND:
        if runtime in args.runtimes:
            place = folder / f"naive-{runtime}"
            tries.append((f"naive, {runtime}", contender(runtime, "float32", folder=place, rewritten=False), naive))
    left_out = []
    for runtime in args.runtimes:
        for precision in args.precisions:
            if reason := why_not(runtime, precision):
                left_out.append(f"{runtime}, {precision}: {reason}")
            else:
                place = folder / f"{runtime}-{precision}"
                tries.append((runtime, contender(runtime, precision, folder=place), ours))
    with contextlib.ExitStack() as lanes:
        racers = []
        for label, tried, net in tries:
            print(f"  {label}, {tried.precision}", file=sys.stderr)
            try:
                with quiet():
                    tried.write(net)
                racers.append(Racer(label, tried.precision, lanes.enter_context(lane_of(tried))))
            except Exception as error:  # an exporter that cannot take the network is a result
                left_out.append(f"{label}, {tried.precision}: {reason_of(error).replace(f'{folder}/', '')}")
        kinds = {"float32": torch.float32} | ({"bfloat16": torch.bfloat16} if computes_bfloat16() else {})
        products = [lanes.enter_context(Lane(gemm, kind)) for kind in kinds.values()]
        timings = race([lane.turn for lane in [*products, *(racer.lane for racer in racers)]], args.rounds)
    rates = dict(zip(kinds, map(gemm_gflops, timings), strict=False))
    rows = [
        row_of(racer, timing, racers[0], timings[len(kinds)])
        for racer, timing in zip(racers, timings[len(kinds) :], strict=True)
    ]
    return {"model": name, "size": args.size, "gemm_gflops": rates, "rows": rows, "left_out": left_out}


def row_of(racer: Racer, timing: Timing, first: Racer, naive: Timing) -> dict:
    """What was found of one."""
    expected = np.asarray(first.lane.result)
    return {
        "form": racer.label,
        "precision": racer.precision,
        "ms": timing.median,
        "fastest_ms": 1000 * min(timing.seconds),
        "spread_ms": timing.spread,
        "ratio": naive.median / timing.median,
        "difference": float(np.abs(np.asarray(racer.lane.result) - expected).max() / expected.std()),
    }


def show(result: dict) -> None:
    """Print the table of one network, the fastest first, and what was aimed at."""
    rates = ", ".join(f"{rate:.0f} GFLOP/s in {name}" for name, rate in result["gemm_gflops"].items())
    print(f"\n{result['model']}, {result['size']} pixels, batch 1; products of matrices: {rates}")
    print(f"{'form':20}{'precision':16}{'ms':>9}{'±':>8}{'fastest':>9}{'ratio':>8}{'difference':>12}")
    for row in sorted(result["rows"], key=lambda row: row["ms"]):
        print(
            f"{row['form']:20}{row['precision']:16}{row['ms']:9.2f}{row['spread_ms']:8.2f}"
            f"{row['fastest_ms']:9.2f}{row['ratio']:8.2f}{row['difference']:12.1e}"
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
