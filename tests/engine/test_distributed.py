import functools
import math
import time
from pathlib import Path

import pytest
import torch
from ranks import run_ranks
from sklearn.datasets import load_sample_images
from tiny_training import Tiny, listed, task_of
from torch import nn

from overtone import zoo
from overtone.config import Data, Model, Optim, Preprocess, Recipe, Run
from overtone.data.loader import Loader, epoch_order, share_of
from overtone.data.pipeline import Batch, ImagePipeline, class_of
from overtone.data.sources import ImageList
from overtone.engine.distributed import World, check_shared_evenly, joined
from overtone.engine.loop import evaluate
from overtone.engine.optim import build_optimizer
from overtone.engine.placement import Placement
from overtone.engine.step import NotFinite, Trainer
from overtone.engine.sync_bn import synchronise_batch_norm
from overtone.errors import OvertoneError
from overtone.tasks.classification.task import Classification

CPU = Placement(torch.device("cpu"))
STEPS, BATCH = 6, 12
DIGITS = tuple("0123456789")
UNREAD = ImagePipeline(lambda image: image, class_of, torch.empty(0, dtype=torch.int64))


@functools.cache
def photos() -> tuple[torch.Tensor, torch.Tensor]:
    """Parts of two photographs as images (200, 3, 64, 64), and which band of which photograph they are of."""
    generator = torch.Generator().manual_seed(0)
    images, targets = [], []
    for number, photo in enumerate(load_sample_images().images):
        pixels = torch.from_numpy(photo.copy()).permute(2, 0, 1).float() / 64 - 2
        for _ in range(100):
            top, left = (int(torch.randint(limit - 64, (), generator=generator)) for limit in pixels.shape[1:])
            images.append(pixels[:, top : top + 64, left : left + 64])
            targets.append(number * 5 + top * 5 // (pixels.shape[1] - 64))
    order = torch.randperm(200, generator=generator)
    return torch.stack(images)[order], torch.tensor(targets)[order]


def trainer_of(
    world: World,
    *,
    sync_bn: bool = False,
    freeze: bool = False,
    name: str = "hbonet_x010",
    dtype: torch.dtype = torch.float32,
    lr: float = 0.02,
) -> Trainer:
    torch.manual_seed(0)
    network = (
        Tiny(10, 0.0)
        if name == "tiny"
        else zoo.build_for_training(Classification, Model(name=name, freeze=freeze), DIGITS)
    )
    network = CPU.model(network).to(dtype)
    if sync_bn:
        network = synchronise_batch_norm(network, CPU.device)
    trainer = Trainer(
        network,
        task_of(DIGITS, Recipe(data=Data(preprocess=Preprocess(size=64)))),
        build_optimizer(network, Optim(name="sgd", lr=lr, momentum=0.9)),
        lr_at=lambda step: lr,
        placement=CPU,
        world=world,
        sync_bn=sync_bn,
    )
    trainer.start()
    return trainer


def train(world: World, name: str, dtype: torch.dtype, freeze: bool, lr: float) -> list[float]:
    """The loss of each of a few steps; the last batch is too small for every process to get images."""
    images, targets = photos()
    images = images.to(dtype)
    trainer = trainer_of(world, sync_bn=not freeze, freeze=freeze, name=name, dtype=dtype, lr=lr)
    losses = []
    for step in range(STEPS):
        positions = torch.arange(step * BATCH, (step + 1) * BATCH if step < STEPS - 1 else step * BATCH + 3)
        mine = share_of(positions, world.rank, world.size)
        before = trainer.loss_sum()
        agreement = world.agree(len(mine), len(mine), 0, False)
        trainer.step(Batch(images[mine], targets[mine], mine, ()), step, agreement)
        losses.append((trainer.loss_sum() - before) / len(positions))
    return losses


@pytest.mark.parametrize(
    ("name", "dtype", "freeze", "lr"),
    [
        # its gradients multiply rounding errors by a thousand: float64 shows that only rounding differs
        ("hbonet_x010", torch.float64, False, 0.002),
        ("tiny", torch.float32, False, 0.05),
        ("hbonet_x010", torch.float32, True, 1.0),
    ],
    ids=["synchronised-float64", "synchronised", "frozen"],
)
def test_two_processes_have_the_loss_curve_of_one(name: str, dtype: torch.dtype, freeze: bool, lr: float) -> None:
    alone = train(World(), name, dtype, freeze, lr)
    first, second = run_ranks(train, 2, name, dtype, freeze, lr)
    assert first == second
    assert first == pytest.approx(alone, rel=1e-5)
    assert alone[4] != pytest.approx(alone[0], rel=1e-2)  # it has learned something


def same_weights(world: World) -> bool:
    """Whether all processes have the same weights after steps with batch norm of their own."""
    images, targets = photos()
    trainer = trainer_of(world)
    for step in range(2):
        mine = share_of(torch.arange(6), world.rank, world.size)
        trainer.step(Batch(images[mine], targets[mine], mine, ()), step, world.agree(len(mine), len(mine), 0, False))
    weights = torch.cat([parameter.detach().flatten() for parameter in trainer.model.parameters()])
    return all(torch.equal(weights, other) for other in world.gather(weights))


def test_weights_stay_the_same_on_all_processes_even_where_one_has_no_images() -> None:
    assert run_ranks(same_weights, 4) == [True] * 4


def nan_on_one(world: World) -> tuple[int, tuple[int, ...], int | None, bool]:
    images, targets = photos()
    trainer = trainer_of(world)
    before = [parameter.detach().clone() for parameter in trainer.model.parameters()]
    mine = share_of(torch.arange(8), world.rank, world.size)
    own = images[mine].clone()
    if world.rank == 1:
        own[0, 0, 0, 0] = math.nan
    with pytest.raises(NotFinite) as caught:
        trainer.step(Batch(own, targets[mine], mine, ()), 5, world.agree(len(mine), len(mine), 0, False))
    unchanged = all(torch.equal(a, b) for a, b in zip(before, trainer.model.parameters(), strict=True))
    error = caught.value
    return error.step, error.ids, error.rank, unchanged


def test_nan_on_one_process_stops_all_of_them_before_the_update() -> None:
    assert run_ranks(nan_on_one, 2) == [(5, (4, 5, 6, 7), 1, True)] * 2


def stop_on_one(world: World) -> list[bool]:
    return [world.agree(4, 4.0, 0, world.rank == 1 and step == 2).stop for step in range(4)]


def test_a_stop_that_one_process_is_asked_for_reaches_all_at_the_same_step() -> None:
    assert run_ranks(stop_on_one, 2) == [[False, False, True, False]] * 2


def count(world: World) -> tuple[int, int, tuple[tuple[int, ...], ...], int]:
    images, targets = photos()
    images, targets = images[:37], targets[:37]
    model = CPU.model(zoo.build_for_training(Classification, Model(name="hbonet_x010"), DIGITS))
    nn.init.normal_(model.classifier.weight, generator=torch.Generator().manual_seed(world.rank))
    torch.manual_seed(1)
    for parameter in model.parameters():
        nn.init.normal_(parameter, std=0.1)
    paths = tuple(Path(f"{number}.png") for number in range(37))
    loader = _InMemory(ImageList(DIGITS, paths, targets.tolist()), images, targets, world)
    report = evaluate(task_of(DIGITS), model, loader, CPU, world=world)  # type: ignore[arg-type]
    return report.correct_top1, report.correct_top5, report.confusion, report.num_used


class _InMemory:
    """A loader's part of images that are in memory already."""

    def __init__(self, source, tensors, targets, world) -> None:
        self.source, self.tensors, self.targets = source, tensors, targets
        loader = Loader(source, UNREAD, batch_size=5, rank=world.rank, num_ranks=world.size)
        self.order = [positions for _, positions in loader._order]

    def __iter__(self):
        for positions in self.order:
            mine = torch.tensor(positions)
            yield Batch(self.tensors[mine], self.targets[mine], mine, ())


def test_evaluation_on_three_processes_counts_each_of_37_images_once() -> None:
    alone = count(World())
    assert alone[3] == 37
    assert run_ranks(count, 3) == [alone] * 3


@pytest.mark.parametrize("num_ranks", [1, 2, 3, 4])
@pytest.mark.parametrize("size", range(1, 13))
def test_shares_are_the_batch_and_no_process_gets_a_lone_image(size: int, num_ranks: int) -> None:
    batch = torch.arange(100, 100 + size)
    shares = [share_of(batch, rank, num_ranks) for rank in range(num_ranks)]
    assert torch.equal(torch.cat(shares), batch)
    if size > 1:
        assert all(len(share) != 1 for share in shares)


@pytest.mark.parametrize("num_ranks", [1, 2, 4])
def test_an_epoch_resumed_on_another_number_of_processes_sees_each_image_once_in_the_same_order(num_ranks: int) -> None:
    images = listed("ab", (22, 21))

    def batches(rank: int, ranks: int, first: int) -> list[list[int]]:
        loader = Loader(images, UNREAD, batch_size=8, shuffle=True, seed=3, rank=rank, num_ranks=ranks)
        loader.set_epoch(2, first)
        return [positions for _, positions in loader._order]

    seen = [position for batch in batches(0, 1, 0)[:2] for position in batch]  # two steps alone, then in company
    parts = [batches(rank, num_ranks, 2) for rank in range(num_ranks)]
    assert len({len(part) for part in parts}) == 1
    for step in range(len(parts[0])):
        seen += [position for part in parts for position in part[step]]
    assert seen == epoch_order(43, 3, 2).tolist()


def test_a_batch_that_the_processes_cannot_share_equally_is_refused_with_the_nearest() -> None:
    check_shared_evenly(256, World(0, 32))
    with pytest.raises(OvertoneError, match=r"--train.batch-size 63 or 66.*numbers of processes: 2 or 4"):
        check_shared_evenly(64, World(0, 3))
    with pytest.raises(OvertoneError, match=r"--train.batch-size 8; .*numbers of processes: 2$"):
        check_shared_evenly(4, World(0, 4))


def hang(world: World) -> str:
    """The last process does not come to the second step."""
    assert world.agree(1, 1.0, 0, False).num_samples == 3
    if world.rank == 2:
        time.sleep(15)
        return ""
    with pytest.raises(OvertoneError) as caught:
        _ = world.agree(1, 1.0, 0, False).num_samples
    return str(caught.value)


@pytest.mark.slow
def test_a_process_that_hangs_is_named() -> None:
    first, second, _ = run_ranks(hang, 3, timeout=2.0)
    assert "rank 0 of 3 lost the others" in first and "2" in first.split("no answer in time")[1]
    assert "rank 1 of 3" in second


def test_without_torchrun_a_process_is_alone() -> None:
    with joined(Run(), {}) as world:
        assert world.is_alone and world.is_first
        assert world.gather("x") == ["x"]
    with joined(Run(), {"SLURM_PROCID": "1", "SLURM_NTASKS": "4"}) as world:  # a shell in an allocation
        assert world.is_alone
