"""What a training with all its safety costs: `overtone train` against a bare PyTorch loop on the same work.

    python benchmarks/training_overhead.py

Both read generated images with the same loader and train the same network with the same optimiser, in one process, a
step each in turn: after every step of the training a step of the bare loop is taken, so that what else the machine does
falls on both. A step is all from one to the next, with reading its batch. The bare loop does forward, loss, backward,
update. `overtone train` adds what it always does: the proof that loss and gradient are finite, the schedules, a seed
for every step, progress, and a checkpoint in the background every `--save-steps` steps. The ratio is that of the sums
of all steps, so that no checkpoint is left out, and beside it that of the medians.
"""

import argparse
import contextlib
import io
import platform
import statistics
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from PIL import Image

import overtone
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.data.loader import Loader
from overtone.data.pipeline import ImagePipeline, class_of
from overtone.data.sources import open_splits
from overtone.data.transforms import training_transform
from overtone.engine.optim import build_optimizer
from overtone.engine.session import Session
from overtone.engine.training import train


def main() -> None:
    """Print milliseconds a step of both and the ratio."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="mobilenetv2_x050")
    parser.add_argument("--size", type=int, default=64, help="side of the images, pixels")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--save-steps", type=int, default=100, help="steps between checkpoints")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        root = _images(Path(folder) / "images", args.size, args.batch * args.steps)
        recipe = Recipe(
            model=Model(name=args.model),
            data=Data(root=root, preprocess=Preprocess(size=args.size, resize="squash", crop_fraction=1.0)),
            augment=Augment(crop="none"),
            optim=Optim(name="sgd", lr=0.01, momentum=0.9, weight_decay=4e-5),
            train=Train(epochs=1, batch_size=args.batch),
        )
        safe, bare = _alternate(recipe, Path(folder) / "run", args.save_steps)
    machine = platform.processor() or platform.machine()
    print(f"{machine}, {torch.get_num_threads()} threads, PyTorch {torch.__version__}")
    print(f"{args.model}, {args.size} px, batch {args.batch}; {len(safe)} steps of each, ms a step: mean, median")
    for name, seconds in (("bare loop", bare), ("overtone train", safe)):
        print(f"{name:<16}{1e3 * statistics.mean(seconds):8.2f}{1e3 * statistics.median(seconds):8.2f}")
    means, medians = (statistic(safe) / statistic(bare) for statistic in (statistics.mean, statistics.median))
    print(f"{'time, ratio':<16}{means:8.3f}{medians:8.3f}")
    print(f"{'throughput':<16}{1 / means:8.3f}{1 / medians:8.3f}")


def _images(root: Path, size: int, count: int) -> Path:
    """Images of noise, of two classes, all for training but two."""
    random = np.random.default_rng(0)
    for part, number in (("train", count // 2), ("val", 1)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for index in range(number):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{index}.png", compress_level=1)
    return root


def _alternate(recipe: Recipe, folder: Path, save_steps: int) -> tuple[list[float], list[float]]:
    """Seconds of each step of the training and of the bare loop; the first steps, which warm up, are left out."""
    safe: list[float] = []
    bare: list[float] = []
    steps = _bare_steps(recipe)
    left = time.perf_counter()
    original = Session.stepped

    def stepped(session: Session) -> None:
        nonlocal left
        original(session)
        now = time.perf_counter()
        safe.append(now - left)
        next(steps, None)
        left = time.perf_counter()
        bare.append(left - now)

    Session.stepped = stepped
    run = Run(out=folder, device="cpu", workers=0, cache_mb=0, save_minutes=None, save_steps=save_steps, plots=False)
    with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
        train(recipe, run, "overhead")
    return safe[10:-1], bare[10:-1]


def _bare_steps(recipe: Recipe) -> Iterator[None]:
    splits = open_splits(recipe.data, "label")
    transform = training_transform(recipe.data.preprocess, recipe.augment)
    pipeline = ImagePipeline(transform, class_of, torch.empty(0, dtype=torch.int64))
    loader = Loader(splits.train, pipeline, batch_size=recipe.train.batch_size, shuffle=True)
    network = overtone.create_model(recipe.model.name, num_classes=2).to(memory_format=torch.channels_last).train()
    optimizer = build_optimizer(network, recipe.optim)
    for batch in loader:
        outputs = network(batch.inputs.to(memory_format=torch.channels_last))
        F.cross_entropy(outputs, batch.targets).backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        yield


if __name__ == "__main__":
    main()
