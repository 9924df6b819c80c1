"""What a training with all its safety costs: `overtone train` against a bare PyTorch loop on the same work.

    python benchmarks/training_overhead.py

Both read the same generated pictures with the same loader in the same order and train the same network with the same
optimiser, in one process, an epoch each in turn. The bare loop does forward, loss, backward and step. `overtone train`
adds what it always does: the proof that loss and gradient are finite, the schedules, seeds for every step, progress,
`metrics.jsonl`, and checkpoints in the background (here one in the middle of each epoch, beside the one at its end,
which falls into the next epoch). The first line of the output is the machine; the ratio is of the medians.
"""

import argparse
import json
import platform
import statistics
import tempfile
import time
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import overtone
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.data.loader import Loader
from overtone.data.sources import find_splits
from overtone.data.transforms import training_transform
from overtone.engine.allocator import keep_freed_memory
from overtone.engine.optim import build_optimizer
from overtone.verbs.train import train


def main() -> None:
    """Print images/s of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenetv2_x050")
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=60, help="steps in an epoch")
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each")
    args = parser.parse_args()
    keep_freed_memory()  # for both: it is a property of the process
    with tempfile.TemporaryDirectory() as folder:
        root = _pictures(Path(folder) / "pictures", args.size, args.batch * args.steps)
        recipe = Recipe(
            model=Model(name=args.model),
            data=Data(root=root, preprocess=Preprocess(size=args.size, resize="squash", crop_fraction=1.0)),
            augment=Augment(crop="none"),
            optim=Optim(name="sgd", lr=0.01, momentum=0.9, weight_decay=4e-5),
            train=Train(epochs=1, batch_size=args.batch),
        )
        bare, safe = [], []
        for number in range(args.rounds + 1):  # the first round warms up
            bare.append(_bare_epoch(recipe))
            safe.append(_safe_epoch(recipe, Path(folder) / f"run{number}", args.steps // 2))
        bare, safe = bare[1:], safe[1:]
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    print(
        f"{args.model}, {args.size} px, batch {args.batch}, {args.rounds} epochs of {args.steps} steps each, images/s"
    )
    for name, rates in (("bare loop", bare), ("overtone train", safe)):
        print(f"{name:<16}{statistics.median(rates):8.1f}  ({min(rates):.1f} to {max(rates):.1f})")
    print(f"ratio           {statistics.median(safe) / statistics.median(bare):8.3f}")


def _pictures(root: Path, size: int, count: int) -> Path:
    """Pictures of noise, of two classes, all for training but two."""
    random = np.random.default_rng(0)
    for part, number in (("train", count // 2), ("val", 1)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png", compress_level=1)
    return root


def _bare_epoch(recipe: Recipe) -> float:
    splits = find_splits(recipe.data)
    loader = Loader(
        splits.train,
        training_transform(recipe.data.preprocess, recipe.augment),
        batch_size=recipe.train.batch_size,
        shuffle=True,
    )
    torch.manual_seed(0)
    network = overtone.create_model(recipe.model.name, num_classes=2).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(network, recipe.optim)
    started = time.perf_counter()
    for batch in loader:
        outputs = network(batch.images.to(memory_format=torch.channels_last))
        F.cross_entropy(outputs, batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
    return len(splits.train) / (time.perf_counter() - started)


def _safe_epoch(recipe: Recipe, folder: Path, save_steps: int) -> float:
    train(recipe, Run(out=folder, device="cpu", workers=0, cache_mb=0, save_steps=save_steps, plots=False), "overhead")
    (row,) = (json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines())
    return row["images_per_second"]


if __name__ == "__main__":
    main()
