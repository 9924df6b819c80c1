"""Weights & Biases and MLflow through stand-ins for their modules, TensorBoard through its files."""

import json
import math
import sys
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from overtone.config import Data, Recipe, Run
from overtone.engine import folder as files
from overtone.engine.folder import clear
from overtone.engine.log import Log
from overtone.engine.trackers import chosen_trackers, flattened
from overtone.errors import OvertoneError
from overtone.verbs.train import train

CONFIG = {"name": "scratch", "optim": {"lr": 0.1, "betas": [0.9, 0.999]}, "schedule": {"milestones": []}}
ROW = {"epoch": 2, "step": 10, "lr": 0.1, "top1": 50.0, "train_loss": math.nan, "top5": None, "is_best": True}
ROW |= {"seconds": 3}


class Calls(ModuleType):
    """A module that notes every function called in it, also on what these return."""

    def __init__(self, name: str) -> None:
        super().__init__(name)
        self.__spec__ = ModuleSpec(name, None)
        self.calls: list[tuple[str, dict[str, Any]]] = []

    def note(self, name: str, result: Any = None) -> Any:
        def called(*args, **named):
            self.calls.append((name, {"args": args, **named} if args else named))
            return result

        return called

    def named(self, name: str) -> list[dict[str, Any]]:
        return [arguments for called, arguments in self.calls if called == name]


@pytest.fixture
def wandb(monkeypatch):
    monkeypatch.delenv("WANDB_PROJECT", raising=False)
    module = Calls("wandb")
    run = SimpleNamespace(**{name: module.note(name) for name in ("log", "finish", "mark_preempting")})
    module.init = module.note("init", run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def mlflow(monkeypatch):
    for name in ("MLFLOW_EXPERIMENT_NAME", "MLFLOW_EXPERIMENT_ID"):
        monkeypatch.delenv(name, raising=False)
    module = Calls("mlflow")
    for name in ("set_experiment", "log_params", "log_metrics", "end_run"):
        setattr(module, name, module.note(name))
    module.start_run = module.note("start_run", SimpleNamespace(info=SimpleNamespace(run_id="abc")))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


def log_of(folder: Path, **options: Any) -> Log:
    folder.mkdir(exist_ok=True)
    run = Run(**({"tensorboard": False} | options))
    return Log(folder, trackers=chosen_trackers(run, folder), config=CONFIG)


def test_wandb_gets_settings_figures_and_the_end(wandb, tmp_path, monkeypatch):
    monkeypatch.setenv("WANDB_PROJECT", "mine")
    with log_of(tmp_path / "a", wandb=True) as log:
        log.epoch(ROW)
    (start,) = wandb.named("init")
    assert start["project"] == "mine" and start["name"] == "a" and start["dir"] == str(tmp_path / "a")
    assert start["config"] == CONFIG and start["resume"] == "allow"
    (sent,) = wandb.named("log")
    (figures,) = sent["args"]
    assert sent["step"] == 10
    # NaN and what is not there are left out
    assert {k: v for k, v in figures.items() if k != "memory_mb"} == {
        "epoch": 2,
        "lr": 0.1,
        "top1": 50.0,
        "seconds": 3.0,
    }
    assert wandb.named("finish") == [{"exit_code": 0}] and not wandb.named("mark_preempting")


def test_wandb_goes_on_with_the_same_run_until_the_folder_is_cleared(wandb, tmp_path):
    for _ in range(2):
        with pytest.raises(KeyboardInterrupt), log_of(tmp_path / "a", wandb=True):
            raise KeyboardInterrupt
    clear(tmp_path / "a")
    with log_of(tmp_path / "a", wandb=True):
        pass
    first, second, third = (call["id"] for call in wandb.named("init"))
    assert first == second != third
    assert len(wandb.named("mark_preempting")) == 2
    assert [call["exit_code"] for call in wandb.named("finish")] == [1, 1, 0]


def test_mlflow_gets_parameters_once_figures_and_the_end(mlflow, tmp_path):
    failed = log_of(tmp_path / "a", mlflow=True)
    failed.__enter__().epoch(ROW)
    failed.__exit__(OvertoneError, OvertoneError("x"), None)
    with log_of(tmp_path / "a", mlflow=True):
        pass
    assert mlflow.named("set_experiment")[0] == {"args": ("overtone",)}
    assert mlflow.named("start_run") == [{"run_id": None, "run_name": "a"}, {"run_id": "abc", "run_name": "a"}]
    assert [call["args"][0] for call in mlflow.named("log_params")] == [
        {"name": "scratch", "optim.lr": "0.1", "optim.betas": "[0.9, 0.999]", "schedule.milestones": "[]"}
    ]
    (sent,) = mlflow.named("log_metrics")
    assert sent["step"] == 10 and sent["args"][0]["top1"] == 50.0 and "train_loss" not in sent["args"][0]
    assert [call["status"] for call in mlflow.named("end_run")] == ["FAILED", "FINISHED"]


def test_both_at_once_remember_both(wandb, mlflow, tmp_path):
    with log_of(tmp_path / "a", wandb=True, mlflow=True):
        pass
    known = json.loads((tmp_path / "a" / files.TRACKERS).read_text())
    assert known == {"wandb": wandb.named("init")[0]["id"], "mlflow": "abc"}


def test_a_damaged_record_begins_another_run(wandb, tmp_path):
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / files.TRACKERS).write_text("[")
    with log_of(tmp_path / "a", wandb=True):
        pass
    assert len(wandb.named("init")[0]["id"]) == 16


@pytest.mark.parametrize("name", ["wandb", "mlflow"])
def test_what_is_not_installed_is_said_before_anything_is_read(name, images, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.setattr("overtone.engine.trackers.find_spec", lambda module: None)
    with pytest.raises(OvertoneError, match=f"--run.{name} needs .* is not installed; pip install {name}"):
        chosen_trackers(Run(**{name: True}), tmp_path)
    with pytest.raises(OvertoneError, match=f"pip install {name}"):
        train(Recipe(data=Data(root=images)), Run(out=tmp_path / "run", device="cpu", **{name: True}), "try")
    assert not (tmp_path / "run").exists()


def test_tensorboard_has_the_curves(tmp_path):
    with log_of(tmp_path, tensorboard=True) as log:
        log.epoch({**ROW, "train_loss": 2.0})
    events = EventAccumulator(str(tmp_path / files.TENSORBOARD)).Reload()
    assert set(events.Tags()["scalars"]) == {"lr", "top1", "train_loss", "seconds", "memory_mb"}
    assert [(event.step, event.value) for event in events.Scalars("train_loss")] == [(10, 2.0)]


def test_nothing_is_chosen_by_default_but_tensorboard(tmp_path):
    assert [tracker.name for tracker in chosen_trackers(Run(), tmp_path)] == ["TensorBoard"]


def test_flattened():
    assert flattened(CONFIG) == {
        "name": "scratch",
        "optim.lr": 0.1,
        "optim.betas": [0.9, 0.999],
        "schedule.milestones": [],
    }
