"""The moving average of the weights: its warm-up, and evaluating it or the weights themselves, whichever is better."""

import pytest
import torch
from tiny_runs import assert_same_end, recipe_for, rows_of, run_for
from tiny_training import Tiny, draw

from overtone.checkpoint import read_checkpoint
from overtone.config import Train
from overtone.engine import folder as files
from overtone.engine.optim import moving_average
from overtone.errors import OvertoneError
from overtone.verbs.train import train


@pytest.fixture(scope="module")
def root(tmp_path_factory):
    root = tmp_path_factory.mktemp("photos") / "data"
    draw(root / "train", {"blue": 8, "green": 9, "red": 9})
    draw(root / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return root


def test_the_decay_grows_with_the_steps_up_to_its_value():
    average = moving_average(Tiny(), 0.9, warmup=True)
    decays = [average.get_decay(step + 1) for step in (0, 1, 10, 90, 1000)]
    assert decays == pytest.approx([0, 1 / 11, 0.5, 0.9, 0.9])


@pytest.mark.usefixtures("tiny_from_zoo")
def test_a_warm_average_follows_the_weights_and_is_resumed(root, tmp_path):
    recipe = recipe_for(root, epochs=2, ema_decay=0.999, ema_warmup=True)
    train(recipe, run_for(tmp_path / "straight"), "try")
    train(recipe, run_for(tmp_path / "parts", max_steps=5), "try")
    train(recipe, run_for(tmp_path / "parts"), "try")
    assert_same_end(tmp_path / "straight", tmp_path / "parts")
    train(recipe, run_for(tmp_path / "one", max_steps=1), "try")
    last = read_checkpoint(tmp_path / "one" / files.LAST)
    assert torch.equal(last.weights["head.weight"], last.training["model/head.weight"])


@pytest.mark.usefixtures("tiny_from_zoo")
@pytest.mark.parametrize(("decay", "kept"), [(0.9999, "weights"), (0.3, None)])
def test_the_better_of_average_and_weights_is_kept(root, tmp_path, decay, kept):
    folder = tmp_path / "best"
    recipe = recipe_for(root, epochs=3, ema_decay=decay, ema_evaluate="best")
    summary = train(recipe, run_for(folder), "try")
    train(recipe_for(root, epochs=3, ema_decay=decay), run_for(tmp_path / "average"), "try")
    train(recipe_for(root, epochs=3, ema_decay=None), run_for(tmp_path / "weights"), "try")
    rows, alone = rows_of(folder), {name: rows_of(tmp_path / name) for name in ("average", "weights")}
    for index, row in enumerate(rows):
        found = {name: (alone[name][index]["top1"], -alone[name][index]["val_loss"]) for name in alone}
        assert (row["top1"], -row["val_loss"]) == max(found.values()) == found[row["evaluated"]]
    assert kept is None or rows[-1]["evaluated"] == kept
    best = read_checkpoint(folder / files.BEST).weights
    other = read_checkpoint(tmp_path / rows[summary.best_epoch - 1]["evaluated"] / files.BEST)
    if other.manifest.metrics["epoch"] == summary.best_epoch:
        assert all(torch.equal(best[key], other.weights[key]) for key in best)
    assert kept is None or other.manifest.metrics["epoch"] == summary.best_epoch


def test_settings_of_an_average_need_one():
    for name, value in (("ema_warmup", True), ("ema_evaluate", "best")):
        with pytest.raises(OvertoneError, match=f"train.{name}.*ema_decay"):
            Train(**{name: value})
