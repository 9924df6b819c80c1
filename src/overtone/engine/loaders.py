"""The loaders of a training, and how many processes read samples for them."""

import math
from collections.abc import Callable

from overtone.config import Recipe, Run
from overtone.data.loader import Loader
from overtone.data.shared_memory import fitting_workers
from overtone.data.sources import Source
from overtone.engine.companions import usable_cores
from overtone.engine.distributed import World
from overtone.engine.placement import Placement
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
    """

    def __init__(
        self, recipe: Recipe, run: Run, placement: Placement, world: World, say: Callable[[str], object]
    ) -> None:
        self._recipe, self._run, self._placement, self._world, self._say = recipe, run, placement, world, say
        if recipe.data.scaled_decoding:
            say(_SCALED)

    def steps_per_epoch(self, source: Source) -> int:
        """Batches of the training samples in an epoch."""
        return -(-len(source) // self._recipe.train.batch_size)

    def training(self, source: Source, task: Task) -> Loader:
        """Batches in training's order, each process with its share of every batch."""
        return self._loader(source, task, self._recipe.train.batch_size, train=True)

    def evaluation(self, source: Source, task: Task) -> Loader:
        """Batches in the source's order, each process with its part of the source."""
        share = self._recipe.train.batch_size // self._world.size
        return self._loader(source, task, self._run.micro_batch or share, train=False)

    def _loader(self, source: Source, task: Task, batch_size: int, *, train: bool) -> Loader:
        recipe, run, world = self._recipe, self._run, self._world
        size = recipe.data.preprocess.size
        # Arithmetic on the CPU loses more to processes beside it than it gains, when images are small.
        in_process = self._placement.device.type == "cpu" and size <= _SMALL
        wanted = _wanted(run.workers, len(source) / recipe.train.batch_size, in_process, world)
        cache_mb = run.cache_mb if run.cache_mb is not None else _CACHE_MB if wanted == 0 else 0
        pipeline = task.pipeline(train=train, channels_last=self._placement.channels_last)
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
            cache_bytes=cache_mb << 20,
        )


def _wanted(asked: int | None, num_batches: float, in_process: bool, world: World) -> int:
    """Processes that read samples: as asked, none, or one per core of this process, but no more than batches."""
    if asked is not None:
        return asked
    cores = max(usable_cores() // world.local_size, 1)
    return 0 if in_process else min(cores, _MOST_CORES, math.ceil(num_batches))
