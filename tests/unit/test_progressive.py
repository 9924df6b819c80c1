"""Progressive resolution: the size of the training images by epoch."""

from pathlib import Path

import pytest
import torch
from images_on_disk import classes_of, noise

from overtone.config import Augment, Data, Preprocess, Recipe, Train
from overtone.data.loader import Loader
from overtone.data.sources import ImageList
from overtone.data.sources.class_folders import find_evaluation
from overtone.data.transforms import ImageTransform, ProgressiveTransform, recipe_transform
from overtone.errors import OvertoneError


@pytest.fixture
def images(two_classes: Path) -> ImageList:
    return find_evaluation(two_classes)


def recipe(sizes: tuple[int, ...], epochs: int, **augment: object) -> Recipe:
    data = Data(preprocess=Preprocess(size=24, exif="apply"))
    return Recipe(data=data, augment=Augment(**augment), train=Train(epochs=epochs, sizes=sizes))  # type: ignore[arg-type]


def loader_of(images: ImageList, settings: Recipe, workers: int = 0) -> Loader:
    return Loader(images, classes_of(recipe_transform(settings)), batch_size=10, workers=workers, shuffle=True, seed=3)


@pytest.mark.parametrize(
    ("sizes", "epochs", "expected"),
    [
        ((12, 16, 24), 6, [12, 12, 16, 16, 24, 24]),
        ((12, 24), 5, [12, 12, 12, 24, 24]),
        ((24, 12), 2, [24, 12]),
        ((12,), 3, [12, 12, 12]),
    ],
)
def test_epochs_are_divided_evenly(images, sizes, epochs, expected):
    loader, found = loader_of(images, recipe(sizes, epochs)), []
    for epoch in range(epochs):
        loader.set_epoch(epoch)
        found.append({tuple(batch.inputs.shape[2:]) for batch in loader})
    assert found == [{(size, size)} for size in expected]


def test_without_sizes_it_is_the_recipes_own():
    transform = recipe_transform(recipe((), 3))
    assert isinstance(transform, ImageTransform) and transform(noise(30, 40)).shape == (3, 24, 24)


def test_every_size_has_its_own_augmentation_and_the_exif_policy():
    transform = recipe_transform(recipe((16, 32), 2, crop="pad", hflip=0.0))
    assert isinstance(transform, ProgressiveTransform) and transform.exif == "apply"
    assert [transform.for_epoch(epoch)(noise(50, 50)).shape for epoch in (0, 1)] == [(3, 16, 16), (3, 32, 32)]


def test_workers_and_a_start_in_the_middle_change_nothing(images):
    settings = recipe((12, 20), 2, rand_augment="rand-m9-mstd0.5-inc1", random_erasing=0.5)
    alone, helped = loader_of(images, settings), loader_of(images, settings, workers=2)
    for epoch in (0, 1):
        for loader in (alone, helped):
            loader.set_epoch(epoch)
        first, second = list(alone), list(helped)
        assert len(first) == 3 and all(torch.equal(a.inputs, b.inputs) for a, b in zip(first, second, strict=True))
    helped.set_epoch(1, first_batch=2)
    (last,) = helped
    assert torch.equal(last.inputs, first[2].inputs) and last.inputs.shape[-1] == 20
    helped.close()


@pytest.mark.parametrize(("sizes", "says"), [((0, 8), r"in \[1, 16384\]"), ((8, 9, 10), "no more sizes than")])
def test_sizes_that_cannot_be(sizes, says):
    with pytest.raises(OvertoneError, match=f"train.sizes .*{says}"):
        recipe(sizes, 2)
