"""`overtone tune-lr`: the learning rate at which the loss of a recipe falls fastest on these images."""

from pathlib import Path

from overtone.config import Recipe, Run
from overtone.data.loader import worker_death_explained
from overtone.data.sources import open_splits
from overtone.engine.assembly import assemble
from overtone.engine.automatic import check_size, settled
from overtone.engine.distributed import World
from overtone.engine.lr_range import STEPS, Curve, range_test
from overtone.engine.placement import place
from overtone.errors import OvertoneError
from overtone.reports.plots import draw
from overtone.tasks import task_named
from overtone.tasks.task import Plot
from overtone.verbs.console import note, print_line

_NAME = "tune-lr"


def tune_lr(recipe: Recipe, run: Run, name: str) -> Curve:
    """Take the steps, print the choice and draw the curve, `tune-lr.png` in `run.out` (default: the working folder).

    Raises:
        OvertoneError: the file is there, the loss falls at no rate, or what a training would raise.
    """
    path = (run.out or Path()) / f"{_NAME}.png"
    if path.exists() and not run.overwrite:
        raise OvertoneError(f"{path} is there already; choose another folder with --run.out, or --run.overwrite")
    check_size(recipe)
    splits = open_splits(recipe.data, task_named(recipe.task).target)
    recipe, said = settled(recipe, run, splits.train, World())
    for line in said:
        note(line)
    placement = place(run)
    parts = assemble(recipe, run, splits, placement, World(), resumed=None, digest=None, say=note)
    try:
        with worker_death_explained():
            train = recipe.train
            steps = run.max_steps or STEPS
            curve = range_test(parts, recipe.optim.lr, train.epochs, steps=steps, first_epoch=train.freeze_epochs)
    finally:
        parts.close()
    path.parent.mkdir(parents=True, exist_ok=True)
    draw(_plot(curve, f"{name}: {recipe.model.name}, batches of {train.batch_size}"), path)
    print_line(
        f"--optim.lr {curve.chosen:.2g}: there the smoothed loss, {curve.smoothed[0]:.3g} at first and "
        f"{min(curve.smoothed):.3g} at best, falls fastest; {len(curve.rates)} steps from {curve.rates[0]:.2g} to "
        f"{curve.rates[-1]:.2g}, the recipe has {recipe.optim.lr:g}\n{path} is the curve"
    )
    return curve


def _plot(curve: Curve, title: str) -> Plot:
    at, highest = curve.rates.index(curve.chosen), 2 * curve.smoothed[0]
    return Plot(
        _NAME,
        "log_curves",
        title,
        series={
            "smoothed loss": (curve.rates, curve.smoothed),
            "loss": (curve.rates, [min(loss, highest) for loss in curve.losses]),
            f"steepest: {curve.chosen:.2g}": (curve.rates[at : at + 1], curve.smoothed[at : at + 1]),
        },
        axes=("learning rate", "loss"),
    )
