"""The order of samples in shards: all of them once, sequential in each shard, well mixed, the same for any ranks."""

from itertools import chain
from pathlib import Path

import numpy as np
import pytest
import torch
from made_shards import write_shards

from overtone.config import Data, Preprocess
from overtone.data.loader import Loader
from overtone.data.order import balanced_order, epoch_order, shard_order
from overtone.data.pipeline import class_images
from overtone.data.sources import open_evaluation
from overtone.data.transforms import evaluation_transform


@pytest.mark.parametrize(
    ("groups", "window"), [([7], 1), ([5, 0, 40, 17], 2), ([100] * 9, 4), ([33] * 3, 16), ([], 4), ([0, 0], 1)]
)
def test_every_sample_comes_once(groups: list[int], window: int) -> None:
    counts = np.array(groups, dtype=np.int64)
    orders = [shard_order(counts, window, seed, epoch) for seed, epoch in ((0, 0), (0, 0), (0, 1), (1, 0))]
    assert all(sorted(order.tolist()) == list(range(sum(groups))) for order in orders)
    assert torch.equal(orders[0], orders[1])
    if sum(groups) > 20:
        assert not torch.equal(orders[0], orders[2]) and not torch.equal(orders[0], orders[3])


def test_few_shards_are_open_and_each_is_read_in_sequence() -> None:
    each, shards, window = 2000, 40, 8
    order = shard_order(np.full(shards, each), window, 3, 1).numpy()
    shard, within = order // each, order % each
    for start in range(0, len(order), each):
        assert len(np.unique(shard[start : start + each])) <= window
    for number in range(shards):
        places = within[shard == number]
        assert np.abs(places - np.arange(each)).max() < 4 * 16 * window  # never further than a run of blocks
        assert len(np.unique(np.flatnonzero(shard == number) // (each * window))) == 1  # in one window alone


def test_samples_are_mixed() -> None:
    """Distance of a sample from its place, over that of a full permutation: 1/3 of all on average."""
    groups = np.full(64, 256)
    total = groups.sum()
    full = np.abs(epoch_order(int(total), 0, 0).numpy() - np.arange(total)).mean() / total
    ours = np.abs(shard_order(groups, 16, 0, 0).numpy() - np.arange(total)).mean() / total
    assert full == pytest.approx(1 / 3, abs=0.02) and ours == pytest.approx(1 / 3, abs=0.05)
    batch = shard_order(groups, 16, 0, 0).numpy()[:256] // 256
    assert len(np.unique(batch)) >= 14  # shards of a batch; of 16 that are open


@pytest.mark.parametrize("ranks", [1, 2, 3])
def test_ranks_and_resumption_see_the_same_order(tmp_path: Path, ranks: int) -> None:
    source = open_evaluation(Data(root=write_shards(tmp_path, shards=5)), "label", "all")
    pipeline = class_images(evaluation_transform(Preprocess(size=16)))

    def ids(first: int = 0, rank: int = 0, num_ranks: int = 1) -> list[list[int]]:
        loader = Loader(source, pipeline, batch_size=6, shuffle=True, seed=4, rank=rank, num_ranks=num_ranks)
        loader.set_epoch(2, first)
        return [batch.ids.tolist() for batch in loader]

    alone = ids()
    together = [ids(rank=rank, num_ranks=ranks) for rank in range(ranks)]
    assert [list(chain.from_iterable(parts)) for parts in zip(*together, strict=True)] == alone
    assert ids(2) == alone[2:] and sorted(chain.from_iterable(alone)) == list(range(30))


def test_a_balanced_epoch_has_each_class_equally_often() -> None:
    classes = np.array([0] * 70 + [2] * 20 + [1] * 10)
    epochs = [balanced_order(classes, seed=1, epoch=epoch) for epoch in range(6)]
    for order in epochs:
        assert len(order) == len(order.unique()) == 100
        counts = np.bincount(classes[order.numpy() % 100])
        assert sorted(counts.tolist()) == [33, 33, 34]
    often = np.bincount(torch.cat(epochs).numpy() % 100)  # about 200 times each class, its samples in turn
    assert all(np.ptp(often[of]) <= 4 and often[of].min() >= 1 for of in (slice(70), slice(70, 90), slice(90, 100)))
    assert torch.equal(epochs[0], balanced_order(classes, seed=1, epoch=0)) and not torch.equal(*epochs[:2])
    assert balanced_order(np.arange(5), 0, 0).sort().values.tolist() == list(range(5))
