"""Probabilities that are too sure are found, measured, and mended by a temperature that stays with the network."""

import json

import pytest
import torch
import torch.nn.functional as F

from overtone.config import Data, Preprocess, Recipe, Train
from overtone.tasks.classification.report import ClassificationReport, ClassificationTally
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup

LABELS = ("a", "b", "c")


def sampled(sharpness: float, count: int = 20_000) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and classes drawn from their softmax; the logits are then made `sharpness` times as large."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(count, len(LABELS), generator=generator)
    targets = torch.multinomial(logits.softmax(1), 1, generator=generator)[:, 0]
    return sharpness * logits, targets


def reported(logits: torch.Tensor, targets: torch.Tensor, temperature: float = 1.0) -> ClassificationReport:
    """The report of two processes, each with one half in batches."""
    tallies = [ClassificationTally(LABELS, temperature) for _ in range(2)]
    for number, part in enumerate(zip(logits.split(3000), targets.split(3000), strict=True)):
        tallies[number % 2].add(*part)
    return tallies[0].joined([tallies[1].counted()]).report()


@pytest.mark.parametrize("sharpness", [0.5, 1.0, 2.5])
def test_the_temperature_is_the_one_that_was_taken_away(sharpness: float) -> None:
    logits, targets = sampled(sharpness)
    found = reported(logits, targets).calibration
    assert found is not None and found.temperature == pytest.approx(sharpness, rel=0.03)
    assert sum(found.counts) == len(targets) and sum(found.correct) == int((logits.argmax(1) == targets).sum())
    better = reported(logits, targets, found.temperature).calibration
    assert better is not None and better.error < 1.5
    assert sharpness == 1 or found.error > 4
    losses = [F.cross_entropy(logits / t, targets) for t in (found.temperature, 1.05 * sharpness, 0.95 * sharpness)]
    assert losses[0] < min(losses[1:])


def test_the_report_shows_it_and_keeps_it() -> None:
    report = reported(*sampled(2.5))
    assert "calibration error" in report.tables()[0].columns
    assert report.plots()[-1].name == "reliability"
    again = ClassificationReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    before = {key: value for key, value in report.to_dict().items() if key != "calibration"}
    assert ClassificationReport.from_dict(before).calibration is None  # of an earlier release


def test_a_training_keeps_it_where_the_recipe_says_so() -> None:
    report = reported(*sampled(2.5))
    tasks = [Classification(Setup(LABELS, Recipe(train=Train(calibrate=on)))) for on in (False, True)]
    assert tasks[0].learned(report) == {}
    settings = tasks[1].learned(report)
    sure = Classification(Setup(LABELS, Recipe(data=Data(preprocess=Preprocess(size=8))), settings))
    logits = torch.tensor([[5.0, 0.0, 0.0]])
    (plain,), (calm,) = (task.predictions(logits, 3) for task in (tasks[0], sure))
    assert plain.label == calm.label == "a" and calm.best[0][2] == pytest.approx(
        float((logits / 2.5).softmax(1)[0, 0]), abs=0.01
    )
    assert plain.best[0][2] > calm.best[0][2]


@pytest.mark.parametrize("temperature", [0, -1, "hot", 1e9, None])
def test_a_temperature_without_meaning_in_a_file_is_not_used(temperature: object) -> None:
    task = Classification(Setup(LABELS, settings={"temperature": temperature}))
    (found,) = task.predictions(torch.tensor([[1.0, 0.0, 0.0]]), 1)
    assert found.best[0][2] == pytest.approx(float(torch.tensor([1.0, 0.0, 0.0]).softmax(0)[0]))
