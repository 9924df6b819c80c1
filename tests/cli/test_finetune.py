"""`train finetune --model.weights`: from published weights, files of any layout, run folders and the Hub."""

import dataclasses
import json
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file
from small_photos import TINY, draw

from overtone import zoo
from overtone.config import Model, Preprocess, Recipe
from overtone.errors import OvertoneError
from overtone.published import find
from overtone.recipes import load_recipe
from overtone.tasks import task_named
from overtone.zoo import starting
from overtone.zoo.hub import HubModel
from overtone.zoo.starting import fitted_to_weights

TAG = "hbonet_x035.dli14_in1k_r192"
SETTINGS = (*(word for word in TINY if "model.name" not in word), "--train.epochs=1", "--optim.lr=0", "--model.freeze")

CLASSIFICATION = task_named("classification")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERTONE_WEIGHTS_DIR", raising=False)
    (tmp_path / "cache").mkdir()
    return tmp_path / "cache"


def recipe_with(weights: str | Path, name: str = "hbonet_x100") -> Recipe:
    return dataclasses.replace(load_recipe("finetune"), model=Model(name=name, weights=str(weights)))


def save(path: Path, name: str, **args: object) -> Path:
    torch.manual_seed(0)
    torch.save(zoo.build(name, **args).published_state_dict(), path)  # type: ignore[operator]
    return path


@pytest.mark.parametrize("place", ["cache", "weights"])
def test_a_published_tag_from_the_cache_or_a_folder_of_weights(overtone, tmp_path, monkeypatch, publish, place):
    row = find(TAG)
    assert row is not None and row.file is not None
    (tmp_path / place).mkdir(exist_ok=True)
    publish(TAG, file := save(tmp_path / place / row.file, "hbonet_x035"))
    if place == "weights":
        monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(tmp_path / place))
    photos, run = draw(tmp_path / "photos", {"a": 10, "b": 10}), tmp_path / "run"
    words = ("train", "finetune", "--data.root", photos, "--model.weights", TAG, "--run.out", run, *SETTINGS)
    outcome = overtone(*words)
    assert outcome.code == 0, outcome.err
    recipe = json.loads((run / "recipe.json").read_text())["recipe"]
    assert (recipe["model"]["name"], recipe["model"]["weights"]) == ("hbonet_x035", TAG)
    assert recipe["data"]["preprocess"]["size"] == 32  # as the command line says
    trained, given = load_file(run / zoo.BEST), torch.load(file, weights_only=True)
    key = "features.0.0.weight"
    assert torch.equal(trained[key], given[key])  # with no rate of learning they stay what they were
    assert "the classifier of 2 classes is new (the file has 1000)" in outcome.err + (run / "log.txt").read_text()


def test_a_tag_says_network_and_preprocessing_without_its_file():
    fitted = fitted_to_weights(recipe_with(TAG))
    assert (fitted.model.name, fitted.model.weights, fitted.data.preprocess.size) == ("hbonet_x035", TAG, 192)
    fitted = fitted_to_weights(recipe_with("hornet_large_gf_img384.rao_in22k"))
    assert fitted.data.preprocess == Preprocess(384, resize="squash", crop_fraction=1.0, interpolation="bicubic")


def test_a_published_file_is_known_by_its_bytes(tmp_path, publish):
    publish(TAG, path := save(tmp_path / "renamed.pth", "hbonet_x035"))
    fitted = fitted_to_weights(recipe_with(path))
    assert (fitted.model.name, fitted.data.preprocess.size) == ("hbonet_x035", 192)


@pytest.mark.parametrize(
    ("name", "args", "inferred"),
    [
        ("mobilenetv2_x100", {"width_mult": 0.6}, {"width_mult": 0.6}),
        ("harm_wrn16_4", {"depth": 10, "width": 1, "num_classes": 5}, {"depth": 10, "width": 1}),
        ("hornet_tiny_7x7", {"depths": (1, 1, 2, 1), "base_dim": 16}, {"depths": (1, 1, 2, 1), "base_dim": 16}),
    ],
)
def test_a_bare_file_is_inferred_from_its_shapes(tmp_path, name, args, inferred):
    fitted = fitted_to_weights(recipe_with(save(tmp_path / "some.pth", name, **args)))
    assert fitted.model.name == name and inferred.items() <= fitted.model.args.items()
    assert not {"num_classes", "in_chans"} & set(fitted.model.args)
    expected = "bicubic" if name.startswith("hornet") else "bilinear"
    assert fitted.data.preprocess.interpolation == expected
    started = zoo.build_for_training(CLASSIFICATION, fitted.model, "abc", (notes := []).append)
    assert started.num_classes == 3 and "the classifier of 3 classes is new" in notes[0]


def test_a_file_for_grey_images_starts_a_network_for_coloured_ones(tmp_path):
    fitted = fitted_to_weights(recipe_with(save(tmp_path / "grey.pth", "hbonet_x010", in_chans=1)))
    started = zoo.build_for_training(CLASSIFICATION, fitted.model, "abc", (notes := []).append)
    assert started(torch.rand(2, 3, 32, 32)).shape == (2, 3)
    assert notes[0] == "the first layer takes 3 channels, adapted from 1"


def test_a_network_that_is_not_ours_is_the_one_that_was_named(tmp_path):
    path = tmp_path / "timm.pth"
    torch.save(timm.create_model("test_resnet", num_classes=4).state_dict(), path)
    fitted = fitted_to_weights(recipe_with(path, "test_resnet"))
    assert fitted.model.name == "test_resnet"
    assert fitted.data.preprocess == zoo.preprocess_of(timm.create_model("test_resnet"))
    assert zoo.build_for_training(CLASSIFICATION, fitted.model, "ab").num_classes == 2


def test_a_run_folder_says_all(trained):
    fitted = fitted_to_weights(recipe_with(trained / "run"))
    assert (fitted.model.name, fitted.data.preprocess.size) == ("hbonet_x010", 32)


def test_a_repository_of_the_hub(monkeypatch):
    net = timm.create_model("test_resnet", num_classes=4)
    cfg = {"num_classes": 4, "input_size": (3, 160, 160), "crop_pct": 0.9, "classifier": "fc", "first_conv": "conv1.0"}
    hub = HubModel("test_resnet", {"num_classes": 4}, cfg)
    monkeypatch.setattr(starting, "hub_model", lambda spec: hub)
    monkeypatch.setattr("overtone.zoo.starting.hub_state_dict", lambda spec: net.state_dict())
    fitted = fitted_to_weights(recipe_with("hf-hub:somebody/tiny"))
    assert (fitted.model.name, dict(fitted.model.args)) == ("test_resnet", {})
    assert (fitted.data.preprocess.size, fitted.data.preprocess.crop_fraction) == (160, 0.9)
    started = zoo.build_for_training(CLASSIFICATION, fitted.model, "ab")
    assert started.num_classes == 2
    key = next(iter(net.state_dict()))
    assert torch.equal(started.state_dict()[key], net.state_dict()[key])


@pytest.mark.parametrize(
    ("weights", "says"),
    [
        ("nowhere", "neither a checkpoint file nor a run folder nor published weights"),
        ("runs/nowhere", "runs/nowhere is not there"),
        ("hbonet_x035.nonsense", "overtone weights list names the published ones"),
        ("resnet18.a1_in1k", "come with the name: --model.name resnet18.a1_in1k"),
    ],
)
def test_names_of_nothing(weights, says):
    with pytest.raises(OvertoneError, match=says):
        fitted_to_weights(recipe_with(weights))
    with pytest.raises(OvertoneError, match=says):
        zoo.load_weights(torch.nn.Linear(1, 1), weights)
