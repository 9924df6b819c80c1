"""A best network or a report that is damaged is found when the run is resumed, and at its end (row 36)."""

import json

import pytest
from ranks import run_ranks
from test_training_together import recipe_of, train_here
from tiny_runs import recipe_for, rows_of, run_for

from overtone.checkpoint import read_checkpoint
from overtone.engine import folder as files
from overtone.engine.session import Session
from overtone.engine.training import train
from overtone.errors import OvertoneError

pytestmark = pytest.mark.usefixtures("tiny_from_zoo")


def flip(path):
    content = bytearray(path.read_bytes())
    content[len(content) - 100] ^= 16
    path.write_bytes(content)


def alter(path):
    """A report whose figures were changed, and that is whole in every other way."""
    report = json.loads(path.read_text())
    report["correct_top1"] += 1
    path.write_text(json.dumps(report))


def cut(path):
    path.write_bytes(path.read_bytes()[:-20])


def remove(path):
    path.unlink()


DAMAGES = [(files.BEST, flip), (files.BEST, cut), (files.BEST, remove), (files.REPORT, alter), (files.REPORT, cut)]
DAMAGES.append((files.REPORT, remove))


def assert_consistent(folder, summary):
    """The best network is whole and the one that log, report and summary speak of."""
    best = read_checkpoint(folder / files.BEST)
    assert best.manifest.metrics["epoch"] == summary.best_epoch
    report = json.loads((folder / files.REPORT).read_text())
    written = json.loads((folder / files.SUMMARY).read_text())
    assert summary.report is not None and summary.report.top1 == report["top1"] == written["top1"]
    assert best.manifest.metrics["top1"] == report["top1"] and written["best_epoch"] == summary.best_epoch


@pytest.mark.parametrize(("name", "damage"), DAMAGES)
def test_found_on_resume_and_the_next_epoch_is_the_best(images, tmp_path, capsys, name, damage):
    recipe, folder = recipe_for(images, epochs=3), tmp_path / "run"
    train(recipe, run_for(folder, max_steps=8), "try")
    damage(folder / name)
    capsys.readouterr()
    summary = train(recipe, run_for(folder), "try")
    said = capsys.readouterr().err
    assert str(folder / name) in said and "set aside, and the next epoch counts as the best so far" in said
    if damage is not remove:
        assert (folder / f"{name}.damaged").is_file()
    assert rows_of(folder)[2]["is_best"] and summary.best_epoch == 3
    assert_consistent(folder, summary)


def test_found_when_no_epoch_is_left(images, tmp_path, capsys):
    """As after a kill before the summary: the last network is measured again and takes the place of the lost one."""
    recipe, folder = recipe_for(images, epochs=3), tmp_path / "run"
    straight = train(recipe, run_for(folder), "try")
    rows = rows_of(folder)
    (folder / files.SUMMARY).unlink()
    flip(folder / files.BEST)
    summary = train(recipe, run_for(folder), "try")
    assert "no epoch is left to replace the best network" in capsys.readouterr().err
    assert summary.best_epoch == 3 == straight.epochs and rows_of(folder) == rows
    assert summary.report is not None and summary.report.top1 == rows[-1]["top1"]
    assert_consistent(folder, summary)


def test_found_at_the_end_and_mended_by_the_same_command(images, tmp_path, monkeypatch):
    recipe, folder = recipe_for(images, epochs=2), tmp_path / "run"
    original = Session._finish

    def finish(self):
        flip(self.folder / files.BEST)
        return original(self)

    monkeypatch.setattr(Session, "_finish", finish)
    with pytest.raises(OvertoneError, match=r"best\.safetensors is damaged"):
        train(recipe, run_for(folder), "try")
    assert not (folder / files.SUMMARY).exists()
    monkeypatch.setattr(Session, "_finish", original)
    assert_consistent(folder, train(recipe, run_for(folder), "try"))


def test_found_by_several_processes(images, tmp_path):
    folder = tmp_path / "run"
    train(recipe_of(images), run_for(folder, max_steps=4), "try")
    flip(folder / files.BEST)
    assert run_ranks(train_here, 2, images, folder, join=False) == ["finished"] * 2
    assert read_checkpoint(folder / files.BEST).manifest.metrics["epoch"] >= 2
    assert (folder / f"{files.BEST}.damaged").is_file()
