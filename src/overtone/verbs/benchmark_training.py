"""One step of training, to be timed: forward, loss, backward, optimiser."""

import contextlib
from collections.abc import Callable

import torch
import torch.nn.functional as F

from overtone.config import Optim
from overtone.deployment.timing.shipping import Shipped
from overtone.engine.allocator import keep_freed_memory
from overtone.engine.optim import build_optimizer

PRECISIONS = ("float32", "bfloat16")


def training_step(shipped: Shipped, batch: int, size: int, precision: str = "float32") -> Callable[[], object]:
    """A step of SGD with momentum on a batch of noise, as `overtone train` computes on a CPU.

    That is in channels_last, in a process that keeps freed memory; meant for a process of its own, which changes so.

    Args:
        shipped: the network.
        batch: images.
        size: pixels, their side.
        precision: float32, or bfloat16 for autocast.
    """
    keep_freed_memory()
    net = shipped.unpacked().to(memory_format=torch.channels_last).train()  # type: ignore[call-overload]
    optimizer = build_optimizer(net, Optim(name="sgd", lr=1e-3, momentum=0.9))
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(batch, 3, size, size, generator=generator).contiguous(memory_format=torch.channels_last)

    def step() -> None:
        half = precision == "bfloat16"
        with torch.autocast("cpu", torch.bfloat16) if half else contextlib.nullcontext():
            logits = net(images)
            loss = F.cross_entropy(logits, torch.arange(batch) % logits.shape[1])
        loss.backward()
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)

    return step
