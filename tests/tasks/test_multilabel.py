"""Multi-label classification: metrics against their definitions, and a run from the table to predictions."""

import dataclasses
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from sklearn.metrics import average_precision_score, f1_score

from overtone import api, cli
from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.data.pipeline import Batch
from overtone.data.sources import open_splits
from overtone.engine.training import train
from overtone.tasks.multilabel.report import MultilabelReport, MultilabelTally, average_precision, best_threshold
from overtone.tasks.multilabel.settings import MultilabelSettings
from overtone.tasks.multilabel.task import Multilabel, positive_weights
from overtone.tasks.task import Setup

LABELS = ("a", "b", "c", "d")


def recipe_for(table: Path, **settings: Any) -> Recipe:
    return Recipe(
        task="multilabel",
        settings=MultilabelSettings(**settings),
        model=Model(name="mobilenetv2_x010"),
        data=Data(table=table, preprocess=Preprocess(size=24, resize="squash")),
        augment=Augment(crop="none", hflip=0.0),
        optim=Optim(name="adamw", lr=5e-3),
        train=Train(epochs=4, batch_size=8),
    )


def run_in(folder: Path, **settings: Any) -> Run:
    return Run(out=folder, workers=0, plots=False, tensorboard=False, **settings)


def scores_and_truth(ties: bool) -> tuple[np.ndarray, np.ndarray]:
    random = np.random.default_rng(3)
    scores = random.random((50, 4))
    return (scores.round(1) if ties else scores), random.random((50, 4)) < 0.3


@pytest.mark.parametrize("ties", [False, True])
def test_average_precision_is_scikit_learns(ties: bool) -> None:
    scores, truth = scores_and_truth(ties)
    for k in range(4):
        expected = 100 * average_precision_score(truth[:, k], scores[:, k])
        assert average_precision(scores[:, k], truth[:, k]) == pytest.approx(expected)
    assert average_precision(scores[:, 0], np.zeros(50, dtype=bool)) is None


def test_no_threshold_gives_a_better_f1() -> None:
    scores, truth = scores_and_truth(ties=False)
    for k in range(4):
        best = f1_score(truth[:, k], scores[:, k] >= best_threshold(scores[:, k], truth[:, k]))
        others = [f1_score(truth[:, k], scores[:, k] >= t, zero_division=0) for t in np.linspace(0, 1, 201)]
        assert best >= max(others) - 1e-12


def test_report_counts(tmp_path: Path) -> None:
    scores, truth = scores_and_truth(ties=False)
    logits = torch.from_numpy(scores).logit()
    tally = MultilabelTally(LABELS, (0.5,) * 4)
    for rows in torch.arange(50).split(7):
        tally.add(logits[rows].float(), torch.from_numpy(truth)[rows].float())
    report = tally.report(["broken.png"])
    predicted = scores >= 0.5
    assert (report.num_used, report.num_expected) == (50, 51)
    assert report.macro_f1 == pytest.approx(100 * f1_score(truth, predicted, average="macro"))
    assert report.micro_f1 == pytest.approx(100 * f1_score(truth, predicted, average="micro"))
    assert MultilabelReport.from_dict(json.loads(json.dumps(report.to_dict()))) == report
    halves = [MultilabelTally(LABELS, (0.5,) * 4) for _ in range(2)]
    for half, rows in zip(halves, torch.arange(50).split(25), strict=True):
        half.add(logits[rows].float(), torch.from_numpy(truth)[rows].float())
    assert (
        MultilabelTally(LABELS, (0.5,) * 4).joined([half.counted() for half in halves]).report(["broken.png"]) == report
    )


def batch_of(truth: np.ndarray) -> Batch:
    count = len(truth)
    return Batch(torch.zeros(count, 3, 8, 8), torch.from_numpy(truth).float(), torch.arange(count))


def test_losses(tagged: Path) -> None:
    scores, truth = scores_and_truth(ties=False)
    logits = torch.from_numpy(scores).logit().float()
    batch = batch_of(truth)

    def loss(recipe: Recipe) -> float:
        return float(Multilabel(Setup(LABELS, recipe)).loss(lambda inputs: logits, batch))

    expected = F.binary_cross_entropy_with_logits(logits, batch.targets) * 50
    assert loss(recipe_for(tagged)) == pytest.approx(float(expected), rel=1e-6)
    # Ridnik et al. 2021, equation 7, without the shift: -(1 - p)^g+ log p and -p^g- log (1 - p)
    p = torch.from_numpy(scores)
    focal = -torch.where(batch.targets > 0, (1 - p) * p.log(), p**2 * (1 - p).log()).sum() / 4
    asymmetric = recipe_for(tagged, loss="asymmetric", gamma_positive=1.0, gamma_negative=2.0, clip=0.0)
    assert loss(asymmetric) == pytest.approx(float(focal), rel=1e-4)


def test_positive_weights_are_negatives_per_positive(tagged: Path) -> None:
    source = open_splits(Data(table=tagged, val_fraction=0.0), "labels").train
    weights = positive_weights(source)
    counts = torch.zeros(3)
    for position in range(len(source)):
        counts[list(source.read(position).get("labels", ()))] += 1
    torch.testing.assert_close(weights, (30 - counts) / counts)


def test_mixing_shares_targets(tagged: Path) -> None:
    recipe = dataclasses.replace(recipe_for(tagged), augment=Augment(mixup=1.0))
    task = Multilabel(Setup(LABELS, recipe, train=open_splits(Data(table=tagged), "labels").train))
    truth = np.random.default_rng(0).random((6, 4)) < 0.5
    batch = batch_of(truth)._replace(inputs=torch.arange(6.0).view(6, 1, 1, 1).expand(6, 3, 8, 8).contiguous())
    mixed = task.prepare(batch, (0, 0))
    # images of a constant each: its value says how much of the neighbour is in it
    for own, other in ((0, 1), (2, 3), (4, 5)):
        share = float(mixed.inputs[own, 0, 0, 0]) - own
        wanted = (1 - share) * batch.targets[own] + share * batch.targets[other]
        torch.testing.assert_close(mixed.targets[own], wanted, rtol=1e-4, atol=1e-5)


def test_from_table_to_predictions(tmp_path: Path, tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = train(recipe_for(tagged), run_in(tmp_path / "run"), "multilabel")
    kept = read_manifest(tmp_path / "run" / "best.safetensors")
    assert kept.task == "multilabel" and kept.settings["thresholds"] == list(summary.report.thresholds)
    found = api.evaluate(tmp_path / "run", tagged.parent, table=tagged, workers=0)
    assert found.report.num_used == 6 and found.report.score == pytest.approx(summary.report.score)
    assert found.report.thresholds == summary.report.thresholds
    image = tagged.parent / "6.png"
    network = api.load(tmp_path / "run")
    predicted = network.predict(image, top_k=3)
    with torch.no_grad():
        inputs = network.transform(Image.open(image).convert("RGB"))
        probabilities = network.model(inputs.unsqueeze(0)).sigmoid()[0]
    expected = {k for k in range(3) if float(probabilities[k]) >= kept.settings["thresholds"][k]}
    assert {index for index, *_ in predicted.labels} == expected
    assert cli.main(["predict", str(tmp_path / "run"), str(image), "--json"]) == 0
    printed = json.loads(capsys.readouterr().out)["images"][0]["predictions"]
    assert {entry["index"] for entry in printed} == expected


def test_evaluated_by_the_verb(tmp_path: Path, tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summary = train(recipe_for(tagged), run_in(tmp_path / "run"), "multilabel")
    run, faster = str(tmp_path / "run"), ("--json", "--run.workers", "0")
    for words in ((str(tagged),), ("--data.table", str(tagged))):
        assert cli.main(["evaluate", run, *words, *faster]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["data"] == str(tagged) and found["num_used"] == 6
        assert found["map"] == pytest.approx(summary.report.score)
    renamed = tagged.with_name("renamed.csv")
    renamed.write_text(tagged.read_text().replace("image,", "photo,", 1))
    assert cli.main(["evaluate", run, str(renamed), *faster]) == 2
    assert "image_column" in capsys.readouterr().err.replace("-", "_")
    assert cli.main(["evaluate", run, str(renamed), *faster, "--data.image-column", "photo"]) == 0


def test_tuned_by_the_verb(tmp_path: Path, tagged: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train(recipe_for(tagged), run_in(tmp_path / "run"), "multilabel")
    words = ["--data.table", str(tagged), "--runtimes", "torch", "--precisions", "float32", "--rounds", "1", "--json"]
    words += ["--max-loss", "100"]  # of six images, one that changes places with another is points of mAP
    assert cli.main(["tune", str(tmp_path / "run"), *words, "--out", str(tmp_path / "tuned")]) == 0
    (candidate,) = json.loads(capsys.readouterr().out)["candidates"]
    assert candidate["reason"] is None and candidate["score"] is not None


def test_resumed_bitwise(tmp_path: Path, tagged: Path) -> None:
    recipe = recipe_for(tagged, loss="asymmetric")
    train(recipe, run_in(tmp_path / "whole"), "multilabel")
    train(recipe, run_in(tmp_path / "parts", max_steps=5), "multilabel")
    train(recipe, run_in(tmp_path / "parts"), "multilabel")
    whole, parts = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert all(torch.equal(whole.weights[key], parts.weights[key]) for key in whole.weights)
    assert whole.manifest.settings == parts.manifest.settings


def test_exported(tmp_path: Path, tagged: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("onnxruntime")
    monkeypatch.setenv("OVERTONE_TRUST_DIR", str(tmp_path / "trust"))
    train(recipe_for(tagged), run_in(tmp_path / "run"), "multilabel")
    assert cli.main(["export", str(tmp_path / "run"), "--to", "onnx", "--out", str(tmp_path / "onnx")]) == 0
    found = [
        api.evaluate(tmp_path / name, tagged.parent, table=tagged, workers=0).report.to_dict()
        for name in ("run", "onnx")
    ]
    assert found[0]["thresholds"] == found[1]["thresholds"] and found[0]["f1"] == found[1]["f1"]
    image = tagged.parent / "6.png"
    said = subprocess.run(
        [sys.executable, tmp_path / "onnx" / "run.py", image], capture_output=True, text=True, check=True
    )
    names = {name for _, name, *_ in api.load(tmp_path / "run").predict(image, top_k=3).labels}
    assert {line.rpartition(" ")[2] for line in said.stdout.splitlines()} == names
