"""One optimiser step: forward, loss, backward, the proof that all of it is finite, update."""

import math
from collections.abc import Callable, Sequence

import torch
from timm.utils import ModelEmaV3  # pyright: ignore[reportPrivateImportUsage]
from torch import Tensor, nn
from torch.nn.utils import clip_grads_with_norm_, get_total_norm
from torch.optim import Optimizer

from overtone.data.loader import Batch
from overtone.data.seeding import derived_seed
from overtone.engine.optim import set_learning_rate
from overtone.engine.placement import Placement
from overtone.engine.task import Task
from overtone.errors import OvertoneError

_CHECK_STEPS = 50


class NotFinite(OvertoneError):
    """A loss or gradient that is not a number; the step was not taken.

    Attributes:
        step: the optimiser step, counted from 0.
        ids: positions in the training list of the images of its batch.
        loss: the loss, or None where it was found only afterwards.
    """

    def __init__(self, step: int, ids: Sequence[int], loss: float | None) -> None:
        self.step, self.ids, self.loss = step, tuple(ids), loss
        if loss is None:
            what = "the loss or the gradient is not finite"
        elif math.isfinite(loss):
            what = f"the gradient is not finite (the loss, {loss:.6g}, is)"
        else:
            what = f"the loss is {loss}"
        super().__init__(
            f"{what} at step {step}; nothing was updated: "
            "lower --optim.lr, set --optim.clip-grad or use --run.precision float32"
        )


class Trainer:
    """A network, its task and its optimiser, and the step that changes them.

    Args:
        model: the network, on its device.
        task: gives the loss.
        optimizer: over the trainable parameters of `model`.
        lr_at: learning rate by step.
        placement: where the arithmetic happens.
        seed: seed of what is random in a step.
        micro_batch: most images per forward pass, parts are of equal size; None for the whole batch.
        clip_grad: largest norm of the gradient; None for any.
        average: moving average of the weights, which is then what is evaluated.
        deferred: check losses for NaN only now and then, and let the optimiser skip on the device meanwhile; default:
            on CUDA, where reading each loss would make the device wait.
    """

    def __init__(
        self,
        model: nn.Module,
        task: Task,
        optimizer: Optimizer,
        *,
        lr_at: Callable[[int], float],
        placement: Placement,
        seed: int = 0,
        micro_batch: int | None = None,
        clip_grad: float | None = None,
        average: ModelEmaV3 | None = None,
        deferred: bool | None = None,
    ) -> None:
        if micro_batch is not None and micro_batch < 1:
            raise OvertoneError(f"run.micro_batch is {micro_batch}; it must be at least 1")
        self.model, self.task, self.optimizer, self.average = model, task, optimizer, average
        self.lr_at, self.placement, self.seed = lr_at, placement, seed
        self.micro_batch, self.clip_grad = micro_batch, clip_grad
        self.parameters = [p for group in optimizer.param_groups for p in group["params"]]
        self.deferred = placement.device.type == "cuda" if deferred is None else deferred
        self._skip = torch.zeros((), device=placement.device)
        self._unchecked: list[tuple[int, Tensor, Tensor]] = []
        self._loss_sum = torch.zeros((), device=placement.device)

    @property
    def evaluated(self) -> nn.Module:
        """The network that is evaluated and kept: the moving average if there is one."""
        return self.model if self.average is None else self.average.module

    def start(self, loss_sum: float = 0.0) -> None:
        """Get ready for training steps; `loss_sum` is what the epoch's earlier steps added up to."""
        set_training_mode(self.model)
        dtype = torch.float32 if self.placement.device.type == "mps" else torch.float64
        self._loss_sum = torch.tensor(loss_sum, dtype=dtype, device=self.placement.device)

    def loss_sum(self) -> float:
        """Loss summed over the images since `start` (waits for the device)."""
        return self._loss_sum.item()

    def step(self, batch: Batch, step: int) -> None:
        """One optimiser step on a whole batch.

        Raises:
            NotFinite: the loss or the gradient is not finite; parameters and optimiser are as before the step.
        """
        self.placement.seed(derived_seed(self.seed, step))
        set_learning_rate(self.optimizer, self.lr_at(step))
        images, targets = self.placement.images(batch.images), self.placement.targets(batch.targets)
        images, targets = self.task.prepare(images, targets, (self.seed, step))
        parts = 1 if self.micro_batch is None else math.ceil(len(images) / self.micro_batch)
        losses = []
        for part, wanted in zip(images.tensor_split(parts), targets.tensor_split(parts), strict=True):
            with self.placement.autocast():
                outputs = self.model(part)
            loss = self.task.loss(outputs.float(), wanted)
            (loss / len(images)).backward()
            losses.append(loss.detach())
        loss_sum = losses[0] if len(losses) == 1 else torch.stack(losses).sum()
        self._update(loss_sum, step, batch.ids)
        self._loss_sum += loss_sum

    def _update(self, loss_sum: Tensor, step: int, ids: Tensor) -> None:
        gradients = [p.grad for p in self.parameters if p.grad is not None]
        norm = get_total_norm(gradients)
        self._guard(loss_sum, norm, step, ids)
        if self.clip_grad is not None:
            clip_grads_with_norm_(self.parameters, self.clip_grad, norm)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        if self.average is not None:
            self.average.update(self.model)

    def _guard(self, loss_sum: Tensor, norm: Tensor, step: int, ids: Tensor) -> None:
        if not self.deferred:
            if not math.isfinite((loss_sum + norm).item()):
                raise NotFinite(step, ids.tolist(), loss_sum.item() / len(ids))
            return
        # the fused optimisers leave everything as it is where `found_inf` is 1, as they do for a gradient scaler;
        # once set it stays set, so no later step is taken before `check` has found it
        finite = torch.isfinite(loss_sum + norm)
        self._skip = torch.maximum(self._skip, (~finite).to(self._skip.dtype))
        self.optimizer.found_inf = self._skip  # type: ignore[attr-defined]
        self._unchecked.append((step, ids, finite))
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
        step, ids, _ = next(entry for entry in unchecked if not entry[2].item())
        raise NotFinite(step, ids.tolist(), None)


def set_training_mode(model: nn.Module) -> None:
    """Training mode, but eval mode for every part whose parameters are all frozen: its statistics stay as they are."""
    model.train()
    if not any(parameter.requires_grad for parameter in model.parameters()):
        if any(True for _ in model.parameters()):
            model.eval()
        return
    for child in model.children():
        set_training_mode(child)
