"""One run of a training: its parts, what happens on the way, and what is written when."""

import dataclasses
import functools
import json
import time
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any

from overtone.checkpoint import Checkpoint, Manifest, read_checkpoint, write_text
from overtone.config import Recipe, Run, to_dict
from overtone.data.loader import Loader, worker_death_explained
from overtone.data.sources import Source, Splits
from overtone.engine import folder as files
from overtone.engine import saver
from overtone.engine.assembly import Parts, assemble
from overtone.engine.automatic import settled, strengthened
from overtone.engine.best import kept_epoch, restored_report
from overtone.engine.distributed import World
from overtone.engine.folder import clear, prune, remove_temporary
from overtone.engine.interrupt import StopRequest
from overtone.engine.log import Log, Row, read_rows
from overtone.engine.loop import BadImage, Epoch, Interrupted, Watch, evaluate, fit, is_better
from overtone.engine.optim import total_epochs
from overtone.engine.placement import Placement
from overtone.engine.precision import settled_precision
from overtone.engine.records import announcement, manifest_of, write_description, write_fault
from overtone.engine.resuming import check_resumable, recorded_precision
from overtone.engine.samples import Samples
from overtone.engine.showing import Artist, examples_of, write_beside_truth
from overtone.engine.silent_log import SilentLog
from overtone.engine.state import Snapshot, State
from overtone.engine.step import NotFinite
from overtone.engine.summary import Summary, figures_of, report_text
from overtone.engine.trackers import chosen_trackers
from overtone.engine.trial import fitted
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.tasks.task import Report

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
        artist: Artist | None = None,
    ) -> None:
        recipe, self._messages = settled(recipe, run, splits.train, world)
        self.recipe, self.run, self.name, self.folder = recipe, run, name, folder
        self.placement, self.splits, self.world = placement, splits, world
        self.artist = artist if run.plots and world.is_first else None
        self.kind = task_named(recipe.task)
        if recipe.train.patience is not None and not len(splits.val):
            raise OvertoneError(
                "train.patience waits for a better validation, but nothing is held out to validate on; "
                "take it off, or set --data.val-fraction above 0"
            )
        self.samples = Samples.of(splits) if world.is_first else None
        self.digest = world.from_first(None if self.samples is None else self.samples.digest)
        self.manifest = manifest_of(recipe, splits, self.digest)
        self.state = State()
        self.best: Report | None = None
        self.saver = saver.Saver(
            folder, self.manifest, keep_last=run.keep_last, every_minutes=run.save_minutes, every_steps=run.save_steps
        )
        self.stop, self._drawn = stop, time.perf_counter()
        self._since = time.perf_counter()  # when `state.seconds` was up to date

    @contextmanager
    def opened(self, resuming: bool) -> Iterator[Log]:
        """Build the parts, new or as the last checkpoint has them, and open the log of the claimed folder."""
        last, checkpoint = self._newest(resuming)
        changed = False
        if checkpoint is not None:
            changed = self._check_resumable(checkpoint)
        elif resuming:
            self._messages.append(f"the run in {self.folder} has no checkpoint yet and starts over")
        is_settled = checkpoint is not None or (resuming and (self.folder / files.RECIPE).is_file())
        is_settled = self.world.from_first(is_settled)
        self._settle_precision(is_settled)
        if self.recipe.train.minutes is not None and not is_settled:
            self._fit_epochs()
        self.parts = self._assembled(None if checkpoint is None else checkpoint.manifest)
        self.task, self.trainer = self.parts.task, self.parts.trainer
        if checkpoint is not None:
            self.state = saver.restore(last, checkpoint, self.trainer)
            if changed:
                self.state.bad.clear()  # positions among other samples
            self._restore_best()
        is_new, checkpoint = checkpoint is None, None  # its tensors are the file's, which Windows would not replace
        rows = read_rows(self.folder, self.state.epoch)
        self.world.gather(None)  # all have read before the first one writes
        try:
            with self._log(rows, is_new=is_new) as log:
                if self.samples is not None and (changed or not (self.folder / files.SAMPLES).is_file()):
                    self.samples.write(self.folder)
                yield log
        finally:
            self.parts.close()

    def _assembled(self, resumed: Manifest | None, placement: Placement | None = None) -> Parts:
        """New parts, in another placement if one is given; `resumed` of the checkpoint that is going to be loaded."""
        return assemble(
            self.recipe,
            self.run,
            self.splits,
            placement or self.placement,
            self.world,
            resumed=resumed,
            digest=self.digest,
            say=self._messages.append,
        )

    def _settle_precision(self, is_settled: bool) -> None:
        """Choose the precision that is open, or keep the one that is on record."""
        recorded = self.world.from_first(recorded_precision(self.folder) if is_settled else None)
        self.run, self.placement, said = settled_precision(
            self.recipe,
            self.run,
            self.placement,
            self.world,
            len(self.splits.train),
            recorded,
            functools.partial(self._assembled, None),
        )
        self._messages += said

    def _fit_epochs(self) -> None:
        """Set the number of epochs, or of steps, to what `train.minutes` leaves time for."""
        parts = self._assembled(None)
        try:
            recipe, said = fitted(self.recipe, parts, self.placement, self._since)
        finally:
            parts.close()
        self._messages.append(said)
        self.recipe = strengthened(recipe)
        self.manifest = self.saver.manifest = manifest_of(self.recipe, self.splits, self.digest)

    def _check_resumable(self, checkpoint: Checkpoint) -> bool:
        """Whether the samples have changed since, which the recipe then accepts; all processes find the same."""
        found: list[str] | OvertoneError = []
        if self.samples is not None:
            try:
                found = check_resumable(self.folder, checkpoint.manifest, self.manifest, self.samples)
            except OvertoneError as error:
                found = error
        found = self.world.from_first(found)
        if isinstance(found, OvertoneError):
            raise found
        self._messages += found
        return bool(found)

    def _newest(self, resuming: bool) -> tuple[Path, Checkpoint | None]:
        """The checkpoint to resume from, which the first process has verified, and where it is."""
        found = None
        if self.world.is_first:
            remove_temporary(self.folder)
            found = saver.read_last(self.folder, self._messages.append) if resuming else None
            prune(self.folder, self.run.keep_last)  # a smaller number may be what makes room on a full disk
        path = self.world.from_first(None if found is None else found[0])
        if path is not None and found is None:
            found = path, read_checkpoint(path)
        return found or (self.folder / files.LAST, None)

    def _restore_best(self) -> None:
        """The best epoch's report; where its network or report is damaged, the next epoch counts as the best."""
        found: tuple[Report | None, str | None] = (None, None)
        if self.world.is_first:
            found = restored_report(self.folder, self.kind, self.state)
        self.best, lost = self.world.from_first(found)
        if lost is not None:
            self._messages.append(lost)
            self.state.best_epoch, self.state.best_score, self.state.best_loss = 0, None, None

    def _log(self, rows: list[Row], is_new: bool) -> Log:
        """The log, in a folder that is made ready for it; a no-op log for ranks > 0."""
        if not self.world.is_first:
            return SilentLog(rows)
        if is_new:
            clear(self.folder)
            assert self.samples is not None
            write_description(self.folder, self.name, self.recipe, self.run, self.manifest)
            self.samples.write(self.folder)
        else:
            for name in (files.SUMMARY, files.FAULT):  # of an earlier end
                (self.folder / name).unlink(missing_ok=True)
        return Log(
            self.folder,
            trackers=chosen_trackers(self.run, self.folder, rows[-1]["step"] + 1 if rows else None),
            config={"name": self.name, **to_dict(self.recipe)},
            rows=rows,
            device=self.placement.device,
            columns=getattr(self.kind.report_type, "columns", {}),
        )

    def run_in(self, log: Log) -> Summary:
        """Train to the end, an error, Ctrl-C or a scheduler's signal."""
        self.log = log
        self._announce()
        try:
            with self.saver, self.stop.patient(), worker_death_explained():
                self._fit()
                return self._finish()
        except NotFinite as error:
            raise self._recorded(error) from error

    def _fit(self) -> None:
        train = self.recipe.train
        limits = [steps for steps in (self.run.max_steps, train.steps) if steps is not None]
        self.saver.start(self.state.step)
        self._since = time.perf_counter()
        try:
            for epoch in fit(
                self.trainer,
                self.parts.training,
                self._validate,
                self.state,
                epochs=self._epochs,
                patience=train.patience,
                max_steps=min(limits, default=None),
                eval_steps=train.eval_steps,
                watch=self,
            ):
                self._keep(epoch)
            if self.state.step and not self.state.best_epoch:
                self._replace_best()
            self.saver.close()
        except Interrupted:
            if self.world.is_first:
                self.saver.save(self.trainer, self.state, {})
                self.saver.close()
            # a process that ends takes the others with it: not before all is written
            signals = [number for number in self.world.gather(self.stop.signal) if number is not None]
            if signals and not self.stop.is_set:
                self.stop.set(signals[0])
            done = f"epoch {self.state.epoch + 1}, batch {self.state.batch} of {len(self.parts.training)}"
            self.log.say(
                f"stopped in {done}; everything is in {self.folder / files.LAST}. "
                f"To resume, give the same command again with --run.out {self.folder}"
            )
            raise self.stop.exception() from None

    def stopped(self) -> bool:
        """Whether Ctrl-C was pressed or a scheduler wants the machine back."""
        return self.stop.is_set

    def waiting(self) -> AbstractContextManager[None]:
        """A request to stop ends the wait for a batch."""
        return self.stop.waiting()

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
        """Name each unreadable training sample once, and give up when there are too many."""
        source, known = self.splits.train, set(self.state.bad)
        for position, reason in found:
            if position not in known:
                known.add(position)
                self.state.bad.append(position)
                self.log.say(f"left out: {source.name(position)}: {reason}")
        limit = self.recipe.data.max_bad_fraction
        if len(self.state.bad) > limit * len(source):
            raise OvertoneError(
                f"{len(self.state.bad)} of {len(source)} training images cannot be read, the last one "
                f"{source.name(self.state.bad[-1])}, more than --data.max-bad-fraction {limit:g}; "
                "repair or remove them, or allow a larger share"
            )

    def progress(self, snapshot: Snapshot) -> None:
        """Move the progress line."""
        self.log.training(snapshot)

    def _validate(self) -> Report | None:
        """The validation's report of the moving average or, of two, the better one, which is then what is kept."""
        source, loader, trainer = self.splits.val, self.parts.validation, self.trainer
        if self.recipe.train.ema_evaluate == "average":
            return self._measured(source, loader, "validation")
        reports = {}
        for trainer.evaluates in ("weights", "average"):
            reports[trainer.evaluates] = self._measured(source, loader, f"validation of the {trainer.evaluates}")
        of_weights, of_average = reports["weights"], reports["average"]
        if of_weights is not None and is_better(of_weights, of_average.score, of_average.loss):
            trainer.evaluates = "weights"
        return reports[trainer.evaluates]

    def _measured(self, source: Source, loader: Loader, what: str) -> Report | None:
        """The report of the evaluated network on a source; None where it is empty."""
        total = len(source)
        if not total:
            return None
        try:
            return evaluate(
                self.task,
                self.trainer.evaluated,
                loader,
                self.placement,
                lambda done: self.log.validating(done * self.world.size, total, what),
                watch=self,
                world=self.world,
            )
        except OvertoneError:
            if self.stop.is_set:  # the same signal has ended the processes that read
                raise Interrupted from None
            raise

    def _keep(self, epoch: Epoch) -> None:
        report = epoch.report
        if self.recipe.train.ema_evaluate == "best" and report is not None:
            epoch.row["evaluated"] = self.trainer.evaluates
        # before the checkpoint: a line of an epoch that the state counts must be there, any other is dropped
        self.log.epoch(epoch.row)
        self._save(epoch.row["epoch"], report, is_best=epoch.is_best)
        if report is not None and report.bad and epoch.row["epoch"] == 1:
            self.log.say(f"validation used {report.num_used} of {report.num_expected} images; unreadable:")
            self.log.say("\n".join(f"  {name}" for name in report.bad))
        if self.artist is not None and time.perf_counter() - self._drawn > _PLOT_SECONDS:
            self._plot_curves(self.artist)

    def _save(self, epoch: int, report: Report | None, *, is_best: bool) -> None:
        """Begin to write the checkpoint of an epoch, and the best network and its report where it is the best."""
        metrics: dict[str, Any] = {"epoch": epoch}
        if report is not None:
            metrics |= {"score": report.score, "score_name": report.score_name, **figures_of(report)}
        text = None
        settings = self.task.settings if report is None else self.task.learned(report)
        if is_best:
            self.best = report
            text = None if report is None else report_text(report)
        if self.world.is_first:
            self.saver.save(self.trainer, self.state, metrics, best=is_best, report=text, settings=settings)
        self._since = time.perf_counter()

    def _replace_best(self) -> None:
        """Make the last network the best one where that was lost and no epoch is left to replace it."""
        state, report = self.state, self._validate()
        state.best_epoch = state.epoch + (state.batch > 0)
        state.best_score, state.best_loss = (None, None) if report is None else (report.score, report.loss)
        self._save(state.best_epoch, report, is_best=True)
        self.log.say(f"no epoch is left to replace the best network that was lost: that of epoch {state.best_epoch} is")

    def _plot_curves(self, artist: Artist) -> None:
        artist.curves(self.log.rows, self.folder / files.CURVES, f"{self.name}: {self.recipe.model.name}")
        self._drawn = time.perf_counter()

    def _announce(self) -> None:
        """Say what is going to happen."""
        parts = (self.splits, self.trainer, self.placement, self.world)
        self.log.say(announcement(self.recipe, self.run, self.folder, *parts))
        for message in dict.fromkeys(self._messages):
            self.log.say(message)
        if self.state.step:
            self.log.say(f"resumed at epoch {self.state.epoch + 1}, batch {self.state.batch}, step {self.state.step}")

    @property
    def _epochs(self) -> int:
        return total_epochs(self.recipe, len(self.parts.training))

    def _recorded(self, error: NotFinite) -> OvertoneError:
        """The error for the user, once the step and its samples are written down."""
        path = self.folder / files.FAULT
        if self.world.is_first:
            write_fault(path, error, self.splits, self.state)
        return OvertoneError(f"{error}; the images of the step are in {path}")

    def _finish(self) -> Summary:
        state, log = self.state, self.log
        self.world.gather(None)  # the first process has written the best network
        best = read_checkpoint(self.folder / files.BEST)
        test = self._test(best)
        summary = Summary(self.folder, len(log.rows), self._best_epoch(), state.seconds, self.best, test)
        if not self.world.is_first:
            return summary
        write_text(self.folder / files.SUMMARY, json.dumps(summary.to_dict(), indent=2) + "\n")
        if self.artist is not None:
            self._plot_curves(self.artist)
            for plot in () if self.best is None else self.best.plots():
                self.artist.plot(plot, self.folder / f"{plot.name}.png")
            self._show_examples(best)
        if state.epoch < self._epochs and self._patience_is_over():
            log.say(f"ended early: no better epoch in the last {self.recipe.train.patience}")
        return summary

    def _show_examples(self, best: Checkpoint) -> None:
        """Draw what the best network gives for some validation images beside the truth."""
        if self.best is None:
            return
        model, source = self.trainer.evaluated, self.splits.val
        model.load_state_dict(best.weights)
        positions = examples_of(self.best, source).items()
        write_beside_truth(self.task, model.eval(), self.placement, source, positions, self.folder / files.EXAMPLES)

    def _test(self, best: Checkpoint) -> Report | None:
        """The best network's report on the samples that no choice depended on."""
        source = self.splits.test
        if source is None:
            return None
        self.trainer.evaluated.load_state_dict(best.weights)
        loader = self.parts.loaders.evaluation(source, self.task)
        try:
            return self._measured(source, loader, "test")
        except Interrupted:
            raise self.stop.exception() from None
        finally:
            loader.close()

    def _best_epoch(self) -> int:
        """The epoch that the best checkpoint is of.

        It is not the state's where the checkpoints of a better epoch were lost and the epoch, done anew on another
        machine or number of processes, came out worse.
        """
        kept = kept_epoch(self.folder)
        if kept in (None, self.state.best_epoch):
            return self.state.best_epoch
        self.log.say(f"{self.folder / files.BEST} is of epoch {kept} before it was done anew, which was better")
        return kept

    def _patience_is_over(self) -> bool:
        patience = self.recipe.train.patience
        return patience is not None and self.state.epoch - self.state.best_epoch >= patience
