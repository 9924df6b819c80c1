"""Every recipe is a literal document, holds the published values, and trains."""

import ast
import dataclasses
import json
import re
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
from PIL import Image

import overtone.models  # noqa: F401 - registers the architectures
from overtone import recipes, zoo
from overtone.cli import main
from overtone.config import Recipe, Run, TaskSettings, to_dict
from overtone.errors import OvertoneError
from overtone.heads import is_segmenter
from overtone.heads.detectors import is_detector
from overtone.models.harm_vgg import HarmVGG
from overtone.published import find
from overtone.tasks import recipe_from_dict, settings_type, task_named, task_names
from overtone.verbs.train import train

NAMES = tuple(recipes.list_recipes())
# those of dense tasks, which need masks or boxes, train in tests/tasks
OF_LABELS = tuple(name for name in NAMES if recipes.load_recipe(name).task not in ("segmentation", "detection"))
FILES = {path.stem: path for path in Path(recipes.__file__).parent.glob("*/[!_]*.py")}


def value_of(recipe: Recipe, path: str) -> object:
    record: object = recipe
    for name in path.split("."):
        record = getattr(record, name)
    return record


WIDE = {
    "optim.nesterov": True,
    "optim.momentum": 0.9,
    "optim.weight_decay": 5e-4,
    "optim.lr": 0.1,
    "schedule.name": "multistep",
    "schedule.milestones": (60, 120, 160),
    "schedule.gamma": 0.2,
    "train.epochs": 200,
    "train.batch_size": 128,
    "model.drop_rate": 0.3,
    "augment.crop": "pad",
    "augment.pad_mode": "reflect",
    "data.preprocess.size": 32,
    "data.preprocess.mean": (125.3 / 255, 123.0 / 255, 113.9 / 255),
    "data.preprocess.std": (63.0 / 255, 62.1 / 255, 66.7 / 255),
}
HORNET_ALWAYS = {
    "optim.name": "adamw",
    "optim.betas": (0.9, 0.999),
    "optim.eps": 1e-8,
    "optim.decay": "no_norm_bias",
    "train.label_smoothing": 0.1,
    "train.ema_decay": 0.9999,
    "schedule.name": "cosine",
    "schedule.min_lr": 1e-6,
    "augment.color_jitter": 0.4,
    "augment.random_erasing": 0.25,
    "data.preprocess.interpolation": "bicubic",
}
HORNET_MIXING = {
    "optim.lr": 4e-3,
    "schedule.warmup_lr": 0.0,
    "augment.mixup": 0.8,
    "augment.cutmix": 1.0,
    "augment.mix_prob": 1.0,
    "augment.mix_switch_prob": 0.5,
}
PUBLISHED = {
    "mobilenetv2_in1k": {
        "optim.name": "sgd",
        "optim.momentum": 0.9,
        "optim.nesterov": False,
        "optim.weight_decay": 4e-5,
        "optim.decay": "all",
        "optim.lr": 0.05,
        "train.batch_size": 256,
        "schedule.name": "cosine",
        "schedule.min_lr": 0.0,
        "schedule.warmup_epochs": 0,
        "train.epochs": 150,
        "train.label_smoothing": 0.0,
        "augment.crop": "random_resized",
        "augment.scale": (0.08, 1.0),
        "data.preprocess.interpolation": "bilinear",
    },
    "hbonet_in1k": {
        "optim.weight_decay": 4e-5,
        "optim.lr": 0.05,
        "train.batch_size": 256,
        "schedule.name": "cosine",
        "train.epochs": 300,
    },
    "harm_resnet_in1k": {
        "optim.weight_decay": 1e-4,
        "optim.lr": 0.1,
        "schedule.name": "step",
        "schedule.step_epochs": 30,
        "schedule.gamma": 0.1,
        "train.epochs": 100,
        "train.batch_size": 256,
        "data.preprocess.size": 224,
    },
    "mobilenetv2_strong_in1k": {
        "optim.momentum": 0.9,
        "optim.nesterov": False,
        "optim.weight_decay": 4e-5,
        "optim.decay": "no_norm_bias",
        "optim.lr": 0.4,
        "train.batch_size": 1024,
        "train.epochs": 250,
        "model.drop_rate": 0.2,
        "schedule.name": "cosine",
        "schedule.min_lr": 0.0,
        "schedule.warmup_epochs": 5,
        "schedule.warmup_lr": 0.1,
        "augment.scale": (0.08, 1.0),
        "data.preprocess.interpolation": "bilinear",
    },
    "harm_vgg_in1k": {
        "model.name": "harm_vgg16_bn",
        "optim.weight_decay": 1e-4,
        "optim.lr": 0.01,
        "schedule.name": "step",
        "schedule.step_epochs": 30,
        "schedule.gamma": 0.1,
        "train.epochs": 100,
        "train.batch_size": 256,
    },
    "harm_wrn_cifar10": {"model.name": "harm_wrn28_10"} | WIDE,
    "harm_wrn_cifar100": {"model.name": "harm_wrn28_10"} | WIDE,
    "cifar10_harm_wrn16_4": WIDE,
    **{
        f"hornet_{net}_in1k": {
            "model.name": f"hornet_{net}",
            "model.drop_path_rate": drop_path,
            "optim.clip_grad": clip,
            "augment.rand_augment": f"rand-m{magnitude}-mstd0.5-inc1",
            "optim.weight_decay": 0.05,
            "train.batch_size": 4 * 8 * per_gpu,
            "train.epochs": 300,
            "schedule.warmup_epochs": 20,
        }
        | HORNET_MIXING
        | HORNET_ALWAYS
        for net, drop_path, clip, magnitude, per_gpu in (
            ("tiny_7x7", 0.2, 100.0, 9, 128),
            ("tiny_gf", 0.2, 1.0, 9, 128),
            ("small_7x7", 0.4, 5.0, 9, 64 * 2),
            ("small_gf", 0.4, 1.0, 12, 64 * 2),
            ("base_7x7", 0.5, 5.0, 9, 64 * 2),
            ("base_gf", 0.5, 1.0, 15, 64 * 2),
        )
    },
    **{
        f"hornet_large_{kind}_in22k": {
            "model.name": f"hornet_large_{kind}",
            "model.drop_path_rate": 0.2,
            "optim.clip_grad": clip,
            "optim.weight_decay": 0.1,
            "train.batch_size": 8 * 8 * 32 * 2,
            "train.epochs": 90,
            "schedule.warmup_epochs": 5,
            "data.val_fraction": 0.0,
        }
        | HORNET_MIXING
        | HORNET_ALWAYS
        for kind, clip in (("7x7", 5.0), ("gf", 1.0))
    },
    **{
        f"hornet_large_{kind}_ft384": {
            "model.name": f"hornet_large_{kind}{stored}",
            "model.weights": f"hornet_large_{kind}.rao_in22k",
            "model.drop_path_rate": 0.4,
            "optim.clip_grad": 1.0,
            "optim.lr": 5e-5,
            "optim.weight_decay": 1e-8,
            "optim.layer_decay": 0.7,
            "train.batch_size": 4 * 8 * 16,
            "train.epochs": 30,
            "schedule.warmup_epochs": 0,
            "data.preprocess.size": 384,
            "data.preprocess.resize": "squash",
            "augment.mixup": 0.0,
            "augment.cutmix": 0.0,
        }
        | HORNET_ALWAYS
        for kind, stored in (("7x7", ""), ("gf", "_img384"))
    },
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_published_values(name):
    recipe = recipes.load_recipe(name)
    assert {path: value_of(recipe, path) for path in PUBLISHED[name]} == PUBLISHED[name]


def test_every_file_is_found():
    assert set(NAMES) == set(FILES)
    assert {"digits", "scratch", "finetune", "cifar10_hbonet", *PUBLISHED} <= set(NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_one_literal(name):
    body = ast.parse(FILES[name].read_text(encoding="utf-8")).body
    names = [target.id for node in body if isinstance(node, ast.Assign) for target in node.targets]
    assert set(names) <= {"RECIPE", "NEEDS_WEIGHTS"}
    assert all(isinstance(node, (ast.Expr, ast.ImportFrom, ast.Assign)) for node in body)
    (recipe,) = (node.value for node in body if isinstance(node, ast.Assign) and node.targets[0].id == "RECIPE")
    called = {node.func.id for node in ast.walk(recipe) if isinstance(node, ast.Call)}
    settings = {kind.__name__ for task in task_names() if (kind := settings_type(task)) is not TaskSettings}
    assert called <= {"Recipe", "Model", "Data", "Preprocess", "Augment", "Optim", "Schedule", "Train", *settings}


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_is_a_document(name):
    document = recipes.recipe_document(name)
    for heading in ("Source:", "Command: overtone ", "Published result:", "Ours:", "Deviations:"):
        assert f"\n{heading}" in document
    summary = recipes.list_recipes()[name]
    assert summary.endswith(".") and len(summary) <= 110


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_round_trips(name):
    recipe = recipes.load_recipe(name)
    assert recipe_from_dict(json.loads(json.dumps(to_dict(recipe)))) == recipe


@pytest.mark.parametrize("name", NAMES)
def test_a_recipe_names_an_architecture(name):
    architecture = recipes.load_recipe(name).model.name
    assert timm.is_model(architecture) or is_segmenter(architecture) or is_detector(architecture)


def test_an_unknown_recipe_offers_the_closest():
    with pytest.raises(OvertoneError, match="no recipe 'hbonet_in1'; did you mean hbonet_in1k"):
        recipes.load_recipe("hbonet_in1")


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("images")
    random = np.random.default_rng(0)
    for name in ("cat", "dog"):
        (root / name).mkdir()
        for number in range(5):
            Image.fromarray(random.integers(0, 256, (40, 40, 3), dtype=np.uint8)).save(root / name / f"{number}.png")
    return root


HORNET = {"base_dim": 16, "depths": (1, 1, 2, 1)}
SMALLER = {
    "harm_resnet_in1k": {"depth": 18},
    "harm_vgg_in1k": {"depth": 11},
    "harm_wrn_cifar10": {"depth": 10, "width": 1},
    "harm_wrn_cifar100": {"depth": 10, "width": 1},
    "cifar10_harm_wrn16_4": {"depth": 10, "width": 1},
    # the published network trains whole in hornet_tiny_7x7_in1k
    **{name: HORNET for name in NAMES if name.startswith("hornet_") and name != "hornet_tiny_7x7_in1k"},
}
# of the second step, in an epoch of two steps
RATES = {
    "digits": 0.05 / 4,
    "scratch": 0.05,  # half an epoch of warm-up is the first step
    "multilabel": 0.002 / 4,
    "finetune": 0.02,
    "cifar10_hbonet": 0.05,  # half an epoch of warm-up is the first step
    "mobilenetv2_in1k": 0.0499986292341378,  # 0.025 (1 + cos(pi / 300))
    "mobilenetv2_strong_in1k": 0.13,  # 0.1 + 0.3 / 10
    "hbonet_in1k": 0.0499996573061857,  # 0.025 (1 + cos(pi / 600))
    "harm_resnet_in1k": 0.1,
    "harm_vgg_in1k": 0.01,
    "harm_wrn_cifar10": 0.1,
    "harm_wrn_cifar100": 0.1,
    "cifar10_harm_wrn16_4": 0.1,
    **{name: 4e-3 / 40 for name in NAMES if name.startswith("hornet_") and name.endswith("_in1k")},
    **{name: 4e-3 / 15 for name in NAMES if name.endswith("_in22k")},  # nothing is held out: three steps
    **{name: 4.99664236014871e-05 for name in NAMES if name.endswith("_ft384")},  # 1e-6 + 2.45e-5 (1 + cos(pi / 60))
}


def weights_of_22k(path: Path, spatial_filter: str) -> Path:
    """A small stand-in for the published file: the layout of HorNet's, 10,459 classes, filters for 224 pixels."""
    torch.manual_seed(0)
    net = zoo.build("hornet_large_7x7", **HORNET, spatial_filter=spatial_filter, num_classes=10459)
    torch.save({"model": net.state_dict()}, path)
    return path


def small(name: str, root: Path, folder: Path) -> Recipe:
    """The recipe with tiny images and, where it is large, a smaller network; its schedule is as published."""
    recipe = recipes.load_recipe(name)
    model, data = recipe.model, recipe.data
    if name in SMALLER:
        model = dataclasses.replace(model, args=SMALLER[name])
    if model.weights is not None:
        assert find(model.weights) is not None
        weights = weights_of_22k(folder / "22k.pth", "gf" if "gf" in name else "7x7")
        model = dataclasses.replace(model, weights=str(weights))
    table = None
    if recipe.task == "multilabel":
        table = folder / "labels.csv"
        rows = [f"{path},{path.parent.name}" for path in sorted(root.rglob("*.png"))]
        table.write_text("\n".join(["image,labels", *rows, ""]), encoding="utf-8")
    return dataclasses.replace(
        recipe,
        model=model,
        data=dataclasses.replace(
            data, root=root, table=table, preprocess=dataclasses.replace(data.preprocess, size=32)
        ),
        train=dataclasses.replace(recipe.train, batch_size=4),
    )


@pytest.mark.slow
@pytest.mark.parametrize("name", OF_LABELS)
def test_a_recipe_trains_two_steps(name, images, tmp_path, monkeypatch):
    # 100 million parameters less: a VGG is all head
    monkeypatch.setattr(HarmVGG, "head_hidden_size", property(lambda _: 64, lambda *_: None), raising=False)
    recipe = small(name, images, tmp_path)
    run = Run(out=tmp_path / "run", device="cpu", workers=0, tensorboard=False, plots=False, max_steps=2)
    summary = train(recipe, run, name)
    (row,) = [json.loads(line) for line in (tmp_path / "run" / "metrics.jsonl").read_text().splitlines()]
    assert row["step"] == 2 and np.isfinite(row["train_loss"])
    assert row["lr"] == pytest.approx(RATES[name], rel=1e-9)
    if name.endswith("_in22k"):
        assert summary.report is None and "top1" not in row and row["is_best"]
    else:
        assert summary.report is not None and summary.report.num_used == 2


@pytest.mark.parametrize(("kind", "filters"), [("7x7", None), ("gf", (24, 13))])
def test_22k_weights_become_those_of_384_pixels_and_a_thousand_classes(kind, filters, tmp_path):
    path = weights_of_22k(tmp_path / "22k.pth", kind)
    model = recipes.load_recipe(f"hornet_large_{kind}_ft384").model
    messages: list[str] = []
    net = zoo.build_for_training(
        task_named("classification"),
        dataclasses.replace(model, weights=str(path), args=HORNET),
        [str(label) for label in range(1000)],
        messages.append,
    )
    given, taken = torch.load(path, weights_only=True)["model"], net.state_dict()
    assert messages == ["its classifier of 10459 classes is reduced to 1000 of them"]
    for number, row in ((0, 209), (1, 213), (2, 245), (999, 10433)):  # by the published list
        assert torch.equal(taken["head.weight"][number], given["head.weight"][row])
        assert torch.equal(taken["head.bias"][number], given["head.bias"][row])
    assert torch.equal(taken["stages.2.1.pwconv1.weight"], given["stages.2.1.pwconv1.weight"])
    if filters is not None:
        key = "stages.2.1.gnconv.dwconv.complex_weight"
        assert taken[key].shape[1:3] == filters and given[key].shape[1:3] == (14, 8)
        # corners are aligned, so that they stay what they were
        torch.testing.assert_close(taken[key][:, ::23, ::12], given[key][:, ::13, ::7])


def train_quietly(words: list[str], root: Path, out: Path) -> dict:
    tiny = ["--data.preprocess.size", "32", "--train.batch-size", "4", "--run.max-steps", "1"]
    quiet = ["--run.device", "cpu", "--run.workers", "0", "--run.no-tensorboard", "--run.no-plots"]
    size = tiny if "--data.preprocess.size" not in words else tiny[2:]
    assert main(["train", *words, "--data.root", str(root), "--run.out", str(out), *size, *quiet]) == 0
    return json.loads((out / "recipe.json").read_text())["recipe"]


@pytest.mark.parametrize(
    ("words", "argument", "value"),
    [
        (["hbonet_in1k", "--model.name", "hbonet_x035", "--data.preprocess.size", "48"], "width_mult", None),
        (["hbonet_in1k", "--model.name", "hbonet_x025_4x"], "rates", None),
        (["hbonet_in1k", "--model.args", "width_mult=0.15", "rates=8x", "divisor=4"], "rates", "8x"),
        (["harm_resnet_in1k", "--model.args", "depth=18", "pool=max", "levels=None,3,3,2"], "levels", [None, 3, 3, 2]),
    ],
)
def test_any_variant_by_the_same_command(words, argument, value, images, tmp_path):
    recipe = train_quietly(words, images, tmp_path / "run")
    assert recipe["model"]["args"].get(argument) == value
    loaded = zoo.load_model(str(tmp_path / "run"))
    assert loaded.preprocess.size == (48 if "48" in words else 32)
    if argument == "levels":
        shapes = {key: tuple(value.shape) for key, value in loaded.model.state_dict().items()}
        filters = [shapes[f"layer{stage}.0.harm2.weight"] for stage in (1, 2, 3, 4)]
        assert filters == [(64, 64, 9), (128, 128, 6), (256, 256, 6), (512, 512, 3)]


def test_every_command_of_the_guide_for_migrating_is_understood(capsys, monkeypatch, tmp_path):
    guide = Path(__file__).parents[2] / "docs" / "migrating.md"
    lines = [line.partition("  #")[0] for line in guide.read_text(encoding="utf-8").splitlines()]
    commands = [line.split()[1:] for line in lines if line.startswith("overtone train ")]
    commands = [words for words in commands if words[1].islower()]
    monkeypatch.chdir(tmp_path)
    for words in commands:
        assert main(words) == 2
        assert re.search(r"data\.root \w+ does not exist", capsys.readouterr().err), words
    assert len(commands) >= 10
