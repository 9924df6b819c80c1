"""`overtone benchmark`, and the naive networks that ours are measured against."""

import csv
import importlib
import json
import os
from functools import partial
from pathlib import Path
from time import sleep

import pytest
import torch

from overtone import create_model
from overtone.deployment.timing.lane import Lane, LaneError
from overtone.deployment.timing.race import Timing, race
from overtone.models.multiply_adds import count_multiply_adds

QUICK = ("--size", "32", "--rounds", "2", "--no-memory", "--threads", "1")
COLUMNS = [
    *("model", "task", "runtime", "precision", "batch", "size", "threads", "rounds", "latency_ms", "p95_ms"),
    *(
        "spread_ms",
        "images_per_second",
        "peak_memory_mb",
        "parameters",
        "multiply_adds",
        "gflops",
        "gemm_share",
        "top1",
    ),
]


@pytest.fixture(autouse=True)
def threads():
    """The verb sets the number of threads of the process."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


def test_files_and_figures(overtone, tmp_path):
    out = tmp_path / "speed"
    words = ("benchmark", "hbonet_x010", "--batch", "2,3", "--train", "--against", "timm:mobilenetv2_035", "--out", out)
    outcome = overtone(*words, *QUICK, "--json")
    assert outcome.code == 0, outcome.err
    report = outcome.json
    assert report == json.loads((out / "benchmark.json").read_text())
    with (out / "benchmark.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == COLUMNS
    kinds = {(row["model"], row["task"], row["runtime"], row["batch"]) for row in rows}
    tasks = (("inference", "built"), ("inference", "torch"), ("training", "torch"))
    models = ("hbonet_x010", "timm:mobilenetv2_035")
    assert kinds == {(model, *task, batch) for model in models for task in tasks for batch in "23"}
    assert len(rows) == len(report["rows"]) == 12
    assert report["gemm_gflops"]["float32"] > 0 and report["machine"]["torch"] == torch.__version__
    row = report["rows"][0]
    assert row["multiply_adds"] == count_multiply_adds(create_model("hbonet_x010"), (3, 32, 32))
    assert row["images_per_second"] == pytest.approx(1000 * row["batch"] / row["latency_ms"])
    assert row["gflops"] == pytest.approx(2e-6 * row["multiply_adds"] * row["batch"] / row["latency_ms"])
    assert row["gemm_share"] == pytest.approx(row["gflops"] / report["gemm_gflops"]["float32"])
    assert row["peak_memory_mb"] is None and row["top1"] is None  # nothing is published at 32 pixels
    assert not (out / "benchmark.png").exists()
    assert "--overwrite" in overtone(*words, *QUICK).error


def test_a_published_accuracy_is_plotted(overtone, tmp_path):
    words = ("benchmark", "hbonet_x010.dli14_in1k", "--runtime", "torch", "--rounds", "1", "--no-memory")
    outcome = overtone(*words, "--out", tmp_path)
    assert outcome.code == 0, outcome.err
    header, row, *_ = outcome.out.splitlines()
    assert header.split()[:5] == ["model", "task", "runtime", "precision", "batch"]
    assert row.split()[:6] == ["hbonet_x010.dli14_in1k", "inference", "torch", "float32", "1", "224"]
    assert row.split()[-1] == "41.50"
    assert (tmp_path / "benchmark.png").read_bytes().startswith(b"\x89PNG")


def test_memory_is_that_of_the_network(overtone):
    words = ("benchmark", "hbonet_x010", "--runtime", "torch", "--size", "32", "--rounds", "1", "--json")
    (row,) = overtone(*words).json["rows"]
    assert row["parameters"] * 4 / 1e6 < row["peak_memory_mb"] < 200  # the weights, and the libraries' working space


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("hbonet_x01",), "did you mean"),
        (("hbonet_x010", "--runtime", "onyx"), "there is no runtime 'onyx'"),
        (("hbonet_x010", "--precision", "float8"), "there is no precision 'float8'"),
        (("hbonet_x010", "--batch", "1,none"), "whole numbers"),
        (("hbonet_x010", "--batch", "0"), "whole numbers"),
        (("hbonet_x010", "--rounds", "0"), "at least 1"),
        (("hbonet_x010", "--against", "timm:mobilenet_v9"), "timm has no model"),
        (("hbonet_x010", "--runtime", "torch", "--precision", "int8"), "PyTorch has no int8"),
        ((), "which networks"),
    ],
)
def test_mistakes(overtone, words, said):
    assert said in overtone("benchmark", *words).error


def test_a_step_that_cannot_be_is_left_out(overtone):
    outcome = overtone("benchmark", "hbonet_x010", "--runtime", "torch", "--train", *QUICK, "--json")
    assert [row["task"] for row in outcome.json["rows"]] == ["inference"]
    assert "more than 1 value per channel" in outcome.json["left_out"][0]


def test_the_race_takes_turns():
    order = []

    def turn(name, *seconds):
        order.append(name)
        return seconds

    timings = race([partial(turn, "a", 1.0, 2.0), partial(turn, "b", 3.0)], 2)
    assert order == ["a", "b", "b", "a"]
    assert [timing.seconds for timing in timings] == [(1, 2, 1, 2), (3, 3)]


def test_a_lane_has_its_own_process():
    with Lane(partial, os.getpid) as own, Lane(partial, sleep, 0.02) as sleeping:
        assert own.turn() and own.memory() >= 0
        assert all(seconds >= 0.02 for seconds in sleeping.turn())


def test_a_lane_tells_what_failed():
    with pytest.raises(LaneError, match="ValueError: invalid literal"):
        Lane(partial, int, "one")
    with pytest.raises(LaneError, match="ended with code 3"):
        Lane(partial, os._exit, 3)


def test_percentiles():
    timing = Timing(tuple(number / 1000 for number in range(1, 101)))
    assert (timing.median, timing.p95, timing.spread) == pytest.approx((50.5, 96, 49.5))
    assert Timing((0.5,)).spread == 0


@pytest.fixture
def naive(monkeypatch):
    """The package of naive networks."""
    monkeypatch.syspath_prepend(str(Path(__file__).parents[2] / "benchmarks"))
    return importlib.import_module("naive")


@pytest.mark.parametrize(
    "name", ["mobilenetv2_x100", "hbonet_x100", "harm_resnet50", "hornet_tiny_7x7", "hornet_tiny_gf"]
)
def test_naive_networks_compute_the_same(naive, name):
    assert name in naive.NAMES
    published, ours = naive.proved_pair(name, 64)
    images = torch.randn(2, 3, 64, 64, generator=torch.Generator().manual_seed(2))
    with torch.inference_mode():
        expected, found = ours(images), published(images)
    assert expected.std(dim=0).mean() > 0.01 * expected.std(), "the outputs hardly depend on the images"
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4 * float(expected.std()))


def test_a_pair_that_differs_is_refused(naive, monkeypatch):
    pairs = importlib.import_module("naive.pairs")
    hornet = importlib.import_module("naive.hornet")
    monkeypatch.setattr(hornet, "_SCALE", 0.34)
    with pytest.raises(AssertionError, match="differs from ours"):
        pairs.proved_pair("hornet_tiny_7x7", 32)
