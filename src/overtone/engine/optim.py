"""Parameter groups, the optimiser, learning rate and weight decay of every step, the moving average of the weights."""

import math
from collections.abc import Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from timm.models import group_parameters  # pyright: ignore[reportPrivateImportUsage]
from timm.optim import param_groups_weight_decay  # pyright: ignore[reportPrivateImportUsage]
from timm.optim._param_groups import auto_group_layers
from timm.utils import ModelEmaV3  # pyright: ignore[reportPrivateImportUsage]
from torch import nn
from torch.optim import Optimizer

from overtone import zoo
from overtone.config import Optim, Recipe, Schedule
from overtone.engine.muon import Muon
from overtone.errors import OvertoneError


def parameter_groups(model: nn.Module, optim: Optim) -> list[dict]:
    """The trainable parameters in groups that share weight decay and learning-rate scale.

    Each group has `params`, `weight_decay` and, under layer decay, `lr_scale` (times the learning rate of the
    schedule): 1 for the group nearest the output, `layer_decay` times less for each group below it.
    """
    splits = optim.decay == "no_norm_bias"
    names = model.no_weight_decay() if splits and hasattr(model, "no_weight_decay") else ()  # type: ignore[operator]
    if optim.layer_decay is not None:
        return _layered_groups(model, optim, names)
    if splits:
        return param_groups_weight_decay(model, optim.weight_decay, no_weight_decay_list=names)
    trainable = [parameter for parameter in model.parameters() if parameter.requires_grad]
    return [{"params": trainable, "weight_decay": optim.weight_decay}] if trainable else []


def _layered_groups(model: nn.Module, optim: Optim, undecayed: Iterable[str]) -> list[dict]:
    """Groups whose learning rate is lr * layer_decay ** (groups above them)."""
    assert optim.layer_decay is not None
    above = _stages_above(model, optim) if optim.layer_groups == "stage" else _blocks_above(model)
    splits, kept = optim.decay == "no_norm_bias", tuple(undecayed)
    groups: dict[tuple[int, bool], dict] = {}
    for name, parameter in model.named_parameters():
        if not parameter.requires_grad:
            continue
        is_spared = parameter.ndim <= 1 or name.endswith(".bias") or any(fnmatchcase(name, one) for one in kept)
        decays = not (splits and is_spared)
        new = {
            "params": [],
            "weight_decay": optim.weight_decay if decays else 0.0,
            "lr_scale": optim.layer_decay ** above[name],
        }
        groups.setdefault((above[name], decays), new)["params"].append(parameter)
    return list(groups.values())


def _blocks_above(model: nn.Module) -> dict[str, int]:
    """Groups above each parameter by the network's `group_matcher`, or timm's rule for one without.

    A network without any groups has two, the classifier or dense head and what is below. The classifier, which may be
    new, is in the highest group in any case.
    """
    matcher: Any = getattr(model, "group_matcher", None)
    group: Any = auto_group_layers(model) if matcher is None else group_parameters(model, matcher(), reverse=True)
    last = max(group.values(), default=0) or 1
    head = set(zoo.classifier_of(model).parameters()) if hasattr(model, "get_classifier") else set()
    return {
        name: 0 if parameter in head else last - group.get(name, last) for name, parameter in model.named_parameters()
    }


def _stages_above(model: nn.Module, optim: Optim) -> dict[str, int]:
    """Groups above each parameter by the stages of a dense network's backbone, as those with HorNet were published.

    Of L = layer_groups_depth + 2 groups the backbone's stem is in 0, its stages in what its `stage_of` says, everything
    else in L - 1.
    """
    stage_of: Any = getattr(model, "stage_of", None)
    if stage_of is None:
        raise OvertoneError(
            f"optim.layer_groups is stage, but {type(model).__name__} has no stages to go by; choose block"
        )
    last = optim.layer_groups_depth + 1
    stages = {name: stage_of(name) for name, _ in model.named_parameters()}
    return {name: 0 if stage is None else last - stage for name, stage in stages.items()}


def build_optimizer(model: nn.Module, optim: Optim) -> Optimizer:
    """The optimiser of a recipe over the trainable parameters of `model`, which is already on its device.

    Uses PyTorch's fused kernels, which are the fastest on CPU and CUDA and can skip a step on the device.

    Raises:
        OvertoneError: settings that exclude each other, or nothing to train.
    """
    if optim.nesterov and optim.momentum == 0:
        raise OvertoneError("optim.nesterov is set but optim.momentum is 0; set a momentum or take nesterov off")
    groups = parameter_groups(model, optim)
    if not groups:
        raise OvertoneError("the network has no trainable parameter; take --model.freeze off or give it a classifier")
    fused = groups[0]["params"][0].device.type in ("cpu", "cuda")
    if optim.name == "sgd":
        return torch.optim.SGD(
            groups, lr=optim.lr, momentum=optim.momentum, nesterov=optim.nesterov, fused=fused or None
        )
    if optim.name == "muon":
        settings = {"weight_decay": optim.weight_decay, "momentum": optim.momentum, "nesterov": optim.nesterov}
        return Muon(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, **settings)
    return torch.optim.AdamW(groups, lr=optim.lr, betas=optim.betas, eps=optim.eps, fused=fused or None)


def set_schedule(optimizer: Optimizer, lr: float, weight_decay: float | None = None) -> None:
    """Give every group what holds in this step.

    Args:
        optimizer: its groups are changed.
        lr: times the group's `lr_scale` is the group's learning rate.
        weight_decay: of the groups that decay; those without weight decay stay so. None: every group keeps its own.
    """
    for group in optimizer.param_groups:
        group["lr"] = lr * group.get("lr_scale", 1.0)
        if weight_decay is not None and group["weight_decay"] > 0:
            group["weight_decay"] = weight_decay


def lr_at(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Learning rate of optimiser step `step`, counted from 0 over the whole training.

    With S steps in all (`total_steps`), of which the first W = warmup_steps, or warmup_epochs * steps_per_epoch
    (rounded), are warm-up:
        step < W:   warmup_lr + (lr - warmup_lr) * step / W
        or, with a warmup_factor f, what follows times 1 - (1 - step / W) * (1 - f), the schedule starting at step 0
        `cosine`:   min_lr + (lr - min_lr) * (1 + cos(pi * t)) / 2,  t = (step - W) / (S - W)
        `linear`:   min_lr + (lr - min_lr) * (1 - t)
        `poly`:     min_lr + (lr - min_lr) * (1 - step / S) ** power
        `step`:     lr * gamma ** (epoch // step_epochs), epoch = step // steps_per_epoch
        `multistep`: lr * gamma ** (how many milestones are <= epoch)
        `constant`: lr
    so `cosine` and `linear` would have come to min_lr at step S, the first that is not taken.

    Args:
        step: steps taken before this one.
        recipe: its `optim.lr`, `schedule`, `train.epochs` and `train.steps` are read.
        steps_per_epoch: optimiser steps in an epoch.
    """
    lr, schedule = recipe.optim.lr, recipe.schedule
    warmup = schedule.warmup_steps or round(schedule.warmup_epochs * steps_per_epoch)
    if schedule.warmup_factor is not None:
        factor = 1 - max(1 - step / warmup, 0.0) * (1 - schedule.warmup_factor) if warmup else 1.0
        return factor * _scheduled_lr(step, recipe, steps_per_epoch, warmup=0)
    if step < warmup:
        return schedule.warmup_lr + (lr - schedule.warmup_lr) * step / warmup
    return _scheduled_lr(step, recipe, steps_per_epoch, warmup)


def _scheduled_lr(step: int, recipe: Recipe, steps_per_epoch: int, warmup: int) -> float:
    """Learning rate of a step after the warm-up."""
    lr, schedule = recipe.optim.lr, recipe.schedule
    if schedule.name == "constant":
        return lr
    if schedule.name in ("step", "multistep"):
        return lr * schedule.gamma ** _drops(schedule, step // steps_per_epoch)
    if schedule.name == "poly":
        warmup = 0
    t = min((step - warmup) / max(total_steps(recipe, steps_per_epoch) - warmup, 1), 1.0)
    if schedule.name == "poly":
        remaining = (1 - t) ** schedule.power
    else:
        remaining = (1 + math.cos(math.pi * t)) / 2 if schedule.name == "cosine" else 1 - t
    return schedule.min_lr + (lr - schedule.min_lr) * remaining


def total_steps(recipe: Recipe, steps_per_epoch: int) -> int:
    """Optimiser steps of the whole training: `train.steps`, or `train.epochs` times those of an epoch."""
    return recipe.train.steps or recipe.train.epochs * steps_per_epoch


def total_epochs(recipe: Recipe, steps_per_epoch: int) -> int:
    """Epochs of the whole training, of which `train.steps` may cut the last one short."""
    return -(-total_steps(recipe, steps_per_epoch) // max(steps_per_epoch, 1))


def weight_decay_at(step: int, recipe: Recipe, steps_per_epoch: int) -> float:
    """Weight decay of optimiser step `step`, counted from 0 over the whole training.

    With S steps in all, warm-up included, and an end that is given (else it is `optim.weight_decay` throughout):
        weight_decay + (end - weight_decay) * (1 - cos(pi * step / S)) / 2
    as in DINO (Caron et al. 2021, arXiv:2104.14294); it would have come to the end at step S, the first not taken.

    Args:
        step: steps taken before this one.
        recipe: its `optim.weight_decay`, `schedule.weight_decay_end`, `train.epochs` and `train.steps` are read.
        steps_per_epoch: optimiser steps in an epoch.
    """
    start, end = recipe.optim.weight_decay, recipe.schedule.weight_decay_end
    if end is None:
        return start
    t = min(step / total_steps(recipe, steps_per_epoch), 1.0)
    return start + (end - start) * (1 - math.cos(math.pi * t)) / 2


def _drops(schedule: Schedule, epoch: int) -> int:
    if schedule.name == "step":
        return epoch // schedule.step_epochs
    return sum(milestone <= epoch for milestone in schedule.milestones)


def moving_average(model: nn.Module, decay: float | None, *, warmup: bool = False) -> ModelEmaV3 | None:
    """Moving average of all parameters and buffers: average = decay * average + (1 - decay) * model; None: none.

    With a warm-up the decay of step t, counted from 0, is min(decay, t / (t + 10)): the average begins as the weights
    after the first step and looks further back as the training goes on.
    """
    if decay is None:
        return None
    return ModelEmaV3(model, decay=decay, use_warmup=warmup, warmup_gamma=10.0, warmup_power=1.0)
