"""Steps, epochs and evaluation of any task.

`fit` takes a network through its epochs and hands back one result after each; what to write down and where is for the
caller. Everything random in a step is seeded by (seed, step) and the order of the images by (seed, epoch), so a
training resumed from a saved `State` is the training that was never interrupted.
"""

import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from overtone.data.loader import Loader, worker_death_explained
from overtone.data.pipeline import Batch
from overtone.engine.distributed import World
from overtone.engine.interrupt import WaitEnded
from overtone.engine.placement import Placement
from overtone.engine.state import Pace, Snapshot, State
from overtone.engine.step import Trainer
from overtone.errors import OvertoneError
from overtone.tasks.task import R_co, Report, Task

BadImage = tuple[int, str]


class Interrupted(Exception):
    """The training was asked to stop and did so between two steps; its state is whole, on all processes."""


@dataclass(frozen=True)
class Epoch:
    """An epoch's result: a row of plain values for the log, the validation's report if any, whether it is the best."""

    row: dict[str, Any]
    report: Report | None
    is_best: bool


class Watch:
    """What `fit` reports to its caller on the way; every method may be overridden, none needs to be."""

    def stopped(self) -> bool:
        """Asked after each step: whether to stop here."""
        return False

    def waiting(self) -> AbstractContextManager[None]:
        """Entered around each wait for a batch; it may end the wait by `WaitEnded`."""
        return nullcontext()

    def stepped(self) -> None:
        """Called after each step, when `state` stands behind it, on every process: time to save, perhaps."""

    def bad(self, found: Sequence[BadImage]) -> None:
        """Training samples (position, reason) that could not be read just now."""

    def progress(self, snapshot: Snapshot) -> None:
        """Called about twice a second."""


def fit(
    trainer: Trainer,
    loader: Loader,
    validate: Callable[[], Report | None],
    state: State,
    *,
    epochs: int,
    patience: int | None = None,
    max_steps: int | None = None,
    eval_steps: int | None = None,
    watch: Watch | None = None,
) -> Iterator[Epoch]:
    """Train from where `state` stands, and yield after each epoch, when `state` already stands at the next.

    Args:
        trainer: what is trained.
        loader: training batches.
        validate: evaluates `trainer.evaluated`; where it gives None, the latest epoch counts as the best.
        state: changed in place.
        epochs: epochs in all.
        patience: end after so many epochs without a better score.
        max_steps: end after so many steps in all, even within an epoch, which is then evaluated as it is.
        eval_steps: validate only after epochs in which a multiple of so many steps was taken, and the last one.
        watch: called as the training proceeds.

    Raises:
        Interrupted: `watch.stopped()` said so; `state` and `trainer` can be saved and resumed from.
        NotFinite: see `Trainer.step`.
        OvertoneError: an epoch without a single step, of which nothing would have been learned.
    """
    watch = watch or Watch()
    validation_seconds = 0.0
    while state.epoch < epochs and not (_out_of_patience(state, patience) or _is_reached(max_steps, state)):
        pace = Pace(state, epochs, len(loader), validation_seconds, trainer.lr_at)
        _train_epoch(trainer, loader, state, pace, max_steps, watch)
        pace.waited = max(trainer.world.gather(pace.waited))  # all of them wait for the one that waits longest
        _check_trained(state, len(loader))
        started = time.perf_counter()
        ended_early = state.batch < len(loader)
        is_last = ended_early or state.epoch + 1 >= epochs or _is_reached(max_steps, state)
        is_due = eval_steps is None or is_last or state.step // eval_steps > (state.step - state.batch) // eval_steps
        report = validate() if is_due else None
        validation_seconds = time.perf_counter() - started
        yield _close_epoch(state, pace, report, validation_seconds, ended_early, is_due)


def evaluate(
    task: Task[R_co],
    model: nn.Module,
    loader: Loader,
    placement: Placement,
    progress: Callable[[int], None] | None = None,
    *,
    watch: Watch | None = None,
    world: World | None = None,
    seen: Callable[[Batch, Any], object] | None = None,
    reasons: dict[str, str] | None = None,
) -> R_co:
    """Evaluate a network, which is left in eval mode, on every sample of `loader`.

    A sample that cannot be read is left out and named in the report, never replaced. Several processes that evaluate
    together each have their part of the samples in their loaders, and all of them get the report on the whole.

    Args:
        task: what is counted.
        model: the network, on its device.
        loader: the samples.
        placement: where the arithmetic happens.
        progress: called with the number of samples done so far, after each batch.
        watch: asked around and after each batch whether to stop there.
        world: the processes that evaluate together.
        seen: called with each batch of this process and its outputs.
        reasons: gets why each sample that is named in the report could not be read.

    Raises:
        Interrupted: `watch` said so, on any of the processes.
        OvertoneError: not a single sample could be read.
    """
    world, watch = world or World(), watch or Watch()
    model.eval()
    world.share_buffers(model)
    tally, bad, used, interrupted = task.tally(), [], 0, False
    forward = placement.forward(model)
    with worker_death_explained(), torch.no_grad():
        batches = iter(loader)
        while True:
            try:
                with watch.waiting():
                    batch = next(batches, None)
            except WaitEnded:
                interrupted = True
                break
            if batch is None:
                break
            bad += [(loader.source.name(position), reason) for position, reason in batch.bad]
            if batch.num_samples:
                outputs = task.predict(forward, placement.inputs(batch.inputs))
                names = [loader.source.name(position) for position in batch.ids.tolist()]
                tally.add(outputs, placement.targets(batch.targets), names)
                if seen is not None:
                    seen(batch, outputs)
                used += batch.num_samples
            if progress is not None:
                progress(used + len(bad))
            interrupted = watch.stopped()
            if interrupted:
                break
    parts = world.gather((interrupted, used, bad, None if world.is_alone else tally.counted()))
    if any(part[0] for part in parts):
        raise Interrupted
    if not world.is_alone:
        used, bad = sum(part[1] for part in parts), [pair for part in parts for pair in part[2]]
        tally = task.tally().joined([part[3] for part in parts])
    if not used:
        first = ": ".join(next(iter(bad), ()))
        raise OvertoneError(f"none of the {len(bad)} images could be read ({first} …); check the files")
    if reasons is not None:
        reasons.update(bad)
    return tally.report([name for name, _ in bad])


def _train_epoch(
    trainer: Trainer, loader: Loader, state: State, pace: Pace, max_steps: int | None, watch: Watch
) -> None:
    trainer.start(state.loss_sum, state.epoch)
    if state.batch >= len(loader):  # interrupted between the last step and the end of the validation
        return
    loader.set_epoch(state.epoch, state.batch)
    batches = iter(loader)
    world, stopped = trainer.world, False
    while state.batch < len(loader):
        batch = _next(batches, pace, watch)
        if batch is None:
            agreement = world.agree(0, 0.0, 0, stop=True, lacks=True)
        else:
            weight = trainer.task.weight(batch)
            agreement = world.agree(batch.num_samples, weight, len(batch.bad), watch.stopped())
        if batch is None or agreement.lacks:
            stopped = True
            break
        if is_enough(batch, loader, state.batch, trainer):
            trainer.step(batch, state.step, agreement)
            state.images += agreement.num_samples
            state.weight += agreement.weight
        if agreement.num_bad:
            watch.bad([found for part in world.gather(batch.bad) for found in part])
        state.batch += 1
        state.step += 1
        watch.stepped()
        stopped = watch.stopped() if world.is_alone else agreement.stop
        if _is_reached(max_steps, state) or stopped:
            break
        if pace.is_due():
            watch.progress(pace.snapshot(state, trainer.loss_sum()))
    trainer.check()
    state.loss_sum = trainer.loss_sum()
    state.seconds += pace.stop()
    if stopped or (world.is_alone and watch.stopped()):
        raise Interrupted


def is_enough(batch: Batch, loader: Loader, index: int, trainer: Trainer) -> bool:
    """Whether a batch is enough for a step, which all processes must find alike.

    Batch norm needs two samples: a lone one in the last batch waits for another epoch.
    """
    world = trainer.world
    count = batch.num_samples if world.is_alone else loader.num_planned(index)
    return count > 1 or (count == 1 and not trainer.normalises_batches)


def _check_trained(state: State, batches: int) -> None:
    """Refuse to go by an epoch, or the beginning of the first one, of which not one image was trained on.

    Raises:
        OvertoneError: there was none.
    """
    if state.images or (state.epoch and state.batch < batches):
        return
    raise OvertoneError(
        f"no step could be taken in epoch {state.epoch + 1}, so nothing was trained: its images cannot be read, or a "
        "batch has one image only, too few for batch norm; repair the images, or add others"
    )


def _next(batches: Iterator[Batch], pace: Pace, watch: Watch) -> Batch | None:
    """The next batch; None where the wait for it was ended by a request to stop."""
    started = time.perf_counter()
    try:
        with watch.waiting():
            return next(batches)
    except WaitEnded:
        return None
    except OvertoneError:
        if watch.stopped():  # the same signal has ended the processes that read
            return None
        raise
    finally:
        pace.waited += time.perf_counter() - started


def _close_epoch(
    state: State, pace: Pace, report: Report | None, seconds: float, ended_early: bool, is_due: bool
) -> Epoch:
    is_best = is_due if report is None else is_better(report, state.best_score, state.best_loss)
    if is_best:
        state.best_epoch = state.epoch + 1
        state.best_score, state.best_loss = (None, None) if report is None else (report.score, report.loss)
    state.seconds += seconds
    row = {
        "epoch": state.epoch + 1,
        "step": state.step,
        "lr": pace.lr_at(max(state.step - 1, 0)),
        "train_loss": state.loss_sum / (state.weight or 1.0),
        **({} if report is None else report.figures()),
        **({} if report is None else {"score": report.score, "score_name": report.score_name}),
        "images_per_second": pace.images_per_second(state),
        "data_wait": pace.data_wait,
        "seconds": pace.seconds + seconds,
        "is_best": is_best,
    }
    if not ended_early:
        state.epoch, state.batch, state.loss_sum, state.images, state.weight = state.epoch + 1, 0, 0.0, 0, 0.0
    return Epoch(row, report, is_best)


def is_better(report: Report, score: float | None, loss: float | None) -> bool:
    """Whether a report is better than the best so far: a higher score, or the same with a lower loss."""
    if score is None or report.score != score:
        return score is None or report.score > score
    return loss is not None and report.loss < loss


def _out_of_patience(state: State, patience: int | None) -> bool:
    return patience is not None and state.best_epoch > 0 and state.epoch - state.best_epoch >= patience


def _is_reached(max_steps: int | None, state: State) -> bool:
    return max_steps is not None and state.step >= max_steps
