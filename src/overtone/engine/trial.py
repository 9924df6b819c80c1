"""Trial steps before a training: how long a step takes, and how many epochs that leaves for a number of minutes.

They change the network, so the training builds its parts anew afterwards.
"""

import dataclasses
import math
import time
from collections.abc import Iterator

import torch

from overtone.config import Recipe
from overtone.engine.assembly import Parts
from overtone.engine.loop import is_enough
from overtone.engine.placement import Placement
from overtone.errors import OvertoneError

_UNTIMED = 2  # first steps, in which memory is allocated, kernels are chosen and the first images are waited for
_WHOLE = 10  # epochs, from which on they are not cut short
_LEAST_STEPS, _LONGEST, _SHARE = 3, 10.0, 0.03  # timed steps; their seconds; their share of the budget


def trial_steps(parts: Parts, epochs: int, *, epoch: int = 0) -> Iterator[float]:
    """Take steps as the training does, from `epoch` of so many `epochs` on and without an end; gives each mean loss.

    Raises:
        OvertoneError: an epoch in which no step could be taken.
        NotFinite: see `Trainer.step`.
    """
    trainer, loader, step = parts.trainer, parts.training, 0
    while True:
        loader.set_epoch(epoch)
        trainer.start(epoch=epoch)
        before, first = 0.0, step
        for index, batch in enumerate(loader):
            agreement = trainer.world.agree(batch.num_samples, trainer.task.weight(batch), len(batch.bad), stop=False)
            if not is_enough(batch, loader, index, trainer):
                continue
            trainer.step(batch, step, agreement)
            step, total = step + 1, trainer.loss_sum()
            yield (total - before) / (agreement.weight or 1.0)
            before = total
        if step == first:
            raise OvertoneError("no trial step could be taken: the images cannot be read, or there are too few")
        epoch = min(epoch + 1, epochs - 1)


def fitted(recipe: Recipe, parts: Parts, placement: Placement, started: float) -> tuple[Recipe, str]:
    """Fit the training into `train.minutes`, by the time of some trial steps and validation batches.

    The steps are those of the last epoch: of the largest images, of the whole network. Where decoded images are kept in
    memory, those of all epochs but the first are timed with images that are there already. The test at the end and the
    plots are not counted. Ten epochs and more are whole ones; of fewer the last one ends where the time does.

    Args:
        recipe: what is trained.
        parts: what the steps are taken with, and changed by; not to be trained with afterwards.
        placement: where the arithmetic happens.
        started: when the budget began, by `time.perf_counter`.

    Returns:
        The recipe with that number of epochs and, where the last one is cut short, of steps, the same on all processes;
        a line that says how it came about.

    Raises:
        OvertoneError: steps are given as well.
    """
    assert recipe.train.minutes is not None
    if recipe.train.steps is not None:
        raise OvertoneError(
            f"train.minutes is {recipe.train.minutes:g} and train.steps {recipe.train.steps}: either says how long the "
            "training is; leave one out"
        )
    budget, world, steps = 60 * recipe.train.minutes, parts.trainer.world, len(parts.training)
    longest = min(_LONGEST, _SHARE * budget)
    step = first = world.from_first(seconds_of_step(parts, recipe.train.epochs, longest))
    if parts.training.is_kept():  # the same images again
        step = min(first, seconds_of_step(parts, recipe.train.epochs, longest / 2))
    kinds = 2 if recipe.train.ema_evaluate == "best" else 1
    validation = world.from_first(kinds * _seconds_of_validation(parts, placement, longest))
    took = time.perf_counter() - started
    left = budget - world.from_first(took)
    least = max(len(recipe.train.sizes), recipe.train.freeze_epochs + 1)
    if left <= steps * first + validation:
        step = first
    left -= steps * (first - step)
    total = _steps_within(left, steps, step, validation, least)
    epochs = -(-total // steps)
    longer = ", the fewest there can be, which take longer" if total * step + epochs * validation > left else ""
    cut = None if total == epochs * steps else total
    decoding = f" ({1000 * first:,.0f} ms in the first, which decodes the images)" if step < first else ""
    train = dataclasses.replace(recipe.train, epochs=epochs, steps=cut)
    return dataclasses.replace(recipe, train=train), (
        f"minutes {recipe.train.minutes:g}: about {total / steps:.3g} epochs{longer}; an epoch is {steps} steps of "
        f"{1000 * step:,.0f} ms{decoding} and {validation:,.1f} s of validation, measured in {took:.0f} s"
    )


def _steps_within(left: float, steps: int, step: float, validation: float, least: int) -> int:
    """Steps in all that `left` seconds are enough for, with `least` epochs begun, and a step taken in any case."""
    epochs = left / (steps * step + validation)
    if epochs >= _WHOLE:
        return int(epochs) * steps
    most = int((left - math.ceil(epochs) * validation) / step)
    return min(max(most, (least - 1) * steps + 1), max(math.ceil(epochs), least) * steps)


def seconds_of_step(parts: Parts, epochs: int, longest: float) -> float:
    """Mean seconds of a step, the wait for its images included."""
    started = 0.0
    for count, _ in enumerate(trial_steps(parts, epochs, epoch=epochs - 1), 1 - _UNTIMED):
        now = time.perf_counter()
        started = now if count == 0 else started
        if parts.trainer.world.from_first(count >= _LEAST_STEPS and now - started >= longest):
            return (now - started) / count
    raise AssertionError("trial steps have no end")


def _seconds_of_validation(parts: Parts, placement: Placement, longest: float) -> float:
    """Seconds of a validation, from those of its first batches."""
    forward, started, count = placement.forward(parts.trainer.evaluated.eval()), time.perf_counter(), 0
    with torch.no_grad():
        for batch in parts.validation:
            if batch.num_samples:
                parts.task.predict(forward, placement.inputs(batch.inputs))
            count += 1
            if time.perf_counter() - started >= longest:
                break
    return (time.perf_counter() - started) * len(parts.validation) / max(count, 1)
