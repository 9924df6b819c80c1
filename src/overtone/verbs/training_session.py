"""One run of a training: its parts, what happens on the way, and what is written when."""

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import nn

from overtone import zoo
from overtone.checkpoint import Checkpoint, Manifest, read_checkpoint, read_manifest, write_text
from overtone.config import Recipe, Run, to_dict
from overtone.data.loader import worker_death_explained
from overtone.data.sources import ImageList, Splits
from overtone.engine import folder as files
from overtone.engine import saver
from overtone.engine.distributed import World
from overtone.engine.folder import clear, prune, remove_temporary
from overtone.engine.interrupt import StopRequest
from overtone.engine.log import Log, Row, read_rows
from overtone.engine.loop import BadImage, Epoch, Interrupted, Watch, evaluate, fit
from overtone.engine.optim import build_optimizer, lr_at, moving_average, weight_decay_at
from overtone.engine.placement import Placement
from overtone.engine.silent_log import SilentLog
from overtone.engine.state import Snapshot, State
from overtone.engine.step import NotFinite, Trainer
from overtone.engine.sync_bn import synchronise_batch_norm
from overtone.engine.trackers import chosen_trackers
from overtone.errors import OvertoneError
from overtone.tasks.classification import Classification, ClassificationReport
from overtone.verbs.plots import plot_confusion, plot_curves
from overtone.verbs.resuming import check_resumable
from overtone.verbs.teaching import load_teacher
from overtone.verbs.training_loaders import training_loaders
from overtone.verbs.training_summary import Summary, print_summary, read_report

_PLOT_SECONDS = 60.0


class Session(Watch):
    """One run of a training: its parts, and what is written when; the first of several processes writes it."""

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        name: str,
        folder: Path,
        placement: Placement,
        splits: Splits,
        stop: StopRequest,
        world: World,
    ) -> None:
        self.recipe, self.run, self.name, self.folder = recipe, run, name, folder
        self.placement, self.splits, self.world = placement, splits, world
        self.classes = splits.train.classes
        if recipe.train.patience is not None and not splits.val:
            raise OvertoneError(
                "train.patience waits for a better validation, but nothing is held out to validate on; "
                "take it off, or set --data.val-fraction above 0"
            )
        self.manifest = Manifest(
            architecture=recipe.model.name.partition(".")[0],
            labels=self.classes,
            preprocess=recipe.data.preprocess,
            model_args=dict(recipe.model.args),
            recipe=to_dict(recipe),
            versions=saver.versions(),
        )
        self.state = State()
        self.best: ClassificationReport | None = None
        self.adapted: list[str] = []
        self.saver = saver.Saver(
            folder, self.manifest, keep_last=run.keep_last, every_minutes=run.save_minutes, every_steps=run.save_steps
        )
        self.stop, self._drawn = stop, time.perf_counter()
        self._told: list[str] = []
        self._since = time.perf_counter()  # when `state.seconds` was up to date

    @contextmanager
    def opened(self, go_on: bool) -> Iterator[Log]:
        """Build the parts, new or as the last checkpoint has them, and open the log of the claimed folder."""
        last, checkpoint = self._newest(go_on)
        if checkpoint is not None:
            check_resumable(self.folder, checkpoint.manifest, self.manifest, self._relative(self.splits.val))
        elif go_on:
            self._told.append(f"the run in {self.folder} has no checkpoint yet and starts over")
        model = self.recipe.model
        torch.manual_seed(self.recipe.train.seed)
        # the checkpoint has all the weights: those that the run started from need not be there any more
        network = zoo.build_for_training(
            model if checkpoint is None else dataclasses.replace(model, weights=None, name=self.manifest.architecture),
            len(self.classes),
            self.adapted.append,
        )
        self.train_loader, self.val_loader = training_loaders(
            self.recipe, self.run, self.splits, self.placement, self.world, self._told.append
        )
        self.trainer = self._trainer(network)
        if checkpoint is not None:
            self.state = saver.restore(last, checkpoint, self.trainer)
            self.best = read_report(self.folder)
        rows = read_rows(self.folder, self.state.epoch)
        self.world.gather(None)  # all have read before the first one writes
        try:
            with self._log(rows, is_new=checkpoint is None) as log:
                yield log
        finally:
            self.train_loader.close()
            self.val_loader.close()

    def _newest(self, go_on: bool) -> tuple[Path, Checkpoint | None]:
        """The checkpoint to go on from, which the first process has proved, and where it is."""
        found = None
        if self.world.is_first:
            remove_temporary(self.folder)
            found = saver.read_last(self.folder, self._told.append) if go_on else None
            prune(self.folder, self.run.keep_last)  # a smaller number may be what makes room on a full disk
        path = self.world.from_first(None if found is None else found[0])
        if path is not None and found is None:
            found = path, read_checkpoint(path)
        return found or (self.folder / files.LAST, None)

    def _log(self, rows: list[Row], is_new: bool) -> Log:
        """The log, in a folder that is made ready for it; the other processes have one that says nothing."""
        if not self.world.is_first:
            return SilentLog(rows)
        if is_new:
            clear(self.folder)
            self._describe()
        else:
            for name in (files.SUMMARY, files.FAULT):  # of an earlier end
                (self.folder / name).unlink(missing_ok=True)
        return Log(
            self.folder,
            trackers=chosen_trackers(self.run, self.folder, rows[-1]["step"] + 1 if rows else None),
            config={"name": self.name, **to_dict(self.recipe)},
            rows=rows,
            device=self.placement.device,
        )

    def run_in(self, log: Log) -> Summary:
        """Train to the end, an error, Ctrl-C or a scheduler's signal."""
        self.log = log
        self._announce()
        try:
            with self.saver, self.stop.patient(), worker_death_explained():
                self._fit()
        except NotFinite as error:
            raise self._recorded(error) from error
        return self._finish()

    def _fit(self) -> None:
        train = self.recipe.train
        self.saver.start(self.state.step)
        self._since = time.perf_counter()
        try:
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
            if self.world.is_first:
                self.saver.save(self.trainer, self.state, {})
                self.saver.close()
            # a process that ends takes the others with it: not before all is written
            signals = [number for number in self.world.gather(self.stop.signal) if number is not None]
            if signals and not self.stop.is_set:
                self.stop.set(signals[0])
            done = f"epoch {self.state.epoch + 1}, batch {self.state.batch} of {len(self.train_loader)}"
            self.log.say(
                f"stopped in {done}; everything is in {self.folder / files.LAST}. "
                f"To go on, give the same command again with --run.out {self.folder}"
            )
            raise self.stop.exception() from None

    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed or a scheduler wants the machine back."""
        return self.stop.is_set

    def stepped(self) -> None:
        """Save within the epoch when it is time to."""
        if (
            not self.world.is_first
            or self.stop.is_set
            or not self.saver.is_due(self.state.step)
            or not self.trainer.is_sound
        ):
            return
        seconds = self.state.seconds + time.perf_counter() - self._since
        state = dataclasses.replace(self.state, loss_sum=self.trainer.loss_sum(), seconds=seconds)
        self.saver.save(self.trainer, state, {})

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
        if recipe.train.sync_bn:
            network = synchronise_batch_norm(network, self.placement.device)
        steps = len(self.train_loader)
        task = Classification(
            self.classes,
            recipe,
            self.splits.train.counts(),
            steps_per_epoch=steps,
            teacher=load_teacher(recipe.distill, self.classes, recipe.data.preprocess, self.placement),
        )
        average = moving_average(network, recipe.train.ema_decay)
        trainer = Trainer(
            network,
            task,
            build_optimizer(network, recipe.optim),
            lr_at=functools.partial(lr_at, recipe=recipe, steps_per_epoch=steps),
            weight_decay_at=functools.partial(weight_decay_at, recipe=recipe, steps_per_epoch=steps),
            placement=self.placement,
            seed=recipe.train.seed,
            micro_batch=run.micro_batch,
            clip_grad=recipe.optim.clip_grad,
            average=average,
            world=self.world,
            sync_bn=recipe.train.sync_bn,
            blank_size=recipe.data.preprocess.size,
        )
        if run.compile:
            network.compile()  # in place: the names in the state dict stay
            if average is not None:
                average.module.compile()
        return trainer

    def _validate(self) -> ClassificationReport | None:
        total = len(self.splits.val)
        if not total:  # the recipe holds nothing out
            return None

        try:
            return evaluate(
                self.trainer.task,
                self.trainer.evaluated,
                self.val_loader,
                self.placement,
                lambda done: self.log.validating(done * self.world.size, total),
                stopped=self.stopped,
                world=self.world,
            )
        except OvertoneError:
            if self.stop.is_set:  # the same signal has ended the processes that read
                raise Interrupted from None
            raise

    def _keep(self, epoch: Epoch) -> None:
        report = epoch.report
        assert report is None or isinstance(report, ClassificationReport)
        metrics: dict[str, Any] = {"epoch": epoch.row["epoch"]}
        if report is not None:
            metrics |= {"loss": report.loss, "top1": report.top1, "top5": report.top5}
        # before the checkpoint: a line that the state knows of must be there, one that it does not know of is dropped
        self.log.epoch(epoch.row)
        text = None
        if epoch.is_best:
            self.best = report
            text = None if report is None else json.dumps(report.to_dict())
        if self.world.is_first:
            self.saver.save(self.trainer, self.state, metrics, best=epoch.is_best, report=text)
        self._since = time.perf_counter()
        if report is not None and report.bad and epoch.row["epoch"] == 1:
            self.log.say(f"validation used {report.num_used} of {report.num_expected} images; unreadable:")
            self.log.say("\n".join(f"  {path}" for path in report.bad))
        if self.world.is_first and self.run.plots and time.perf_counter() - self._drawn > _PLOT_SECONDS:
            self._plot_curves()

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
        together = "" if self.world.is_alone else f"{self.world.size} processes, each "
        optim, steps = recipe.optim, len(self.train_loader)
        self.log.say(
            f"model   {recipe.model.name}, {total / 1e6:.3g} M parameters{only}{start}\n"
            f"images  {len(splits.train):,} to train, {len(splits.val):,} to validate, "
            f"{len(self.classes)} classes; {splits.origin}\n"
            f"train   {recipe.train.epochs} epochs of {steps} steps of {recipe.train.batch_size} images{micro} at "
            f"{recipe.data.preprocess.size} px; {optim.name}, lr {optim.lr:g}, {recipe.schedule.name}\n"
            f"on      {together}{self.placement}{', compiled' if self.run.compile else ''}\n"
            f"folder  {self.folder}"
        )
        for told in dict.fromkeys(self._told):
            self.log.say(told)
        for adapted in self.adapted:
            self.log.say(f"weights {adapted}")
        if self.state.step:
            self.log.say(f"resumed at epoch {self.state.epoch + 1}, batch {self.state.batch}, step {self.state.step}")

    def _recorded(self, error: NotFinite) -> OvertoneError:
        """Write down the step and its images, to be looked at."""
        images, path = self.splits.train, self.folder / files.FAULT
        batch = [{"id": position, "path": str(images.paths[position])} for position in error.ids]
        place = {"step": error.step, "epoch": self.state.epoch + 1, "rank": error.rank}
        if self.world.is_first:
            write_text(path, json.dumps(place | {"loss": str(error.loss), "images": batch}, indent=2) + "\n")
        return OvertoneError(f"{error}; the images of the step are in {path}")

    def _finish(self) -> Summary:
        state, best, log = self.state, self.best, self.log
        if not state.best_epoch:
            raise OvertoneError(f"{self.folder} has no finished epoch; raise --train.epochs or --run.max-steps")
        epochs, best_epoch = len(log.rows), self._best_epoch()
        summary = Summary(self.folder, epochs, best_epoch, state.seconds, best)
        if not self.world.is_first:
            return summary
        values = {} if best is None else best.to_dict()
        figures = {key: values.get(key) for key in ("top1", "top5", "loss", "num_used", "num_expected")}
        record = {"epochs": epochs, "best_epoch": best_epoch, "seconds": state.seconds, **figures}
        write_text(self.folder / files.SUMMARY, json.dumps(record, indent=2) + "\n")
        if self.run.plots:
            self._plot_curves()
            if best is not None and best.confusion:
                plot_confusion(best, self.folder / files.CONFUSION)
        if state.epoch < self.recipe.train.epochs and self._patience_is_over():
            log.say(f"ended early: no better epoch in the last {self.recipe.train.patience}")
        print_summary(summary)
        return summary

    def _best_epoch(self) -> int:
        """The epoch that the best checkpoint is of.

        It is not the state's where the checkpoints of a better epoch were lost and the epoch, done anew on another
        machine or number of processes, came out worse.
        """
        path = self.folder / files.BEST
        kept = read_manifest(path).metrics.get("epoch") if path.is_file() else None
        if kept in (None, self.state.best_epoch):
            return self.state.best_epoch
        self.log.say(f"{path} is of epoch {kept} before it was done anew, which was better")
        return kept

    def _patience_is_over(self) -> bool:
        patience = self.recipe.train.patience
        return patience is not None and self.state.epoch - self.state.best_epoch >= patience

    def _relative(self, images: ImageList) -> list[str]:
        root = self.recipe.data.root or Path()
        return [path.relative_to(root).as_posix() for path in images.paths]
