"""The suite for a GPU in its dry run: every part is there, and what fails is a row."""

import functools
import json
import os
import time
from collections.abc import Sequence

import pytest

from overtone.reproduction.gpu.place import Cases, Place, Row, Skipped
from overtone.reproduction.gpu.suite import Part, failures, run_suite
from overtone.verbs import benchmark_gpu

WHAT = ["steps", "sync_bn", "resume", "decoding", "filters", "inference", "training"]


def broken(place: Place) -> Cases:
    raise ValueError("no such kernel")


def mixed(place: Place) -> Cases:
    def fails() -> Sequence[Row]:
        raise RuntimeError("out of memory\nand a long trace")

    def needs() -> Sequence[Row]:
        raise Skipped("needs CUDA")

    found = {"fine": lambda: [{"ms": 1.0, "passed": True}], "wrong": lambda: [{"passed": False}]}
    return {"fails": fails, "needs": needs, **found, "crashes": lambda: os._exit(3), "after it": lambda: []}


def endless(place: Place) -> Cases:
    return {"waits": lambda: time.sleep(600) or []}


def test_what_fails_is_a_row_and_the_rest_runs():
    started, said = time.monotonic(), []
    rows = run_suite(Place("cpu"), [Part("broken", broken, 9), Part("mixed", mixed, 9)], say=said.append)
    rows += run_suite(Place("cpu"), [Part("endless", endless, 9)], seconds=1.0, say=said.append)
    assert time.monotonic() - started < 300
    assert rows[0] == {"part": "broken", "case": "", "error": "ValueError: no such kernel"}
    assert rows[1] == {"part": "mixed", "case": "fails", "error": "RuntimeError: out of memory"}
    assert rows[2] == {"part": "mixed", "case": "needs", "skipped": "needs CUDA"}
    assert rows[3] == {"part": "mixed", "case": "fine", "ms": 1.0, "passed": True}
    assert rows[4] == {"part": "mixed", "case": "wrong", "passed": False}
    assert rows[5]["case"] == "crashes, after it" and "code 3" in rows[5]["error"]
    assert rows[6]["part"] == "endless" and "1 s" in rows[6]["error"]
    assert len(rows) == 7 and failures(rows) == [rows[index] for index in (0, 1, 4, 5, 6)]
    assert [line.split()[4][:-1] for line in said[::2]] == ["broken", "mixed", "endless"]


def test_every_part_runs_on_a_cpu_which_is_said(overtone, tmp_path, monkeypatch):
    monkeypatch.setattr(benchmark_gpu, "Place", functools.partial(Place, nets=("hbonet_x010",), compiles=0))
    words = ("benchmark", "--gpu-suite", "--dry", "--out", tmp_path)
    outcome = overtone(*words)
    assert outcome.code == 0, outcome.err + outcome.out
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["device"] == "cpu (dry run)" and "nothing of a GPU" in report["note"]
    rows = report["rows"]
    assert list(dict.fromkeys(row["part"] for row in rows)) == WHAT
    assert {row["part"] for row in rows if row.get("passed")} == {"sync_bn", "resume", "filters"}
    needing = {(row["part"], row.get("form", row["case"])) for row in rows if row.get("skipped") == "needs CUDA"}
    assert needing == {("decoding", "nvJPEG"), ("decoding", "GPU, 0 workers"), ("inference", "graph")}
    training = {row["form"]: row for row in rows if row["part"] == "training"}
    assert training["ours"]["images_per_second"] > 0 and training["timm"]["ratio"] == 1
    assert "make gpu" in training["naive"]["skipped"]
    assert outcome.out.count("cpu (dry run)") == len(WHAT) + 1 and "needs CUDA" in outcome.out
    assert "--overwrite" in overtone(*words).error


@pytest.mark.parametrize(("words", "named"), [(("--gpu-parts", "speed"), "sync_bn"), (("hbonet_x010",), "--gpu-suite")])
def test_what_the_suite_does_not_take(overtone, words, named):
    assert named in overtone("benchmark", "--gpu-suite", *words).error
