"""`data.sampling balanced`: the classes of an epoch, other random changes of an image that comes again, resumption."""

import dataclasses
from collections import Counter

import pytest
import torch
from tiny_runs import assert_same_end, recipe_for, run_for
from tiny_training import draw

from overtone.config import Train
from overtone.data.loader import Loader
from overtone.data.pipeline import ImagePipeline, class_of
from overtone.data.sources import ImageList
from overtone.data.sources.class_folders import find_evaluation
from overtone.errors import OvertoneError
from overtone.verbs.train import train

CHANCE = ImagePipeline(lambda image: torch.rand(1), class_of, torch.empty(0, dtype=torch.int64))


@pytest.fixture
def rare(tmp_path):
    draw(tmp_path / "data" / "train", {"blue": 20, "green": 4, "red": 2})
    draw(tmp_path / "data" / "val", {"blue": 3, "green": 3, "red": 3}, seed=1)
    return tmp_path / "data"


def loader_of(source, rank=0, num_ranks=1):
    return Loader(source, CHANCE, batch_size=8, shuffle=True, rank=rank, num_ranks=num_ranks, balanced=True)


def test_batches_hold_the_classes_alike_on_any_number_of_processes(rare):
    source = find_evaluation(rare / "train")
    loader = loader_of(source)
    loader.set_epoch(3)
    batches = list(loader)
    assert sorted(Counter(torch.cat([batch.targets for batch in batches]).tolist()).values()) == [8, 9, 9]
    drawn = [float(value) for batch in batches for value in batch.inputs]
    assert len(set(drawn)) == len(drawn) == 26
    shares = [loader_of(source, rank, 2) for rank in range(2)]
    for share in shares:
        share.set_epoch(3, 1)
    for alone, parts in zip(batches[1:], zip(*shares, strict=True), strict=True):
        assert torch.equal(alone.ids, torch.cat([part.ids for part in parts]))
        assert torch.equal(alone.inputs, torch.cat([part.inputs for part in parts if len(part.ids)]))


@pytest.mark.usefixtures("tiny_from_zoo")
def test_a_balanced_run_is_resumed_bitwise(rare, tmp_path):
    recipe = recipe_for(rare, epochs=2)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, sampling="balanced"))
    train(recipe, run_for(tmp_path / "straight"), "try")
    train(recipe, run_for(tmp_path / "parts", max_steps=6), "try")
    train(recipe, run_for(tmp_path / "parts"), "try")
    assert_same_end(tmp_path / "straight", tmp_path / "parts")


class WithoutClasses:
    labels, origin = ("a", "b"), "masks/ of streets"

    def __len__(self):
        return 4

    def name(self, position):
        return str(position)

    def read(self, position):
        return {}


def test_what_has_no_classes_is_refused_by_name(rare):
    with pytest.raises(OvertoneError, match=r"data.sampling balanced.*masks/ of streets"):
        loader_of(WithoutClasses())
    with pytest.raises(OvertoneError, match=r"data\.sampling"):
        loader_of(ImageList(("a",), (), ()))
    recipe = recipe_for(rare)
    with pytest.raises(OvertoneError, match=r"train.class_weights.*data.sampling"):
        dataclasses.replace(
            recipe,
            data=dataclasses.replace(recipe.data, sampling="balanced"),
            train=Train(class_weights="balanced"),
        )
