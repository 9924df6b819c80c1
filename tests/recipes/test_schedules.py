"""Learning rate and weight decay of every parameter group of every recipe, against values worked out by hand.

An epoch of ImageNet-1K's 1,281,167 images is 5005 steps at batch 256, 1252 at 1024, 2503 at 512 and 313 at 4096; one of
CIFAR's 50,000 is 391 at 128. The other recipes' epochs are given a round number of steps.
"""

import pytest
import torch
from torch import nn

import overtone.models  # noqa: F401 - registers the architectures
from overtone import zoo
from overtone.config import Optim, Recipe, Schedule, Train
from overtone.engine.optim import build_optimizer, lr_at, parameter_groups, set_schedule, weight_decay_at
from overtone.errors import OvertoneError
from overtone.recipes import list_recipes, load_recipe

STEPS = {
    **dict.fromkeys(("mobilenetv2_in1k", "hbonet_in1k", "harm_resnet_in1k", "harm_vgg_in1k"), 5005),
    "mobilenetv2_strong_in1k": 1252,
    **dict.fromkeys(("harm_wrn_cifar10", "harm_wrn_cifar100", "cifar10_harm_wrn16_4"), 391),
    **dict.fromkeys((name for name in list_recipes() if name.startswith("hornet_") and name.endswith("in1k")), 313),
    **dict.fromkeys(("hornet_large_7x7_in22k", "hornet_large_gf_in22k"), 3000),
    **dict.fromkeys(("hornet_large_7x7_ft384", "hornet_large_gf_ft384"), 2503),
    "cifar10_hbonet": 176,
    **dict.fromkeys(("digits", "scratch", "finetune"), 10),
}
WIDE = {0: 0.1, 23459: 0.1, 23460: 0.02, 46919: 0.02, 46920: 0.004, 62559: 0.004, 62560: 0.0008, 78199: 0.0008}
# warm-up to step 6260, then 87,640 steps: 1e-6 + 0.0019995 (1 + cos t); a quarter, a half and three quarters of them
HORNET_1K = {
    0: 0.0,
    1: 4e-3 / 6260,
    3130: 2e-3,
    6260: 4e-3,
    28170: 0.00341436000898250,
    50080: 0.0020005,
    71990: 0.000586639991017498,
}
HORNET_22K = {0: 0.0, 1500: 4e-4, 15000: 4e-3, 142500: 0.0020005}  # 15,000 steps of warm-up, then 255,000
HORNET_FT = {0: 5e-5, 25030: 3.775e-5, 37545: 2.55e-5, 50060: 1.325e-5}  # thirds and half of 75,090
# step: learning rate, before any scale of a layer
RATES: dict[str, dict[int, float]] = {
    # a third, a half, two thirds and five sixths of 750,750
    "mobilenetv2_in1k": {0: 0.05, 250250: 0.0375, 375375: 0.025, 500500: 0.0125, 625625: 0.00334936490538903},
    "mobilenetv2_strong_in1k": {
        0: 0.1,
        626: 0.13,
        3130: 0.25,
        6260: 0.4,
        82945: 0.341421356237310,  # a quarter of the 306,740 steps after the warm-up
        159630: 0.2,
    },
    "hbonet_in1k": {0: 0.05, 500500: 0.0375, 750750: 0.025, 1001000: 0.0125},
    "harm_resnet_in1k": {0: 0.1, 150149: 0.1, 150150: 0.01, 300299: 0.01, 300300: 0.001, 450450: 1e-4, 500499: 1e-4},
    "harm_vgg_in1k": {0: 0.01, 150149: 0.01, 150150: 0.001, 300300: 1e-4, 450450: 1e-5, 500499: 1e-5},
    "harm_wrn_cifar10": WIDE,
    "harm_wrn_cifar100": WIDE,
    "cifar10_harm_wrn16_4": WIDE,
    **{f"hornet_{size}_{kind}_in1k": HORNET_1K for size in ("tiny", "small", "base") for kind in ("7x7", "gf")},
    **{f"hornet_large_{kind}_in22k": HORNET_22K for kind in ("7x7", "gf")},
    **{f"hornet_large_{kind}_ft384": HORNET_FT for kind in ("7x7", "gf")},
    "cifar10_hbonet": {0: 0.0, 44: 0.025, 88: 0.05, 572: 0.025},
    "digits": {0: 0.0, 10: 0.025, 20: 0.05, 130: 0.025},
    "scratch": {0: 0.0, 3: 0.03, 5: 0.05, 64: 0.0452254248593737, 182: 0.0172745751406263},  # a fifth, three fifths
    "finetune": {0: 0.0, 3: 0.012, 5: 0.02, 34: 0.0180901699437495, 92: 0.0069098300562505},
}
# weight decay of matrices and filters; of everything of one dimension; None: the same
DECAYS: dict[str, tuple[float, float | None]] = {
    "mobilenetv2_in1k": (4e-5, None),
    "mobilenetv2_strong_in1k": (4e-5, 0.0),
    "hbonet_in1k": (4e-5, None),
    "harm_resnet_in1k": (1e-4, None),
    "harm_vgg_in1k": (1e-4, None),
    "harm_wrn_cifar10": (5e-4, None),
    "harm_wrn_cifar100": (5e-4, None),
    "cifar10_harm_wrn16_4": (5e-4, None),
    **{f"hornet_{size}_{kind}_in1k": (0.05, 0.0) for size in ("tiny", "small", "base") for kind in ("7x7", "gf")},
    **{f"hornet_large_{kind}_in22k": (0.1, 0.0) for kind in ("7x7", "gf")},
    **{f"hornet_large_{kind}_ft384": (1e-8, 0.0) for kind in ("7x7", "gf")},
    "cifar10_hbonet": (5e-4, 0.0),
    **dict.fromkeys(("scratch", "finetune"), (5e-4, 0.0)),
    "digits": (0.0001, 0.0),
}
# 0.7 ** (13 - group), by the published groups of HorNet
LAYERS = {
    "downsample_layers.0.0.weight": 0.0096889010407,
    "stages.0.1.pwconv1.weight": 0.0138412872010,
    "downsample_layers.1.1.bias": 0.0197732674300,
    "stages.1.2.norm1.weight": 0.0197732674300,
    "downsample_layers.2.0.weight": 0.0282475249,
    "stages.2.0.gamma1": 0.0282475249,
    "stages.2.1.gamma1": 0.0282475249,
    "stages.2.2.gamma1": 0.040353607,
    "stages.2.9.gnconv.proj_in.weight": 0.117649,
    "stages.2.16.pwconv2.bias": 0.49,
    "stages.2.17.pwconv2.bias": 0.49,
    "downsample_layers.3.1.weight": 0.7,
    "stages.3.1.gnconv.pws.0.weight": 0.7,
    "norm.weight": 1.0,
    "head.weight": 1.0,
    "head.bias": 1.0,
}


def on_paper(recipe: Recipe) -> nn.Module:
    """The recipe's network, of its full size, without numbers."""
    with torch.device("meta"):
        return zoo.build(recipe.model.name, **recipe.model.args)


def test_every_recipe_has_its_values():
    # the dense ones are held against records of their own, in tests/recipes and tests/tasks
    plain = {name for name in list_recipes() if load_recipe(name).task == "classification"}
    assert plain == STEPS.keys() == RATES.keys() == DECAYS.keys()


@pytest.mark.parametrize("name", RATES)
def test_every_group_has_the_published_rate_and_decay(name):
    recipe = load_recipe(name)
    model = on_paper(recipe)
    optimizer = build_optimizer(model, recipe.optim)
    steps, (decay, spared) = STEPS[name], DECAYS[name]
    group_of = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    assert len(group_of) == sum(len(group["params"]) for group in optimizer.param_groups)
    assert group_of.keys() == {id(p) for p in model.parameters()}
    is_layered = name.endswith("_ft384")
    assert len(optimizer.param_groups) == (28 if is_layered else 1 if spared is None else 2)
    for step, rate in RATES[name].items():
        set_schedule(optimizer, lr_at(step, recipe, steps), weight_decay_at(step, recipe, steps))
        for parameter_name, parameter in model.named_parameters():
            group = group_of[id(parameter)]
            expected = decay if spared is None or parameter.ndim > 1 else spared
            assert group["weight_decay"] == expected, parameter_name
            if not is_layered:
                assert group["lr"] == pytest.approx(rate, rel=1e-9, abs=1e-15), (step, parameter_name)
        for parameter_name, scale in LAYERS.items() if is_layered else ():
            group = group_of[id(model.get_parameter(parameter_name))]
            assert group["lr"] == pytest.approx(rate * scale, rel=1e-9), (step, parameter_name)


def scheduled(weight_decay: float, end: float | None, epochs: int = 2) -> Recipe:
    schedule = Schedule(warmup_epochs=1, weight_decay_end=end)
    return Recipe(optim=Optim(weight_decay=weight_decay), schedule=schedule, train=Train(epochs=epochs))


def test_weight_decay_follows_a_cosine_over_the_warm_up_too():
    # 12 steps; at a third of them the cosine is 1/2, at two thirds -1/2
    recipe = scheduled(0.04, 0.4)
    assert [weight_decay_at(step, recipe, 6) for step in (0, 4, 6, 8)] == pytest.approx([0.04, 0.13, 0.22, 0.31])
    falling = scheduled(0.3, 0.1)
    assert [weight_decay_at(step, falling, 6) for step in (0, 4, 6, 8, 12)] == pytest.approx(
        [0.3, 0.25, 0.2, 0.15, 0.1]
    )
    assert {weight_decay_at(step, scheduled(0.3, None), 6) for step in range(12)} == {0.3}


def test_what_does_not_decay_never_does():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4))
    optimizer = build_optimizer(model, Optim(name="adamw", weight_decay=0.04, decay="no_norm_bias"))
    for weight_decay in (0.04, 0.13, 0.4, 1e-9):
        set_schedule(optimizer, 0.1, weight_decay)
        assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, weight_decay]
    set_schedule(optimizer, 0.2)
    assert sorted(group["weight_decay"] for group in optimizer.param_groups) == [0.0, 1e-9]


def test_scheduled_weight_decay_acts_under_layer_decay():
    model = on_paper(load_recipe("hornet_tiny_7x7_in1k"))
    groups = parameter_groups(model, Optim(weight_decay=0.05, decay="no_norm_bias", layer_decay=0.9))
    optimizer = torch.optim.AdamW(groups)
    set_schedule(optimizer, 0.1, 0.2)
    assert {group["weight_decay"] for group in optimizer.param_groups} == {0.0, 0.2}


@pytest.mark.parametrize(("start", "end"), [(0.1, -0.1), (0.0, 0.1)])
def test_schedules_of_weight_decay_that_cannot_be(start, end):
    with pytest.raises(OvertoneError, match=r"schedule\.weight_decay_end is"):
        scheduled(start, end)
