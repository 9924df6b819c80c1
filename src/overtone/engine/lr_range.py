"""The learning-rate range test (Smith 2017, arXiv:1506.01186): steps at a rate that grows, and what the loss does."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from overtone.engine.assembly import Parts
from overtone.engine.step import NotFinite
from overtone.engine.trial import trial_steps
from overtone.errors import OvertoneError

STEPS = 200
_BELOW, _ABOVE = 1e-3, 1e2  # of the recipe's learning rate: where the test begins and ends
_SMOOTHING = 0.9
_DIVERGED = 2.0  # times the lowest loss
_LEAST = 10  # first steps, whose average is of few losses: they are not chosen, and do not count as diverged
_SPAN = 3  # steps to either side that a slope is taken over


@dataclass(frozen=True)
class Curve:
    """The loss by learning rate, and the choice.

    Attributes:
        rates: of the steps taken.
        losses: mean loss of each.
        smoothed: their exponential average, without its bias to the start.
        chosen: the rate at which the smoothed loss falls most steeply, by the logarithm of the rate.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    chosen: float


def range_test(parts: Parts, lr: float, epochs: int, *, steps: int = STEPS, first_epoch: int = 0) -> Curve:
    """Take steps at rates that grow from a thousandth of `lr` to a hundred times it, until the loss diverges.

    Args:
        parts: of a training, which are changed: not to be trained with afterwards.
        lr: the recipe's.
        epochs: of the recipe.
        steps: to take at most.
        first_epoch: the first one that trains the whole network.

    Raises:
        OvertoneError: the loss falls at no rate, or diverges at once.
    """
    if not lr > 0:
        raise OvertoneError("optim.lr is 0, and the test goes through the rates around it; give one above 0")
    trainer = parts.trainer

    def rate(step: int) -> float:
        return lr * _BELOW * (_ABOVE / _BELOW) ** (step / max(steps - 1, 1))

    trainer.lr_at = rate
    losses: list[float] = []
    smoothed: list[float] = []
    average = 0.0
    try:
        for count, loss in enumerate(trial_steps(parts, epochs, epoch=first_epoch), 1):
            if not math.isfinite(loss):
                break
            average = _SMOOTHING * average + (1 - _SMOOTHING) * loss
            losses.append(loss)
            smoothed.append(average / (1 - _SMOOTHING**count))
            if count >= steps or (count >= _LEAST and smoothed[-1] > _DIVERGED * min(smoothed)):
                break
    except NotFinite:
        pass  # the end of the range
    rates = [rate(step) for step in range(len(losses))]
    return Curve(tuple(rates), tuple(losses), tuple(smoothed), steepest(rates, smoothed))


def steepest(rates: Sequence[float], smoothed: Sequence[float]) -> float:
    """The rate at which a smoothed loss falls most steeply by the logarithm of the rate.

    Raises:
        OvertoneError: it has too few values, or falls nowhere after the first ones.
    """
    values, logarithms = np.asarray(smoothed, dtype=float), np.log(rates)
    falls = np.zeros(len(values))  # too few values have none
    if len(values) > 2 * _SPAN:
        inner, span = slice(_SPAN, -_SPAN), 2 * _SPAN
        falls[inner] = (values[:-span] - values[span:]) / (logarithms[span:] - logarithms[:-span])
    falls[:_LEAST] = 0.0
    if falls.max(initial=0.0) <= 0:
        raise OvertoneError(
            f"the loss falls at no learning rate ({len(smoothed)} steps from {min(rates, default=0):.1g} to "
            f"{max(rates, default=0):.1g}); give another --optim.lr to search around, or more --run.max-steps"
        )
    return float(rates[int(np.argmax(falls))])
