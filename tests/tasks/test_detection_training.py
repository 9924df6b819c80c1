"""A mask head that learns, and a detector that learns and is measured in company as alone."""

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from drawn_boxes import draw, write_coco
from ranks import run_ranks
from torch import Tensor

from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe
from overtone.data.loader import Loader
from overtone.data.pipeline import Batch
from overtone.data.sources import Source, open_splits
from overtone.engine.distributed import World
from overtone.engine.loop import evaluate
from overtone.engine.optim import build_optimizer
from overtone.engine.placement import Placement
from overtone.engine.step import Trainer
from overtone.engine.sync_bn import synchronise_batch_norm
from overtone.tasks.detection.report import DetectionReport
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.detection.task import Detection
from overtone.tasks.task import Setup

pytest.importorskip("pycocotools")
CPU = Placement(torch.device("cpu"))
FEW = {"box_batch_size_per_image": 32, "rpn_pre_nms_top_n_train": 100, "rpn_post_nms_top_n_train": 50}


def task_on(root: Path, head: str, **head_args: Any) -> tuple[Detection, Recipe, Source]:
    recipe = Recipe(
        task="detection",
        settings=DetectionSettings(longest=96),
        model=Model(name="mobilenetv2_x010", head=head, args={"head_args": {"width": 32, **head_args}}),
        data=Data(root=root, val_fraction=0, preprocess=Preprocess(size=64)),
        augment=Augment(crop="none", hflip=0.0),
    )
    source = open_splits(recipe.data, "boxes").train
    return Detection(Setup(tuple(source.labels), recipe, train=source)), recipe, source


def test_masks_are_learned(tmp_path: Path) -> None:
    """Four images by heart: the loss of masks falls, and the masks found are those that are marked."""
    write_coco(tmp_path, {"train": draw(tmp_path / "train", 4, largest=34)}, outlines=True)
    task, recipe, source = task_on(tmp_path, "mask_rcnn", rpn_post_nms_top_n_test=50, **FEW)
    torch.manual_seed(0)
    network = Detection.build(recipe.model, task.labels).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=3e-3)
    batch = next(iter(Loader(source, task.pipeline(train=True), batch_size=4)))
    losses: list[dict[str, Tensor]] = []
    for _ in range(45):
        losses.append(network(batch.inputs.pixels, batch.inputs.sizes, batch.targets))
        optimizer.zero_grad()
        torch.stack(list(losses[-1].values())).sum().backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 10.0)
        optimizer.step()
    assert losses[-1]["loss_mask"] < losses[0]["loss_mask"] / 4
    report = evaluate(task, network.eval(), Loader(source, task.pipeline(train=False), batch_size=4), CPU)
    assert report.masks.ap50 > 90 and report.masks.ap > 50 and report.score == report.masks.ap


def steps(world: World, root: Path) -> tuple[list[float], list[float], DetectionReport]:
    """The losses of some steps and a digest of the weights after them, in float64; and an evaluation."""
    task, recipe, source = task_on(root, "retinanet")
    torch.manual_seed(0)
    network = CPU.model(Detection.build(recipe.model, task.labels)).double()
    network = synchronise_batch_norm(network, CPU.device) if not world.is_alone else network
    optimizer = build_optimizer(network, Optim(name="sgd", lr=0.01, momentum=0.9, clip_grad=1.0))
    trainer = Trainer(
        network, task, optimizer, lr_at=lambda step: 0.01, placement=CPU, world=world, sync_bn=not world.is_alone
    )
    trainer.start()
    losses = []
    for step, batch in enumerate(Loader(source, task.pipeline(train=True), batch_size=4)):
        own = as_double(task.split(batch, world.size)[world.rank])
        before = trainer.loss_sum()
        trainer.step(own, step, world.agree(own.num_samples, task.weight(own), 0, False))
        losses.append(trainer.loss_sum() - before)
    weights = [parameter.detach().sum().item() for parameter in trainer.model.parameters()]
    share = Loader(source, task.pipeline(train=False), batch_size=2, rank=world.rank, num_ranks=world.size)
    torch.manual_seed(1)
    measured = Detection.build(recipe.model, task.labels).eval()
    return losses, weights, evaluate(task, measured, share, CPU, world=world)


def as_double(batch: Batch) -> Batch:
    targets = tuple({**target, "boxes": target["boxes"].double()} for target in batch.targets)
    return Batch(batch.inputs._replace(pixels=batch.inputs.pixels.double()), targets, batch.ids, batch.bad)


def test_two_processes_are_as_one(tmp_path: Path) -> None:
    """RetinaNet divides the loss of each image by its own objects, so that a batch in two parts is the whole one."""
    write_coco(tmp_path, {"train": draw(tmp_path / "train", 8)})
    losses, weights, report = steps(World(), tmp_path)
    first, second = run_ranks(steps, 2, tmp_path)
    assert first == second
    assert first[0] == pytest.approx(losses, rel=1e-9) and first[1] == pytest.approx(weights, rel=1e-6, abs=1e-9)
    assert dataclasses.replace(first[2], bad=()) == report and report.num_used == 8
