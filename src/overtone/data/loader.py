"""Batches in a fixed order from a source: order, worker processes, samples that cannot be read.

Which images a batch holds, in which order, and what is drawn for each of them is a function of (seed, epoch, position)
alone: neither the number of workers nor a start in the middle of an epoch changes a tensor. Of several processes that
train together each gets its share of every batch, so their number does not change the order either.
"""

import signal
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from overtone.data.decoded_cache import DecodedCache, Memory
from overtone.data.decoding import BadImage
from overtone.data.order import balanced_order, by_orientation, epoch_order, shard_order
from overtone.data.pipeline import Batch, Draw, ImagePipeline, Pipeline
from overtone.data.seeding import preserved, reseed
from overtone.data.sources.source import Source
from overtone.errors import OvertoneError


class Loader:
    """Iterates over the batches of one epoch after the other.

    `shuffle` gives training's order, a function of (seed, epoch): a permutation, or where the source has `groups()` of
    neighbours that are read together, `order.shard_order` of them. Otherwise images come as they are listed. The last
    batch is as small as it comes out. `set_epoch` chooses the epoch before each iteration.

    Args:
        source: the samples.
        pipeline: from a record to a batch; what it draws from the global generators is seeded for each sample.
        batch_size: samples in a batch.
        workers: processes that read samples; 0 reads in this one. They stay for all epochs, until `close` or the end.
        shuffle: training's order.
        seed: of the order and of what is drawn.
        start_batch: first batch of the first epoch, to resume where a training stopped.
        pin_memory: put batches into page-locked memory, from which they reach a GPU sooner.
        rank: which of `num_ranks` processes this is. In training's order each gets its share of every batch (of
            `batch_size` images over all of them); otherwise its part of the list, in batches of `batch_size`.
        cache: keeps decoded samples for the epochs to come; each process that reads has its own, or shares its files.
        balanced: training's order is `order.balanced_order` of the source's `targets`, int64 `(N,)`.

    Raises:
        OvertoneError: balanced, but the source has no list of classes, or its samples must be read in turn.
    """

    def __init__(
        self,
        source: Source,
        pipeline: Pipeline,
        *,
        batch_size: int,
        workers: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        start_batch: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        num_ranks: int = 1,
        cache: DecodedCache | None = None,
        balanced: bool = False,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise OvertoneError(f"batch_size is {batch_size}, workers is {workers}; give at least 1 and at least 0")
        self.source = source
        is_wide = getattr(source, "is_wide", None) if getattr(pipeline, "by_orientation", False) else None
        wide = None if is_wide is None else torch.from_numpy(is_wide())
        self._order = _Order(len(source), batch_size, shuffle, seed, rank, num_ranks, wide)
        groups = getattr(source, "groups", None)
        if shuffle and groups is not None:
            self._order.groups, self._order.window = groups(), getattr(source, "window", 1)
        if balanced:
            self._order.classes = _classes(source)
        self._order.source = source
        self._order.first_batch = start_batch
        is_pinned = pin_memory and torch.cuda.is_available()
        if workers and not is_pinned and isinstance(pipeline, ImagePipeline):
            pipeline = pipeline.sending_pixels()
        with _workers_as_asked():
            self._loader = DataLoader(
                _Batches(source, pipeline, seed, cache or DecodedCache(Memory(0))),
                batch_size=None,  # an item is a whole batch: one message from a worker, no collation here
                sampler=self._order,
                num_workers=workers,
                persistent_workers=workers > 0,
                collate_fn=_as_it_is,
                worker_init_fn=_leave_signals,
                pin_memory=is_pinned,
                generator=torch.Generator(),  # DataLoader draws from it on every iteration: not from the global one
            )
        # at the end of Python, before multiprocessing waits for the workers, which do not hear its SIGTERM
        Finalize(self, _end_workers, (self._loader,), exitpriority=0)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self._order.num_batches

    def num_planned(self, batch: int) -> int:
        """Images of a batch over all processes, readable or not."""
        return min(self._order.batch_size, len(self.source) - batch * self._order.batch_size)

    def is_kept(self) -> bool:
        """Whether this process decodes all samples once and has them in memory from then on; see `cache`."""
        dataset: Any = self._loader.dataset
        return self._order.num_ranks == 1 and dataset.cache.holds(len(self.source))

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose what the next iteration gives: the batches of `epoch` from `first_batch` on."""
        self._order.epoch, self._order.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the chosen epoch.

        Raises:
            OvertoneError: a worker process died.
        """
        finish = getattr(self._loader.dataset.pipeline, "finish", None)  # type: ignore[attr-defined]
        with worker_death_explained():
            with _workers_as_asked():
                batches = iter(self._loader)
            try:
                for batch in batches:
                    batch = batch if finish is None else finish(batch)
                    yield batch._replace(bad=tuple((position, reason) for position, reason in batch.bad))
            except (ConnectionError, EOFError):  # a worker died while it handed something over
                self.close()  # or PyTorch would raise the same again later, wherever that may be
                raise

    def close(self) -> None:
        """End the worker processes; the next iteration would start new ones."""
        _end_workers(self._loader)


def _end_workers(loader: DataLoader) -> None:
    iterator, loader._iterator = loader._iterator, None
    if iterator is None:
        return
    iterator._shutdown_workers()  # type: ignore[attr-defined]
    for worker in iterator._workers:  # type: ignore[attr-defined]
        if worker.is_alive():  # it hangs, and does not hear the SIGTERM that PyTorch has sent
            worker.kill()


@contextmanager
def _workers_as_asked() -> Iterator[None]:
    """Without the warnings about the number of workers (it was asked for) and about forking beside threads.

    Python 3.12 gives the latter in every process where PyTorch has computed; the workers run code that is safe there.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="This DataLoader will create")
        warnings.filterwarnings("ignore", message=".*multi-threaded, use of fork", category=DeprecationWarning)
        yield


@contextmanager
def worker_death_explained() -> Iterator[None]:
    """Turn an error about a dead worker process, or about the line to it, into a clear one.

    PyTorch raises it from a signal handler, so it may come out of any line of the main process, not only out of the
    loader: put the loop over the batches inside.

    Raises:
        OvertoneError: a worker process died inside the block.
    """
    try:
        yield
    except (RuntimeError, ConnectionError, EOFError) as error:
        message = " ".join(str(error).split()) or "it hung up"
        is_explained = "DataLoader worker" in message and ("exited unexpectedly" in message or "killed by" in message)
        if isinstance(error, RuntimeError) and not is_explained:
            raise
        raise OvertoneError(
            f"a process that reads images died ({message}); perhaps memory or /dev/shm ran out: "
            "use fewer processes with --run.workers, 0 to read in the main one"
        ) from error


def share_of(positions: Tensor, rank: int, num_ranks: int) -> Tensor:
    """The part of a batch that a process gets: a run of neighbours; all parts together are the batch.

    Whole batches are cut into equal parts. A smaller one at the end of an epoch may be cut between pairs, so that no
    process gets a lone image, which batch norm could not use; some get none then.

    Args:
        positions: int64 `(B,)`, the batch.
        rank: the process, in 0..num_ranks - 1.
        num_ranks: how many processes share the batch.
    """
    count = len(positions)
    if count % num_ranks == 0 and count >= 2 * num_ranks:
        return positions.tensor_split(num_ranks)[rank]
    active = min(num_ranks, max(1, count // 2))
    if rank >= active:
        return positions[:0]
    ends = [2 * (count // 2 * index // active) for index in range(active)] + [count]
    return positions[ends[rank] : ends[rank + 1]]


class _Order(Sampler):
    """Which images each batch holds; the epoch travels with every batch, so workers need no state."""

    def __init__(
        self,
        num_images: int,
        batch_size: int,
        shuffle: bool,
        seed: int,
        rank: int = 0,
        num_ranks: int = 1,
        wide: Tensor | None = None,
    ) -> None:
        self.wide = wide
        self.num_images, self.batch_size, self.shuffle, self.seed = num_images, batch_size, shuffle, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.epoch = self.first_batch = 0
        self.groups: np.ndarray | None = None
        self.classes: np.ndarray | None = None
        self.window = 1
        self.source: Any = None

    @property
    def num_batches(self) -> int:
        num_images = self.num_images if self.shuffle else len(self.listed())
        return -(-num_images // self.batch_size)

    def listed(self) -> Tensor:
        """This process's part of the images as they are listed."""
        return torch.arange(self.num_images).tensor_split(self.num_ranks)[self.rank]

    def shuffled(self, epoch: int) -> Tensor:
        """Training's order of all images; an entry may be beyond their number, see `balanced_order`."""
        if self.classes is not None:
            return balanced_order(self.classes, self.seed, epoch)
        if self.groups is None:
            return epoch_order(self.num_images, self.seed, epoch)
        return shard_order(self.groups, self.window, self.seed, epoch)

    def __len__(self) -> int:
        return self.num_batches - self.first_batch

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch, first = self.epoch, self.first_batch
        order = self.shuffled(epoch) if self.shuffle else self.listed()
        if self.shuffle and self.wide is not None:
            order = by_orientation(order, self.wide, self.batch_size, self.seed, epoch)
        order = order[first * self.batch_size :]
        # begun here, where the processes that read are there already: none of them is a copy of a thread's process
        ahead = self.source.prefetcher(order.numpy()) if hasattr(self.source, "prefetcher") else None
        try:
            for positions in order.split(self.batch_size):
                if ahead is not None and len(positions):
                    ahead.advance(self.source.shards_of(positions.tolist()))
                if len(positions):  # of an empty list there is one, empty part
                    share = share_of(positions, self.rank, self.num_ranks) if self.shuffle else positions
                    yield epoch, share.tolist()
        finally:
            if ahead is not None:
                ahead.close()


class _Batches(Dataset):
    """(epoch, positions) to a batch."""

    def __init__(self, source: Source, pipeline: Pipeline, seed: int, cache: DecodedCache) -> None:
        self.source, self.pipeline, self.seed, self.cache = source, pipeline, seed, cache

    def decoded(self, position: int) -> Any:
        """The decoded sample at a position, from memory if it is there."""
        kept = self.cache.get(position)
        if kept is not None:
            return kept
        decoded = self.pipeline.decode(self.source.read(position))
        self.cache.keep(position, decoded)
        return decoded

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch:
        epoch, entries = item
        samples: list[Any] = []
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        with preserved():
            for entry in entries:
                position = entry % len(self.source)
                try:
                    decoded = self.decoded(position)
                    reseed(self.seed, epoch, entry)  # a sample that comes again is changed in another way
                    draw = Draw(self.seed, epoch, position, len(self.source), self.decoded)
                    samples.append(self.pipeline.transform(decoded, draw))
                    decoded = None  # its memory serves the next one
                except BadImage as error:
                    bad.append((position, error.reason))
                    continue
                good.append(position)
        return self.pipeline.collate(samples, torch.tensor(good, dtype=torch.int64), tuple(bad))


def _classes(source: Source) -> np.ndarray:
    """The class of each sample, for a balanced order."""
    targets = getattr(source, "targets", None)
    if targets is None or np.ndim(targets) != 1 or getattr(source, "groups", None) is not None or not len(source):
        raise OvertoneError(
            f"data.sampling balanced needs image files with one class each, and {source.origin or 'these images'} "
            "have none or come from shards or tables of images; leave it at all (for a classification "
            "--train.class-weights balanced weights the classes instead)"
        )
    return np.asarray(targets, dtype=np.int64)


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and a scheduler's signals, which every process gets, to the main one: it may end in good order."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)
