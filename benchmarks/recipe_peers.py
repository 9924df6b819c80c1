"""What users would take instead of `overtone train`, each as its documentation shows it, within a number of minutes.

    python benchmarks/recipe_peers.py PEER FOLDER --minutes 3 --size 40 --threads 2 [--weights FILE --network NAME]

Prints one line of JSON: top-1 on FOLDER/val, epochs, seconds. Each gets as many epochs as fit, by the time of its first
steps; a first epoch is never cut off. PEER is

  timm         timm's loaders, `create_optimizer_v2` and `create_scheduler_v2` with the defaults of its train.py: SGD at
               0.1 per 256 images, batch 128, cosine after 5 epochs of warm-up (a twentieth of shorter trainings), crops
               from 8 % of the area, colour jitter 0.4, label smoothing 0.1. Not the script: no package has it.
  torchvision  the settings of its classification reference: SGD at 0.1, batch 32, a tenth after each third of the
               epochs, random resized crops and flips.
  fastai       `Learner.fit_one_cycle` with the learning rate of `lr_find`, `aug_transforms`; `fine_tune` from weights.
  ultralytics  `YOLO("yolo11n-cls.yaml").train` with its defaults.

timm and torchvision train `--network` (default resnet18), fastai its resnet18, unless `--weights` names a run's file to
start from: then all of them train that network. Each peer is imported when it is asked for.
"""

# ruff: noqa: PLC0415

import argparse
import json
import math
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

_MEAN, _STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
_TIMED = 8  # steps


def network_of(given: argparse.Namespace, classes: int) -> nn.Module:
    """A network of timm's or of ours from random weights, or from those of a run without its classifier."""
    import timm

    import overtone  # noqa: F401

    network = timm.create_model(given.network, num_classes=classes)
    if given.weights:
        from safetensors.torch import load_file

        found = {key.removeprefix("model."): value for key, value in load_file(given.weights).items()}
        own = network.state_dict()
        fitting = {key: value for key, value in found.items() if key in own and value.shape == own[key].shape}
        missing = [key for key in own if key not in fitting]
        assert len(missing) <= 2, f"{given.weights} lacks {missing}"
        network.load_state_dict(fitting, strict=False)
    return network


def fitted(steps: int, seconds: float, validation: float, left: float) -> int:
    """Epochs that fit into the seconds left."""
    return max(1, int(left / (steps * seconds + validation)))


def top1(network: nn.Module, loader: Iterable[Any]) -> float:
    """Share of the images whose class has the highest logit, in percent."""
    network.eval()
    right = total = 0
    with torch.inference_mode():
        for images, targets in loader:
            right += int((network(images).argmax(1) == targets).sum())
            total += len(targets)
    network.train()
    return 100 * right / total


def run_loop(
    network: nn.Module,
    loaders: tuple[Any, Any],
    optimizer: torch.optim.Optimizer,
    smoothing: float,
    schedule: Callable[[int], Callable[[int, int], None]],
    left: Callable[[], float],
) -> tuple[float, int]:
    """Train by epochs that fit and measure the last; `schedule(epochs)` gives what sets the rate of an epoch."""
    train, val = loaders

    def step(images: Tensor, targets: Tensor) -> None:
        loss = F.cross_entropy(network(images), targets, label_smoothing=smoothing)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    kept = {key: value.clone() for key, value in network.state_dict().items()}
    at = 0.0
    batches = iter(train)
    for index in range(_TIMED + 2):
        if index == 2:
            at = time.perf_counter()
        step(*next(batches, None) or next(batches := iter(train)))
    seconds = (time.perf_counter() - at) / _TIMED
    at = time.perf_counter()
    top1(network, val)
    validation = time.perf_counter() - at
    network.load_state_dict(kept)
    optimizer.state.clear()
    epochs = fitted(len(train), seconds, 0.0, left() - validation)  # measured once, at the end
    set_rate = schedule(epochs)
    for epoch in range(epochs):
        for index, (images, targets) in enumerate(train):
            set_rate(epoch, epoch * len(train) + index)
            step(images, targets)
    return top1(network, val), epochs


def timm_defaults(given: argparse.Namespace, left: Callable[[], float]) -> tuple[float, int]:
    """The defaults of timm's train.py."""
    from timm.data import create_dataset, create_loader
    from timm.optim import create_optimizer_v2
    from timm.scheduler import create_scheduler_v2

    size, shared = (3, given.size, given.size), {"use_prefetcher": False, "num_workers": 1, "device": "cpu"}
    train = create_loader(
        create_dataset("", given.folder, split="train", is_training=True),
        size, 128, is_training=True, hflip=0.5, color_jitter=0.4, scale=(0.08, 1.0), ratio=(3 / 4, 4 / 3),
        interpolation="random", mean=_MEAN, std=_STD, persistent_workers=True, **shared,
    )  # fmt: skip
    val = create_loader(
        create_dataset("", given.folder, split="val"), size, 128, interpolation="bilinear", mean=_MEAN, std=_STD,
        crop_pct=0.875, **shared,
    )  # fmt: skip
    network = network_of(given, given.classes)
    optimizer = create_optimizer_v2(network, opt="sgd", lr=0.1 * 128 / 256, weight_decay=2e-5, momentum=0.9)

    def schedule(epochs: int) -> Callable[[int, int], None]:
        warmup = 5 if epochs >= 20 else epochs // 4
        made, _ = create_scheduler_v2(
            optimizer, sched="cosine", num_epochs=epochs, warmup_epochs=warmup, warmup_lr=1e-5, min_lr=0.0
        )
        return lambda epoch, _: made.step(epoch)

    return run_loop(network, (train, val), optimizer, 0.1, schedule, left)


def torchvision_reference(given: argparse.Namespace, left: Callable[[], float]) -> tuple[float, int]:
    """The defaults of torchvision's classification reference."""
    from torch.utils.data import DataLoader
    from torchvision import transforms as T
    from torchvision.datasets import ImageFolder

    ending = [T.PILToTensor(), T.ConvertImageDtype(torch.float), T.Normalize(_MEAN, _STD)]
    crops = T.Compose([T.RandomResizedCrop(given.size, antialias=True), T.RandomHorizontalFlip(), *ending])
    whole = T.Compose([T.Resize(round(given.size * 256 / 224), antialias=True), T.CenterCrop(given.size), *ending])
    train = DataLoader(
        ImageFolder(given.folder / "train", crops), 32, shuffle=True, num_workers=1, persistent_workers=True
    )
    val = DataLoader(ImageFolder(given.folder / "val", whole), 32, num_workers=1)
    network = network_of(given, given.classes)
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-4)

    def schedule(epochs: int) -> Callable[[int, int], None]:
        def set_rate(epoch: int, _: int) -> None:
            for group in optimizer.param_groups:
                group["lr"] = 0.1 * 0.1 ** math.floor(3 * epoch / epochs)  # 90 epochs, a tenth after each 30

        return set_rate

    return run_loop(network, (train, val), optimizer, 0.0, schedule, left)


def fastai(given: argparse.Namespace, left: Callable[[], float]) -> tuple[float, int]:
    """The library as its tutorial on images shows it."""
    from fastai.vision import all as vision

    data = vision.ImageDataLoaders.from_folder(
        given.folder,
        train="train",
        valid="val",
        item_tfms=vision.Resize(given.size),
        batch_tfms=[*vision.aug_transforms(size=given.size), vision.Normalize.from_stats(_MEAN, _STD)],
        bs=64,
        num_workers=1,
    )
    if given.weights:
        learner = vision.Learner(data, network_of(given, given.classes), metrics=vision.accuracy, splitter=_split)
    else:
        learner = vision.vision_learner(data, vision.resnet18, pretrained=False, metrics=vision.accuracy)
        learner.unfreeze()
    with learner.no_bar(), learner.no_logging(), tempfile.TemporaryDirectory() as folder:
        learner.path = Path(folder)
        rate = 2e-3 if given.weights else learner.lr_find(show_plot=False).valley
        at = time.perf_counter()
        batches = min(len(data.train), _TIMED)
        learner.save("start")
        learner.fit(1, 0.0, cbs=vision.ShortEpochCallback(pct=batches / len(data.train), short_valid=True))
        seconds = (time.perf_counter() - at) / batches
        at = time.perf_counter()
        learner.validate()
        validation = time.perf_counter() - at
        learner.load("start")
        epochs = fitted(len(data.train), seconds, validation, left())  # it validates after each epoch
        learner.fine_tune(epochs - 1, rate) if given.weights and epochs > 1 else learner.fit_one_cycle(epochs, rate)
        return 100 * float(learner.validate()[1]), epochs


def _split(network: Any) -> list[list[nn.Parameter]]:
    """The body and the classifier."""
    head = list(network.get_classifier().parameters())
    known = {id(parameter) for parameter in head}
    return [[parameter for parameter in network.parameters() if id(parameter) not in known], head]


def ultralytics(given: argparse.Namespace, left: Callable[[], float]) -> tuple[float, int]:
    """Ultralytics' classifier from its own configuration, with its own budget of time."""
    from ultralytics import YOLO

    with tempfile.TemporaryDirectory() as folder:
        model = YOLO("yolo11n-cls.yaml")
        found: Any = model.train(
            data=str(given.folder), time=left() / 3600, epochs=1000, imgsz=given.size, device="cpu", workers=1,
            project=folder, name="run", plots=False, verbose=False, pretrained=False,
        )  # fmt: skip
        rows = (Path(folder) / "run" / "results.csv").read_text(encoding="utf-8").strip().splitlines()
        return 100 * float(found.top1), len(rows) - 1


PEERS = {
    "timm": timm_defaults,
    "torchvision": torchvision_reference,
    "fastai": fastai,
    "ultralytics": ultralytics,
}


def main() -> None:
    """Train one of them and print what came of it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("peer", choices=PEERS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("--minutes", type=float, required=True)
    parser.add_argument("--size", type=int, required=True)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--network", default="resnet18")
    parser.add_argument("--weights", type=Path)
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    torch.set_num_threads(given.threads)
    torch.manual_seed(given.seed)
    given.classes = sum(1 for _ in (given.folder / "train").iterdir())
    started = time.perf_counter()
    score, epochs = PEERS[given.peer](given, lambda: 60 * given.minutes - (time.perf_counter() - started))
    seconds = time.perf_counter() - started
    print(json.dumps({"top1": round(score, 2), "epochs": epochs, "seconds": round(seconds, 1)}))


if __name__ == "__main__":
    main()
