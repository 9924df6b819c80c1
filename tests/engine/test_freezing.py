"""`train.freeze_epochs`: the classifier alone, then everything; in one process and several, and when resumed."""

import dataclasses

import pytest
import timm
import torch
from ranks import run_ranks
from tiny_runs import assert_same_end, recipe_for, run_for
from tiny_training import Tiny, task_of
from torch import nn

from overtone.checkpoint import read_checkpoint
from overtone.config import Optim
from overtone.data.loader import share_of
from overtone.data.pipeline import Batch
from overtone.engine import folder as files
from overtone.engine.distributed import World
from overtone.engine.optim import build_optimizer
from overtone.engine.placement import Placement
from overtone.engine.step import Trainer
from overtone.engine.sync_bn import synchronise_batch_norm
from overtone.errors import OvertoneError
from overtone.verbs.train import train

CPU = Placement(torch.device("cpu"))


@pytest.mark.usefixtures("tiny_from_zoo")
@pytest.mark.parametrize("name", ["sgd", "adamw", "muon"])
def test_the_classifier_first_then_all_and_resumed_in_both_phases(images, tmp_path, name, capsys):
    recipe = recipe_for(images, epochs=3, freeze_epochs=1)
    recipe = dataclasses.replace(recipe, optim=Optim(name=name, lr=0.01, clip_grad=5.0, layer_decay=0.8))
    parts = tmp_path / "parts"
    train(recipe, run_for(parts, max_steps=2), "try")
    assert "all but the classifier, in the first 1 epoch" in capsys.readouterr().err
    train(recipe, run_for(parts, max_steps=4), "try")
    of_head = read_checkpoint(parts / files.LAST)
    first = of_head.training["model/conv.weight"].clone()
    assert of_head.training["model/bn.num_batches_tracked"] == 0
    assert all("head" in key for key in of_head.training if key.startswith("optimizer/"))
    train(recipe, run_for(parts, max_steps=7), "try")
    train(recipe, run_for(parts), "try")
    train(recipe, run_for(tmp_path / "straight"), "try")
    assert_same_end(tmp_path / "straight", parts)
    end = read_checkpoint(parts / files.LAST).training
    assert not torch.equal(end["model/conv.weight"], first) and end["model/bn.num_batches_tracked"] == 8


def losses_of_both_phases(world: World) -> list[float]:
    """The loss of two steps of the classifier alone and of two of everything."""
    torch.manual_seed(0)
    network, labels = synchronise_batch_norm(Tiny(3, 0.0), CPU.device), tuple("abc")
    body = [parameter for name, parameter in network.named_parameters() if not name.startswith("head")]
    optimizer = build_optimizer(network, Optim(name="sgd", lr=0.5))
    trainer = Trainer(
        network,
        task_of(labels),
        optimizer,
        lr_at=lambda step: 0.5,
        placement=CPU,
        body=body,
        freeze_epochs=2,
        world=world,
        sync_bn=True,
    )
    images, targets = torch.randn(12, 3, 8, 8), torch.arange(12) % 3
    mine, losses = share_of(torch.arange(12), world.rank, world.size), []
    before = [parameter.detach().clone() for parameter in body]
    for step in range(4):
        trainer.start(epoch=step)
        trainer.step(Batch(images[mine], targets[mine], mine, ()), step, world.agree(len(mine), len(mine), 0, False))
        losses.append(trainer.loss_sum())
        assert all(map(torch.equal, before, body)) == (step < 2)
    return losses


def test_two_processes_freeze_and_thaw_as_one_does() -> None:
    alone = losses_of_both_phases(World())
    first, second = run_ranks(losses_of_both_phases, 2)
    assert first == second == pytest.approx(alone, rel=1e-5)


def test_epochs_that_leave_nothing_or_contradict_are_refused(tmp_path):
    recipe = recipe_for(tmp_path, epochs=3)
    with pytest.raises(OvertoneError, match=r"train.freeze_epochs.*train.epochs"):
        dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, freeze_epochs=3))
    frozen = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, freeze=True))
    with pytest.raises(OvertoneError, match=r"train.freeze_epochs.*model.freeze"):
        dataclasses.replace(frozen, train=dataclasses.replace(recipe.train, freeze_epochs=1))


@pytest.mark.parametrize("name", ["mobilenetv2_x010", "hbonet_x010", "harm_resnet18", "resnet10t"])
def test_frozen_batch_norm_keeps_its_statistics_and_learns_its_scale(name):
    torch.manual_seed(0)
    network = timm.create_model(name, num_classes=3)
    before = {key: value.clone() for key, value in network.state_dict().items()}
    trainer = Trainer(
        network,
        task_of("abc"),
        build_optimizer(network, Optim(lr=0.5)),
        lr_at=lambda step: 0.5,
        placement=CPU,
        freeze_bn=True,
    )
    trainer.start()
    assert not trainer.normalises_batches
    trainer.step(Batch(torch.randn(2, 3, 32, 32), torch.arange(2), torch.arange(2), ()), 0)
    after = network.state_dict()
    assert after.keys() == before.keys()
    moved = {key for key, value in after.items() if not torch.equal(value, before[key])}
    assert not any("running" in key or "tracked" in key for key in moved)
    scales = {f"{key}.weight" for key, one in network.named_modules() if isinstance(one, nn.BatchNorm2d) and one.affine}
    assert len(scales) > 5 and scales & moved
