"""Batches in a fixed order from an image list: order, worker processes, images that cannot be read.

Which images a batch holds, in which order, and what is drawn for each of them is a function of (seed, epoch, position)
alone: neither the number of workers nor a start in the middle of an epoch changes a tensor. Of several processes that
train together each gets its share of every batch, so their number does not change the order either.
"""

import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, Sampler

from overtone.data.cropping import Picture
from overtone.data.decoding import BadImage, Exif, StoredJpeg, decode_image, decode_pixels, open_scaled
from overtone.data.picture_cache import PictureCache
from overtone.data.seeding import derived_seed, preserved, reseed
from overtone.data.sources import ImageList
from overtone.data.transforms import PictureTransform, ProgressiveTransform, Transform
from overtone.errors import OvertoneError

_DECODERS: dict[str, Callable[[Path, Exif], Picture]] = {
    "picture": decode_image,
    "pixels": decode_pixels,
    "scaled": open_scaled,
}
_ORDER = 0x6F72646572  # keeps the order's random numbers apart from those of a step of the same number


class Batch(NamedTuple):
    """Images of one step.

    Attributes:
        images: float32 `(B, 3, H, W)`, normalised, in the loader's memory format; B is 0 (and H, W too) where none
            could be read.
        targets: int64 `(B,)`, classes.
        ids: int64 `(B,)`, positions in the image list.
        bad: position and reason of each image that could not be read; they are not in `images`.
    """

    images: Tensor
    targets: Tensor
    ids: Tensor
    bad: tuple[tuple[int, str], ...]


class Loader:
    """Iterates over the batches of one epoch after the other.

    `shuffle` gives training's order: a permutation that is a function of (seed, epoch). Otherwise images come as they
    are listed. The last batch is as small as it comes out. `set_epoch` chooses the epoch before each iteration.

    Args:
        images: the images.
        transform: from a picture to a tensor; what it draws from the global generators is seeded for each image. A
            `PictureTransform` says how to decode (`exif`, `takes`); any other callable gets pictures as they are
            stored. Of a `ProgressiveTransform` each epoch takes its own.
        batch_size: images in a batch.
        workers: processes that read images; 0 reads in this one. They stay for all epochs, until `close` or the end.
        shuffle: training's order.
        seed: of the order and of what is drawn.
        start_batch: first batch of the first epoch, to go on where a training stopped.
        pin_memory: put batches into page-locked memory, from which they reach a GPU sooner.
        rank: which of `num_ranks` processes this is. In training's order each gets its share of every batch (of
            `batch_size` images over all of them); otherwise its part of the list, in batches of `batch_size`.
        cache_bytes: memory for decoded pictures, which each process that reads keeps for the epochs to come.
        channels_last: lay the images of a batch out with channels innermost, as they are decoded, where the network
            wants them so.
    """

    def __init__(
        self,
        images: ImageList,
        transform: Transform | ProgressiveTransform,
        *,
        batch_size: int,
        workers: int = 0,
        shuffle: bool = False,
        seed: int = 0,
        start_batch: int = 0,
        pin_memory: bool = False,
        rank: int = 0,
        num_ranks: int = 1,
        cache_bytes: int = 0,
        channels_last: bool = False,
    ) -> None:
        if batch_size < 1 or workers < 0:
            raise OvertoneError(f"batch_size is {batch_size}, workers is {workers}; give at least 1 and at least 0")
        self.images = images
        self._order = _Order(len(images), batch_size, shuffle, seed, rank, num_ranks)
        self._order.first_batch = start_batch
        with _workers_as_asked():
            self._loader = DataLoader(
                _Batches(images, transform, seed, PictureCache(cache_bytes), channels_last),
                batch_size=None,  # an item is a whole batch: one message from a worker, no collation here
                sampler=self._order,
                num_workers=workers,
                persistent_workers=workers > 0,
                collate_fn=_as_it_is,
                worker_init_fn=_leave_signals,
                pin_memory=pin_memory and torch.cuda.is_available(),
                generator=torch.Generator(),  # DataLoader draws from it on every iteration: not from the global one
            )
        # at the end of Python, before multiprocessing waits for the workers, which do not hear its SIGTERM
        Finalize(self, _end_workers, (self._loader,), exitpriority=0)

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return self._order.num_batches

    def num_planned(self, batch: int) -> int:
        """Images of a batch over all processes, readable or not."""
        return min(self._order.batch_size, len(self.images) - batch * self._order.batch_size)

    def set_epoch(self, epoch: int, first_batch: int = 0) -> None:
        """Choose what the next iteration gives: the batches of `epoch` from `first_batch` on."""
        self._order.epoch, self._order.first_batch = epoch, first_batch

    def __iter__(self) -> Iterator[Batch]:
        """The batches of the chosen epoch.

        Raises:
            OvertoneError: a worker process died.
        """
        with worker_death_explained():
            with _workers_as_asked():
                batches = iter(self._loader)
            try:
                for batch in batches:
                    yield batch._replace(bad=tuple((position, reason) for position, reason in batch.bad))
            except (ConnectionError, EOFError):  # a worker died while it handed something over
                self.close()  # or PyTorch would tell the same again later, wherever that may be
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
        told = "DataLoader worker" in message and ("exited unexpectedly" in message or "killed by" in message)
        if isinstance(error, RuntimeError) and not told:
            raise
        raise OvertoneError(
            f"a process that reads images died ({message}); perhaps memory or /dev/shm ran out: "
            "use fewer processes with --run.workers, 0 to read in the main one"
        ) from error


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Training's order of the images in an epoch: a permutation, int64 `(num_images,)`."""
    generator = torch.Generator().manual_seed(derived_seed(_ORDER, seed, epoch))
    return torch.randperm(num_images, generator=generator)


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
        self, num_images: int, batch_size: int, shuffle: bool, seed: int, rank: int = 0, num_ranks: int = 1
    ) -> None:
        self.num_images, self.batch_size, self.shuffle, self.seed = num_images, batch_size, shuffle, seed
        self.rank, self.num_ranks = rank, num_ranks
        self.epoch = self.first_batch = 0

    @property
    def num_batches(self) -> int:
        num_images = self.num_images if self.shuffle else len(self.listed())
        return -(-num_images // self.batch_size)

    def listed(self) -> Tensor:
        """This process's part of the images as they are listed."""
        return torch.arange(self.num_images).tensor_split(self.num_ranks)[self.rank]

    def __len__(self) -> int:
        return self.num_batches - self.first_batch

    def __iter__(self) -> Iterator[tuple[int, list[int]]]:
        epoch, first = self.epoch, self.first_batch
        order = epoch_order(self.num_images, self.seed, epoch) if self.shuffle else self.listed()
        for positions in order[first * self.batch_size :].split(self.batch_size):
            if len(positions):  # of an empty list there is one, empty part
                share = share_of(positions, self.rank, self.num_ranks) if self.shuffle else positions
                yield epoch, share.tolist()


class _Batches(Dataset):
    """(epoch, positions) to a batch."""

    def __init__(
        self,
        images: ImageList,
        transform: Transform | ProgressiveTransform,
        seed: int,
        cache: PictureCache,
        channels_last: bool,
    ) -> None:
        # Packed, because a million Python objects would be copied page by page into every forked worker.
        names = [os.fsencode(path) for path in images.paths]
        self.names = b"".join(names)
        self.ends = np.cumsum([len(name) for name in names], dtype=np.int64)
        self.targets = np.asarray(images.targets, dtype=np.int64)
        self.transform, self.seed, self.cache = transform, seed, cache
        self.channels_last = channels_last
        self.exif: Exif = getattr(transform, "exif", "ignore")
        self.decode = _DECODERS[getattr(transform, "takes", "picture")]

    def path(self, position: int) -> Path:
        start = self.ends[position - 1] if position else 0
        return Path(os.fsdecode(self.names[start : self.ends[position]]))

    def picture(self, position: int) -> Picture:
        kept = self.cache.get(position)
        if kept is not None:
            return kept
        picture = self.decode(self.path(position), self.exif)
        if not isinstance(picture, StoredJpeg):
            self.cache.keep(position, picture)
        return picture

    def transform_of(self, epoch: int) -> Transform:
        return self.transform.for_epoch(epoch) if isinstance(self.transform, ProgressiveTransform) else self.transform

    def __getitem__(self, item: tuple[int, list[int]]) -> Batch:
        epoch, positions = item
        transform = self.transform_of(epoch)
        images: Tensor | None = None
        good: list[int] = []
        bad: list[tuple[int, str]] = []
        with preserved():
            for position in positions:
                out = None if images is None else images[len(good)]
                try:
                    picture = self.picture(position)
                    reseed(self.seed, epoch, position)
                    image = transform(picture, out) if isinstance(transform, PictureTransform) else transform(picture)
                except BadImage as error:
                    bad.append((position, error.reason))
                    continue
                if images is None:
                    images = self.room_for(image, len(positions))
                    images[0] = image
                elif image is not out:
                    images[len(good)] = image
                good.append(position)
        return Batch(
            torch.empty(0, 3, 0, 0) if images is None else images[: len(good)],
            torch.from_numpy(self.targets[np.asarray(good, dtype=np.int64)]),
            torch.tensor(good, dtype=torch.int64),
            tuple(bad),
        )

    def room_for(self, image: Tensor, count: int) -> Tensor:
        """Memory of a batch of so many images like this one."""
        shape = [count, *image.shape]
        if self.channels_last:
            shape.append(shape.pop(1))
        # NumPy asks the system for large pages, of which a new batch takes ten rather than five thousand small ones.
        room = torch.from_numpy(np.empty(shape, dtype=image.numpy().dtype))
        return room.movedim(-1, 1) if self.channels_last else room


def _as_it_is(batch: Any) -> Any:
    return batch


def _leave_signals(worker: int) -> None:
    """Leave Ctrl-C and a scheduler's signals, which every process gets, to the main one: it may end in good order."""
    for name in ("SIGINT", "SIGTERM", "SIGUSR1"):
        if hasattr(signal, name):  # Windows has no SIGUSR1
            signal.signal(getattr(signal, name), signal.SIG_IGN)
