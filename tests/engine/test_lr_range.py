"""The learning-rate range test: which rate is chosen of a curve, and the verb that takes the steps."""

import math

import numpy as np
import pytest
from tiny_runs import recipe_for, run_for

from overtone.cli import main
from overtone.engine.lr_range import steepest
from overtone.errors import OvertoneError
from overtone.verbs.tune_lr import tune_lr


def test_the_steepest_descent_by_the_logarithm_of_the_rate():
    rates = np.geomspace(1e-5, 1.0, 100)
    curve = 2.3 - 2 / (1 + np.exp(-3 * np.log(rates / 0.02))) + np.maximum(rates - 0.2, 0) * 50
    assert steepest(list(rates), list(curve)) == pytest.approx(0.02, rel=0.15)


@pytest.mark.parametrize("losses", [[], [2.0, 1.0], [2.0] * 30, list(range(30))])
def test_a_loss_that_falls_nowhere_is_an_error_with_a_remedy(losses):
    with pytest.raises(OvertoneError, match=r"no learning rate.*--optim.lr"):
        steepest([10.0 ** (step - 9) for step in range(len(losses))], losses)


@pytest.mark.usefixtures("tiny_from_zoo")
def test_the_verb_draws_the_curve_says_the_choice_and_keeps_nothing_else(images, tmp_path, capsys):
    run = run_for(tmp_path / "lr", max_steps=60)
    recipe = recipe_for(images, epochs=2, freeze_epochs=1)
    curve = tune_lr(recipe, run, "try")
    assert 0.05e-3 < curve.chosen < 5 and len(curve.rates) == len(curve.losses) <= 60
    assert curve.rates[0] == pytest.approx(0.05e-3)
    assert math.isclose(curve.rates[1] / curve.rates[0], 1e5 ** (1 / 59))
    assert f"--optim.lr {curve.chosen:.2g}:" in capsys.readouterr().out
    assert [path.name for path in (tmp_path / "lr").iterdir()] == ["tune-lr.png"]
    with pytest.raises(OvertoneError, match=r"tune-lr\.png.*--run\.overwrite"):
        tune_lr(recipe, run, "try")


@pytest.mark.usefixtures("tiny_from_zoo")
def test_the_words_are_those_of_a_training(images, tmp_path, capsys):
    quiet = (
        "--run.workers",
        "0",
        "--run.out",
        str(tmp_path),
        "--data.preprocess.size",
        "12",
        "--train.batch-size",
        "8",
    )
    assert main(["tune-lr", "scratch", str(images), *quiet, "--run.max-steps", "40"]) == 0, capsys.readouterr().err
    assert "the recipe has 0.05" in capsys.readouterr().out
    assert main(["tune-lr", str(tmp_path / "nowhere")]) == 2
