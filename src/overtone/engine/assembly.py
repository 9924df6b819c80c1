"""The parts of a training: network, task, loaders, trainer; built new, or as a checkpoint describes them."""

import dataclasses
import functools
from collections.abc import Callable

import torch
from torch import nn

from overtone import zoo
from overtone.checkpoint import Manifest
from overtone.config import Recipe, Run
from overtone.data.loader import Loader
from overtone.data.sources import Splits
from overtone.engine.distributed import World
from overtone.engine.loaders import Loaders, decoded_store
from overtone.engine.optim import build_optimizer, lr_at, moving_average, weight_decay_at
from overtone.engine.placement import Placement
from overtone.engine.step import Trainer
from overtone.engine.sync_bn import synchronise_batch_norm
from overtone.engine.teaching import load_teacher
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.tasks.task import Setup, Task


@dataclasses.dataclass(frozen=True)
class Parts:
    """What trains: the task, its trainer, and the loaders of the two splits.

    Attributes:
        task: owns the loss.
        trainer: the network with its optimiser.
        loaders: make further loaders, for samples that are not among the two splits.
        training: batches to train on.
        validation: batches of the held-out samples.
    """

    task: Task
    trainer: Trainer
    loaders: Loaders
    training: Loader
    validation: Loader

    def close(self) -> None:
        """End the processes that read samples."""
        self.training.close()
        self.validation.close()


def assemble(
    recipe: Recipe,
    run: Run,
    splits: Splits,
    placement: Placement,
    world: World,
    *,
    resumed: Manifest | None,
    digest: str | None,
    say: Callable[[str], object],
) -> Parts:
    """Build the parts of a training.

    Args:
        recipe: what is trained, and how.
        run: where and with what.
        splits: the samples.
        placement: device and precision.
        world: the processes that train together.
        resumed: of the checkpoint whose weights the caller is going to load; None: start from the recipe's.
        digest: of the samples.
        say: called with a line for each thing that the user may want to know.

    Raises:
        OvertoneError: the recipe does not allow it, or weights that it names cannot be had or do not fit.
    """
    kind, labels, model = task_named(recipe.task), tuple(splits.train.labels), recipe.model
    torch.manual_seed(recipe.train.seed)
    if resumed is not None:  # the checkpoint has all the weights: those of the start need not be there any more
        model = dataclasses.replace(model, weights=None, name=resumed.architecture)
    adapted: list[str] = []
    network = zoo.build_for_training(kind, model, labels, adapted.append)
    loaders = Loaders(recipe, run, placement, world, say, decoded_store(recipe, splits, digest))
    for line in adapted:
        say(f"weights {line}")
    if recipe.train.freeze_epochs:
        say(f"freeze  all but the classifier, in the first {recipe.train.freeze_epochs} epochs")
    if recipe.train.freeze_bn == "on":
        say("freeze  the statistics of batch norm, those of the weights; its scale and shift are trained")
    steps = loaders.steps_per_epoch(splits.train)
    teacher = load_teacher(recipe.distill, labels, recipe.data.preprocess, placement)
    settings = {} if resumed is None else resumed.settings
    task = kind(Setup(labels, recipe, settings, splits.train, steps, teacher))
    training = loaders.training(splits.train, task)
    validation = loaders.evaluation(splits.val, task, first=len(splits.train))
    return Parts(task, _trainer(recipe, run, network, task, steps, placement, world), loaders, training, validation)


def _trainer(
    recipe: Recipe, run: Run, network: nn.Module, task: Task, steps: int, placement: Placement, world: World
) -> Trainer:
    network = placement.model(network)
    if recipe.train.sync_bn:
        network = synchronise_batch_norm(network, placement.device)
    head = set(zoo.classifier_of(network).parameters()) if recipe.train.freeze_epochs else set()
    average = moving_average(network, recipe.train.ema_decay, warmup=recipe.train.ema_warmup)
    trainer = Trainer(
        network,
        task,
        build_optimizer(network, recipe.optim),
        lr_at=functools.partial(lr_at, recipe=recipe, steps_per_epoch=steps),
        weight_decay_at=functools.partial(weight_decay_at, recipe=recipe, steps_per_epoch=steps),
        placement=placement,
        seed=recipe.train.seed,
        micro_batch=run.micro_batch,
        clip_grad=recipe.optim.clip_grad,
        average=average,
        body=[parameter for parameter in network.parameters() if parameter.requires_grad and parameter not in head],
        freeze_epochs=recipe.train.freeze_epochs,
        world=world,
        sync_bn=recipe.train.sync_bn,
        freeze_bn=recipe.train.freeze_bn == "on",
    )
    if recipe.train.batch_size < 2 and trainer.normalises_batches:
        raise OvertoneError(
            f"train.batch_size is {recipe.train.batch_size}, and {recipe.model.name} has batch norm, which takes "
            "its statistics from the batch: nothing would be trained; use at least 2, better 16 or more"
        )
    if run.compile:
        network.compile()  # in place: the names in the state dict stay
        if average is not None:
            average.module.compile()
    return trainer
