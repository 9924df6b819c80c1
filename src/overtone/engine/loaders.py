"""The loaders of a training, and how many processes read samples for them."""

import dataclasses
import hashlib
import json
import math
import os
from collections.abc import Callable

from overtone.config import Recipe, Run
from overtone.data.caching import data_cache
from overtone.data.decoded_cache import DecodedCache, Memory
from overtone.data.decoders import decoder_named
from overtone.data.device_decoding import DevicePipeline
from overtone.data.loader import Loader
from overtone.data.mapped_store import MappedStore
from overtone.data.shared_memory import fitting_workers
from overtone.data.sources import Source, Splits
from overtone.data.storage import address_of, is_remote
from overtone.engine.distributed import World
from overtone.engine.placement import Placement
from overtone.errors import OvertoneError
from overtone.machine import usable_cores
from overtone.tasks.task import Task

_MOST_CORES = 8
_SMALL = 64  # pixels
_CACHE_MB = 512
_SCALED = (
    "data.scaled_decoding changes pixels: large JPEG files are decoded at 1/2, 1/4 or 1/8 of their size for training"
)


class Loaders:
    """Makes the loaders of a training, each with this process's share of the samples.

    Args:
        recipe: gives sizes and batch.
        run: gives the number of processes that read, if it is set.
        placement: where the batches go.
        world: the processes that train together.
        say: called with a line when fewer processes read than was wanted, and when pixels are not those of the files.
        store: keeps the decoded samples of the training, and after them those of the validation.
    """

    def __init__(
        self,
        recipe: Recipe,
        run: Run,
        placement: Placement,
        world: World,
        say: Callable[[str], object],
        store: MappedStore | None = None,
    ) -> None:
        self._recipe, self._run, self._placement, self._world, self._say = recipe, run, placement, world, say
        self._store = store
        if recipe.data.cache_side is not None:
            say(f"data.cache_side changes pixels: training images are resized to {recipe.data.cache_side} first")
        if recipe.data.scaled_decoding:
            say(_SCALED)

    def steps_per_epoch(self, source: Source) -> int:
        """Batches of the training samples in an epoch."""
        return -(-len(source) // self._recipe.train.batch_size)

    def training(self, source: Source, task: Task) -> Loader:
        """Batches in training's order, each process with its share of every batch."""
        return self._loader(source, task, self._recipe.train.batch_size, train=True, first=0)

    def evaluation(self, source: Source, task: Task, *, first: int | None = None) -> Loader:
        """Batches in the source's order, each process with its part; `first` is its place in the store."""
        share = self._recipe.train.batch_size // self._world.size
        return self._loader(source, task, self._run.micro_batch or share, train=False, first=first)

    def _loader(self, source: Source, task: Task, batch_size: int, *, train: bool, first: int | None) -> Loader:
        recipe, run, world = self._recipe, self._run, self._world
        size = recipe.data.preprocess.size
        # Arithmetic on the CPU loses more to processes beside it than it gains, when images are small.
        in_process = self._placement.device.type == "cpu" and size <= _SMALL
        wanted = _wanted(run.workers, len(source) / recipe.train.batch_size, in_process, world)
        cache_mb = run.cache_mb if run.cache_mb is not None else _CACHE_MB if wanted == 0 else 0
        pipeline = task.pipeline(train=train, channels_last=self._placement.channels_last)
        if train and recipe.data.decoder != "cpu":
            device = self._placement.device
            decoder = decoder_named(recipe.data.decoder, device, recipe.data.preprocess.interpolation)
            pipeline = DevicePipeline(pipeline, decoder, device)
        if train and recipe.data.cache_side is not None and not hasattr(pipeline, "most"):
            raise OvertoneError(f"data.cache_side is for whole images, and not for {recipe.task}: take it off")
        kept = DecodedCache(Memory(cache_mb << 20))
        if self._store is not None and first is not None:
            kept = DecodedCache(self._store, first)
        batch_size = min(batch_size, getattr(pipeline, "largest_batch", None) or batch_size)
        share, largest = recipe.train.batch_size // world.size, max(size, *recipe.train.sizes, 0)
        return Loader(
            source,
            pipeline,
            batch_size=batch_size,
            workers=fitting_workers(wanted, share, largest, self._say, sharers=world.local_size),
            shuffle=train,
            seed=recipe.train.seed,
            pin_memory=self._placement.device.type == "cuda",
            rank=world.rank,
            num_ranks=world.size,
            cache=kept,
            balanced=train and recipe.data.sampling == "balanced",
        )


def decoded_store(recipe: Recipe, splits: Splits, digest: str | None) -> MappedStore | None:
    """The files that keep decoded samples of training and validation, where the recipe wants any.

    They are of the same samples (`digest`: names, labels and sizes) in the same place, decoded in the same way.

    Raises:
        OvertoneError: the cache folder cannot be written.
    """
    data = recipe.data
    if data.cache == "none" or digest is None:
        return None
    used = {field.name: getattr(data, field.name) for field in dataclasses.fields(data)}
    for name in ("preprocess", "cache_gb", "sampling", "shuffle_shards", "max_bad_fraction", "accept_changes"):
        del used[name]
    for name in ("root", "table"):
        address = "" if used[name] is None else address_of(used[name])
        used[name] = address if is_remote(address) or not address else os.path.abspath(address)
    text = json.dumps([digest, recipe.task, recipe.augment.crop, data.preprocess.exif, used], sort_keys=True)
    key = hashlib.sha256(text.encode()).hexdigest()[:32]
    try:
        return MappedStore.of(key, len(splits.train) + len(splits.val), round(data.cache_gb * 1e9))
    except OSError as error:
        raise OvertoneError(
            f"data.cache is decoded, and {data_cache() / 'decoded'} cannot be written ({error.strerror or error}); "
            "set OVERTONE_CACHE to another folder, or leave data.cache off"
        ) from error


def _wanted(asked: int | None, num_batches: float, in_process: bool, world: World) -> int:
    """Processes that read samples: as asked, none, or one per core of this process, but no more than batches."""
    if asked is not None:
        return asked
    cores = max(usable_cores() // world.local_size, 1)
    return 0 if in_process else min(cores, _MOST_CORES, math.ceil(num_batches))
