"""From a recipe and labelled samples to a run folder with the trained network.

The folder gets `recipe.json` (recipe, run, versions, labels), `samples.jsonl.gz` (the samples and their split),
`metrics.jsonl` (a line an epoch), `log.txt`, `best.safetensors`, `last.safetensors` (with all that the training needs
to be resumed), `report.json` (the best epoch's), `summary.json`, plots and `tensorboard/`.
"""

import dataclasses
import os
import time
from contextlib import nullcontext
from pathlib import Path

from overtone.config import Recipe, Run
from overtone.data.loader import worker_death_explained
from overtone.data.sources import Splits, open_splits
from overtone.engine.allocator import keep_freed_memory
from overtone.engine.automatic import check_size
from overtone.engine.companions import companions, started_by_launcher
from overtone.engine.distributed import World, check_shared_evenly, joined
from overtone.engine.first_scan import scanned_first
from overtone.engine.folder import check_folder, claimed
from overtone.engine.interrupt import StopRequest
from overtone.engine.placement import place
from overtone.engine.resuming import as_begun, check_begun
from overtone.engine.session import Session
from overtone.engine.showing import Artist
from overtone.engine.summary import Summary
from overtone.engine.trackers import check_installed
from overtone.errors import OvertoneError
from overtone.machine import usable_cores
from overtone.tasks import task_named


def train(
    recipe: Recipe,
    run: Run,
    name: str,
    resume: bool = False,
    *,
    splits: Splits | None = None,
    artist: Artist | None = None,
) -> Summary:
    """Train by a recipe and leave everything in the run folder.

    Args:
        recipe: all that changes the numbers.
        run: where and with what; `run.out` is the run folder.
        name: the recipe's name.
        resume: insist on resuming from the last checkpoint in `run.out`, as does `run.resume`; an unfinished run of the
            same recipe is resumed in any case.
        splits: the samples, instead of those that `recipe.data` points to.
        artist: draws the plots; None draws none.

    Raises:
        OvertoneError: data, settings or the folder do not allow it, or the training failed for a reason that the user
            can correct.
        KeyboardInterrupt: Ctrl-C; the last step taken is saved and how to resume has been said.
        Preempted: SIGTERM or SIGUSR1; as for Ctrl-C.
    """
    resume = resume or run.resume
    if resume and run.out is None:
        raise OvertoneError("run.resume needs the run folder to resume; give it as --run.out")
    folder = run.out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    run = dataclasses.replace(run, out=folder)
    check_size(recipe)
    processes = recipe.train.processes
    stop = StopRequest()
    with stop.handled():
        if processes == 1 or started_by_launcher(os.environ):
            return _train(recipe, run, name, resume, splits, stop, artist)
        check_shared_evenly(recipe.train.batch_size, World(size=processes))
        check_folder(folder, overwrite=run.overwrite, resume=resume)
        if splits is None:
            _splits(recipe)  # what is wrong with the data is said once, not by every process
        run = dataclasses.replace(run, threads=run.threads or max(1, usable_cores() // processes))
        with companions(processes, _companion, (recipe, run, name, resume, splits)):
            return _train(recipe, run, name, resume, splits, stop, artist)


def _companion(recipe: Recipe, run: Run, name: str, resume: bool, splits: Splits | None) -> None:
    stop = StopRequest()
    with stop.handled():
        _train(recipe, run, name, resume, splits, stop, None)


def _splits(recipe: Recipe) -> Splits:
    return open_splits(recipe.data, task_named(recipe.task).target)


def _train(
    recipe: Recipe,
    run: Run,
    name: str,
    resume: bool,
    splits: Splits | None,
    stop: StopRequest,
    artist: Artist | None,
) -> Summary:
    with joined(run) as world:
        check_shared_evenly(recipe.train.batch_size, world)
        folder = world.from_first(run.out)  # named by the time where the user gave none
        assert folder is not None
        resuming = check_folder(folder, overwrite=run.overwrite, resume=resume)
        if resuming:
            recipe = as_begun(folder, recipe)
            check_begun(folder, recipe, run)
        splits = splits or scanned_first(world, lambda: _splits(recipe))
        check_installed(run)
        placement = place(run)
        if placement.device.type == "cpu":
            keep_freed_memory()
        world.gather(None)  # all have looked at the folder before the first one writes into it
        session = Session(recipe, run, name, folder, placement, splits, stop, world, artist)
        claim = claimed(folder) if world.is_first else nullcontext()
        with worker_death_explained(), claim, session.opened(resuming) as log:
            return session.run_in(log)
