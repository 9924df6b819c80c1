"""Time and memory of listing a million loose files, by one process and by several that train together.

    python benchmarks/scan.py --files 1281167 --classes 1000 --root /dev/shm/scan

Writes empty files and lists them in fresh processes: by one for the first time, by one again, which reads the kept
index, and by `--ranks` processes with `--workers` loader workers each, which find the index too. Prints as JSON the
seconds of CPU, the seconds, the MB above what the imports take at the peak of one process, and the MB that all
processes together hold above their imports, workers included (proportional set sizes, read from Linux's /proc, so that
memory that processes share counts once). Then the files are removed.
"""

import argparse
import json
import os
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

_CHILD = """
import json, os, resource, sys, time
from pathlib import Path
import multiprocessing
from overtone.config import Data, Run
from overtone.data.loader import Loader
from overtone.data.pipeline import class_images
from overtone.data.sources import open_splits
from overtone.engine.distributed import joined
from overtone.engine.first_scan import scanned_first
from overtone.data.transforms import evaluation_transform
from overtone.config import Preprocess

def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024

def held(pid):
    lines = Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith("Pss:")) / 1024

workers = int(sys.argv[2])
with joined(Run(device="cpu")) as world:
    pipeline = class_images(evaluation_transform(Preprocess(size=32)))
    loaders = []
    def began(source):
        loader = Loader(source, pipeline, batch_size=64, workers=workers, shuffle=True)
        iter(loader._loader)
        time.sleep(1)
        loaders.append(loader)
        return sum(map(held, [os.getpid(), *(child.pid for child in multiprocessing.active_children())]))
    from overtone.data.sources import ImageList
    few = ImageList(("a", "b"), ["x"] * 2, [0, 1])
    world.gather(None)
    without = sum(world.gather(began(few)))
    loaders.pop().close()
    before, cpu, start = peak(), time.process_time(), time.perf_counter()
    splits = scanned_first(world, lambda: open_splits(Data(root=Path(sys.argv[1])), "label"))
    seconds, cpu, peaks = time.perf_counter() - start, time.process_time() - cpu, world.gather(peak() - before)
    together = sum(world.gather(began(splits.train))) - without
    world.gather(None)
    loaders.pop().close()
    if world.is_first:
        print(json.dumps({
            "files": len(splits.train) + len(splits.val), "cpu_s": round(cpu, 2), "s": round(seconds, 2),
            "imports_mb": round(before), "peak_added_mb": round(max(peaks)), "all_held_added_mb": round(together),
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


def measure(root: Path, cache: Path, ranks: int, workers: int) -> dict[str, Any]:
    """What the first of some processes prints."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    running = []
    for rank in range(ranks):
        place = {"RANK": rank, "LOCAL_RANK": rank, "WORLD_SIZE": ranks, "MASTER_PORT": port} if ranks > 1 else {}
        words = {"OVERTONE_CACHE": cache, "MASTER_ADDR": "127.0.0.1", **place}
        environment = {**os.environ, **{name: str(value) for name, value in words.items()}}
        command = [sys.executable, "-c", _CHILD, str(root), str(workers)]
        running.append(subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, text=True))
    printed = [process.communicate()[0] for process in running]
    if any(process.returncode for process in running):
        raise SystemExit("a process failed")
    return {"processes": ranks * (1 + workers), **json.loads(printed[0])}


def main() -> None:
    """Make the files, list them, print and clean up."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--files", type=int, default=1_281_167)
    parser.add_argument("--classes", type=int, default=1000)
    parser.add_argument("--ranks", type=int, default=2)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--root", type=Path, default=Path(tempfile.gettempdir()) / "overtone-scan")
    chosen = parser.parse_args()
    chosen.root.mkdir(parents=True)
    try:
        start = time.perf_counter()
        make(chosen.root / "images", chosen.files, chosen.classes)
        sys.stderr.write(f"made in {time.perf_counter() - start:.0f} s\n")
        time.sleep(3)  # an index is kept only of folders that have settled
        results = {}
        for name, ranks in (("first", 1), ("second", 1), ("together", chosen.ranks)):
            results[name] = measure(chosen.root / "images", chosen.root / "cache", ranks, chosen.workers)
        sys.stdout.write(json.dumps(results, indent=1) + "\n")
    finally:
        shutil.rmtree(chosen.root)


if __name__ == "__main__":
    main()
