"""Training data that changed between stop and resume is found, shown and refused unless it is accepted (row 35)."""

import dataclasses
import gzip
import json
import shutil

import pytest
from ranks import run_ranks
from test_training_together import recipe_of, train_here
from tiny_runs import recipe_for, rows_of, run_for

from overtone.checkpoint import read_manifest
from overtone.engine import folder as files
from overtone.engine.training import train
from overtone.errors import OvertoneError

pytestmark = pytest.mark.usefixtures("tiny_from_zoo")


def add(root, part):
    shutil.copy(root / part / "blue" / "0.png", root / part / "blue" / "more.png")
    return "1 added", f"{part}/blue/more.png"


def remove(root, part):
    (root / part / "red" / "1.png").unlink()
    return "1 removed", f"{part}/red/1.png"


def rename(root, part):
    (root / part / "green" / "2.png").rename(root / part / "green" / "other.png")
    return "1 added", f"{part}/green/other.png", "1 removed", f"{part}/green/2.png"


def move(root, part):
    (root / part / "green" / "2.png").rename(root / part / "red" / "moved.png")
    return "1 added", f"{part}/red/moved.png", "1 removed", f"{part}/green/2.png"


def replace(root, part):
    with (root / part / "red" / "0.png").open("ab") as file:
        file.write(b"more")
    return "1 of another size", f"{part}/red/0.png"


CHANGES = (add, remove, rename, move, replace)


def accepting(recipe):
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, accept_changes=True))


@pytest.mark.parametrize("part", ["train", "val"])
@pytest.mark.parametrize("change", CHANGES)
def test_changes_are_refused_with_what_they_are_and_accepted_by_wish(images, tmp_path, capsys, change, part):
    folder, recipe = tmp_path / "run", recipe_for(images, epochs=2)
    train(recipe, run_for(folder, max_steps=5), "try")
    before = (folder / files.LAST).read_bytes()
    shown = change(images, part)
    with pytest.raises(OvertoneError, match=r"has changed: .*--data\.accept-changes") as caught:
        train(recipe, run_for(folder), "try")
    assert all(words in str(caught.value) for words in (*shown, str(folder))) and "\n" not in str(caught.value)
    assert (folder / files.LAST).read_bytes() == before  # nothing was done
    capsys.readouterr()
    train(accepting(recipe), run_for(folder, max_steps=6), "try")
    said = capsys.readouterr().err
    assert "resumed on changed data: " in said and all(words in said for words in shown)
    # the changed data is the run's own from here on
    train(recipe, run_for(folder), "try")
    assert "changed data" not in capsys.readouterr().err
    assert len(rows_of(folder)) == 2


@pytest.mark.parametrize("change", CHANGES)
def test_changes_of_images_that_a_seed_splits(images, tmp_path, change):
    folder, recipe = tmp_path / "run", recipe_for(images / "train", epochs=2)
    train(recipe, run_for(folder, max_steps=1), "try")
    change(images, "train")
    with pytest.raises(OvertoneError, match="has changed: "):
        train(recipe, run_for(folder), "try")


def test_most_of_the_images_gone_in_the_middle_of_an_epoch(images, tmp_path, capsys):
    folder, recipe = tmp_path / "run", recipe_for(images, epochs=2)
    train(recipe, run_for(folder, max_steps=3), "try")
    for path in (images / "train").rglob("*.png"):
        if path.stem not in "01":
            path.unlink()
    with pytest.raises(OvertoneError, match=r"20 removed \(train/blue/2\.png, .* and 17 more\)"):
        train(recipe, run_for(folder), "try")
    summary = train(accepting(recipe), run_for(folder), "try")  # an epoch has one batch now, and three were taken
    assert summary.epochs == 2 and [row["step"] for row in rows_of(folder)] == [3, 4]


def test_unreadable_images_are_counted_anew_among_changed_ones(images, tmp_path):
    (images / "train" / "red" / "3.png").write_bytes(b"")
    folder, recipe = tmp_path / "run", recipe_for(images, epochs=2)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_bad_fraction=0.05))
    train(recipe, run_for(folder, max_steps=4), "try")
    assert read_manifest(folder / files.LAST).progress["bad"] == [20]
    (images / "train" / "red" / "3.png").unlink()
    train(accepting(recipe), run_for(folder), "try")
    assert read_manifest(folder / files.LAST).progress["bad"] == []


def test_the_list_of_samples_and_what_may_be_done_without_it(images, tmp_path):
    folder, recipe = tmp_path / "run", recipe_for(images, epochs=2)
    train(recipe, run_for(folder, max_steps=1), "try")
    with gzip.open(folder / files.SAMPLES, "rt", encoding="utf-8") as file:
        lines = [json.loads(line) for line in file]
    size = (images / "train" / "blue" / "0.png").stat().st_size
    assert len(lines) == 35 and lines[0] == ["train", "train/blue/0.png", "blue", size]
    (folder / files.SAMPLES).write_bytes(b"damaged")
    moved = images.rename(tmp_path / "moved")
    train(recipe_for(moved, epochs=2), run_for(folder, max_steps=2), "try")  # the same images in another place
    add(moved, "train")
    with pytest.raises(OvertoneError, match=r"samples\.jsonl\.gz cannot be read"):
        train(recipe_for(moved, epochs=2), run_for(folder), "try")


def test_all_of_several_processes_refuse(images, tmp_path):
    folder = tmp_path / "run"
    train(recipe_of(images), run_for(folder, max_steps=1), "try")
    remove(images, "train")
    found = run_ranks(train_here, 2, images, folder, join=False)
    assert [type(error) for error in found] == [OvertoneError] * 2
    assert all("1 removed (train/red/1.png)" in str(error) for error in found)
