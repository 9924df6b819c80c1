"""One optimiser step: prepare, split, loss of each part, backward, a check that all of it is finite, update.

With several processes each takes its share of the batch, and the loss is divided by the weight of all of them, so that
the gradient is that of one process with the whole batch.
"""

import contextlib
import functools
import gc
import inspect
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager
from typing import Any, Literal

import torch
from timm.utils import ModelEmaV3  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.parallel import DistributedDataParallel
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from overtone.data.pipeline import Batch
from overtone.data.seeding import derived_seed
from overtone.engine.distributed import Agreement, World
from overtone.engine.optim import set_schedule
from overtone.engine.placement import Placement
from overtone.errors import OvertoneError
from overtone.tasks.task import Task

_CHECK_STEPS = 50
# whether each forward pass brings the first process's buffers to all (evaluation does, once); renamed in newer PyTorch
_IS_RENAMED = "forward_sync_buffers" in inspect.signature(DistributedDataParallel.__init__).parameters
_OWN_BUFFERS: dict[str, Any] = {"forward_sync_buffers" if _IS_RENAMED else "broadcast_buffers": False}


class NotFinite(OvertoneError):
    """A loss or gradient that is not a number; the step was not taken.

    Attributes:
        step: the optimiser step, counted from 0.
        ids: positions in the training source of the samples of its batch.
        loss: the mean loss over these samples.
        rank: the process whose loss it was, where several train together and one can be named.
    """

    def __init__(self, step: int, ids: Sequence[int], loss: float, rank: int | None = None) -> None:
        self.step, self.ids, self.loss, self.rank = step, tuple(ids), loss, rank
        if math.isfinite(loss):
            what = f"the gradient is not finite (the loss, {loss:.6g}, is)"
        else:
            what = f"the loss is {loss}"
        where = "" if rank is None else f" on rank {rank}"
        super().__init__(
            f"{what} at step {step}{where}; nothing was updated: "
            "lower --optim.lr, set --optim.clip-grad or use --run.precision float32"
        )


class Trainer:
    """A network, its task and its optimiser, and the step that changes them.

    Args:
        model: the network, on its device.
        task: gives the loss.
        optimizer: over the trainable parameters of `model`.
        lr_at: learning rate by step.
        weight_decay_at: weight decay by step of the groups that decay; None: each keeps its own.
        placement: where the arithmetic happens.
        seed: seed of what is random in a step.
        micro_batch: most samples per forward pass, parts are of equal size; None for the whole batch.
        clip_grad: largest norm of the gradient; None for any.
        average: moving average of the weights, which is then what is evaluated.
        deferred: check losses for NaN only now and then, and let the optimiser skip on the device meanwhile; default:
            on CUDA, where reading each loss would make the device wait.
        body: parameters that are frozen in the first `freeze_epochs` epochs.
        freeze_epochs: how many these are.
        world: the processes that train together, each with a `Trainer` of the same network.
        sync_bn: whether batch norm takes its statistics over all of them.
        freeze_bn: whether batch norm keeps its running statistics, and normalises by them.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizer: Optimizer,
        *,
        lr_at: Callable[[int], float],
        weight_decay_at: Callable[[int], float] | None = None,
        placement: Placement,
        seed: int = 0,
        micro_batch: int | None = None,
        clip_grad: float | None = None,
        average: ModelEmaV3 | None = None,
        body: Sequence[nn.Parameter] = (),
        freeze_epochs: int = 0,
        deferred: bool | None = None,
        world: World | None = None,
        sync_bn: bool = False,
        freeze_bn: bool = False,
    ) -> None:
        self.model, self.task, self.optimizer, self.average = model, task, optimizer, average
        self.evaluates: Literal["average", "weights"] = "weights" if average is None else "average"
        self.lr_at, self.weight_decay_at = lr_at, weight_decay_at
        self.placement, self.seed = placement, seed
        self.micro_batch, self.clip_grad = micro_batch, clip_grad
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.deferred = placement.device.type == "cuda" if deferred is None else deferred
        self._skip = torch.zeros((), device=placement.device)
        self._unchecked: list[tuple[int, Tensor, Tensor, Tensor]] = []
        self._loss_sum = torch.zeros((), device=placement.device)
        self.world, self.sync_bn, self.freeze_bn = world or World(), sync_bn, freeze_bn
        self._body, self._freeze_epochs, self._is_frozen = body, freeze_epochs, False
        self._wrap()

    def _wrap(self) -> None:
        """Make the forward pass, which exchanges the gradients of what is trained with the other processes."""
        self._network: nn.Module = self.model
        self._forward = self.placement.forward(self._network)
        if self.world.is_alone:
            return
        gc.collect()  # an earlier wrapper's hooks on the parameters go with it
        devices = [self.placement.device] if self.placement.device.type == "cuda" else None
        with self.world.explained():
            self._network = DistributedDataParallel(
                self.model, device_ids=devices, gradient_as_bucket_view=True, **_OWN_BUFFERS
            )
        self._forward = self.placement.forward(self._network)

    def _freeze(self, is_frozen: bool) -> None:
        """Freeze the body or train all; a new wrapper then has the hooks of what is trained."""
        if isinstance(self.optimizer, torch.optim.SGD) and self._freeze_epochs and not is_frozen:
            for parameter in self.parameters:  # fused SGD wants momenta for all of a group, or for none
                self.optimizer.state[parameter].setdefault("momentum_buffer", torch.zeros_like(parameter))
        if is_frozen == self._is_frozen:
            return
        self._is_frozen = is_frozen
        for parameter in self._body:
            parameter.requires_grad_(not is_frozen)
        self.__dict__.pop("normalises_batches", None)
        self._wrap()

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average if there is one, unless `evaluates` is weights."""
        return self.model if self.average is None or self.evaluates == "weights" else self.average.module

    @functools.cached_property
    def normalises_batches(self) -> bool:
        """Whether some batch norm takes its statistics from the batch, which then must hold more than one sample."""
        set_training_mode(self.model, freeze_bn=self.freeze_bn)
        return any(isinstance(module, _BatchNorm) and module.training for module in self.model.modules())

    @property
    def is_sound(self) -> bool:
        """Whether all steps so far were taken; else the next `check` says which was not (waits for the device)."""
        return not self._skip.item()

    def start(self, loss_sum: float = 0.0, epoch: int = 0) -> None:
        """Get ready for the training steps of an epoch; `loss_sum` is what its earlier steps added up to."""
        self._freeze(epoch < self._freeze_epochs)
        set_training_mode(self.model, freeze_bn=self.freeze_bn)
        dtype = torch.float32 if self.placement.device.type == "mps" else torch.float64
        self._loss_sum = torch.tensor(loss_sum, dtype=dtype, device=self.placement.device)

    def loss_sum(self) -> float:
        """Loss summed over the samples since `start` (waits for the device)."""
        return self._loss_sum.item()

    def step(self, batch: Batch, step: int, agreement: Agreement | None = None) -> None:
        """One optimiser step on a whole batch, or this process's share of it.

        Args:
            batch: the samples.
            step: optimiser steps taken so far.
            agreement: on this step, where several processes train.

        Raises:
            NotFinite: the loss or the gradient is not finite; parameters and optimiser are as before the step.
            OvertoneError: another process is lost.
        """
        with self.world.explained():
            self._step(batch, step, agreement)

    def _step(self, batch: Batch, step: int, agreement: Agreement | None) -> None:
        rank = self.world.rank
        self.placement.seed(derived_seed(self.seed, step, rank) if rank else derived_seed(self.seed, step))
        set_schedule(self.optimizer, self.lr_at(step), self.weight_decay_at and self.weight_decay_at(step))
        batch = self.placement.batch(batch)
        if batch.num_samples:
            batch = self.task.prepare(batch, (self.seed, step))
        elif agreement is None or agreement.num_samples == 0:
            return  # none could be read, on any process
        with self._statistics_kept(batch.num_samples):
            own = self._gradients(batch, agreement)
        loss_sum = self.world.add_up(own.clone())
        self._update(loss_sum, step, batch.ids, own)
        self._loss_sum += loss_sum

    def _gradients(self, batch: Batch, agreement: Agreement | None) -> Tensor:
        """Forward and backward, in parts if need be; gives the loss summed over this process's samples."""
        # the gradients of several processes are averaged: divide by their mean weight
        weight = self.task.weight(batch) if agreement is None else agreement.weight / self.world.size
        losses = []
        parts = self._parts(batch, agreement)
        for index, part in enumerate(parts):
            is_blank = not part.num_samples
            if is_blank:  # it takes part in every exchange
                part = self.task.blank(batch, 0 if self.sync_bn else 1)
            with self._exchanging(index == len(parts) - 1):
                loss = self.task.loss(self._forward, part)
                if is_blank:
                    loss = loss * 0
                (loss / (weight or 1.0)).backward()
            losses.append(loss.detach())
        return losses[0] if len(losses) == 1 else torch.stack(losses).sum()

    def _parts(self, batch: Batch, agreement: Agreement | None) -> list[Batch]:
        """The parts of a batch: where batch norm is synchronised in every forward pass, as many on every process."""
        if self.micro_batch is None:
            return [batch]
        count = batch.num_samples
        if self.sync_bn and agreement is not None:
            count = agreement.largest_share
        parts = max(math.ceil(count / self.micro_batch), 1)
        return [batch] if parts == 1 else self.task.split(batch, parts)

    def _exchanging(self, last: bool) -> AbstractContextManager[object]:
        """Only the last of several backward passes exchanges gradients with the other processes."""
        if last or not isinstance(self._network, DistributedDataParallel):
            return contextlib.nullcontext()
        return self._network.no_sync()

    @contextlib.contextmanager
    def _statistics_kept(self, count: int) -> Iterator[None]:
        """Batch norm as in evaluation where this process has not enough images for statistics of its own."""
        if self.world.is_alone or self.sync_bn or count > 1:
            yield
            return
        set_training_mode(self.model, freeze_bn=True)
        try:
            yield
        finally:
            set_training_mode(self.model, freeze_bn=self.freeze_bn)

    def _update(self, loss_sum: Tensor, step: int, ids: Tensor, own: Tensor) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        self._guard(loss_sum, norm, step, ids, own)
        if self.clip_grad is not None:
            clip_grads_with_norm_(self.parameters, self.clip_grad, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            # a step is what timm warms the decay up by, and what makes it 0 in the first one without a warm-up too
            self.average.update(self.model, step + 1 if self.average.use_warmup else None)

    def _guard(self, loss_sum: Tensor, norm: Tensor, step: int, ids: Tensor, own: Tensor) -> None:
        if not self.deferred:
            if not math.isfinite((loss_sum + norm).item()):
                raise self._not_finite(step, ids, own.item())
            return
        # the fused optimisers leave everything as it is where `found_inf` is 1, as they do for a gradient scaler;
        # once set it stays set, so no later step is taken before `check` has found it
        finite = torch.isfinite(loss_sum + norm)
        self._skip = torch.maximum(self._skip, (~finite).to(self._skip.dtype))
        self.optimizer.found_inf = self._skip  # type: ignore[attr-defined]
        self._unchecked.append((step, ids, finite, own))
        if len(self._unchecked) >= _CHECK_STEPS:
            self.check()

    def check(self) -> None:
        """Look at the losses that were not looked at yet (waits for the device).

        Raises:
            NotFinite: of the first step whose loss or gradient was not finite; no step was taken from there on.
        """
        unchecked, self._unchecked = self._unchecked, []
        if not unchecked or not self._skip.item():
            return
        step, ids, _, own = next(entry for entry in unchecked if not entry[2].item())
        raise self._not_finite(step, ids, own.item())

    def _not_finite(self, step: int, ids: Tensor, own: float) -> NotFinite:
        """The error with the images of all processes; they have all found the same, so all of them come here."""
        found = self.world.gather((ids.tolist(), own))
        all_ids = [position for positions, _ in found for position in positions]
        guilty = [rank for rank, (_, loss) in enumerate(found) if not math.isfinite(loss)]
        if guilty:
            positions, loss = found[guilty[0]]
            rank = None if self.world.is_alone else guilty[0]
            return NotFinite(step, all_ids if rank is None else positions, loss / max(len(positions), 1), rank)
        return NotFinite(step, all_ids, sum(loss for _, loss in found) / max(len(all_ids), 1))


def set_training_mode(model: nn.Module, *, freeze_bn: bool = False) -> None:
    """Training mode, but eval mode for every part whose parameters are all frozen: its statistics stay as they are.

    Args:
        model: the network or a part of it.
        freeze_bn: eval mode for all batch norm too, whose scale and shift may be trained.
    """
    parameters = list(model.parameters())
    is_frozen = bool(parameters) and not any(parameter.requires_grad for parameter in parameters)
    model.train(not (is_frozen or (freeze_bn and isinstance(model, _BatchNorm))))
    if not is_frozen:
        for child in model.children():
            set_training_mode(child, freeze_bn=freeze_bn)
