"""`overtone train`: from a recipe and a folder of images to a run folder with the trained network.

The folder gets `recipe.json` (recipe, run, versions, classes), `split.json` (the images held out, where a seed chose
them), `metrics.jsonl` (a line an epoch), `log.txt`, `best.safetensors`, `last.safetensors` (with all that the training
needs to go on), `per_class.json` (the best epoch's report), `summary.json`, `curves.png`, `confusion.png` and
`tensorboard/`.
"""

import dataclasses
import functools
import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn

from overtone import zoo
from overtone.checkpoint import Manifest, read_checkpoint, write_text
from overtone.config import Recipe, Run, to_dict
from overtone.data.loader import Loader
from overtone.data.sources import ImageList, Splits, find_splits
from overtone.data.transforms import evaluation_transform, training_transform
from overtone.engine import folder as files
from overtone.engine import saver
from overtone.engine.folder import check_folder, claimed, clear
from overtone.engine.interrupt import StopRequest
from overtone.engine.log import Log, duration, read_rows
from overtone.engine.loop import BadImage, Epoch, Interrupted, Watch, evaluate, fit
from overtone.engine.optim import build_optimizer, lr_at, moving_average
from overtone.engine.placement import Placement, place
from overtone.engine.state import Snapshot, State
from overtone.engine.step import NotFinite, Trainer
from overtone.errors import OvertoneError
from overtone.tasks.classification import Classification, ClassificationReport
from overtone.verbs.console import print_line, print_table
from overtone.verbs.plots import plot_confusion, plot_curves
from overtone.verbs.resuming import check_resumable

_WORST = 10
_MOST_CLASSES_LISTED = 20
_PLOT_SECONDS = 60.0
_MOST_CORES = 8
_SMALL = 64  # pixels


@dataclass(frozen=True)
class Summary:
    """How a training ended.

    Attributes:
        folder: the run folder.
        epochs: epochs done; `best_epoch` is the one (from 1) that best.safetensors is of.
        seconds: time spent, over all parts of the run.
        report: the best epoch's, on the validation images.
    """

    folder: Path
    epochs: int
    best_epoch: int
    seconds: float
    report: ClassificationReport


def train(recipe: Recipe, run: Run, name: str, resume: bool = False) -> Summary:
    """Train by a recipe and leave everything in the run folder.

    Args:
        recipe: all that changes the numbers.
        run: where and with what; `run.out` is the run folder.
        name: the recipe's name.
        resume: go on from the last checkpoint in `run.out`, as does `run.resume`.

    Raises:
        OvertoneError: data, settings or the folder do not allow it, or the training went wrong in a way to be mended.
        KeyboardInterrupt: Ctrl-C; the last step taken is saved and how to go on has been said.
    """
    resume = resume or run.resume
    if resume and run.out is None:
        raise OvertoneError("run.resume needs the run folder to go on with; give it as --run.out")
    folder = run.out or Path("runs") / f"{name}-{time.strftime('%Y%m%d-%H%M%S')}"
    check_folder(folder, overwrite=run.overwrite, resume=resume)
    placement = place(run)
    splits = find_splits(recipe.data)
    session = _Session(recipe, run, name, folder, placement, splits)
    with claimed(folder), session.opened(resume) as log:
        return session.run_in(log)


class _Session(Watch):
    """One run of a training: its parts, and what is written when."""

    def __init__(self, recipe: Recipe, run: Run, name: str, folder: Path, placement: Placement, splits: Splits) -> None:
        self.recipe, self.run, self.name, self.folder = recipe, run, name, folder
        self.placement, self.splits = placement, splits
        self.classes = splits.train.classes
        self.manifest = Manifest(
            architecture=recipe.model.name.partition(".")[0],
            classes=self.classes,
            preprocess=recipe.data.preprocess,
            model_args=dict(recipe.model.args),
            recipe=to_dict(recipe),
            versions=saver.versions(),
        )
        self.state = State()
        self.best: ClassificationReport | None = None
        self.adapted: list[str] = []
        self._stop, self._drawn = StopRequest(), time.perf_counter()

    @contextmanager
    def opened(self, resume: bool) -> Iterator[Log]:
        """Build the parts, new or as the last checkpoint has them, and open the log of the claimed folder."""
        last = self.folder / files.LAST
        checkpoint = read_checkpoint(last) if resume else None
        if checkpoint is not None:
            check_resumable(self.folder, checkpoint.manifest, self.manifest, self._relative(self.splits.val))
        model = self.recipe.model
        torch.manual_seed(self.recipe.train.seed)
        # the checkpoint has all the weights: those that the run started from need not be there any more
        network = zoo.build_for_training(
            model if checkpoint is None else dataclasses.replace(model, weights=None, name=self.manifest.architecture),
            len(self.classes),
            self.adapted.append,
        )
        self.train_loader, self.val_loader = self._loaders()
        self.trainer = self._trainer(network)
        if checkpoint is not None:
            self.state = saver.restore(last, checkpoint, self.trainer)
            self.best = _read_report(self.folder)
        else:
            clear(self.folder)
            self._describe()
        rows = read_rows(self.folder, self.state.epoch)
        try:
            with Log(self.folder, tensorboard=self.run.tensorboard, rows=rows) as log:
                yield log
        finally:
            self.train_loader.close()
            self.val_loader.close()

    def run_in(self, log: Log) -> Summary:
        """Train to the end, an error or Ctrl-C."""
        self.log = log
        self._announce()
        train = self.recipe.train
        try:
            with self._stop.on_interrupt():
                for epoch in fit(
                    self.trainer,
                    self.train_loader,
                    self._validate,
                    self.state,
                    epochs=train.epochs,
                    patience=train.patience,
                    max_steps=self.run.max_steps,
                    watch=self,
                ):
                    self._keep(epoch)
        except Interrupted:
            self._save_last({})
            done = f"epoch {self.state.epoch + 1}, batch {self.state.batch} of {len(self.train_loader)}"
            log.say(
                f"stopped in {done}; everything is in {self.folder / files.LAST}. "
                f"To go on, give the same command again with --run.out {self.folder} --run.resume"
            )
            raise KeyboardInterrupt from None
        except NotFinite as error:
            raise self._recorded(error) from error
        return self._finish()

    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed."""
        return self._stop.is_set

    def bad(self, found: Sequence[BadImage]) -> None:
        """Name each unreadable training image once, and give up when there are too many."""
        images, known = self.splits.train, set(self.state.bad)
        for position, reason in found:
            if position not in known:
                self.state.bad.append(position)
                self.log.say(f"left out: {images.paths[position]}: {reason}")
        limit = self.recipe.data.max_bad_fraction
        if len(self.state.bad) > limit * len(images):
            raise OvertoneError(
                f"{len(self.state.bad)} of {len(images)} training images cannot be read, the last one "
                f"{images.paths[self.state.bad[-1]]}, more than --data.max-bad-fraction {limit:g}; "
                "mend or remove them, or allow a larger share"
            )

    def progress(self, snapshot: Snapshot) -> None:
        """Move the progress line."""
        self.log.training(snapshot)

    def _trainer(self, network: nn.Module) -> Trainer:
        recipe, run = self.recipe, self.run
        network = self.placement.model(network)
        task = Classification(self.classes, recipe, self.splits.train.counts())
        average = moving_average(network, recipe.train.ema_decay)
        trainer = Trainer(
            network,
            task,
            build_optimizer(network, recipe.optim),
            lr_at=functools.partial(lr_at, recipe=recipe, steps_per_epoch=len(self.train_loader)),
            placement=self.placement,
            seed=recipe.train.seed,
            micro_batch=run.micro_batch,
            clip_grad=recipe.optim.clip_grad,
            average=average,
        )
        if run.compile:
            network.compile()  # in place: the names in the state dict stay
            if average is not None:
                average.module.compile()
        return trainer

    def _loaders(self) -> tuple[Loader, Loader]:
        recipe, run = self.recipe, self.run
        preprocess, size, seed = recipe.data.preprocess, recipe.train.batch_size, recipe.train.seed
        transforms = (training_transform(preprocess, recipe.augment), evaluation_transform(preprocess))
        # Arithmetic on the CPU loses more to processes beside it than it gains, when pictures are small.
        in_process = self.placement.device.type == "cpu" and preprocess.size <= _SMALL
        train, val = (
            Loader(
                images,
                transform,
                batch_size=batch,
                workers=_workers(run.workers, len(images) / batch, in_process),
                shuffle=shuffle,
                seed=seed,
                pin_memory=self.placement.device.type == "cuda",
            )
            for images, transform, batch, shuffle in (
                (self.splits.train, transforms[0], size, True),
                (self.splits.val, transforms[1], run.micro_batch or size, False),
            )
        )
        return train, val

    def _validate(self) -> ClassificationReport:
        total = len(self.splits.val)

        def progress(done: int) -> None:
            if self._stop.is_set:
                raise Interrupted
            self.log.validating(done, total)

        try:
            return evaluate(self.trainer.task, self.trainer.evaluated, self.val_loader, self.placement, progress)
        except OvertoneError:
            if self._stop.is_set:  # the same signal has ended the processes that read
                raise Interrupted from None
            raise

    def _keep(self, epoch: Epoch) -> None:
        report = epoch.report
        assert isinstance(report, ClassificationReport)
        metrics = {"epoch": epoch.row["epoch"], "loss": report.loss, "top1": report.top1, "top5": report.top5}
        if epoch.is_best:
            self.best = report
            saver.save_best(self.folder / files.BEST, self.manifest, self.trainer, metrics)
            write_text(self.folder / files.REPORT, json.dumps(report.to_dict()))
        self._save_last(metrics)
        self.log.epoch(epoch.row)
        if report.bad and epoch.row["epoch"] == 1:
            self.log.say(f"validation used {report.num_used} of {report.num_expected} images; unreadable:")
            self.log.say("\n".join(f"  {path}" for path in report.bad))
        if self.run.plots and time.perf_counter() - self._drawn > _PLOT_SECONDS:
            self._plot_curves()

    def _save_last(self, metrics: dict[str, Any]) -> None:
        saver.save_last(self.folder / files.LAST, self.manifest, self.trainer, self.state, metrics)

    def _plot_curves(self) -> None:
        plot_curves(self.log.rows, self.folder / files.CURVES, f"{self.name}: {self.recipe.model.name}")
        self._drawn = time.perf_counter()

    def _describe(self) -> None:
        """Write down what the run is: its recipe, and the images held out where a seed chose them."""
        record = {
            "name": self.name,
            "recipe": to_dict(self.recipe),
            "run": to_dict(self.run),
            "versions": self.manifest.versions,
            "classes": list(self.classes),
            "split": self.splits.origin,
        }
        write_text(self.folder / files.RECIPE, json.dumps(record, indent=2) + "\n")
        if self.splits.seeded:
            split = {"origin": self.splits.origin, "val": self._relative(self.splits.val)}
            write_text(self.folder / files.SPLIT, json.dumps(split, indent=2) + "\n")

    def _announce(self) -> None:
        """Say what is going to happen."""
        recipe, splits, trainer = self.recipe, self.splits, self.trainer
        total = sum(parameter.numel() for parameter in trainer.model.parameters())
        trained = sum(parameter.numel() for parameter in trainer.parameters)
        only = "" if trained == total else f", {trained / 1e6:.3g} M of them trained"
        start = f", from {recipe.model.weights}" if recipe.model.weights else ""
        micro = f" in parts of {self.run.micro_batch}" if self.run.micro_batch else ""
        optim, steps = recipe.optim, len(self.train_loader)
        self.log.say(
            f"model   {recipe.model.name}, {total / 1e6:.3g} M parameters{only}{start}\n"
            f"images  {len(splits.train):,} to train, {len(splits.val):,} to validate, "
            f"{len(self.classes)} classes; {splits.origin}\n"
            f"train   {recipe.train.epochs} epochs of {steps} steps of {recipe.train.batch_size} images{micro} at "
            f"{recipe.data.preprocess.size} px; {optim.name}, lr {optim.lr:g}, {recipe.schedule.name}\n"
            f"on      {self.placement}{', compiled' if self.run.compile else ''}\n"
            f"folder  {self.folder}"
        )
        for adapted in self.adapted:
            self.log.say(f"weights {adapted}")
        if self.state.step:
            self.log.say(f"resumed at epoch {self.state.epoch + 1}, batch {self.state.batch}, step {self.state.step}")

    def _recorded(self, error: NotFinite) -> OvertoneError:
        """Write down the step and its images, to be looked at."""
        images, path = self.splits.train, self.folder / files.FAULT
        batch = [{"id": position, "path": str(images.paths[position])} for position in error.ids]
        loss = None if error.loss is None else str(error.loss)
        record = {"step": error.step, "epoch": self.state.epoch + 1, "loss": loss, "images": batch}
        write_text(path, json.dumps(record, indent=2) + "\n")
        return OvertoneError(f"{error}; the images of the step are in {path}")

    def _finish(self) -> Summary:
        state, best, log = self.state, self.best, self.log
        if best is None:
            raise OvertoneError(f"{self.folder} has no finished epoch; raise --train.epochs or --run.max-steps")
        epochs = len(log.rows)
        summary = Summary(self.folder, epochs, state.best_epoch, state.seconds, best)
        values = best.to_dict()
        figures = {key: values[key] for key in ("top1", "top5", "loss", "num_used", "num_expected")}
        record = {"epochs": epochs, "best_epoch": state.best_epoch, "seconds": state.seconds, **figures}
        write_text(self.folder / files.SUMMARY, json.dumps(record, indent=2) + "\n")
        if self.run.plots:
            self._plot_curves()
            if best.confusion:
                plot_confusion(best, self.folder / files.CONFUSION)
        if state.epoch < self.recipe.train.epochs and self._patience_is_over():
            log.say(f"ended early: no better epoch in the last {self.recipe.train.patience}")
        _print_summary(summary)
        return summary

    def _patience_is_over(self) -> bool:
        patience = self.recipe.train.patience
        return patience is not None and self.state.epoch - self.state.best_epoch >= patience

    def _relative(self, images: ImageList) -> list[str]:
        root = self.recipe.data.root or Path()
        return [path.relative_to(root).as_posix() for path in images.paths]


def _print_summary(summary: Summary) -> None:
    report = summary.report
    rows = list(zip(report.classes, report.class_counts, report.class_correct, report.per_class, strict=True))
    print_line(
        f"best epoch {summary.best_epoch} of {summary.epochs}: top-1 {report.top1:.2f} %, top-5 {report.top5:.2f} %, "
        f"loss {report.loss:.4f} on {report.num_used} of {report.num_expected} validation images; "
        f"{duration(summary.seconds)} in all"
    )
    if len(rows) > _MOST_CLASSES_LISTED:
        rows = sorted((row for row in rows if row[3] is not None), key=lambda row: row[3] or 0.0)[:_WORST]
        print_line(f"the {len(rows)} classes with the lowest accuracy, of {len(report.classes)}:")
    print_table(
        ("class", "images", "correct", "top-1"),
        [(name, count, correct, "" if share is None else f"{share:.2f} %") for name, count, correct, share in rows],
    )
    print_line(f"{summary.folder / files.BEST} is the best network; curves, log and figures are beside it")


def _read_report(folder: Path) -> ClassificationReport | None:
    path = folder / files.REPORT
    return ClassificationReport.from_dict(json.loads(path.read_text(encoding="utf-8"))) if path.is_file() else None


def _workers(asked: int | None, num_batches: float, in_process: bool) -> int:
    """Processes that read images: as asked, none, or one per usable core but no more than there are batches."""
    if asked is not None:
        return asked
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return 0 if in_process else min(cores, _MOST_CORES, math.ceil(num_batches))
