"""How well training's order of shards mixes: distances, classes in a batch, and the accuracy that comes of it.

    python benchmarks/order.py [--epochs 24] [--seeds 2]

Trains the `digits` recipe on scikit-learn's digits as loose files (a full permutation), as packed shards (shuffled when
they were written), and as shards that hold one class each, and prints JSON: the mean distance of a sample from its
place as a share of all (1/3 in a full permutation), the mean number of shards that a batch of 256 of a million samples
comes from, the mean number of classes in a batch of the digits, and top-1 on the test digits for each seed.
"""

import argparse
import dataclasses
import json
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np

from overtone import api
from overtone.config import Data, Run
from overtone.data.natural_parts import natural_parts
from overtone.data.order import epoch_order, shard_order
from overtone.data.packing import Packing, pack
from overtone.data.sources import open_splits
from overtone.engine.training import train
from overtone.recipes import load_recipe
from overtone.verbs.demo import write_digits

_SHARDS, _EACH, _BATCH = 125, 8000, 256


def distances() -> dict[str, Any]:
    """Of a million samples in 125 shards."""
    groups, total = np.full(_SHARDS, _EACH), _SHARDS * _EACH
    orders = {"permutation": epoch_order(total, 0, 0).numpy()}
    orders |= {f"window {window}": shard_order(groups, window, 0, 0).numpy() for window in (4, 16, 64)}
    return {
        name: {
            "distance": round(float(np.abs(order - np.arange(total)).mean() / total), 4),
            "shards_in_a_batch": round(
                statistics.mean(
                    len(np.unique(order[at : at + _BATCH] // _EACH)) for at in range(0, total, 50 * _BATCH)
                ),
                1,
            ),
        }
        for name, order in orders.items()
    }


def classes_in_a_batch(root: Path, batch: int, window: int) -> float:
    """Mean number of classes in the batches of an epoch."""
    source: Any = open_splits(Data(root=root), "label").train
    groups = source.groups() if hasattr(source, "groups") else None
    order = epoch_order(len(source), 0, 0) if groups is None else shard_order(groups, window, 0, 0)
    labels = [source.entry(at)[1] for at in order.tolist()]
    return round(statistics.mean(len(set(labels[at : at + batch])) for at in range(0, len(labels), batch)), 2)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--epochs", type=int, default=24)
    parser.add_argument("--seeds", type=int, default=2)
    chosen = parser.parse_args()
    recipe = load_recipe("digits")
    results: dict[str, Any] = {"order": distances()}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        write_digits(folder / "files")
        parts = natural_parts(Data(root=folder / "files"), "label")
        for kind, shuffle in (("packed", True), ("by class", False)):
            pack(parts, folder / kind, Packing(size_mb=0.08, shuffle=shuffle))
        for kind, window in (("files", 16), ("packed", 16), ("packed", 4), ("by class", 16), ("by class", 4)):
            data = dataclasses.replace(recipe.data, root=folder / kind, shuffle_shards=window)
            scores = []
            for seed in range(chosen.seeds):
                settings = dataclasses.replace(recipe.train, epochs=chosen.epochs, seed=seed)
                run = Run(out=folder / f"run-{kind}-{window}-{seed}", workers=0, plots=False, tensorboard=False)
                train(dataclasses.replace(recipe, data=data, train=settings), run, "digits")
                scores.append(round(api.evaluate(run.out or folder, folder / "files", split="test").report.score, 2))
            results[f"{kind}, window {window}"] = {
                "shards": len(list((folder / kind).glob("train-*.tar"))),
                "classes_in_a_batch": classes_in_a_batch(folder / kind, recipe.train.batch_size, window),
                "top1": scores,
            }
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
