"""Synchronised batch norm and parts of a batch, where the processes have unequal shares of it (row 37)."""

import pytest
import torch
from ranks import run_ranks
from tiny_training import Tiny, task_of

from overtone.config import Optim
from overtone.data.loader import share_of
from overtone.data.pipeline import Batch
from overtone.engine.distributed import World
from overtone.engine.optim import build_optimizer
from overtone.engine.placement import Placement
from overtone.engine.step import Trainer
from overtone.engine.sync_bn import synchronise_batch_norm

CPU = Placement(torch.device("cpu"))
RANKS, MICRO_BATCH = 4, 2
BATCHES = (16, 10, 16)  # shares of 4 each; of 2, 2, 2 and 4; of 4 each


def batch_of(size: int, positions: torch.Tensor) -> Batch:
    generator = torch.Generator().manual_seed(size)
    images = torch.randn(size, 3, 8, 8, generator=generator, dtype=torch.float64)
    return Batch(images[positions], torch.arange(size)[positions] % 3, positions)


def trainer_of(world: World, micro_batch: int) -> tuple[Trainer, list[int]]:
    """A trainer, and the sizes of its forward passes so far."""
    torch.manual_seed(0)
    network = synchronise_batch_norm(CPU.model(Tiny(3, 0.0)).double(), CPU.device)
    trainer = Trainer(
        network,
        task_of("abc"),
        build_optimizer(network, Optim(lr=0.1, momentum=0.9)),
        lr_at=lambda step: 0.1,
        placement=CPU,
        micro_batch=micro_batch,
        world=world,
        sync_bn=True,
    )
    sizes: list[int] = []
    network.register_forward_hook(lambda module, given, outputs: sizes.append(len(outputs)))
    trainer.start()
    return trainer, sizes


def state_of(trainer: Trainer) -> dict[str, torch.Tensor]:
    return {key: value.clone() for key, value in trainer.model.state_dict().items()}


def train(world: World) -> tuple[list[int], dict[str, torch.Tensor], float]:
    """The sizes of this process's forward passes, and what came out."""
    trainer, sizes = trainer_of(world, MICRO_BATCH)
    for step, size in enumerate(BATCHES):
        mine = share_of(torch.arange(size), world.rank, world.size)
        trainer.step(batch_of(size, mine), step, world.agree(len(mine), float(len(mine)), 0, False))
    return sizes, state_of(trainer), trainer.loss_sum()


def alone() -> tuple[dict[str, torch.Tensor], float]:
    """One process, each of whose parts has the images that all processes have in theirs: halves of their shares."""
    trainer, _ = trainer_of(World(), max(BATCHES) // 2)
    for step, size in enumerate(BATCHES):
        shares = [share_of(torch.arange(size), rank, RANKS) for rank in range(RANKS)]
        halves = [share.tensor_split(2) for share in shares]
        order = torch.cat([half[part] for part in range(2) for half in halves])
        trainer.step(batch_of(size, order), step)
    return state_of(trainer), trainer.loss_sum()


def test_as_many_forward_passes_on_each_process_and_the_result_of_one() -> None:
    assert [len(share_of(torch.arange(10), rank, RANKS)) for rank in range(RANKS)] == [2, 2, 2, 4]
    found = run_ranks(train, RANKS, timeout=20.0)
    for answer in found:
        if isinstance(answer, BaseException):
            raise answer
    sizes = [answer[0] for answer in found]
    assert sizes == [[2, 2, 1, 1, 2, 2]] * 3 + [[2, 2, 2, 2, 2, 2]]
    expected, loss = alone()
    for _, weights, loss_sum in found:
        assert loss_sum == pytest.approx(loss, rel=1e-9)
        for key, value in expected.items():
            torch.testing.assert_close(weights[key], value, rtol=1e-9, atol=1e-12, msg=key)


def starved(world: World) -> list[int]:
    """A batch of three images: one process has all of them."""
    trainer, sizes = trainer_of(world, 1)
    mine = share_of(torch.arange(3), world.rank, world.size)
    trainer.step(batch_of(3, mine), 0, world.agree(len(mine), float(len(mine)), 0, False))
    return sizes


def test_a_process_without_images_takes_part_in_every_forward_pass() -> None:
    assert run_ranks(starved, 2, timeout=20.0) == [[1, 1, 1], [0, 0, 0]]
