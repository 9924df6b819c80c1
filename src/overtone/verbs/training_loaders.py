"""The two loaders of a training, and how many processes read images for them."""

import math
from collections.abc import Callable

from overtone.config import Recipe, Run
from overtone.data.loader import Loader
from overtone.data.shared_memory import fitting_workers
from overtone.data.sources import Splits
from overtone.data.transforms import evaluation_transform, recipe_transform
from overtone.engine.companions import usable_cores
from overtone.engine.distributed import World
from overtone.engine.placement import Placement

_MOST_CORES = 8
_SMALL = 64  # pixels
_CACHE_MB = 512
_SCALED = (
    "data.scaled_decoding changes pixels: large JPEG files are decoded at 1/2, 1/4 or 1/8 of their size for training"
)


def training_loaders(
    recipe: Recipe, run: Run, splits: Splits, placement: Placement, world: World, tell: Callable[[str], object]
) -> tuple[Loader, Loader]:
    """Loaders of the training and the validation images, each with this process's share of them.

    Args:
        recipe: gives sizes, batch and transforms.
        run: gives the number of processes that read, if it was said.
        splits: the images.
        placement: where the batches go.
        world: the processes that train together.
        tell: is told when fewer processes read than was wanted, and when pixels are not those of the files.
    """
    preprocess, size, seed = recipe.data.preprocess, recipe.train.batch_size, recipe.train.seed
    share = size // world.size
    largest = max(preprocess.size, *recipe.train.sizes, 0)
    transforms = (recipe_transform(recipe), evaluation_transform(preprocess))
    # Arithmetic on the CPU loses more to processes beside it than it gains, when pictures are small.
    in_process = placement.device.type == "cpu" and preprocess.size <= _SMALL

    if recipe.data.scaled_decoding:
        tell(_SCALED)

    def loader(which: int, batch: int) -> Loader:
        images = (splits.train, splits.val)[which]
        wanted = _wanted(run.workers, len(images) / size, in_process, world)
        cache_mb = run.cache_mb if run.cache_mb is not None else _CACHE_MB if wanted == 0 else 0
        return Loader(
            images,
            transforms[which],
            batch_size=batch,
            workers=fitting_workers(wanted, share, largest, tell, sharers=world.local_size),
            shuffle=which == 0,
            seed=seed,
            pin_memory=placement.device.type == "cuda",
            rank=world.rank,
            num_ranks=world.size,
            cache_bytes=cache_mb << 20,
            channels_last=placement.channels_last,
        )

    return loader(0, size), loader(1, run.micro_batch or share)


def _wanted(asked: int | None, num_batches: float, in_process: bool, world: World) -> int:
    """Processes that read images: as asked, none, or one per core of this process, but no more than batches."""
    if asked is not None:
        return asked
    cores = max(usable_cores() // world.local_size, 1)
    return 0 if in_process else min(cores, _MOST_CORES, math.ceil(num_batches))
