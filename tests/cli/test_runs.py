"""`overtone runs`: states as the run folders show them, also of runs that were killed and of damaged folders."""

import json
import os
import shutil
import subprocess
import sys
import time
from pathlib import Path

import pytest
from small_photos import TINY, draw

from overtone.engine.folder import claimed, is_claimed


@pytest.fixture
def runs_folder(trained, tmp_path) -> Path:
    """A folder with one finished run, `a`."""
    shutil.copytree(trained / "run", tmp_path / "runs" / "a")
    return tmp_path / "runs"


def states(overtone, folder):
    outcome = overtone("runs", folder, "--json")
    assert outcome.code == 0, outcome.err
    return {run["name"]: run["state"] for run in outcome.json}


def copy(folder, name, *, status=None, without=()):
    target = Path(shutil.copytree(folder / "a", folder / name))
    if status is not None:
        (target / "status.json").write_text(json.dumps({"status": status, "reason": "because"}))
    for file in without:
        (target / file).unlink()
    return target


def test_a_finished_run_in_words_and_figures(runs_folder, overtone):
    rows = [json.loads(line) for line in (runs_folder / "a" / "metrics.jsonl").read_text().splitlines()]
    best = max(rows, key=lambda row: (row["top1"], -row["val_loss"]))
    (run,) = overtone("runs", runs_folder, "--json").json
    assert run == {
        "name": "a",
        "state": "finished",
        "reason": None,
        "recipe": "scratch",
        "model": "hbonet_x010",
        "best_score": best["top1"],
        "score_name": "top-1",
        "best_epoch": best["epoch"],
        "epoch": 2,
        "epochs": 2,
        "seconds": pytest.approx(sum(row["seconds"] for row in rows)),
        "folder": str(runs_folder / "a"),
    }
    table = overtone("runs", runs_folder)
    assert table.code == 0 and table.out.count("\n") == 2
    words = table.out.splitlines()[1].split()
    assert (
        words[:6] == ["a", "finished", "scratch", "hbonet_x010", f"{best['top1']:.2f}", "top-1"] and words[7] == "2/2"
    )


def test_states(runs_folder, overtone):
    for status in ("finished", "interrupted", "failed"):
        copy(runs_folder, f"deep/er/{status}", status=status)
    # killed: nobody was there to write how it ended
    copy(runs_folder, "killed", status="running")
    # written by a version without status.json
    old = ["status.json"]
    copy(runs_folder, "old_finished", without=old)
    copy(runs_folder, "old_stopped", without=[*old, "summary.json"])
    (copy(runs_folder, "old_failed", without=[*old, "summary.json"]) / "not_finite.json").write_text("{}")
    with claimed(copy(runs_folder, "now", status="running")):
        found = states(overtone, runs_folder)
    assert found == {
        "a": "finished",
        "deep/er/failed": "failed",
        "deep/er/finished": "finished",
        "deep/er/interrupted": "interrupted",
        "killed": "interrupted",
        "now": "running",
        "old_failed": "failed",
        "old_finished": "finished",
        "old_stopped": "interrupted",
    }
    assert "deep/er/failed: because\n" in overtone("runs", runs_folder).err


def test_looking_does_not_take_the_folder(runs_folder):
    with claimed(runs_folder / "a"):
        assert is_claimed(runs_folder / "a")
        assert is_claimed(runs_folder / "a")
    assert not is_claimed(runs_folder / "a")
    with claimed(runs_folder / "a"):
        pass
    assert not is_claimed(runs_folder / "nowhere")


def test_a_damaged_folder_does_not_break_the_list(runs_folder, overtone):
    for name, text in (("cut", '{"name": "scr'), ("list", "[1]"), ("empty", ""), ("binary", "\x00\ud800")):
        folder = runs_folder / name
        folder.mkdir()
        (folder / "recipe.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    odd = copy(runs_folder, "odd")
    (odd / "recipe.json").write_text('{"name": 3, "recipe": {"model": [], "train": {"epochs": "many"}}}')
    (odd / "metrics.jsonl").write_text(
        '7\n{"epoch": 1, "top1": null}\n{"epoch": 2, "top1": "x"}\n{"epoch": 3, "top1": 5'
    )
    (odd / "status.json").write_text("[]")
    found = states(overtone, runs_folder)
    assert found == {
        **dict.fromkeys(("binary", "cut", "empty", "list"), "damaged"),
        "a": "finished",
        "odd": "finished",
    }
    outcome = overtone("runs", runs_folder)
    assert outcome.code == 0 and "cut: recipe.json cannot be read" in outcome.err
    assert "2/?" in next(line for line in outcome.out.splitlines() if line.startswith("odd"))


def test_a_training_that_goes_wrong_is_failed_and_one_that_is_killed_is_interrupted(overtone, tmp_path):
    draw(tmp_path / "photos", {"blue": 8, "red": 8})
    words = ["train", "scratch", "--data.root", str(tmp_path / "photos"), *TINY]
    wrong = overtone(*words, "--run.out", tmp_path / "runs" / "wrong", "--optim.lr", "1e30")
    assert wrong.code == 2 and "nothing was updated" in wrong.err
    (run,) = overtone("runs", tmp_path / "runs", "--json").json
    assert run["state"] == "failed" and "lower --optim.lr" in run["reason"]

    folder = tmp_path / "runs" / "killed"
    command = [sys.executable, "-m", "overtone", *words, "--run.out", str(folder), "--train.epochs", "100000"]
    with (tmp_path / "log").open("wb") as log:
        training = subprocess.Popen(command, stdout=log, stderr=log, env=os.environ | {"OMP_NUM_THREADS": "1"})
    try:
        until_trained(folder, training)
        assert states(overtone, tmp_path / "runs")["killed"] == "running"
    finally:
        training.kill()
        training.wait()
    assert states(overtone, tmp_path / "runs")["killed"] == "interrupted"


def until_trained(folder, training):
    path, end = folder / "metrics.jsonl", time.monotonic() + 120
    while training.poll() is None and time.monotonic() < end:
        if path.is_file() and path.stat().st_size:
            return
        time.sleep(0.05)
    raise AssertionError((folder.parents[1] / "log").read_text())


def test_one_run_folder_no_runs_no_folder(runs_folder, overtone, tmp_path):
    assert states(overtone, runs_folder / "a") == {"a": "finished"}
    (tmp_path / "nothing").mkdir()
    nothing = overtone("runs", tmp_path / "nothing")
    assert (nothing.code, nothing.out) == (0, "") and "no runs in" in nothing.err
    assert overtone("runs", tmp_path / "nothing", "--json").json == []
    assert "is not a folder" in overtone("runs", tmp_path / "nowhere").error
