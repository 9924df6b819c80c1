"""Every number of every setting and option has a range, and what is outside of it is refused by name."""

import dataclasses
import importlib
import inspect
import math
import pkgutil

import pytest

import overtone
from overtone import config, options, ranges
from overtone.cli import VERBS
from overtone.errors import OvertoneError
from overtone.ranges import Checked, Count, NonNegative, Positive, numbers_without_range


def settings_classes():
    """All dataclasses of config and options, and the settings of every task."""
    found = [*vars(config).values(), *vars(options).values()]
    for module in pkgutil.walk_packages(overtone.__path__, "overtone."):
        if module.name.endswith(".settings"):
            found += vars(importlib.import_module(module.name)).values()
    return {kind for kind in found if inspect.isclass(kind) and dataclasses.is_dataclass(kind)} - {ranges.Range}


def test_every_number_has_a_range():
    classes = settings_classes()
    assert {config.Train, config.Run, options.Device, config.TaskSettings} <= classes
    assert {kind: missing for kind in classes if (missing := numbers_without_range(kind))} == {}
    assert all(issubclass(kind, Checked) for kind in classes)


def test_a_number_without_range_is_found_however_it_is_nested():
    @dataclasses.dataclass(frozen=True)
    class Forgetful(config.TaskSettings):
        sides: tuple[tuple[int, ...], ...] = ()
        rate: float | None = None
        count: Count = 0
        name: str = ""

    assert numbers_without_range(Forgetful) == ["sides", "rate"]
    with pytest.raises(TypeError, match="sides, rate"):
        Forgetful()


def test_values_of_a_tasks_settings_are_checked_without_further_code():
    @dataclasses.dataclass(frozen=True)
    class Some(config.TaskSettings):
        weights: tuple[Positive, ...] = ()
        threshold: NonNegative | None = None

    assert Some(weights=(1, 2.5)).weights == (1, 2.5)
    with pytest.raises(OvertoneError, match="weights is -1; it must be above 0"):
        Some(weights=(1, -1))
    with pytest.raises(OvertoneError, match="threshold is nan"):
        Some(threshold=math.nan)


def number_fields(kind, prefix=""):
    for field in dataclasses.fields(kind):
        hint = inspect.get_annotations(kind, eval_str=True).get(field.name)
        if hint is not None and ranges._is_checked(hint) and "Literal" not in str(hint):
            yield field.name


@pytest.mark.parametrize("nonsense", [math.nan, math.inf, -math.inf, 10**400, "five", True])
def test_no_number_takes_nonsense(nonsense):
    for kind in settings_classes():
        required = {
            field.name: "onnx"
            for field in dataclasses.fields(kind)
            if field.default is field.default_factory is dataclasses.MISSING
        }
        for name in number_fields(kind):
            default = next(field.default for field in dataclasses.fields(kind) if field.name == name)
            value = tuple(nonsense for _ in default) or (nonsense,) if isinstance(default, tuple) else nonsense
            with pytest.raises(OvertoneError, match=f"{name} is "):
                kind(**(required | {name: value}))


@pytest.mark.parametrize(
    "words",
    [
        "data.max-bad-fraction nan",
        "data.max-bad-fraction -1",
        "data.val-fraction nan",
        "data.preprocess.crop-fraction 1e-9",
        "data.preprocess.size 0",
        "data.preprocess.size 1000000",
        "data.preprocess.mean 0 nan 0",
        "data.preprocess.std 1 1 0",
        "optim.clip-grad -1",
        "optim.clip-grad inf",
        "optim.momentum 2",
        "optim.momentum -1",
        "optim.lr nan",
        "optim.betas 0.9 1",
        "optim.eps 0",
        "optim.layer-decay 1.5",
        "schedule.warmup-epochs -1",
        "schedule.warmup-epochs nan",
        "schedule.min-lr -1",
        "schedule.step-epochs 0",
        "schedule.milestones 3 -1",
        "schedule.gamma 0",
        "augment.color-jitter -2",
        "augment.cutmix inf",
        "augment.mixup -0.1",
        "augment.hflip 1.5",
        "augment.scale 0 1",
        "augment.mix-off-epochs -1",
        "train.patience -1",
        "train.epochs 0",
        "train.epochs 10000000000",
        "train.batch-size -5",
        "train.seed 1180591620717411303424",
        "train.seed -1",
        "train.sizes 24 0",
        "train.ema-decay 1",
        "distill.temperature 0",
        "run.timeout 0",
        "run.timeout nan",
        "run.save-minutes nan",
        "run.save-minutes 0",
        "run.save-steps 0",
        "run.keep-last 0",
        "run.workers -1",
        "run.threads 0",
        "run.micro-batch 0",
        "run.cache-mb -1",
        "run.max-steps 0",
        "model.drop-rate 1",
    ],
)
def test_a_training_with_nonsense_is_refused_before_anything_is_read(overtone, words):
    option, *values = words.split()
    error = overtone("train", "scratch", "--data.root", "nowhere", f"--{option}", *values).error
    field = option.replace("-", "_").removeprefix("data.preprocess.")
    assert f"{field} is " in error and "it must be" in error and "nowhere" not in error


@pytest.mark.parametrize(
    "words",
    [
        "evaluate nowhere --data.root nowhere --run.batch-size 0",
        "evaluate nowhere --data.root nowhere --run.size -5",
        "predict nowhere nowhere.jpg --top-k 0",
        "predict nowhere nowhere.jpg --run.workers -1",
        "predict nowhere nowhere.jpg --run.threads 0",
        "export nowhere --to onnx --size 0",
        "export nowhere --to onnx --threads -1",
        "tune nowhere --max-loss nan",
        "tune nowhere --min-agreement 101",
        "tune nowhere --rounds 0",
        "benchmark nowhere --rounds 0",
        "reproduce --run.batch-size 0",
        "launch slurm scratch --data.root nowhere --nodes 0",
        "launch slurm scratch --data.root nowhere --gpus -1",
        "launch slurm scratch --data.root nowhere --cpus-per-gpu 0",
    ],
)
def test_so_is_nonsense_in_the_options_of_the_other_verbs(overtone, words):
    assert any(words.startswith(verb) for verb in VERBS)
    error = overtone(*words.split()).error
    assert words.split()[-2].removeprefix("--").replace("-", "_") + " is " in error and "it must be" in error


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([], "Recipe is"),
        ({"data": 5}, "Data is 5"),
        ({"train": {"epochs": 1.5}}, r"Train.epochs is 1\.5"),
        ({"train": {"epochs": True}}, "Train.epochs is True"),
        ({"train": {"sizes": 3}}, "Train.sizes is 3"),
        ({"augment": {"scale": [1]}}, "Augment.scale is"),
        ({"augment": {"crop": []}}, "Augment.crop is"),
        ({"optim": {"lr": -1}}, "optim.lr is -1"),
        ({"optim": {"lr": 10**400}}, "optim.lr is "),
        ({"model": {"args": [1]}}, "Model.args is"),
        ({"data": {"root": 3}}, "Data.root is 3"),
        ({"data": {"preprocess": {"size": "many"}}}, "Preprocess.size is 'many'"),
        ({"madel": {}}, "no field madel"),
        ({3: {}}, "no field 3"),
    ],
)
def test_a_malformed_recipe_of_a_file_is_one_clear_error(values, says):
    with pytest.raises(OvertoneError, match=says):
        config.from_dict(config.Recipe, values)


def test_a_recipe_comes_back_with_the_settings_of_its_task():
    @dataclasses.dataclass(frozen=True)
    class Some(config.TaskSettings):
        weights: tuple[Positive, ...] = ()

    recipe = config.Recipe(task="some", settings=Some(weights=(1.0, 2.0)))
    plain = config.to_dict(recipe)["settings"]
    assert config.from_dict(config.Recipe, {"task": "some"}, settings=config.from_dict(Some, plain)) == recipe
    with pytest.raises(OvertoneError, match="weights is -1"):
        config.from_dict(Some, {"weights": [-1]})
