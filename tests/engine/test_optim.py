import math

import pytest
import torch
from torch import nn

from overtone.config import Optim, Recipe, Schedule, Train
from overtone.engine.optim import build_optimizer, lr_at, moving_average, parameter_groups, set_schedule
from overtone.errors import OvertoneError


class Layered(nn.Module):
    def __init__(self):
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3)
        self.blocks = nn.ModuleList([nn.BatchNorm2d(4), nn.Conv2d(4, 4, 1)])
        self.scale = nn.Parameter(torch.ones(4, 1, 1))
        self.head = nn.Linear(4, 2)

    def no_weight_decay(self):
        return {"scale"}

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem|^scale", "blocks": r"^blocks\.(\d+)"}


def names_by(model, groups, key):
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    return {group[key]: {names[id(p)] for p in group["params"]} for group in groups}


def test_all_parameters_decay_where_the_recipe_says_all():
    model = Layered()
    groups = names_by(model, parameter_groups(model, Optim(weight_decay=0.1, decay="all")), "weight_decay")
    assert groups == {0.1: {name for name, _ in model.named_parameters()}}


def test_norms_biases_and_named_parameters_are_spared():
    model = Layered()
    groups = names_by(model, parameter_groups(model, Optim(weight_decay=0.1, decay="no_norm_bias")), "weight_decay")
    assert groups[0.1] == {"stem.weight", "blocks.1.weight", "head.weight"}
    assert groups[0.0] == {"stem.bias", "blocks.0.weight", "blocks.0.bias", "blocks.1.bias", "scale", "head.bias"}


def test_layer_decay_scales_the_learning_rate_from_the_head_down():
    model = Layered()
    optim = Optim(name="adamw", lr=1.0, weight_decay=0.1, layer_decay=0.5)
    groups = parameter_groups(model, optim)
    assert {group["weight_decay"] for group in groups} == {0.1}
    assert names_by(model, groups, "lr_scale") == {
        0.125: {"stem.weight", "stem.bias", "scale"},
        0.25: {"blocks.0.weight", "blocks.0.bias"},
        0.5: {"blocks.1.weight", "blocks.1.bias"},
        1.0: {"head.weight", "head.bias"},
    }
    optimizer = build_optimizer(model, optim)
    set_schedule(optimizer, 0.4)
    assert sorted(group["lr"] for group in optimizer.param_groups) == [0.05, 0.1, 0.2, 0.4]


def test_layer_decay_keeps_the_split_of_weight_decay():
    model = Layered()
    groups = parameter_groups(model, Optim(weight_decay=0.1, decay="no_norm_bias", layer_decay=0.5))
    decays = {
        name: group["weight_decay"]
        for group in groups
        for name, parameter in model.named_parameters()
        if any(parameter is p for p in group["params"])
    }
    assert decays["scale"] == decays["head.bias"] == decays["blocks.0.weight"] == 0
    assert decays["stem.weight"] == decays["head.weight"] == 0.1


class Matched(Layered):
    """The classifier is matched with the blocks, as some networks of timm's have it."""

    def get_classifier(self):
        return self.head

    def group_matcher(self, coarse=False):
        return {"stem": r"^stem|^scale|^head", "blocks": r"^blocks\.(\d+)"}


class Unmatched(Matched):
    group_matcher = None


def test_a_new_classifier_has_the_full_rate_and_two_groups_are_the_fewest():
    optim = Optim(lr=1.0, layer_decay=0.5)
    stem, blocks, head = {"stem.weight", "stem.bias", "scale"}, ["blocks.0.", "blocks.1."], {"head.weight", "head.bias"}
    first, second = ({f"{block}weight", f"{block}bias"} for block in blocks)
    matched, unmatched = Matched(), Unmatched()
    assert names_by(matched, parameter_groups(matched, optim), "lr_scale") == {
        0.25: stem,
        0.5: first,
        1.0: second | head,
    }
    assert names_by(unmatched, parameter_groups(unmatched, optim), "lr_scale") == {
        0.5: stem | first | second,
        1.0: head,
    }


def test_frozen_parameters_are_not_optimised():
    model = Layered()
    for parameter in [*model.stem.parameters(), *model.blocks.parameters(), model.scale]:
        parameter.requires_grad_(False)
    optimizer = build_optimizer(model, Optim())
    assert sum(len(group["params"]) for group in optimizer.param_groups) == 2
    for parameter in model.head.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(OvertoneError, match="no trainable parameter"):
        build_optimizer(model, Optim())


def test_nesterov_needs_momentum():
    with pytest.raises(OvertoneError, match="nesterov"):
        build_optimizer(Layered(), Optim(nesterov=True, momentum=0.0))


class One(nn.Module):
    def __init__(self, value=2.0):
        super().__init__()
        self.w = nn.Parameter(torch.tensor([value]))


@pytest.mark.parametrize(
    ("nesterov", "first", "second"),
    [
        # g = 1 + 0.1 * 2 = 1.2; w = 2 - 0.5 * 1.2; then g = 1 + 0.1 * 1.4 = 1.14, v = 0.9 * 1.2 + 1.14 = 2.22
        (False, 1.4, 1.4 - 0.5 * 2.22),
        # the step is g + 0.9 v: 1.2 + 0.9 * 1.2 = 2.28; then g = 1.086, v = 1.08 + 1.086 = 2.166
        (True, 2 - 0.5 * 2.28, 0.86 - 0.5 * (1.086 + 0.9 * 2.166)),
    ],
)
def test_sgd_steps_by_hand(nesterov, first, second):
    model = One()
    optimizer = build_optimizer(model, Optim(name="sgd", lr=0.5, momentum=0.9, weight_decay=0.1, nesterov=nesterov))
    for expected in (first, second):
        model.w.grad = torch.ones(1)
        optimizer.step()
        assert model.w.item() == pytest.approx(expected, rel=1e-6)


def test_adamw_step_by_hand():
    model = One()
    optimizer = build_optimizer(model, Optim(name="adamw", lr=0.5, weight_decay=0.1, betas=(0.8, 0.9), eps=1e-3))
    model.w.grad = torch.full((1,), 3.0)
    optimizer.step()
    # bias-corrected m = 3 and sqrt(v) = 3, decoupled decay 0.5 * 0.1 * 2
    assert model.w.item() == pytest.approx(2 - 0.1 - 0.5 * 3 / 3.001, rel=1e-6)


def recipe(epochs, lr=1.0, **schedule):
    return Recipe(optim=Optim(lr=lr), schedule=Schedule(**schedule), train=Train(epochs=epochs))


def test_cosine_by_hand():
    rates = [lr_at(step, recipe(2, lr=0.4, name="cosine", min_lr=0.1), 4) for step in (0, 2, 4, 6, 8)]
    quarter = math.sqrt(0.5)
    expected = [0.4, 0.1 + 0.15 * (1 + quarter), 0.25, 0.1 + 0.15 * (1 - quarter), 0.1]
    assert rates == pytest.approx(expected, rel=1e-12)


def test_linear_by_hand():
    rates = [lr_at(step, recipe(2, lr=0.4, name="linear", min_lr=0.2), 2) for step in range(5)]
    assert rates == pytest.approx([0.4, 0.35, 0.3, 0.25, 0.2])


def test_warm_up_then_cosine_over_the_rest():
    settings = recipe(4, lr=0.4, name="cosine", warmup_epochs=2, warmup_lr=0.1)
    rates = [lr_at(step, settings, 3) for step in (0, 2, 5, 6, 9, 12)]
    assert rates == pytest.approx([0.1, 0.2, 0.35, 0.4, 0.2, 0.0])


def test_warm_up_of_half_an_epoch():
    settings = recipe(2, lr=1.0, name="constant", warmup_epochs=0.5)
    assert [lr_at(step, settings, 4) for step in range(4)] == [0.0, 0.5, 1.0, 1.0]


def test_step_divides_every_thirty_epochs():
    settings = recipe(100, lr=0.1, name="step", step_epochs=30, gamma=0.1)
    rates = [lr_at(epoch * 5 + 4, settings, 5) for epoch in (0, 29, 30, 59, 60, 99)]
    assert rates == pytest.approx([0.1, 0.1, 0.01, 0.01, 0.001, 0.0001])


def test_multistep_of_the_wide_residual_networks():
    settings = recipe(200, lr=0.1, name="multistep", milestones=(60, 120, 160), gamma=0.2)
    rates = [lr_at(epoch * 391, settings, 391) for epoch in (0, 59, 60, 119, 120, 159, 160, 199)]
    assert rates == pytest.approx([0.1, 0.1, 0.02, 0.02, 0.004, 0.004, 0.0008, 0.0008])


def test_schedule_of_hornet():
    settings = recipe(300, lr=4e-3, name="cosine", min_lr=1e-6, warmup_epochs=20)
    assert lr_at(0, settings, 312) == 0
    assert lr_at(10 * 312, settings, 312) == pytest.approx(2e-3)
    assert lr_at(20 * 312, settings, 312) == pytest.approx(4e-3)
    assert lr_at(160 * 312, settings, 312) == pytest.approx((4e-3 + 1e-6) / 2)
    assert lr_at(300 * 312, settings, 312) == pytest.approx(1e-6)


def test_moving_average_by_hand():
    model = One(1.0)
    average = moving_average(model, 0.75)
    assert average is not None
    for value, expected in ((5.0, 0.75 + 1.25), (10.0, 0.75 * 2 + 2.5)):
        with torch.no_grad():
            model.w.fill_(value)
        average.update(model)
        assert average.module.w.item() == pytest.approx(expected)
    assert moving_average(model, None) is None
