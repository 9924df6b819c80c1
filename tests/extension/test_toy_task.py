"""A task defined here alone is trained, resumed, evaluated and predicted with: no other module names it."""

import dataclasses
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from overtone import api, cli, tasks
from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, TaskSettings, Train
from overtone.data import sources
from overtone.data.pipeline import Batch, ImagePipeline
from overtone.data.sources import Part, Record, Source, Splits
from overtone.data.transforms import evaluation_transform, recipe_transform
from overtone.engine.training import train
from overtone.models.building import build_classifier
from overtone.ranges import Positive
from overtone.tasks.task import Forward, OutputSpec, Plot, Setup, Table, blank_images, split_evenly

SIZE = 16


@dataclasses.dataclass(frozen=True)
class Errors:
    """Report of a regression: mean absolute error."""

    score_name: ClassVar[str] = "-MAE"
    num_expected: int
    num_used: int
    mae: float
    bad: tuple[str, ...] = ()

    @property
    def score(self) -> float:
        return -self.mae

    @property
    def loss(self) -> float:
        return self.mae

    def figures(self) -> dict[str, float]:
        return {"mae": self.mae}

    def tables(self, *, full: bool = False) -> list[Table]:
        return [Table("", ("images", "MAE"), ((str(self.num_used), f"{self.mae:.4f}"),))]

    def plots(self) -> list[Plot]:
        return []

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> Self:
        return cls(**{**values, "bad": tuple(values["bad"])})


class ErrorTally:
    def __init__(self) -> None:
        self.errors: list[float] = []

    def add(self, outputs: Tensor, targets: Tensor, names: Sequence[str] = ()) -> None:
        self.errors += (outputs - targets).abs().flatten().tolist()

    def counted(self) -> list[float]:
        return self.errors

    def joined(self, parts: Sequence[list[float]]) -> Self:
        self.errors += [error for part in parts for error in part]
        return self

    def report(self, bad: Sequence[str]) -> Errors:
        count = len(self.errors)
        return Errors(count + len(bad), count, sum(self.errors) / count, tuple(bad))


@dataclasses.dataclass(frozen=True)
class Brightness:
    value: float

    def to_dict(self) -> dict[str, Any]:
        return {"brightness": self.value}

    def rows(self) -> list[tuple[Any, ...]]:
        return [(f"{self.value:.3f}",)]

    def write(self, image: Any, folder: Path, stem: str) -> list[Path]:
        return []


@dataclasses.dataclass(frozen=True)
class ToySettings(TaskSettings):
    power: Positive = 2.0


class Regression:
    """One number for an image."""

    name: ClassVar[str] = "toy-regression"
    target: ClassVar[str] = "number"
    report_type: ClassVar[type[Errors]] = Errors
    settings_type: ClassVar[type[TaskSettings]] = ToySettings
    prediction_columns: ClassVar[tuple[str, ...]] = ("brightness",)
    script_does: ClassVar[str] = "says how bright an image is"

    def __init__(self, setup: Setup) -> None:
        self.labels, self.settings, self.recipe = setup.labels, setup.settings, setup.recipe

    @staticmethod
    def build(model: Model, labels: Sequence[str], *, pretrained: bool = False) -> nn.Module:
        return build_classifier(model, 1, pretrained=pretrained)

    def pipeline(self, *, train: bool, channels_last: bool = False, transform: Any = None) -> ImagePipeline:
        transform = recipe_transform(self.recipe) if train else self.transform()
        return ImagePipeline(transform, _number, torch.empty(0, 1), channels_last=channels_last)

    def transform(self) -> Any:
        return evaluation_transform(self.recipe.data.preprocess)

    def prepare(self, batch: Batch, seed: tuple[int, int]) -> Batch:
        return batch

    def split(self, batch: Batch, parts: int) -> list[Batch]:
        return split_evenly(batch, parts)

    def blank(self, batch: Batch, count: int) -> Batch:
        return blank_images(batch, count, SIZE)

    def weight(self, batch: Batch) -> float:
        return batch.num_samples

    def loss(self, network: Forward, batch: Batch) -> Tensor:
        assert isinstance(self.recipe.settings, ToySettings)
        return (network(batch.inputs) - batch.targets).abs().pow(self.recipe.settings.power).sum()

    def predict(self, network: Forward, inputs: Tensor) -> Tensor:
        return network(inputs)

    def tally(self) -> ErrorTally:
        return ErrorTally()

    def predictions(
        self, outputs: Tensor, top_k: int | None = None, threshold: float | None = None
    ) -> list[Brightness]:
        return [Brightness(value) for value in outputs.flatten().tolist()]

    def learned(self, report: Errors) -> Mapping[str, Any]:
        return {"mae": report.mae}

    def outputs(self) -> tuple[OutputSpec, ...]:
        return (OutputSpec("number", lambda reference, other, tie: (1.0, 1.0)),)

    def export_form(self, network: nn.Module, size: int | None, *, any_size: bool) -> None:
        """The centre of an image."""

    def script(self) -> tuple[str, ...]:
        return ("print(float(logits[0]))",)


class Grey:
    """A source of uniform images whose number is their brightness; nothing of it is a file."""

    labels = ("brightness",)
    origin = "made up"

    def __init__(self, count: int, first: int = 0) -> None:
        self.count, self.first = count, first

    def __len__(self) -> int:
        return self.count

    def name(self, position: int) -> str:
        return f"grey#{self.first + position}"

    def read(self, position: int) -> Record:
        value = (37 * (self.first + position)) % 256
        image = Image.fromarray(np.full((SIZE, SIZE, 3), value, dtype=np.uint8))
        return {"image": image, "number": value / 255}  # type: ignore[typeddict-unknown-key]


def _number(record: Record) -> list[float]:
    return [record.get("number", 0.0)]  # type: ignore[typeddict-item]


class GreyKind:
    """Serves any `data.root` called grey."""

    target = "number"

    def matches(self, data: Data) -> bool:
        return data.root is not None and data.root.name == "grey"

    def splits(self, data: Data) -> Splits:
        return Splits(Grey(24), Grey(6, first=24), "made up")

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        return Grey(6, first=24)


@pytest.fixture(autouse=True)
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.setattr(tasks, "_REGISTERED", {})
    tasks.register(Regression)
    kind = GreyKind()
    sources.register(kind)
    yield
    sources.unregister(kind)


RECIPE = Recipe(
    task="toy-regression",
    settings=ToySettings(power=2.0),
    model=Model(name="mobilenetv2_x010"),
    data=Data(root=Path("grey"), preprocess=Preprocess(size=SIZE)),
    augment=Augment(crop="none"),
    optim=Optim(lr=0.01),
    train=Train(epochs=3, batch_size=6),
)


def run_in(folder: Path, **settings: Any) -> Run:
    return Run(out=folder, workers=0, plots=False, tensorboard=False, **settings)


def test_trained_and_evaluated(tmp_path: Path) -> None:
    summary = train(RECIPE, run_in(tmp_path / "run"), "toy")
    assert isinstance(summary.report, Errors) and summary.report.num_used == 6
    manifest = read_manifest(tmp_path / "run" / "best.safetensors")
    assert manifest.task == "toy-regression" and manifest.labels == ("brightness",)
    assert manifest.settings == {"mae": pytest.approx(summary.report.mae)}
    assert json.loads((tmp_path / "run" / "summary.json").read_text())["score_name"] == "-MAE"
    found = api.evaluate(tmp_path / "run", "grey", workers=0)
    assert found.report.mae == pytest.approx(summary.report.mae, abs=1e-6)


def test_resumed_bitwise(tmp_path: Path) -> None:
    train(RECIPE, run_in(tmp_path / "whole"), "toy")
    train(RECIPE, run_in(tmp_path / "parts", max_steps=5), "toy")
    train(RECIPE, run_in(tmp_path / "parts"), "toy", resume=True)
    whole, parts = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert whole.weights.keys() == parts.weights.keys()
    assert all(torch.equal(whole.weights[key], parts.weights[key]) for key in whole.weights)


def test_predicted(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(RECIPE, run_in(tmp_path / "run"), "toy")
    Image.new("RGB", (SIZE, SIZE), (90, 90, 90)).save(tmp_path / "one.png")
    network = api.load(tmp_path / "run")
    value = network.predict(tmp_path / "one.png").to_dict()["brightness"]
    assert cli.main(["predict", str(tmp_path / "run"), str(tmp_path / "one.png"), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["images"][0]["brightness"]
    assert printed == pytest.approx(value)


def test_exported(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("OVERTONE_TRUST_DIR", str(tmp_path / "trust"))
    train(RECIPE, run_in(tmp_path / "run"), "toy")
    assert cli.main(["export", str(tmp_path / "run"), "--to", "onnx", "--out", str(tmp_path / "onnx")]) == 0
    image = Image.new("RGB", (SIZE, SIZE), (90, 90, 90))
    in_pytorch, in_onnx = (api.load(tmp_path / name).predict(image) for name in ("run", "onnx"))
    assert in_onnx.prediction.value == pytest.approx(in_pytorch.prediction.value, abs=1e-4)
    found = [api.evaluate(tmp_path / name, "grey", workers=0).report.mae for name in ("run", "onnx")]
    assert found[0] == pytest.approx(found[1], abs=1e-4)


def test_settings_survive(tmp_path: Path) -> None:
    train(RECIPE, run_in(tmp_path / "run"), "toy")
    recorded = read_manifest(tmp_path / "run" / "last.safetensors").recipe
    assert recorded is not None and tasks.recipe_from_dict(recorded).settings == ToySettings(power=2.0)


def test_an_unknown_task_is_named() -> None:
    with pytest.raises(tasks.OvertoneError, match="toy-regression"):
        tasks.task_named("toy-regressor")
