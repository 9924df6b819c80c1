"""Time and memory of listing a million loose files: the first start, and the next one, which reads the kept index.

    python benchmarks/scan.py --files 1281167 --classes 1000 --root /dev/shm/scan

Writes empty files, lists them twice in fresh processes, prints seconds of CPU, seconds and MB above what the imports
take, as JSON, and removes the files.
"""

import argparse
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

_CHILD = """
import json, os, resource, sys, time
from pathlib import Path
from overtone.config import Data
from overtone.data.sources import open_splits

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

before, cpu, start = peak(), time.process_time(), time.perf_counter()
splits = open_splits(Data(root=Path(sys.argv[1])), "label")
print(json.dumps({
    "files": len(splits.train) + len(splits.val), "cpu_s": round(time.process_time() - cpu, 2),
    "s": round(time.perf_counter() - start, 2), "imports_mb": round(before), "added_mb": round(peak() - before),
}))
"""


def make(root: Path, files: int, classes: int) -> None:
    """Empty files of training and validation, in class folders."""
    for part, count in (("train", files), ("val", 2 * classes)):
        for number in range(classes):
            folder = root / part / f"n{number:08}"
            folder.mkdir(parents=True)
            for image in range(number, count, classes):
                os.close(os.open(folder / f"n{number:08}_{image}.JPEG", os.O_CREAT | os.O_WRONLY))


def main() -> None:
    """Make the files, list them twice, print and clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "overtone-scan")
    chosen = parser.parse_args()
    chosen.root.mkdir(parents=True)
    try:
        start = time.perf_counter()
        make(chosen.root / "images", chosen.files, chosen.classes)
        sys.stderr.write(f"made in {time.perf_counter() - start:.0f} s\n")
        time.sleep(3)  # an index is kept only of folders that have settled
        environment = {**os.environ, "OVERTONE_CACHE": str(chosen.root / "cache")}
        results = {}
        for name in ("first", "second"):
            command = [sys.executable, "-c", _CHILD, str(chosen.root / "images")]
            printed = subprocess.run(command, env=environment, check=True, capture_output=True, text=True).stdout
            results[name] = json.loads(printed)
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(chosen.root)
    sys.stderr.write(f"peak of children: {resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / 1024:.0f} MB\n")


if __name__ == "__main__":
    main()
