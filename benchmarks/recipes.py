"""`overtone train scratch` and `finetune` within some minutes on real images, against what users would take instead.

    python benchmarks/recipes.py --cifar DIR --bccd DIR --camvid DIR --peers PYTHON [--only PATTERN ...] [--list]

DIR: CIFAR-10's training images in class folders; BCCD as Pascal VOC; CamVid with images/, masks/ and classes.txt. A
part is named recipe/set/contender/seed, such as scratch/cifar10-2500/ours/0; `--only 'scratch/*/ours/*'` chooses some.
A set whose folder is not given is left out, but for the digits. `--peers` is the Python of an environment that has
fastai and ultralytics, or this one; without it ours are measured alone.

Every training has the same minutes on the same cores (`--threads`): 3 from random weights, 15 for all of CIFAR-10, 2 to
fine-tune. What is fine-tuned was trained by `scratch` on eight classes of CIFAR-10 for 5 minutes. Ours is the plain
command with `--train.minutes`; the peers are described in `recipe_peers.py`, and get the size of input that ours
chooses. Results, a row a part, replace earlier ones of that name in `--json` at once; a part that is there already is
not run again, unless `--again`. All of it has budgets of less than two hours.
"""

import argparse
import dataclasses
import fnmatch
import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

from recipe_sets import builders

from overtone.config import Run
from overtone.data.sources import open_splits
from overtone.engine.automatic import settled
from overtone.engine.distributed import World
from overtone.recipes import load_recipe
from overtone.verbs.benchmark_report import machine

_HERE = Path(__file__).parent
_MINUTES = {"scratch": 3.0, "finetune": 2.0}
_LONG = {"scratch/cifar10-45000": 15.0, "scratch/cifar10-eight-classes": 5.0}
_START = "cifar10-eight-classes"
_SEEDS = {"scratch/cifar10-500": 3, "scratch/digits": 3, "finetune/cat-dog-20": 3, "finetune/cat-dog-100": 3}
_FINETUNED = ("cat-dog-20", "cat-dog-100", "cat-dog-1000", "blood-cells")
_AGAINST = {
    "scratch/cifar10-10000": ("timm:resnet10t", "timm:hbonet_x050", "torchvision:resnet18", "fastai", "ultralytics"),
    "scratch/blood-cells": ("timm:resnet10t", "timm:hbonet_x050", "torchvision:resnet18", "fastai", "ultralytics"),
    "finetune/cat-dog-100": ("timm", "torchvision", "fastai"),
    "finetune/blood-cells": ("timm", "torchvision", "fastai"),
}


def parts_of(sets: list[str], against: bool) -> list[str]:
    """Every part, ours first."""
    found = []
    for recipe in ("scratch", "finetune"):
        named = [name for name in sets if (name in _FINETUNED) == (recipe == "finetune") or name == "blood-cells"]
        for name in sorted(named, key=lambda name: name != _START):
            found += [f"{recipe}/{name}/ours/{seed}" for seed in range(_SEEDS.get(f"{recipe}/{name}", 1))]
    names = {part.rpartition("/ours/")[0] for part in found}
    return found + [f"{at}/{peer}/0" for at, peers in _AGAINST.items() if against and at in names for peer in peers]


def ours(recipe: str, root: Path, out: Path, minutes: float, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """The plain command."""
    words = ["train", recipe, str(root), "--train.minutes", f"{minutes:g}", "--train.seed", str(seed)]
    words += ["--run.out", str(out), "--run.overwrite", "--run.threads", str(given.threads), *given.extra]
    if recipe == "finetune":
        words += ["--model.weights", str(given.work / "runs" / _START)]
    _call([sys.executable, "-m", "overtone", *words], given)
    summary = json.loads((out / "summary.json").read_text(encoding="utf-8"))
    settings = _recorded(out)
    size = settings["data"]["preprocess"]["size"]
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    last = rows[-1].get("top1")
    return {"top1": summary["score"], "last_top1": last, "epochs": settings["train"]["epochs"], "size": size}


def peer(name: str, recipe: str, root: Path, minutes: float, seed: int, given: argparse.Namespace) -> dict[str, Any]:
    """One of the others."""
    kind, _, network = name.partition(":")
    start = given.work / "runs" / _START
    size = _size_for(root) if recipe == "scratch" else _recorded(start)["data"]["preprocess"]["size"]
    words = [str(_HERE / "recipe_peers.py"), kind, str(root), "--minutes", f"{minutes:g}", "--seed", str(seed)]
    words += ["--size", str(size), "--threads", str(given.threads)]
    if network:
        words += ["--network", network]
    if recipe == "finetune":
        words += ["--weights", str(start / "best.safetensors"), "--network", _recorded(start)["model"]["name"]]
    return {**json.loads(_call([given.peers, *words], given).strip().splitlines()[-1]), "size": size}


def _size_for(root: Path) -> int:
    """The side of the input that `scratch` chooses for these images."""
    recipe = load_recipe("scratch")
    images = open_splits(dataclasses.replace(recipe.data, root=root), "label").train
    return settled(recipe, Run(), images, World())[0].data.preprocess.size


def _recorded(run: Path) -> dict[str, Any]:
    """The recipe of a run, as it was run."""
    return json.loads((run / "recipe.json").read_text(encoding="utf-8"))["recipe"]


def _call(words: list[str], given: argparse.Namespace) -> str:
    threads = {"OMP_NUM_THREADS": str(given.threads)}
    done = subprocess.run(words, env=os.environ | threads, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(words)} ended with {done.returncode}: {done.stderr.strip()[-600:]}")
    return done.stdout


def measure(part: str, given: argparse.Namespace, build: Any) -> dict[str, Any]:
    """Run a part, with its set written first where it is not there."""
    recipe, name, contender, seed = part.split("/")
    root = given.work / "sets" / name
    if not root.is_dir():
        building = Path(tempfile.mkdtemp(dir=given.work))
        build(building)
        root.parent.mkdir(exist_ok=True)
        building.rename(root)
    minutes = _LONG.get(f"{recipe}/{name}", _MINUTES[recipe]) * given.scale
    out = given.work / "runs" / (name if name == _START else "current")
    started = time.perf_counter()
    if contender == "ours":
        found = ours(recipe, root, out, minutes, int(seed), given)
    else:
        found = peer(contender, recipe, root, minutes, int(seed), given)
    seconds = time.perf_counter() - started
    count = sum(1 for _ in (root / "train").glob("*/*"))
    return {"part": part, "images": count, "minutes": minutes, "wall_seconds": round(seconds, 1), **found}


def table(rows: list[dict[str, Any]]) -> str:
    """Mean and spread over the seeds, a line a set and contender."""
    grouped = defaultdict(list)
    for row in rows:
        grouped[row["part"].rpartition("/")[0]].append(row)
    lines = ["| recipe, set | contender | images | px | minutes | epochs | top-1 |", "|---|---|---|---|---|---|---|"]
    for name, found in grouped.items():
        recipe, chosen, contender = name.split("/")
        scores = [row["top1"] for row in found]
        spread = f" ± {statistics.stdev(scores):.2f}" if len(scores) > 1 else ""
        first = found[0]
        about = f"{first['images']} | {first['size']} | {first['minutes']:g} | {first['epochs']}"
        lines.append(f"| {recipe}, {chosen} | {contender} | {about} | {statistics.mean(scores):.2f}{spread} |")
    return "\n".join(lines)


def main() -> None:
    """Run the parts that are asked for and print the table of all that are on record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name in ("cifar", "bccd", "camvid"):
        parser.add_argument(f"--{name}", type=Path)
    parser.add_argument("--peers", help="Python of an environment with the peers")
    parser.add_argument("--only", nargs="+", default=["*"])
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--scale", type=float, default=1.0, help="of all minutes")
    parser.add_argument("--work", type=Path, default=Path("recipes-work"), help="sets and runs")
    parser.add_argument("--json", type=Path, default=_HERE / "recipes.json")
    parser.add_argument("--again", action="store_true")
    parser.add_argument("--list", action="store_true")
    parser.add_argument("--extra", nargs=argparse.REMAINDER, default=[], help="last: further options of ours")
    given = parser.parse_args()
    build = builders({"cifar": given.cifar, "bccd": given.bccd, "camvid": given.camvid})
    parts = [
        part
        for part in parts_of(list(build), bool(given.peers))
        if any(fnmatch.fnmatch(part, pattern) for pattern in given.only)
    ]
    if given.list:
        print("\n".join(parts))
        return
    given.work.mkdir(exist_ok=True)
    rows = json.loads(given.json.read_text(encoding="utf-8")) if given.json.is_file() else []
    for part in parts:
        if not given.again and any(row["part"] == part for row in rows):
            continue
        row = {**measure(part, given, build[part.split("/")[1]]), "threads": given.threads, "machine": machine()}
        rows = [other for other in rows if other["part"] != part] + [row]
        given.json.write_text(json.dumps(rows, indent=1) + "\n", encoding="utf-8")
        print(f"{part}: {row['top1']:.2f} %, {row['epochs']} epochs, {row['wall_seconds']:.0f} s", flush=True)
    shutil.rmtree(given.work / "runs" / "current", ignore_errors=True)
    print(table(rows))


if __name__ == "__main__":
    main()
