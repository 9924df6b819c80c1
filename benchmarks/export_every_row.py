"""Every published row exported to ONNX at its own resolution and held against PyTorch in ONNX Runtime.

    python benchmarks/export_every_row.py [--only 'hornet_*'] [--out benchmarks/export_every_row.json]

The weights are random: parity is a matter of the graph, and the published files are not needed. Rows that differ in
their weights alone are exported once. Takes ten to twenty minutes on one core and up to 12 GB of memory; results are
written after every row, and a later call resumes from them.
"""

import argparse
import fnmatch
import json
import platform
import tempfile
import time
from pathlib import Path

import torch

import overtone
from overtone.config import Preprocess
from overtone.deployment.export import Origin, Request, export
from overtone.errors import OvertoneError
from overtone.published import PUBLISHED, Published

IMAGES = 2


def measure(row: Published) -> dict[str, object]:
    """Export one row and say how far apart its logits are."""
    torch.manual_seed(0)
    model = overtone.create_model(row.architecture, num_classes=row.num_classes).eval()
    preprocess = Preprocess(size=row.resolution, interpolation=row.interpolation, crop_fraction=row.crop_fraction)
    started = time.perf_counter()
    with tempfile.TemporaryDirectory() as scratch:
        request = Request("onnx", dynamic_batch=True, checked=IMAGES)
        try:
            about = export(model, Origin(row.architecture, preprocess, "random weights"), request, Path(scratch) / "it")
        except OvertoneError as error:
            return {"passes": False, "reason": str(error)}
    return {
        "passes": True,
        "largest": about.parity["largest"],
        "same_decisions": about.parity["same_decisions"],
        "megabytes": round(about.bytes / 1e6, 1),
        "seconds": round(time.perf_counter() - started, 1),
        "onnxruntime": about.versions["onnxruntime"],
        "torch": about.versions["torch"],
    }


def main() -> None:
    """Measure the rows that have no result yet."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", default="*")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_suffix(".json"))
    chosen = parser.parse_args()
    results = json.loads(chosen.out.read_text()) if chosen.out.is_file() else {"machine": platform.machine()}
    rows = results.setdefault("rows", {})
    same: dict[tuple[str, int, int], str] = {}
    for row in PUBLISHED:
        key = (row.architecture, row.resolution, row.num_classes)
        first = same.setdefault(key, row.full_name)
        if not fnmatch.fnmatch(row.full_name, chosen.only) or row.full_name in rows:
            continue
        rows[row.full_name] = rows[first] if first in rows else measure(row)
        print(row.full_name, rows[row.full_name], flush=True)
        chosen.out.write_text(json.dumps(results, indent=1) + "\n")
    failed = [name for name, result in rows.items() if not result["passes"]]
    worst = max((result["largest"] for result in rows.values() if result["passes"]), default=0.0)
    print(f"{len(rows)} of {len(PUBLISHED)} rows, {len(failed)} failed {failed}; largest difference {worst:.1e}")


if __name__ == "__main__":
    main()
