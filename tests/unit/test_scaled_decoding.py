"""JPEG files decoded at a smaller size: the same part of the image, other pixels, and only where it is asked for."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from images_on_disk import classes_of, noise
from PIL import Image, ImageFilter

from overtone.config import Augment, Data, Preprocess, Recipe, Run, Train
from overtone.data.decoded_cache import DecodedCache, Memory
from overtone.data.decoding import BadImage, StoredJpeg, decode_pixels, open_scaled
from overtone.data.loader import Loader
from overtone.data.pipeline import Batch
from overtone.data.sources import ImageList
from overtone.data.transforms import evaluation_transform, recipe_transform, training_transform
from overtone.engine.distributed import World
from overtone.engine.loaders import Loaders
from overtone.engine.placement import place
from overtone.errors import OvertoneError
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup

PLAIN = Preprocess(size=32, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))


def photo(width: int, height: int, seed: int = 0) -> Image.Image:
    return noise(width, height, seed).filter(ImageFilter.GaussianBlur(6))


def stored(path: Path, image: Image.Image, kind: str = "JPEG", **options: object) -> Path:
    image.save(path, kind, **options)
    return path


def ramp(width: int, height: int) -> Image.Image:
    """Red grows to the right, green downwards, from 0 to 255."""
    values = np.zeros((height, width, 3), dtype=np.uint8)
    values[..., 0] = np.linspace(0, 255, width)[None, :]
    values[..., 1] = np.linspace(0, 255, height)[:, None]
    return Image.fromarray(values)


@pytest.mark.parametrize("size", [(640, 480), (641, 483), (255, 600)])
@pytest.mark.parametrize(
    ("share", "least"), [(1.0, 224), (1.0, 100), (0.5, 100), (0.5, 32), (0.3, 32), (0.9, 28), (0.2, 7), (0.1, 100)]
)
def test_a_part_is_the_same_part_and_large_enough(
    tmp_path: Path, size: tuple[int, int], share: float, least: int
) -> None:
    path = stored(tmp_path / "file.jpg", ramp(*size), quality=95, subsampling=0)
    file = open_scaled(path)
    assert isinstance(file, StoredJpeg) and file.size == size
    width, height = (round(side * share) for side in size)
    left, top = (size[0] - width) // 3, size[1] - height
    part = file.part(top, left, height, width, least)
    scale = max((scale for scale in (1, 2, 4, 8) if min(width, height) >= scale * least), default=1)
    assert abs(part.shape[0] - height / scale) < 1 and abs(part.shape[1] - width / scale) < 1
    if scale > 1:
        assert min(part.shape[:2]) >= least
    whole = decode_pixels(path)[top : top + height, left : left + width]
    if scale == 1:
        assert torch.equal(part, whole)
    # at most half a pixel of the smaller image, in the ramp's grey levels, and what the JPEG adds
    found, expected = part.double(), whole.double()
    for channel, side in ((0, size[0]), (1, size[1])):
        slack = 255 / side * scale + 4
        assert abs(found[..., channel].min() - expected[..., channel].min()) < slack
        assert abs(found[..., channel].max() - expected[..., channel].max()) < slack
        assert abs(found[..., channel].mean() - expected[..., channel].mean()) < slack


def batches(images: ImageList, scaled: bool, workers: int = 0, size: int = 32) -> list[Batch]:
    transform = training_transform(replace(PLAIN, size=size), Augment(scale=(0.5, 1.0)), scaled_decoding=scaled)
    loader = Loader(
        images,
        classes_of(transform),
        batch_size=3,
        workers=workers,
        shuffle=True,
        seed=1,
        cache=DecodedCache(Memory(1 << 22)),
    )
    loader.set_epoch(1)
    found = list(loader)
    loader.close()
    return found


@pytest.fixture
def images(tmp_path: Path) -> ImageList:
    paths = [stored(tmp_path / f"{n}.jpg", photo(200, 150, n), quality=95) for n in range(5)]
    return ImageList(("a",), tuple(paths), (0,) * len(paths))


def test_pixels_change_and_little(images: ImageList) -> None:
    for scaled, whole in zip(batches(images, True), batches(images, False), strict=True):
        assert torch.equal(scaled.ids, whole.ids) and scaled.inputs.shape == whole.inputs.shape
        difference = (scaled.inputs - whole.inputs).abs() * 255
        assert 0 < difference.mean() < 4


def test_workers_and_another_epoch_change_nothing(images: ImageList) -> None:
    for here, there in zip(batches(images, True), batches(images, True, workers=1), strict=True):
        assert torch.equal(here.inputs, there.inputs)


def test_small_crops_are_as_without(images: ImageList) -> None:
    for scaled, whole in zip(batches(images, True, size=80), batches(images, False, size=80), strict=True):
        assert torch.equal(scaled.inputs, whole.inputs)


def test_other_files_are_as_without(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    turned = stored(tmp_path / "turned.jpg", photo(200, 150), exif=exif)
    for path, policy in ((stored(tmp_path / "a.png", photo(200, 150), "PNG"), "ignore"), (turned, "apply")):
        found = open_scaled(path, policy)  # type: ignore[arg-type]
        assert isinstance(found, torch.Tensor) and torch.equal(found, decode_pixels(path, policy))  # type: ignore[arg-type]
    assert isinstance(open_scaled(turned, "ignore"), StoredJpeg)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_other_modes_become_rgb(tmp_path: Path, mode: str) -> None:
    path = stored(tmp_path / "file.jpg", photo(200, 150).convert(mode), quality=95)
    file = open_scaled(path)
    assert isinstance(file, StoredJpeg)
    part = file.part(0, 0, 150, 200, 70)
    expected = torch.nn.functional.avg_pool2d(decode_pixels(path).permute(2, 0, 1).double(), 2).permute(1, 2, 0)
    assert part.shape == (75, 100, 3) and (part - expected).abs().mean() < 3


def test_bad_files_are_named(images: ImageList) -> None:
    images.paths[0].write_bytes(images.paths[0].read_bytes()[:-400])
    images.paths[2].write_bytes(b"")
    images.paths[3].unlink()
    found = batches(images, True)
    said = dict(pair for batch in found for pair in batch.bad)
    assert said.keys() == {0, 2, 3} and "truncated" in said[0]
    assert (said[2], said[3]) == ("empty file", "no such file or directory")
    assert sorted(int(i) for batch in found for i in batch.ids) == [1, 4]
    with pytest.raises(BadImage, match="truncated"):
        StoredJpeg(images.paths[0], images.paths[0].read_bytes(), (200, 150)).part(0, 0, 150, 200, 32)


# As an option


def test_off_unless_asked_for(images: ImageList) -> None:
    recipe = Recipe(data=Data(preprocess=PLAIN), train=Train(epochs=2, sizes=(16, 32)))
    asked = replace(recipe, data=replace(recipe.data, scaled_decoding=True))
    assert recipe_transform(recipe).takes == "pixels" and recipe_transform(asked).takes == "scaled"
    without = replace(recipe, train=Train())
    assert recipe_transform(without).takes == "pixels" and evaluation_transform(PLAIN).takes == "image"
    with pytest.raises(OvertoneError, match=r"data\.scaled_decoding is True.* off where augment\.crop is pad"):
        replace(asked, augment=Augment(crop="pad"))


def test_a_training_says_that_pixels_change(images: ImageList) -> None:
    run = Run(device="cpu", workers=0)
    for scaled in (False, True):
        recipe = Recipe(data=Data(preprocess=PLAIN, scaled_decoding=scaled), train=Train(batch_size=2))
        said: list[str] = []
        loaders = Loaders(recipe, run, place(run), World(), said.append)
        task = Classification(Setup(images.labels, recipe))
        training, validation = loaders.training(images, task), loaders.evaluation(images, task)
        assert [line for line in said if "scaled_decoding changes pixels" in line] == said and len(said) == scaled
        batch = next(iter(validation)).inputs  # evaluation never decodes at another size
        with Image.open(images.paths[0]) as image:
            assert torch.equal(batch[0], evaluation_transform(PLAIN)(image.convert("RGB")))
        assert next(iter(training)).inputs.is_contiguous(memory_format=torch.channels_last)
