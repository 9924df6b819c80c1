"""Plots of reports and runs: every kind gives a PNG, whatever the names and however many there are."""

import numpy as np
import pytest
from PIL import Image

from overtone.reports.epochs import best_of, score_name_of, score_of
from overtone.reports.plots import draw, plot_comparison, plot_curves
from overtone.tasks.task import Plot


@pytest.mark.parametrize(
    "plot",
    [
        Plot("m", "matrix", "title $x_1", ("a $b", "c" * 99), ((3, 0), (1, 2)), axes=("predicted", "true")),
        Plot("m", "matrix", "many", tuple(map(str, range(150))), tuple((1,) * 150 for _ in range(150))),
        Plot("c", "curves", "one", series={"a": ((0, 1, 2), (1.0, 0.5, 0.2))}, axes=("recall", "precision")),
        Plot("c", "curves", "two", series={"a": ((0, 1), (1, 2)), "$b": ((0.5,), (2,))}),
        Plot("b", "bars", "some", ("a", "b"), ((1.0, 2.0), (0.5, 0.1)), axes=("AP", "label")),
        Plot("b", "bars", "none", (), ()),
    ],
    ids=lambda plot: f"{plot.kind} {plot.title}",
)
def test_every_kind_of_plot(tmp_path, plot):
    draw(plot, tmp_path / "plot.png")
    with Image.open(tmp_path / "plot.png") as image:
        assert min(image.size) >= 200 and len(np.unique(np.asarray(image))) > 2


def test_an_unknown_kind_is_a_mistake(tmp_path):
    with pytest.raises(ValueError, match=r"'pie'.*matrix, curves, bars"):
        draw(Plot("p", "pie", ""), tmp_path / "plot.png")
    assert not any(tmp_path.iterdir())


def test_runs_of_different_tasks_and_ages_are_drawn_together(tmp_path):
    old = [{"epoch": 1, "train_loss": 1.0, "top1": 5.0, "top5": 9.0, "lr": 0.1}, {"epoch": 2, "top1": 4.0, "lr": None}]
    new = [{"epoch": 1, "train_loss": None, "val_loss": 2.0, "score": -0.2, "score_name": "error", "is_best": True}]
    plot_comparison({"old": old, "n$w" * 40: new, "empty": []}, tmp_path / "a.png")
    plot_curves(old, tmp_path / "b.png", "old $")
    plot_curves(new, tmp_path / "c.png")
    plot_curves([], tmp_path / "d.png")
    assert all((tmp_path / f"{name}.png").stat().st_size > 1000 for name in "abcd")


def test_the_score_of_an_epoch():
    old = [{"epoch": 1, "top1": 5.0}, {"epoch": 2, "top1": 7.0}, {"epoch": 3, "top1": None}, {"epoch": 4, "top1": "x"}]
    assert [score_of(row) for row in old] == [5.0, 7.0, None, None]
    assert best_of(old) == old[1] and score_name_of(old) == "top-1"
    new = [
        {"epoch": 1, "score": 5.0, "score_name": "mAP", "is_best": True},
        {"epoch": 2, "score": 5.0, "score_name": "mAP", "is_best": True},  # an equal score with a lower loss
        {"epoch": 3, "score": 5.0, "score_name": "mAP", "is_best": False},
    ]
    assert best_of(new) == new[1] and score_name_of(new) == "mAP"
    assert best_of([{"epoch": 1, "is_best": True}]) is None
