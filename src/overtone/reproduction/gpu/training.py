"""Training in bfloat16: steps against timm's and those of the naive networks, and whether they stay finite."""

import functools
import itertools
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
import torch.nn.functional as F
from timm.optim import create_optimizer_v2  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn

from overtone import zoo
from overtone.config import Optim
from overtone.data.pipeline import Batch
from overtone.engine.optim import build_optimizer
from overtone.engine.step import Trainer
from overtone.reproduction.gpu.place import Cases, Place, Row, Skipped, raced_forms, warmed_forms
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup

_CLASSES = 1000
_SGD = Optim(name="sgd", lr=1e-3, momentum=0.9, nesterov=True, weight_decay=2e-5)
_ADAMW = Optim(name="adamw", lr=5e-4, weight_decay=0.05)
_STEPS, _DRY_STEPS = 200, 4
_BATCHES = 8  # that the steps go through again and again
_LAST = 20  # steps whose mean loss is compared with that of the first ones


def training(place: Place) -> Cases:
    """Steps of the five networks in bfloat16: milliseconds, images a second, and memory.

    Forms: `ours` is the step of `overtone train` on a GPU (autocast, channels_last, fused optimiser); `compiled` adds
    `--run.compile`; `timm` is that of timm's `train.py --amp --amp-dtype bfloat16 --channels-last` on the same network
    (its default optimiser: SGD with Nesterov momentum of 0.9, weight decay of 2e-5, from its factory), `naive` the
    published formulation under autocast, in NCHW, with PyTorch's SGD. The ratio is to timm's in the same case, whose
    forms take turns. The compiled cases come last: they are what a slow compiler would leave no time for.
    """
    cases = {name: functools.partial(_raced, place, name, ("timm", "ours", "naive")) for name in place.nets}
    for name in place.compiled():
        cases[f"{name}, compiled"] = functools.partial(_raced, place, name, ("timm", "compiled"))
    return cases


def _raced(place: Place, name: str, forms: Sequence[str]) -> list[Row]:
    warmed, rows = warmed_forms(place, forms, functools.partial(_step, place, name))
    return raced_forms(place, warmed, place.batch) + rows


def _step(place: Place, name: str, form: str) -> Callable[[], object]:
    """A step of one form on a batch of noise."""
    images = place.noise(place.batch, 3, place.size, place.size)
    targets = torch.arange(place.batch, device=place.device) % _CLASSES
    if form in ("ours", "compiled"):
        trainer, count = trainer_of(place, name, torch.bfloat16, _SGD), itertools.count()
        if form == "compiled":
            place.compile(trainer.model)
        batch = trainer.placement.batch(Batch(images, targets, torch.arange(place.batch)))
        return lambda: trainer.step(batch, next(count))
    if form == "naive":
        if place.naive is None:
            raise Skipped("the naive networks are in the repository: make gpu")
        net = place.naive(name).train().to(place.device)
        return _plain(place, net, torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9), images, targets)
    net = zoo.build(name).train().to(place.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    optimizer = create_optimizer_v2(net, opt="sgd", lr=1e-3, momentum=0.9, weight_decay=2e-5)
    return _plain(place, net, optimizer, images.contiguous(memory_format=torch.channels_last), targets)


def _plain(
    place: Place, net: nn.Module, optimizer: torch.optim.Optimizer, images: Tensor, targets: Tensor
) -> Callable[[], object]:
    """Forward and loss under autocast, backward, update."""

    def step() -> None:
        with place.placement().autocast():
            loss = F.cross_entropy(net(images), targets)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()

    return step


def trainer_of(place: Place, name: str, dtype: torch.dtype | None, optim: Optim) -> Trainer:
    """What takes the steps of `overtone train`, ready for them."""
    torch.manual_seed(0)
    placement = place.placement(dtype)
    net = placement.model(zoo.build(name))
    task: Any = Classification(Setup(tuple(map(str, range(_CLASSES)))))
    trainer = Trainer(net, task, build_optimizer(net, optim), lr_at=lambda step: optim.lr, placement=placement)
    trainer.start()
    return trainer


def bfloat16_steps(place: Place) -> Cases:
    """200 steps of HorNet-T with global filters in bfloat16 and in float32: finite, and falling alike.

    Images of noise with a pattern of their class, the same eight batches again and again; a loss or gradient that is
    not finite is an error of its row.
    """
    return {
        f"{place.nets[-1]}, {label}": functools.partial(_curve, place, dtype)
        for label, dtype in (("bfloat16", torch.bfloat16), ("float32", None))
    }


def _curve(place: Place, dtype: torch.dtype | None) -> list[Row]:
    trainer = trainer_of(place, place.nets[-1], dtype, _ADAMW)
    steps, started = _DRY_STEPS if place.is_dry else _STEPS, time.perf_counter()
    losses, total = [], 0.0
    for step, batch in zip(range(steps), _batches(place, 2 if place.is_dry else 32), strict=False):
        trainer.step(batch, step)
        before, total = total, trainer.loss_sum()
        losses.append((total - before) / batch.num_samples)
    trainer.check()
    count = min(_LAST, steps // 2)
    first, last = sum(losses[:count]) / count, sum(losses[-count:]) / count
    row = {"steps": steps, "first_loss": losses[0], "last_loss": losses[-1], "mean_of_first": first}
    row |= {"mean_of_last": last, "seconds": time.perf_counter() - started}
    return [row if place.is_dry else row | {"passed": last < first}]


def _batches(place: Place, size: int) -> Iterator[Batch]:
    generator = torch.Generator().manual_seed(0)
    patterns = torch.randn(10, 3, 8, 8, generator=generator)
    made = []
    for _ in range(1 if place.is_dry else _BATCHES):
        targets = torch.randint(10, (size,), generator=generator)
        noise = 0.5 * torch.randn(size, 3, place.size, place.size, generator=generator)
        images = F.interpolate(patterns[targets], noise.shape[2:]) + noise
        made.append(place.placement().batch(Batch(images, targets, torch.arange(size))))
    return itertools.cycle(made)
