"""How well training's order of shards mixes: distances, classes in a batch, and the accuracy that comes of it.

    python benchmarks/order.py [--root cifar10] [--epochs 5] [--seeds 3] [--orders permutation "by class, window 16"]

Trains a small network on the images of a folder of classes (default: scikit-learn's digits) in the orders of loose
files (a full permutation), of shards that were shuffled when they were packed, and of shards that hold one class each:
100 of them (or the next multiple of the number of classes), and as a warning one for each class with small windows; all
from the same weights, for the same number of steps, with the same learning rates. Prints JSON: for a million samples in
125 shards the mean distance of a sample from its place as a share of all (1/3 in a full permutation) and the number of
shards that a batch of 256 comes from; for each order the mean number of classes in a batch, top-1 on the held-out
images for each seed, and the seconds of CPU. Orders that `--json` holds already stay in it, so that they can be
measured one at a time.
"""

import argparse
import json
import resource
import statistics
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.config import Data
from overtone.data.decoding import decode_image
from overtone.data.order import epoch_order, shard_order
from overtone.data.sources import open_splits
from overtone.verbs.demo import write_digits

_SHARDS, _EACH, _BATCH = 125, 8000, 256
_SIDE, _LR = 16, 0.4
_ORDERS: dict[str, tuple[str, int]] = {
    "permutation": ("", 0),
    "packed, window 16": ("packed", 16),
    "by class, window 16": ("by class", 16),
    "by class, window 4": ("by class", 4),
    "one shard of each class, window 4": ("class", 4),
    "one shard of each class, window 1": ("class", 1),
}


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


def images(source: Any) -> tuple[Tensor, Tensor]:
    """All images, uint8 `(N, 3, 16, 16)`, and their classes."""
    pixels = torch.empty(len(source), 3, _SIDE, _SIDE, dtype=torch.uint8)
    for at in range(len(source)):
        image = decode_image(source.read(at)["image"]).resize((_SIDE, _SIDE))
        pixels[at] = torch.from_numpy(np.array(image)).permute(2, 0, 1)
    return pixels, torch.as_tensor(source.targets)


def order_of(kind: str, window: int, classes: Tensor, shards: int, seed: int, epoch: int) -> Tensor:
    """Positions in the order of an epoch; shards by class hold images of one class each."""
    if not kind:
        return epoch_order(len(classes), seed, epoch)
    packed = torch.randperm(len(classes), generator=torch.Generator().manual_seed(0))
    if kind == "packed":
        groups = np.array([len(part) for part in np.array_split(np.arange(len(classes)), shards)])
        return packed[shard_order(groups, window, seed, epoch)]
    counts = classes.bincount().tolist()
    each = -(-shards // len(counts)) if kind == "by class" else 1
    groups = np.array([len(part) for count in counts for part in np.array_split(np.arange(count), min(each, count))])
    return packed[classes[packed].argsort(stable=True)[shard_order(groups, window, seed, epoch)]]


def network(num_classes: int) -> nn.Module:
    """Four convolutions with batch norm, which a batch of few classes would show in."""

    def block(inputs: int, outputs: int, stride: int) -> list[nn.Module]:
        return [nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs), nn.ReLU(inplace=True)]

    layers = [*block(3, 16, 1), *block(16, 32, 2), *block(32, 64, 2), *block(64, 64, 1)]
    return nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(64, num_classes))


def top1(train: tuple[Tensor, Tensor], val: tuple[Tensor, Tensor], orders: list[Tensor], seed: int) -> float:
    """Top-1 on `val`, percent, after an epoch in each order."""
    torch.manual_seed(seed)
    model = network(int(train[1].max()) + 1).to(memory_format=torch.channels_last)
    optimizer = torch.optim.SGD(model.parameters(), lr=_LR, momentum=0.9, weight_decay=5e-4, nesterov=True)
    steps = len(orders) * -(-len(orders[0]) // _BATCH)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, _LR, total_steps=steps)
    for order in orders:
        for positions in order.split(_BATCH):
            inputs = _floats(train[0][positions])
            inputs = torch.where((torch.rand(len(inputs)) < 0.5).view(-1, 1, 1, 1), inputs.flip(3), inputs)
            F.cross_entropy(model(inputs), train[1][positions], label_smoothing=0.1).backward()
            optimizer.step()
            optimizer.zero_grad()
            schedule.step()
    model.eval()
    with torch.inference_mode():
        found = torch.cat([model(_floats(part)).argmax(1) for part in val[0].split(1000)])
    return round(float((found == val[1]).double().mean()) * 100, 2)


def _floats(pixels: Tensor) -> Tensor:
    return (pixels.float() / 128 - 1).contiguous(memory_format=torch.channels_last)


def classes_in_a_batch(order: Tensor, classes: Tensor) -> float:
    """Mean number of classes in the batches of an order."""
    return round(statistics.mean(len(classes[positions].unique()) for positions in order.split(_BATCH)), 2)


def accuracies(root: Path, chosen: argparse.Namespace) -> dict[str, Any]:
    """What comes of each order."""
    splits = open_splits(Data(root=root, val_fraction=0.1), "label")
    train, val = images(splits.train), images(splits.val)
    settings = {name: getattr(chosen, name) for name in ("shards", "epochs", "seeds")}
    result: dict[str, Any] = {"images": len(train[0]), "held_out": len(val[0]), **settings}
    for name in chosen.orders:
        kind, window = _ORDERS[name]
        scores, begun = [], _cpu_s()
        for seed in range(chosen.seeds):
            orders = [order_of(kind, window, train[1], chosen.shards, seed, e) for e in range(chosen.epochs)]
            scores.append(top1(train, val, orders, seed))
            print(f"{name}, seed {seed}: {scores[-1]}", file=sys.stderr, flush=True)
        result[name] = {
            "classes_in_a_batch": classes_in_a_batch(orders[0], train[1]),
            "top1": scores,
            "mean": round(statistics.mean(scores), 2),
            "deviation": round(statistics.stdev(scores), 2) if len(scores) > 1 else None,
            "cpu_s": round(_cpu_s() - begun, 1),
        }
    return result


def _cpu_s() -> float:
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_utime + used.ru_stime


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", type=Path, help="folder of class folders, or with train/ and val/")
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--shards", type=int, default=100)
    parser.add_argument("--orders", nargs="+", choices=list(_ORDERS), default=list(_ORDERS))
    parser.add_argument("--json", type=Path)
    chosen = parser.parse_args()
    results: dict[str, Any] = {"order": distances()}
    with tempfile.TemporaryDirectory() as name:
        if chosen.root is None:
            write_digits(Path(name))
        results["accuracy"] = accuracies(chosen.root or Path(name), chosen)
    if chosen.json is not None and chosen.json.exists():
        before = json.loads(chosen.json.read_text(encoding="utf-8")).get("accuracy", {})
        same = all(before.get(name) == value for name, value in results["accuracy"].items() if name not in _ORDERS)
        results["accuracy"] = {**(before if same else {}), **results["accuracy"]}
    text = json.dumps(results, indent=1) + "\n"
    sys.stdout.write(text)
    if chosen.json is not None:
        chosen.json.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
