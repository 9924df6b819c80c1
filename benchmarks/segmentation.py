"""`overtone train segment` against segmentation-models-pytorch's Unet trained by a plain loop, on the same masks.

    python benchmarks/segmentation.py camvid_trainval --minutes 5
    python benchmarks/segmentation.py camvid_trainval --epochs 8 --model mobilenetv2_x100 --size 192 --scale 320 240
    python benchmarks/segmentation.py --step

Both see the same crops of the recipe in batches of its size, from nothing, and are evaluated once, at the end, at the
images' own size. Ours is the recipe: Muon, class weights, its schedule. The other is `smp.create_model("unet",
encoder_name="tu-mobilenetv2_100", encoder_weights=None)` with AdamW at 1e-3, a linear decay to 0 and plain cross
entropy. `--minutes`: each gets as many whole epochs as fit into so many CPU minutes by the time of its first steps;
`--epochs`: both get so many. Needs the extra `smp`.

`--step`: time and peak memory of a training step of HorNet-T with UPerNet at 512x512, batch 2, instead:
with one image the batch norm of its pooled 1x1 map has a single value per channel, which PyTorch refuses.
"""

import argparse
import dataclasses
import importlib
import resource
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from overtone.config import Recipe, Run
from overtone.data.loader import Loader
from overtone.data.masks import IGNORED
from overtone.data.pipeline import Batch
from overtone.data.sources import Splits, open_splits
from overtone.engine.loop import evaluate
from overtone.engine.optim import build_optimizer
from overtone.engine.placement import place
from overtone.engine.training import train
from overtone.recipes import load_recipe
from overtone.tasks import task_named
from overtone.tasks.segmentation.report import SegmentationReport
from overtone.tasks.task import Setup

_TIMED_STEPS = 4
_DIVISOR = 32  # of the sides that a Unet takes
_IMAGES = 2  # of a published step on each GPU; the batch norm of UPerNet's pooling needs two


class Padded(nn.Module):
    """A network for images of any size: padded on the right and below, and its logits cut."""

    def __init__(self, network: nn.Module) -> None:
        super().__init__()
        self.network = network

    def forward(self, images: Tensor) -> Tensor:
        """Logits at the size of the images."""
        height, width = images.shape[-2:]
        padded = F.pad(images, (0, -width % _DIVISOR, 0, -height % _DIVISOR))
        return self.network(padded)[..., :height, :width]


def unet(num_classes: int) -> nn.Module:
    """The other network, from nothing."""
    smp = importlib.import_module("segmentation_models_pytorch")  # of an extra

    made = smp.create_model("unet", encoder_name="tu-mobilenetv2_100", encoder_weights=None, classes=num_classes)
    return Padded(made).to(memory_format=torch.channels_last)


def train_plainly(network: nn.Module, loader: Loader, epochs: int, most_steps: int | None = None) -> None:
    """Cross entropy, AdamW, a linear decay."""
    optimizer = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=0.01)
    total = epochs * len(loader)
    schedule = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, total)
    network.train()
    steps = 0
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        for batch in loader:
            outputs = network(batch.inputs)
            logits = getattr(outputs, "logits", outputs)
            logits = F.interpolate(logits, batch.targets.shape[-2:], mode="bilinear")
            loss = F.cross_entropy(logits, batch.targets.long(), ignore_index=IGNORED)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
            steps += 1
            if steps == most_steps:
                return


def epochs_within(seconds: float, network: nn.Module, loader: Loader) -> int:
    """How many epochs fit into so many CPU seconds, by the first steps."""
    train_plainly(network, loader, 1, 1)
    started = time.process_time()
    train_plainly(network, loader, 1, _TIMED_STEPS)
    step = (time.process_time() - started) / _TIMED_STEPS
    return max(int(seconds / (step * len(loader))), 1)


def ours(recipe: Recipe, splits: Splits) -> SegmentationReport:
    """Train by the recipe; evaluated after the last epoch only."""
    once = dataclasses.replace(recipe.train, eval_steps=10**9)
    with tempfile.TemporaryDirectory() as folder:
        run = Run(out=Path(folder) / "run", device="cpu", workers=0, plots=False, tensorboard=False)
        found = train(dataclasses.replace(recipe, train=once), run, "segment", splits=splits).report
    assert isinstance(found, SegmentationReport)
    return found


def theirs(network: nn.Module, loader: Loader, epochs: int, task: Any, splits: Splits) -> SegmentationReport:
    """Train by the plain loop, and measure as ours is."""
    train_plainly(network, loader, epochs)
    images = Loader(splits.val, task.pipeline(train=False), batch_size=1)
    return evaluate(task, network, images, place(Run(device="cpu")))


def compare(given: argparse.Namespace) -> None:
    """Print a line for each side."""
    recipe = load_recipe("segment")
    preprocess = dataclasses.replace(recipe.data.preprocess, size=given.size or recipe.data.preprocess.size)
    settings = dataclasses.replace(recipe.settings, **({"scale": tuple(given.scale)} if given.scale else {}))
    recipe = dataclasses.replace(
        recipe,
        settings=settings,
        model=dataclasses.replace(recipe.model, name=given.model or recipe.model.name),
        data=dataclasses.replace(recipe.data, root=given.root, preprocess=preprocess),
    )
    splits = open_splits(recipe.data, "mask")
    kind = task_named("segmentation")
    task = kind(Setup(tuple(splits.train.labels), recipe))
    crops = task.pipeline(train=True, channels_last=True)
    loader = Loader(splits.train, crops, batch_size=recipe.train.batch_size, shuffle=True, cache_bytes=2**29)
    print("network | epochs | mIoU | aAcc | CPU seconds | seconds | parameters")
    for name in ("ours", "smp unet"):
        torch.manual_seed(0)
        built = (
            kind.build(recipe.model, splits.train.labels) if name == "ours" else unet(len(splits.train.labels))
        ).to(memory_format=torch.channels_last)
        epochs = given.epochs or epochs_within(60 * given.minutes, built, loader)
        size = sum(parameter.numel() for parameter in built.parameters()) / 1e6
        torch.manual_seed(0)
        started, cpu = time.perf_counter(), time.process_time()
        if name == "ours":
            found = ours(dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, epochs=epochs)), splits)
        else:
            found = theirs(unet(len(splits.train.labels)), loader, epochs, task, splits)
        cpu, seconds = time.process_time() - cpu, time.perf_counter() - started
        shown = f"{found.mean_iou:.2f} % | {found.pixel_accuracy:.2f} %"
        print(f"{name} | {epochs} | {shown} | {cpu:.0f} | {seconds:.0f} | {size:.2f} M", flush=True)


def time_a_step() -> None:
    """Print time and memory of a step of HorNet-T with UPerNet."""
    recipe = load_recipe("upernet_hornet_tiny_7x7_ade20k")
    labels = tuple(map(str, range(150)))
    kind = task_named("segmentation")
    network = kind.build(recipe.model, labels).to(memory_format=torch.channels_last).train()
    optimizer, task = build_optimizer(network, recipe.optim), kind(Setup(labels, recipe))
    images = torch.randn(_IMAGES, 3, 512, 512).to(memory_format=torch.channels_last)
    masks = torch.randint(len(labels), (_IMAGES, 512, 512), dtype=torch.uint8)
    batch = Batch(images, masks, torch.arange(_IMAGES))
    for step in range(3):
        started, cpu = time.perf_counter(), time.process_time()
        (task.loss(network, batch) / task.weight(batch)).backward()
        optimizer.step()
        optimizer.zero_grad()
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        seconds, cpu = time.perf_counter() - started, time.process_time() - cpu
        print(f"step {step}: {seconds:.1f} s, {cpu:.1f} CPU seconds, {peak:,.0f} MB at most so far", flush=True)


def main() -> None:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", type=Path, nargs="?")
    parser.add_argument("--minutes", type=float, default=5.0)
    parser.add_argument("--epochs", type=int)
    parser.add_argument("--model")
    parser.add_argument("--size", type=int)
    parser.add_argument("--scale", type=int, nargs=2)
    parser.add_argument("--threads", type=int)
    parser.add_argument("--step", action="store_true")
    given = parser.parse_args()
    if given.threads:
        torch.set_num_threads(given.threads)
    if given.step:
        time_a_step()
    elif given.root is None:
        parser.error("give a folder with images/ and masks/, or --step")
    else:
        compare(given)


if __name__ == "__main__":
    main()
