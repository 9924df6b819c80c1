"""Order, workers and images that cannot be read (reliability rows 1, 2, 4 and 17)."""

import multiprocessing
import os
import random
import signal
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from images_on_disk import classes_of, make_images, noise
from PIL import Image
from torch import Tensor

from overtone.config import Augment, Preprocess
from overtone.data.loader import Loader, epoch_order, worker_death_explained
from overtone.data.pipeline import Batch
from overtone.data.sources import ImageList
from overtone.data.sources.class_folders import find_evaluation
from overtone.data.transforms import evaluation_transform, training_transform
from overtone.errors import OvertoneError

AUGMENT = Augment(rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)
TRAIN = training_transform(Preprocess(size=16), AUGMENT)
EVAL = evaluation_transform(Preprocess(size=16))


@pytest.fixture
def images(two_classes: Path) -> ImageList:
    return find_evaluation(two_classes)


def by_id(batches: list[Batch]) -> dict[int, Tensor]:
    return {int(i): image for batch in batches for i, image in zip(batch.ids, batch.inputs, strict=True)}


def same(first: list[Batch], second: list[Batch]) -> bool:
    return len(first) == len(second) and all(
        torch.equal(a.inputs, b.inputs)
        and torch.equal(a.targets, b.targets)
        and torch.equal(a.ids, b.ids)
        and a.bad == b.bad
        for a, b in zip(first, second, strict=True)
    )


def test_evaluation_comes_in_order(images: ImageList) -> None:
    loader = Loader(images, classes_of(EVAL), batch_size=10)
    batches = list(loader)
    assert len(loader) == len(batches) == 3
    assert [len(batch.ids) for batch in batches] == [10, 10, 4]
    assert torch.cat([batch.ids for batch in batches]).tolist() == list(range(24))
    assert torch.cat([batch.targets for batch in batches]).tolist() == images.targets.tolist()
    first = batches[0]
    assert first.inputs.shape == (10, 3, 16, 16) and first.inputs.dtype == torch.float32
    assert first.targets.dtype == first.ids.dtype == torch.int64
    with Image.open(images.paths[3]) as image:
        assert torch.equal(first.inputs[3], EVAL(image.convert("RGB")))
    assert all(batch.bad == () for batch in batches)


def test_training_order_is_a_permutation_of_seed_and_epoch(images: ImageList) -> None:
    loader = Loader(images, classes_of(EVAL), batch_size=7, shuffle=True, seed=3)

    def ids(epoch: int) -> list[int]:
        loader.set_epoch(epoch)
        return [int(i) for batch in loader for i in batch.ids]

    assert sorted(ids(0)) == list(range(24))
    assert ids(0) == ids(0) == epoch_order(24, 3, 0).tolist() != ids(1)
    assert epoch_order(24, 4, 0).tolist() != epoch_order(24, 3, 0).tolist()
    assert epoch_order(24, 0, 1).tolist() != epoch_order(24, 1, 0).tolist()


def test_workers_change_nothing(images: ImageList) -> None:
    runs = []
    for workers in (0, 2, 3):
        loader = Loader(images, classes_of(TRAIN), batch_size=5, workers=workers, shuffle=True, seed=1)
        epochs = []
        for epoch in (0, 1):
            loader.set_epoch(epoch)
            epochs.append(list(loader))
        runs.append(epochs)
        loader.close()
    for epoch in (0, 1):
        assert same(runs[0][epoch], runs[1][epoch]) and same(runs[0][epoch], runs[2][epoch])
    assert not same(runs[0][0], runs[0][1])


def test_a_sample_does_not_depend_on_its_neighbours(images: ImageList) -> None:
    large = by_id(list(Loader(images, classes_of(TRAIN), batch_size=24, shuffle=True, seed=1)))
    small = by_id(list(Loader(images, classes_of(TRAIN), batch_size=1, shuffle=False, seed=1)))
    assert large.keys() == small.keys() and all(torch.equal(large[i], small[i]) for i in large)
    other_seed = by_id(list(Loader(images, classes_of(TRAIN), batch_size=24, seed=2)))
    loader = Loader(images, classes_of(TRAIN), batch_size=24, seed=1)
    loader.set_epoch(1)
    other_epoch = by_id(list(loader))
    assert sum(torch.equal(large[i], other_seed[i]) for i in large) < 3
    assert sum(torch.equal(large[i], other_epoch[i]) for i in large) < 3


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_can_start_in_the_middle(images: ImageList, workers: int) -> None:
    loader = Loader(images, classes_of(TRAIN), batch_size=5, workers=workers, shuffle=True, seed=1)
    loader.set_epoch(4)
    whole = list(loader)
    loader.set_epoch(4, first_batch=2)
    assert same(list(loader), whole[2:])
    assert len(loader) == 5
    loader.set_epoch(4, first_batch=5)
    assert list(loader) == []
    loader.close()
    resumed = Loader(images, classes_of(TRAIN), batch_size=5, workers=workers, shuffle=True, seed=1, start_batch=3)
    first = Loader(images, classes_of(TRAIN), batch_size=5, shuffle=True, seed=1)
    assert same(list(resumed), list(first)[3:])
    resumed.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_may_be_left_early(images: ImageList, workers: int) -> None:
    loader = Loader(images, classes_of(TRAIN), batch_size=2, workers=workers, shuffle=True)
    whole = list(loader)
    for _ in range(2):
        next(iter(loader))
        assert same(list(loader), whole)
    loader.close()


@pytest.mark.parametrize("workers", [0, 2])
def test_the_global_generators_are_left_alone(images: ImageList, workers: int) -> None:
    before = random.getstate(), np.random.get_state(), torch.get_rng_state()
    loader = Loader(images, classes_of(TRAIN), batch_size=10, workers=workers, shuffle=True)
    for _ in loader:
        assert torch.equal(torch.get_rng_state(), before[2])
    loader.close()
    assert random.getstate() == before[0]
    assert (np.random.get_state()[1] == before[1][1]).all()  # type: ignore[index]
    assert torch.equal(torch.get_rng_state(), before[2])


def test_ctrl_c_is_left_to_the_main_process(images: ImageList) -> None:
    loader = Loader(images, classes_of(TRAIN), batch_size=2, workers=2, shuffle=True)
    whole = list(loader)
    batches = iter(loader)
    first = next(batches)
    for worker in multiprocessing.active_children():
        os.kill(worker.pid, signal.SIGINT)  # type: ignore[arg-type]
    assert same([first, *batches], whole)
    loader.close()


@pytest.mark.slow
def test_workers_may_be_started_afresh(images: ImageList) -> None:
    before = multiprocessing.get_start_method()
    expected = list(Loader(images, classes_of(TRAIN), batch_size=5, shuffle=True))
    multiprocessing.set_start_method("spawn", force=True)
    try:
        loader = Loader(images, classes_of(TRAIN), batch_size=5, workers=1, shuffle=True)
        assert same(list(loader), expected)
        loader.close()
    finally:
        multiprocessing.set_start_method(before, force=True)


# Rows 1 and 2


@pytest.mark.parametrize("workers", [0, 2])
def test_bad_images_are_left_out_and_named(images: ImageList, workers: int) -> None:
    good = by_id(list(Loader(images, classes_of(TRAIN), batch_size=5, shuffle=True, seed=1)))
    images.paths[3].write_bytes(b"")
    images.paths[20].write_bytes(images.paths[20].read_bytes()[:200])
    loader = Loader(images, classes_of(TRAIN), batch_size=5, workers=workers, shuffle=True, seed=1)
    runs = [list(loader) for _ in range(2)]
    loader.close()
    assert same(*runs)
    bad = dict(pair for batch in runs[0] for pair in batch.bad)
    assert bad.keys() == {3, 20} and bad[3] == "empty file" and "truncated" in bad[20]
    # The others are what they were, in the batches they were in: nothing takes the place of a bad image.
    left = by_id(runs[0])
    assert left.keys() == good.keys() - {3, 20} and all(torch.equal(left[i], good[i]) for i in left)
    order = epoch_order(24, 1, 0).tolist()
    for number, batch in enumerate(runs[0]):
        assert batch.ids.tolist() == [i for i in order[5 * number : 5 * number + 5] if i not in bad]


def test_a_batch_may_have_nothing_to_give(images: ImageList) -> None:
    for path in images.paths[:2]:
        path.write_text("no image")
    batch = next(iter(Loader(images, classes_of(EVAL), batch_size=2)))
    assert len(batch.inputs) == len(batch.targets) == len(batch.ids) == 0
    assert batch.bad == ((0, "not an image of a known format"), (1, "not an image of a known format"))


# Row 4


def test_the_exif_policy_is_applied(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 3
    make_images(tmp_path, {"a": 0, "b": 1}, size=(16, 16))
    noise(16, 16).save(tmp_path / "a" / "turned.png", exif=exif)
    found = find_evaluation(tmp_path)
    preprocess = Preprocess(size=16, crop_fraction=1.0)
    straight, turned = (
        next(iter(Loader(found, classes_of(evaluation_transform(policy)), batch_size=2))).inputs
        for policy in (preprocess, replace(preprocess, exif="apply"))
    )
    assert torch.equal(turned[0], straight[0].flip(1, 2)) and torch.equal(turned[1], straight[1])


# Row 17


class Dies:
    """A transform that takes its process with it, as the system does when memory runs out."""

    def __call__(self, image: Image.Image) -> Tensor:
        os.kill(os.getpid(), signal.SIGKILL)
        return torch.zeros(3, 1, 1)


def test_a_dead_worker_is_a_clear_error(images: ImageList) -> None:
    with pytest.raises(OvertoneError, match=r"a process that reads images died .* --run\.workers") as error:
        list(Loader(images, classes_of(Dies()), batch_size=5, workers=1))
    assert "\n" not in str(error.value)


class Fails:
    def __call__(self, image: Image.Image) -> Tensor:
        raise RuntimeError("a defect")


@pytest.mark.parametrize("workers", [0, pytest.param(1, marks=pytest.mark.slow)])
def test_defects_of_ours_keep_their_traceback(images: ImageList, workers: int) -> None:
    with pytest.raises(RuntimeError, match="a defect"):
        list(Loader(images, classes_of(Fails()), batch_size=5, workers=workers))
    with pytest.raises(RuntimeError, match="CUDA"), worker_death_explained():
        raise RuntimeError("CUDA error")


@pytest.mark.parametrize(("batch_size", "workers"), [(0, 0), (1, -1)])
def test_impossible_numbers(images: ImageList, batch_size: int, workers: int) -> None:
    with pytest.raises(OvertoneError, match="batch_size"):
        Loader(images, classes_of(EVAL), batch_size=batch_size, workers=workers)


def test_names_in_any_script(tmp_path: Path) -> None:
    make_images(tmp_path, {"größe": 2, "猫": 2, "a b": 2})
    found = find_evaluation(tmp_path)
    assert [len(batch.ids) for batch in Loader(found, classes_of(EVAL), batch_size=2)] == [2, 2, 2]


def test_a_loader_left_open_does_not_keep_python_from_ending(images: ImageList) -> None:
    lines = [
        "import sys",
        "from images_on_disk import classes_of",
        "from overtone.config import Preprocess",
        "from overtone.data.loader import Loader",
        "from overtone.data.sources.class_folders import find_evaluation",
        "from overtone.data.transforms import evaluation_transform",
        "images = find_evaluation(__import__('pathlib').Path(sys.argv[1]))",
        "loader = Loader(images, classes_of(evaluation_transform(Preprocess(size=8))), batch_size=5, workers=1)",
        "print(len(next(iter(loader)).ids))",
    ]
    words = [sys.executable, "-c", "\n".join(lines), str(images.paths[0].parents[1])]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, sys.path))}
    ended = subprocess.run(words, capture_output=True, text=True, timeout=120, check=True, env=environment)
    assert ended.stdout == "5\n"
