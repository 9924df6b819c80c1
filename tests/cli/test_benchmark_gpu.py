"""The suite for a GPU in its dry run: every part is there, and what fails is a row."""

import json
import os
import time
from collections.abc import Sequence

import pytest

from overtone.reproduction.gpu.place import Cases, Place, Row, Skipped
from overtone.reproduction.gpu.suite import PARTS, Part, failures, run_suite

WHAT = {"steps", "sync_bn", "resume", "decoding", "filters", "inference", "training"}


def quietly(line: str) -> None:
    pass


def broken(place: Place) -> Cases:
    raise ValueError("no such kernel")


def mixed(place: Place) -> Cases:
    def fails() -> Sequence[Row]:
        raise RuntimeError("out of memory\nand a long trace")

    def needs() -> Sequence[Row]:
        raise Skipped("needs CUDA")

    return {"fails": fails, "needs": needs, "fine": lambda: [{"ms": 1.0, "passed": True}]}


def crashing(place: Place) -> Cases:
    return {"fine": lambda: [{"ms": 1.0}], "crashes": lambda: os._exit(3), "after it": lambda: [{"ms": 2.0}]}


def endless(place: Place) -> Cases:
    return {"waits": lambda: time.sleep(600) or []}


def test_what_fails_is_a_row_and_the_rest_runs():
    started = time.monotonic()
    parts = [Part("broken", broken, 100), Part("mixed", mixed, 100), Part("crashing", crashing, 100)]
    rows = run_suite(Place("cpu"), parts, say=quietly)
    rows += run_suite(Place("cpu"), [Part("endless", endless, 1.0)], say=quietly)
    assert time.monotonic() - started < 300
    assert rows[0] == {"part": "broken", "case": "", "error": "ValueError: no such kernel"}
    assert rows[1] == {"part": "mixed", "case": "fails", "error": "RuntimeError: out of memory"}
    assert rows[2] == {"part": "mixed", "case": "needs", "skipped": "needs CUDA"}
    assert rows[3] == {"part": "mixed", "case": "fine", "ms": 1.0, "passed": True}
    assert rows[4] == {"part": "crashing", "case": "fine", "ms": 1.0}
    assert rows[5]["case"] == "crashes, after it" and "code 3" in rows[5]["error"]
    assert rows[6]["part"] == "endless" and "1 s" in rows[6]["error"]
    assert len(rows) == 7 and len(failures(rows)) == 4


def test_every_part_runs_on_a_cpu():
    rows = run_suite(Place("cpu", nets=("hbonet_x010",), compiles=0), say=quietly)
    assert not failures(rows), failures(rows)
    assert {part.name for part in PARTS} == {row["part"] for row in rows} == WHAT
    checked = {row["part"] for row in rows if row.get("passed")}
    assert checked == {"sync_bn", "resume", "filters"}
    needing = {(row["part"], row.get("form", row["case"])) for row in rows if row.get("skipped") == "needs CUDA"}
    assert needing == {("decoding", "nvJPEG"), ("decoding", "GPU, 0 workers"), ("inference", "graph")}
    assert [row["form"] for row in rows if row["part"] == "training"] == ["timm", "ours", "naive"]


def test_a_dry_run_says_so(overtone, tmp_path):
    words = ("benchmark", "--gpu-suite", "--dry", "--gpu-parts", "decoding", "--out", tmp_path)
    outcome = overtone(*words)
    assert outcome.code == 0, outcome.err
    report = json.loads((tmp_path / "gpu.json").read_text())
    assert report["device"] == "cpu (dry run)" and "nothing of a GPU" in report["note"]
    assert outcome.out.count("cpu (dry run)") == 2 and "needs CUDA" in outcome.out
    assert "--overwrite" in overtone(*words).error


@pytest.mark.parametrize(("words", "named"), [(("--gpu-parts", "speed"), "sync_bn"), (("hbonet_x010",), "--gpu-suite")])
def test_what_the_suite_does_not_take(overtone, words, named):
    assert named in overtone("benchmark", "--gpu-suite", *words).error
