"""`overtone compare`: what differs, what came of it, and the image."""

import json
import shutil

import numpy as np
import pytest
from PIL import Image
from small_photos import TINY, draw


@pytest.fixture(scope="module")
def two_runs(trained, tmp_path_factory):
    """Two runs of one recipe with changes in two fields."""
    from overtone.cli import main  # noqa: PLC0415

    folder = tmp_path_factory.mktemp("two")
    draw(folder / "photos", {"blue": 5, "green": 5})
    for name, options in (("a", ()), ("b", ("--optim.lr=0.01", "--schedule.milestones", "1"))):
        words = ["train", "scratch", "--data.root", str(folder / "photos"), *TINY, "--run.out", str(folder / name)]
        assert main([*words, *options]) == 0
    return folder


@pytest.fixture
def runs(two_runs, tmp_path, monkeypatch):
    for name in ("a", "b"):
        shutil.copytree(two_runs / name, tmp_path / "runs" / name)
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def table(text, heading):
    lines = text.splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(heading))
    body = lines[start + 1 : lines.index("", start) if "" in lines[start:] else None]
    return {line.split("  ")[0]: line.split("  ", 1)[1].split() for line in body}


def test_only_what_differs_is_shown(runs, overtone):
    outcome = overtone("compare", runs / "a", runs / "b")
    assert outcome.code == 0, outcome.err
    assert outcome.out.splitlines()[0].split() == ["recipe", "a", "b"]
    default = json.loads((runs / "a" / "recipe.json").read_text())["recipe"]["optim"]["lr"]
    assert table(outcome.out, "recipe") == {"optim.lr": [str(default), "0.01"], "schedule.milestones": ["none", "1"]}
    result = table(outcome.out, "result")
    rows = [json.loads(line) for line in (runs / "b" / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: row["top1"])
    assert result["best top-1"][1:] == [f"{best['top1']:.2f}"]
    assert result["state"] == ["finished", "finished"] and result["epochs done"] == ["2", "2"]
    assert result["validation loss there"][1] == f"{best['val_loss']:.4f}"
    assert "curves: compare.png" in outcome.err


def test_json(runs, overtone):
    outcome = overtone("compare", runs / "a", runs / "b", "--json", "--out", "some/where.png")
    assert outcome.json["differences"]["schedule.milestones"] == [[], [1]]
    assert [result["epochs"] for result in outcome.json["results"]] == [2, 2]
    assert outcome.json["plot"] == "some/where.png" and (runs.parent / "some" / "where.png").is_file()


def test_the_image_has_the_colours_of_both_runs_and_is_not_overwritten(runs, overtone):
    assert overtone("compare", runs / "a", runs / "b").code == 0
    image = runs.parent / "compare.png"
    pixels = np.asarray(Image.open(image).convert("RGB")).reshape(-1, 3)
    for colour in ((0x00, 0x72, 0xB2), (0xD5, 0x5E, 0x00)):
        assert (pixels == colour).all(axis=1).sum() > 200, colour
    before = image.read_bytes()
    assert "--overwrite" in overtone("compare", runs / "a", runs / "b").error
    assert image.read_bytes() == before
    assert overtone("compare", runs / "b", runs / "a", "--overwrite").code == 0
    assert image.read_bytes() != before


def test_the_same_recipe_no_epoch_and_a_field_of_another_version(runs, overtone):
    shutil.copytree(runs / "a", runs / "deep" / "a")
    for folder in (runs / "a", runs / "deep" / "a"):
        (folder / "metrics.jsonl").write_text("")
    outcome = overtone("compare", runs / "a", runs / "deep" / "a")
    assert outcome.code == 0 and outcome.out.startswith("the recipes are the same\n")
    assert "result" in outcome.out and "runs/a" in outcome.out and "deep/a" in outcome.out
    assert "no curves" in outcome.err and not (runs.parent / "compare.png").exists()
    record = json.loads((runs / "deep" / "a" / "recipe.json").read_text())
    record["recipe"]["optim"]["from_the_future"] = True
    (runs / "deep" / "a" / "recipe.json").write_text(json.dumps(record))
    assert table(overtone("compare", runs / "a", runs / "deep" / "a").out, "recipe") == {
        "optim.from_the_future": ["—", "True"]
    }


def test_names_with_an_underscore_or_a_dollar(runs, overtone):
    for name in ("_a", "$x$ " + "long" * 20):
        shutil.copytree(runs / "a", runs / name)
    assert overtone("compare", runs / "_a", runs / ("$x$ " + "long" * 20)).code == 0


def test_errors(runs, overtone):
    assert "at least two runs" in overtone("compare", runs / "a").error
    assert "given twice" in overtone("compare", runs / "a", runs / "b" / ".." / "a").error
    assert "is not a run folder" in overtone("compare", runs / "a", runs).error
    (runs / "b" / "recipe.json").write_text("{")
    assert "cannot be read" in overtone("compare", runs / "a", runs / "b").error
