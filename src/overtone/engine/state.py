"""Where a training stands, and how fast it moves."""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

_SHOW_SECONDS = 0.5


@dataclass
class State:
    """Where a training stands, between two steps.

    Attributes:
        epoch: epochs completed.
        batch: batches of the current epoch already used.
        step: optimiser steps taken.
        loss_sum: loss summed over the images of the current epoch so far.
        images: number of those images.
        weight: what their losses are divided by.
        seconds: time spent in training and validation.
        best_epoch: the epoch (from 1) with the best score so far, 0 before any.
        best_score: that score.
        best_loss: the loss of that epoch.
        bad: positions of training images found unreadable.
    """

    epoch: int = 0
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    images: int = 0
    seconds: float = 0.0
    best_epoch: int = 0
    best_score: float | None = None
    best_loss: float | None = None
    bad: list[int] = field(default_factory=list)
    weight: float = 0.0

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "State":
        """The state that a checkpoint holds; before format 2 every loss was divided by the number of images."""
        return cls(**{"weight": float(values.get("images", 0)), **values})


@dataclass(frozen=True)
class Snapshot:
    """What a progress display shows; `eta` in seconds, `data_wait` the share of the time spent waiting for images."""

    epoch: int
    epochs: int
    batch: int
    batches: int
    loss: float
    lr: float
    images_per_second: float
    data_wait: float
    eta: float


class Pace:
    """Times the training part of an epoch: rate, share of waiting for images, time left."""

    def __init__(
        self, state: State, epochs: int, batches: int, validation_seconds: float, lr_at: Callable[[int], float]
    ) -> None:
        self.epochs, self.batches, self.validation_seconds, self.lr_at = epochs, batches, validation_seconds, lr_at
        self.waited = 0.0
        self._first_batch, self._first_image = state.batch, state.images
        self._started = self._shown = time.perf_counter()
        self._seconds: float | None = None

    @property
    def seconds(self) -> float:
        """Seconds since the start, until `stop`."""
        return time.perf_counter() - self._started if self._seconds is None else self._seconds

    def stop(self) -> float:
        """End the timing; gives the seconds it took."""
        self._seconds = self.seconds
        return self._seconds

    def is_due(self) -> bool:
        """Whether it is time for another `Snapshot`."""
        now = time.perf_counter()
        if now - self._shown < _SHOW_SECONDS:
            return False
        self._shown = now
        return True

    @property
    def data_wait(self) -> float:
        """Share of the time spent waiting for images, 0 to 1."""
        return self.waited / max(self.seconds, 1e-9)

    def images_per_second(self, state: State) -> float:
        """Images trained on per second of this epoch."""
        return (state.images - self._first_image) / max(self.seconds, 1e-9)

    def snapshot(self, state: State, loss_sum: float) -> Snapshot:
        """How it stands now, with the time left of the whole training."""
        per_batch = self.seconds / max(state.batch - self._first_batch, 1)
        epochs_left = self.epochs - state.epoch
        batches_left = epochs_left * self.batches - state.batch
        return Snapshot(
            epoch=state.epoch + 1,
            epochs=self.epochs,
            batch=state.batch,
            batches=self.batches,
            loss=loss_sum / (state.weight or 1.0),
            lr=self.lr_at(max(state.step - 1, 0)),
            images_per_second=self.images_per_second(state),
            data_wait=self.data_wait,
            eta=batches_left * per_batch + epochs_left * self.validation_seconds,
        )
