"""From words to a recipe and a run."""

import dataclasses
from pathlib import Path

import pytest
from small_photos import TINY

from overtone import zoo
from overtone.checkpoint import read_manifest
from overtone.config import Run, TaskSettings
from overtone.ranges import Positive
from overtone.recipes import load_recipe
from overtone.verbs import train as train_verb


@pytest.fixture
def asked(overtone, monkeypatch):
    """What `overtone train` would be called with."""
    calls = []
    monkeypatch.setattr(train_verb, "train", lambda *args: calls.append(args))

    def ask(*words):
        outcome = overtone("train", *words)
        assert outcome.code == 0, outcome.err
        return calls.pop()

    return ask


def test_without_options_it_is_the_recipe(asked):
    recipe, run, name = asked("mobilenetv2_in1k", "--data.root", "photos")
    published = load_recipe("mobilenetv2_in1k")
    assert name == "mobilenetv2_in1k"
    assert run == Run()
    assert recipe.data.root == Path("photos")
    assert (recipe.model, recipe.augment, recipe.optim, recipe.schedule, recipe.train) == (
        published.model,
        published.augment,
        published.optim,
        published.schedule,
        published.train,
    )
    assert recipe.data.preprocess == published.data.preprocess


def test_options_are_typed(asked):
    recipe, run, _ = asked(
        *("scratch", "--data.root", "a", "--data.root=b", "--optim.lr", "0.2", "--optim.clip_grad", "None"),
        *("--model.drop-rate=0.1", "--data.preprocess.mean", "0.1", "0.2", "0.3", "--schedule.milestones", "3", "5"),
        *("--optim.no-nesterov", "--run.compile", "--run.no-channels-last", "--run.max-steps", "7"),
        *("--augment.rand-augment", "rand-m9"),
    )
    assert recipe.data.root == Path("b")
    assert recipe.optim.lr == 0.2 and recipe.optim.clip_grad is None and recipe.optim.nesterov is False
    assert recipe.model.drop_rate == 0.1
    assert recipe.data.preprocess.mean == (0.1, 0.2, 0.3)
    assert recipe.schedule.milestones == (3, 5)
    assert recipe.augment.rand_augment == "rand-m9"
    assert run == Run(compile=True, channels_last=False, max_steps=7)


def test_arguments_of_the_constructor(asked):
    words = ["levels=(None,None,3,2)", "pool=avg", "harm_root=false", "width_mult=0.5", "norm=None"]
    recipe, _, _ = asked("scratch", "--data.root", "a", "--model.args", *words)
    assert recipe.model.args == {
        "levels": (None, None, 3, 2),
        "pool": "avg",
        "harm_root": False,
        "width_mult": 0.5,
        "norm": None,
    }


def test_finetune_takes_network_and_preprocessing_from_the_weights(asked, trained):
    manifest = read_manifest(trained / "run" / zoo.BEST)
    words = ("finetune", "--data.root", "photos", "--model.weights", trained / "run")
    recipe, _, _ = asked(*words)
    assert (recipe.model.name, recipe.model.weights) == ("hbonet_x010", str(trained / "run"))
    assert recipe.data.preprocess == manifest.preprocess
    assert recipe.optim == load_recipe("finetune").optim
    # what is said on the command line still counts
    recipe, _, _ = asked(*words, "--data.preprocess.size", "48", "--model.name", "hbonet_x025")
    assert (recipe.data.preprocess.size, recipe.model.name) == (48, "hbonet_x025")
    assert recipe.data.preprocess.crop_fraction == manifest.preprocess.crop_fraction
    recipe, _, _ = asked(*words, "--data.preprocess.size", "auto")
    assert recipe.data.preprocess.size == "auto"


def test_finetune_takes_preprocessing_from_a_tag(asked):
    recipe, _, _ = asked("finetune", "--data.root", "photos", "--model.name", "inception_v4.tf_in1k")
    assert (recipe.data.preprocess.size, recipe.data.preprocess.mean) == (299, (0.5, 0.5, 0.5))


def test_finetuning_on_other_classes_gets_a_new_head(overtone, trained, tmp_path):
    two = tmp_path / "two"
    two.mkdir()
    for name in ("green", "red"):
        (two / name).symlink_to(trained / "photos" / name)
    weights = ["--model.weights", trained / "run", "--run.out", tmp_path / "run"]
    outcome = overtone("train", "finetune", "--data.root", two, *weights, *TINY)
    assert outcome.code == 0, outcome.err
    assert read_manifest(tmp_path / "run" / zoo.BEST).labels == ("green", "red")


def test_the_folder_may_be_the_first_word_and_the_recipe_be_left_out(asked, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    recipe, _, name = asked("photos", "--optim.lr", "0.2")
    assert (name, recipe.data.root, recipe.optim.lr) == ("scratch", Path("photos"), 0.2)
    assert asked("digits", "photos")[0].data.root == asked("digits", "--train.epochs", "2", "photos")[0].data.root
    assert asked("--data.root", "photos")[2] == "scratch"
    recipe, _, name = asked("photos", "--model.weights", trained / "run")
    assert (name, recipe.data.root, recipe.model.name) == ("finetune", Path("photos"), "hbonet_x010")
    assert asked(f"--model.weights={trained / 'run'}", "photos")[2] == "finetune"


def test_a_folder_named_like_a_recipe_is_named_as_a_path(asked, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "digits").mkdir()
    recipe, _, name = asked("./digits")
    assert (name, recipe.data.root) == ("scratch", Path("digits"))


def test_settings_of_a_recipes_task_are_options(asked, overtone, monkeypatch):
    @dataclasses.dataclass(frozen=True)
    class Some(TaskSettings):
        """Settings of a task."""

        positive_weight: Positive = 1.0
        """Weight of the positives."""
        names: tuple[str, ...] = ()
        """Names."""

    recipe = dataclasses.replace(load_recipe("scratch"), task="some", settings=Some())
    monkeypatch.setattr("overtone.cli.load_recipe", lambda name: recipe)
    chosen, _, _ = asked("scratch", "photos", "--settings.positive-weight", "2", "--settings.names", "a", "b")
    assert chosen.settings == Some(2.0, ("a", "b")) and chosen.task == "some"
    assert "--settings.positive-weight FLOAT" in overtone("train", "scratch", "--help").out
    wrong = overtone("train", "scratch", "photos", "--settings.positive-weight", "-1")
    assert "settings.positive_weight is -1.0; it must be above 0" in wrong.error
    assert "did you mean --settings.positive-weight" in overtone("train", "scratch", "--positive-weight", "2").error


def test_a_table_may_be_the_positional_argument(asked, overtone, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    recipe, _, name = asked("multilabel", "labels.csv")
    assert (name, recipe.data.table, recipe.data.root) == ("multilabel", Path("labels.csv"), None)
    assert asked("multilabel", "--data.table", "a.parquet", "photos")[0].data.root == Path("photos")
    assert "a.csv and --data.table b.csv" in overtone("train", "multilabel", "a.csv", "--data.table", "b.csv").error
    (tmp_path / "a.csv").touch()
    assert asked("a.csv")[2] == "scratch"
