"""Training's order of the samples in an epoch: a function of (seed, epoch) alone, whatever the number of processes.

Loose files come in a permutation. Samples in shards come shard by shard, or a store would have to seek for each: the
shards are permuted and taken in windows of some; within a window the blocks of neighbouring samples of all its shards
are merged at random, each shard's in their order, so that each shard is read from its beginning to its end; and the
samples of every run of four blocks for each shard of the window are permuted.
"""

import numpy as np
import torch
from torch import Tensor

from overtone.data.seeding import derived_seed

_ORDER = 0x6F72646572  # keeps the order's random numbers apart from those of a step of the same number
_BATCHES = 0x62617463686573  # as `_ORDER`
_BLOCK = 16  # neighbouring samples that stay together until the last permutation
_RUN = 4  # blocks of each open shard in a run that is permuted: a batch of 256 sees nearly all of 16 shards


def epoch_order(num_images: int, seed: int, epoch: int) -> Tensor:
    """Training's order of loose files in an epoch: a permutation, int64 `(num_images,)`."""
    generator = torch.Generator().manual_seed(derived_seed(_ORDER, seed, epoch))
    return torch.randperm(num_images, generator=generator)


def balanced_order(classes: np.ndarray, seed: int, epoch: int) -> Tensor:
    """Training's order with as many samples as there are, equally many of each class (one more or less).

    Each class has its samples in an endless sequence of permutations, of which an epoch takes the next ones: those of a
    rare class come several times in an epoch, those of a frequent one have their turns over the epochs.

    Args:
        classes: int64 `(N,)`, the class of each sample, N at least 1; a class without any has no share.
        seed: of the training.
        epoch: counted from 0.

    Returns:
        int64 `(N,)`: position + N * (the number of permutations begun before in the epoch).
    """
    random = np.random.Generator(np.random.PCG64(derived_seed(_ORDER, seed, epoch)))
    _, counts = np.unique(classes, return_counts=True)
    share, left = divmod(len(classes), len(counts))
    shares = share + (random.permutation(len(counts)) < left)
    start = epoch * (share + (left > 0))
    members = np.split(np.argsort(classes, kind="stable"), np.cumsum(counts)[:-1])
    parts = []
    for label, (positions, wanted) in enumerate(zip(members, shares.tolist(), strict=True)):
        first, last = start // len(positions), (start + wanted - 1) // len(positions)
        turns = [_permuted(positions, seed, label, number) for number in range(first, last + 1)]
        entries = np.concatenate([turn + at * len(classes) for at, turn in enumerate(turns)])
        parts.append(entries[start - first * len(positions) :][:wanted])
    return torch.from_numpy(random.permutation(np.concatenate(parts)))


def _permuted(positions: np.ndarray, seed: int, label: int, number: int) -> np.ndarray:
    return np.random.Generator(np.random.PCG64(derived_seed(_ORDER, seed, label, number))).permutation(positions)


def by_orientation(order: Tensor, wide: Tensor, batch_size: int, seed: int, epoch: int) -> Tensor:
    """An epoch's order in which whole batches hold images that are all wide, or all not.

    Each orientation keeps its order and is cut into whole batches, which are then shuffled; what is left of both, fewer
    than two batches, comes last.

    Args:
        order: int64 `(N,)`, see `epoch_order`.
        wide: bool `(N,)` by position: whether an image is wider than high.
        batch_size: images in a batch.
        seed: of the training.
        epoch: counted from 0.
    """
    batches, left = [], []
    for positions in (order[wide[order]], order[~wide[order]]):
        whole = len(positions) // batch_size * batch_size
        batches += positions[:whole].split(batch_size) if whole else ()
        left.append(positions[whole:])
    generator = torch.Generator().manual_seed(derived_seed(_BATCHES, seed, epoch))
    shuffled = [batches[at] for at in torch.randperm(len(batches), generator=generator).tolist()]
    return torch.cat([*shuffled, *left])


def shard_order(groups: np.ndarray, window: int, seed: int, epoch: int) -> Tensor:
    """Training's order of samples in shards in an epoch: a permutation, int64 `(sum of groups,)`.

    Args:
        groups: number of samples of each shard; the samples of a shard are neighbours in the source.
        window: shards that are drawn from at a time, at least 1; of as many as there are or more, all at once.
        seed: of the training.
        epoch: counted from 0.
    """
    random = np.random.Generator(np.random.PCG64(derived_seed(_ORDER, seed, epoch)))
    starts = np.cumsum(groups) - groups
    shards = random.permutation(len(groups))
    parts = [
        _window(starts[chosen], groups[chosen], random)
        for chosen in np.split(shards, np.arange(window, len(shards), window))
        if len(chosen)
    ]
    return torch.from_numpy(np.concatenate(parts or [np.empty(0, np.int64)]).astype(np.int64))


def _window(starts: np.ndarray, counts: np.ndarray, random: np.random.Generator) -> np.ndarray:
    """The samples of a window of shards, by where each shard starts and how many it has."""
    blocks = -(-counts // _BLOCK)
    shard = np.repeat(np.arange(len(counts)), blocks)
    number = np.arange(len(shard)) - np.repeat(np.cumsum(blocks) - blocks, blocks)  # of the block in its shard
    # Sorted random times of a shard's blocks keep their order; merging by time is a merge at random.
    times = random.random(len(shard))
    times = times[np.lexsort((times, shard))]
    merged = np.argsort(times, kind="stable")
    first = starts[shard] + number * _BLOCK
    length = np.minimum(counts[shard] - number * _BLOCK, _BLOCK)
    first, length = first[merged], length[merged]
    ends = np.cumsum(length)
    samples = np.arange(ends[-1] if len(ends) else 0) + np.repeat(first - (ends - length), length)
    run = np.arange(len(samples)) // (_BLOCK * _RUN * len(counts))
    return samples[np.lexsort((random.random(len(samples)), run))]
