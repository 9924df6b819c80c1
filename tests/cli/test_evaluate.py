"""`overtone evaluate` on a network that was trained a moment ago."""

import json
import os
import shutil
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path

import pytest
import torch
from PIL import Image
from small_photos import TINY

from overtone import zoo
from overtone.data.decoding import decode_image
from overtone.data.sources.class_folders import find_evaluation
from overtone.data.transforms import evaluation_transform

FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu")


@pytest.fixture
def evaluate(overtone):
    def call(*words):
        return overtone("evaluate", *words, *FEW)

    return call


def test_the_counts_are_those_of_a_plain_loop(evaluate, trained):
    outcome = evaluate(trained / "run", "--data.root", trained / "photos", "--data.split", "all", "--json")
    assert outcome.code == 0, outcome.err
    result = outcome.json
    loaded = zoo.load_model(str(trained / "run"))
    transform = evaluation_transform(loaded.preprocess)
    images = find_evaluation(trained / "photos", "all")
    confusion = [[0] * 3 for _ in range(3)]
    with torch.no_grad():
        for path, target in zip(images.paths, images.targets, strict=True):
            logits = loaded.model(transform(decode_image(path))[None])
            confusion[target][int(logits.argmax())] += 1
    assert result["classes"] == ["blue", "green", "red"]
    assert result["confusion"] == confusion
    assert result["class_counts"] == [10, 15, 20]
    assert result["correct_top1"] == sum(confusion[i][i] for i in range(3))
    assert result["top1"] == pytest.approx(100 * result["correct_top1"] / 45)
    assert (result["correct_top5"], result["num_used"], result["num_expected"]) == (45, 45, 45)


def test_a_plain_folder_gives_what_the_training_held_out(evaluate, trained):
    outcome = evaluate(trained / "run", "--data.root", trained / "photos", "--json")
    assert outcome.json["class_counts"] == [2, 3, 4]
    assert "held-out part" in outcome.err
    summary = json.loads((trained / "run" / "summary.json").read_text())
    assert outcome.json["top1"] == pytest.approx(summary["top1"])


def test_a_network_that_saw_all_of_a_folder_has_nothing_held_out_there(overtone, evaluate, photos, tmp_path):
    for part in ("train", "val"):
        shutil.copytree(photos, tmp_path / "split" / part)
    words = ("--data.root", tmp_path / "split", "--run.out", tmp_path / "run", *TINY)
    assert overtone("train", "scratch", *words).code == 0
    outcome = evaluate(tmp_path / "run", "--data.root", tmp_path / "split" / "train", "--json")
    assert outcome.json["num_used"] == 45
    assert "held-out" not in outcome.err


def test_the_table(evaluate, trained):
    out = evaluate(trained / "run", "--data.root", trained / "photos", "--data.split", "all").out
    assert "45 of 45" in out
    assert "confusion matrix" in out
    assert all(name in out for name in ("blue", "green", "red", "top-1", "loss"))
    assert "top-5" not in out  # of three classes it says nothing


def test_an_unreadable_image_is_counted_not_replaced(evaluate, trained, photos):
    (photos / "red" / "3.png").write_bytes(b"")
    words = (trained / "run", "--data.root", photos, "--data.split", "all", "--json")
    outcome = evaluate(*words)
    assert outcome.code == 1
    assert f"{photos / 'red' / '3.png'} could not be read: empty file" in outcome.err
    assert (outcome.json["num_used"], outcome.json["num_expected"]) == (44, 45)
    assert outcome.json["class_counts"] == [10, 15, 19]
    assert outcome.json["bad"] == [str(photos / "red" / "3.png")]
    assert evaluate(*words, "--allow-bad").code == 0


def test_other_classes_stop_it_and_are_shown(evaluate, trained, photos):
    (photos / "red").rename(photos / "violet")
    error = evaluate(trained / "run", "--data.root", photos).error
    assert "only in the model: red; only in the data: violet" in error


def test_a_class_more_stops_it(evaluate, trained, photos):
    shutil.copytree(photos / "red", photos / "violet")
    assert "(3)" in (error := evaluate(trained / "run", "--data.root", photos).error) and "(4)" in error
    assert "only in the data: violet" in error


def test_classes_in_another_order_stop_it(evaluate, trained, monkeypatch):
    load = zoo.load_model

    def reordered(spec, **kwargs):
        loaded = load(spec, **kwargs)
        object.__setattr__(loaded, "labels", ("blue", "red", "green"))
        return loaded

    monkeypatch.setattr(zoo, "load_model", reordered)
    error = evaluate(trained / "run", "--data.root", trained / "photos").error
    assert "class 1 is 'red' in the model and 'green' in the data" in error


def test_two_processes_count_what_one_does(evaluate, trained, photos):
    """As torchrun starts them; neither the images nor those that can be read divide evenly."""
    (photos / "red" / "3.png").write_bytes(b"")
    words = ("--data.root", photos, "--data.split", "all", "--run.batch-size", "7", "--allow-bad", "--json")
    alone = evaluate(trained / "run", *words).json
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    line = [sys.executable, "-m", "overtone", "evaluate", *map(str, (trained / "run", *words, *FEW))]
    shared = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": "2", "OMP_NUM_THREADS": "1"}
    ranks = [
        subprocess.Popen(line, stdout=subprocess.PIPE, text=True, env=os.environ | shared | {"RANK": str(rank)})
        for rank in range(2)
    ]
    answers = [rank.communicate(timeout=120)[0] for rank in ranks]
    assert [rank.returncode for rank in ranks] == [0, 0]
    assert not answers[1]  # the first one speaks for both
    together = json.loads(answers[0])
    assert together.pop("loss") == pytest.approx(alone.pop("loss"), rel=1e-6)
    # the batches are others, so the last bits of the outputs differ, and with them what is fitted to these
    for name, within in (("temperature", 1e-4), ("confidence", 1e-6), ("error", 1e-6)):
        assert together["calibration"].pop(name) == pytest.approx(alone["calibration"].pop(name), rel=within)
    assert {**together, "seconds": 0} == {**alone, "seconds": 0}
    assert (together["num_used"], together["class_counts"]) == (44, [10, 15, 19])


def test_random_weights_are_said(evaluate, trained):
    outcome = evaluate("hbonet_x010", "--data.root", trained / "photos", "--run.size", "32", "--json")
    assert outcome.code == 0, outcome.err
    assert "random weights" in outcome.err
    assert outcome.json["num_used"] == 45
    assert outcome.json["preprocess"]["size"] == 32


def test_out_is_not_overwritten_without_saying(evaluate, trained, tmp_path):
    words = (trained / "run", "--data.root", trained / "photos", "--out", tmp_path / "report")
    assert evaluate(*words).code == 0
    report = json.loads((tmp_path / "report" / "evaluation.json").read_text())
    assert report["num_used"] == 9
    with Image.open(tmp_path / "report" / "confusion.png") as plot:
        assert plot.width > 100
    judged = [json.loads(line) for line in (tmp_path / "report" / "images.jsonl").read_text().splitlines()]
    pairs = Counter((one["target"], one["predicted"]) for one in judged)
    names = report["classes"]
    assert [[pairs[row, column] for column in names] for row in names] == report["confusion"]
    assert all(Path(one["path"]).parent.name == one["target"] and 0 < one["probability"] <= 1 for one in judged)
    assert "evaluation.json" in evaluate(*words).error
    assert evaluate(*words, "--overwrite").code == 0
