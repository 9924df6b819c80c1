"""What only a GPU can show, on one device in ten minutes, the naive published networks included.

    python benchmarks/gpu.py [--parts training,inference] [--json benchmarks/gpu.json] [--dry]

This is `overtone benchmark --gpu-suite` with the modules of `benchmarks/naive` beside ours in the part `training`. The
parts are described in `src/overtone/reproduction/gpu`. Without a GPU, or with `--dry`, the same code runs on the CPU
with a few small images; table and file then say `cpu (dry run)`, and the figures mean nothing.
"""

import argparse
import sys
from pathlib import Path

from naive import naive_net

from overtone.errors import OvertoneError
from overtone.reproduction.gpu.place import Place
from overtone.reproduction.gpu.suite import failures
from overtone.verbs.benchmark_gpu import device_for, keep, measured, parts_of, show


def main() -> int:
    """Measure, print, write; 1 if a case failed."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--parts", default="all", help="names with commas between")
    parser.add_argument("--dry", action="store_true", help="on the CPU, though there is a GPU")
    parser.add_argument("--json", type=Path, help="file to write")
    args = parser.parse_args()
    try:
        parts = parts_of(args.parts)
    except OvertoneError as error:
        parser.error(str(error))
    report = measured(Place(device_for(args.dry), naive_net), parts)
    show(report)
    if args.json is not None:
        keep(report, args.json)
    return 1 if failures(report["rows"]) else 0


if __name__ == "__main__":
    sys.exit(main())
