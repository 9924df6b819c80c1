"""The recipes of segmentation: the published ones against the recorded groups and rates, ours by their values."""

import json
from pathlib import Path

import pytest
import torch

import overtone.models  # noqa: F401 - registers the architectures
from overtone.config import Optim, Recipe, Schedule, Train
from overtone.engine.optim import build_optimizer, lr_at, parameter_groups, set_schedule, total_epochs, total_steps
from overtone.errors import OvertoneError
from overtone.heads import build_segmenter
from overtone.published import DENSE
from overtone.recipes import load_recipe, recipe_document
from overtone.tasks import task_named
from overtone.tasks.segmentation.settings import SegmentationSettings

RECORD = json.loads((Path(__file__).parent.parent / "parity" / "golden_downstream" / "recipes_ade20k.json").read_text())
DENSE_NETS = [row for row in DENSE if row.urls]  # the others are configurations of an ablation
PUBLISHED = {f"{row.name}_ade20k": row for row in DENSE_NETS if row.task == "segmentation"}
LABELS = [str(index) for index in range(150)]


def on_paper(recipe: Recipe) -> torch.nn.Module:
    with torch.device("meta"):
        return task_named("segmentation").build(recipe.model, LABELS)


@pytest.mark.parametrize("name", PUBLISHED)
def test_every_group_is_the_recorded_one(name):
    recipe, record = load_recipe(name), RECORD[PUBLISHED[name].config]
    model = on_paper(recipe)
    optimizer = build_optimizer(model, recipe.optim)
    names = {id(parameter): key for key, parameter in model.named_parameters()}
    set_schedule(optimizer, recipe.optim.lr)
    found = {}
    for group in optimizer.param_groups:
        keys = [names[id(parameter)] for parameter in group["params"]]
        found[keys[0]] = (group["lr"], group["weight_decay"], len(keys), keys[-1])
    assert found == {
        group["first"]: (pytest.approx(group["lr"], rel=1e-12), group["weight_decay"], group["tensors"], group["last"])
        for group in record["groups"].values()
    }


@pytest.mark.parametrize("name", PUBLISHED)
def test_the_rate_of_every_recorded_step(name):
    recipe, record = load_recipe(name), RECORD[PUBLISHED[name].config]
    for _, step, factor in record["lr_of_a_group_with_lr_1"]:
        assert lr_at(step, recipe, 1264) / recipe.optim.lr == pytest.approx(factor, rel=1e-9), step


@pytest.mark.parametrize("name", PUBLISHED)
def test_all_else_is_as_recorded(name):
    recipe, row = load_recipe(name), PUBLISHED[name]
    record, settings = RECORD[row.config], recipe.settings
    assert isinstance(settings, SegmentationSettings)
    clip = record["optimizer_config"].get("grad_clip")
    assert recipe.optim.clip_grad == (None if clip is None else clip["max_norm"]) == row.clip_grad
    assert recipe.optim.betas == tuple(record["optimizer"]["betas"])
    assert recipe.optim.lr == record["optimizer"]["lr"] == row.lr
    assert recipe.optim.layer_decay == record["optimizer"]["paramwise_cfg"]["decay_rate"] == row.layer_decay
    assert recipe.optim.layer_groups_depth == record["optimizer"]["paramwise_cfg"]["num_layers"]
    assert recipe.train.steps == record["runner"]["max_iters"] and recipe.train.batch_size == 16
    assert recipe.train.eval_steps == 16_000
    assert recipe.model.drop_path_rate == record["drop_path_rate"] == row.drop_path
    assert (settings.window, settings.window) == tuple(record["test_cfg"]["crop_size"]) == (row.crop, row.crop)
    assert (settings.stride, settings.stride) == tuple(record["test_cfg"]["stride"]) == (row.stride, row.stride)
    assert settings.scale == (4 * row.crop, row.crop) and recipe.data.preprocess.size == row.crop
    assert (settings.normalise, settings.auxiliary_weight, settings.antialias) == ("all", 0.4, False)
    assert recipe.model.name == row.name and recipe.model.weights.partition(".")[0] == row.backbone
    text = recipe_document(name)
    assert f"mIoU {row.miou} %" in text and f"{row.miou_multi_scale} %" in text and f"overtone train {name}" in text


def test_the_recipe_that_disagrees_with_the_published_table_says_so():
    assert "640" in recipe_document("upernet_hornet_base_gf_ade20k")
    assert any("640" in doubt for doubt in PUBLISHED["upernet_hornet_base_gf_ade20k"].doubts)


def test_published_rows_have_the_parameters_of_our_networks():
    assert len(DENSE_NETS) == 16 and len({row.full_name for row in DENSE_NETS}) == 16 and len(PUBLISHED) == 8
    for row in DENSE_NETS:
        assert abs(row.params / 1e6 - row.params_m) < 0.6 and abs(row.flops / 1e9 - row.gflops) < 0.6, row.name
        assert row.urls and row.protocol and row.doubts
        assert (row.box_ap is None) == (row.task == "segmentation") == (row.miou is not None)
    for name, row in PUBLISHED.items():
        parameters = sum(parameter.numel() for parameter in on_paper(load_recipe(name)).parameters())
        assert parameters == row.params, name


@pytest.mark.parametrize("name", ["segment", "segment_finetune"])
def test_our_recipes_build_their_networks(name):
    recipe = load_recipe(name)
    network = task_named(recipe.task).build(recipe.model, ("a", "b")).eval()
    assert network(torch.zeros(1, 3, 64, 48)).shape[1] == 2
    assert lr_at(0, recipe, 10) < lr_at(20, recipe, 10) > lr_at(10 * recipe.train.epochs - 1, recipe, 10)


def test_steps_take_the_place_of_epochs():
    recipe = Recipe(optim=Optim(lr=1.0), schedule=Schedule(name="poly", power=2.0), train=Train(epochs=3, steps=25))
    assert (total_steps(recipe, 10), total_epochs(recipe, 10)) == (25, 3)
    assert [lr_at(step, recipe, 10) for step in (0, 5, 20, 25)] == pytest.approx([1.0, 0.64, 0.04, 0.0])
    warm = Schedule(name="linear", warmup_steps=5, warmup_lr=0.5)
    recipe = Recipe(optim=Optim(lr=1.0), schedule=warm, train=Train(steps=25))
    assert [lr_at(step, recipe, 10) for step in (0, 1, 5, 15)] == pytest.approx([0.5, 0.6, 1.0, 0.5])
    with pytest.raises(OvertoneError, match=r"train\.steps"):
        Recipe(train=Train(steps=0))


def test_layers_are_grouped_by_stage_only_where_there_are_stages():
    grouped = Optim(name="adamw", layer_decay=0.9, layer_groups="stage")
    with pytest.raises(OvertoneError, match="layer_groups"):
        parameter_groups(torch.nn.Linear(2, 2), grouped)
    with pytest.raises(OvertoneError, match="layer_groups"):
        parameter_groups(build_segmenter("hbonet_x010", "lraspp", 2), grouped)
