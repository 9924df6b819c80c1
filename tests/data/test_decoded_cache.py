"""Decoded samples kept in memory and in mapped files: the same samples, within the bound, whole or not at all."""

import multiprocessing
import os
import pickle
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from overtone.config import Augment, Data, Preprocess, Recipe, Run, Train
from overtone.data.decoded_cache import DecodedCache, Memory
from overtone.data.loader import Loader
from overtone.data.mapped_store import MappedStore
from overtone.data.pipeline import class_images
from overtone.data.sources import ImageList, open_splits
from overtone.data.transforms import recipe_transform
from overtone.engine.loaders import decoded_store
from overtone.engine.samples import Samples
from overtone.engine.training import train
from overtone.errors import OvertoneError

LIMIT = 1 << 20


def pixels(seed: int, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(seed).integers(0, 256, shape, dtype=np.uint8))


@pytest.fixture(params=["memory", "mapped"])
def kept(request: pytest.FixtureRequest, tmp_path: Path) -> DecodedCache:
    return DecodedCache(Memory(LIMIT) if request.param == "memory" else MappedStore(tmp_path / "a", 20, LIMIT), 3)


def test_samples_come_back_as_they_were(kept: DecodedCache) -> None:
    image = Image.fromarray(pixels(0, 7, 5, 3).numpy())
    turned = pixels(1, 4, 6, 3).permute(2, 0, 1)
    kept.keep(0, (image, 3))
    kept.keep(1, {"a": [turned, None], "b": (1.5, "x", True), "c": np.arange(6).reshape(2, 3).T})
    kept.keep(2, (torch.empty(0, 4), 1))
    for _ in range(2):
        found, target = kept.get(0)
        assert target == 3 and found.mode == "RGB" and np.array_equal(np.asarray(found), np.asarray(image))
        sample = kept.get(1)
        assert torch.equal(sample["a"][0], turned) and sample["a"][0].stride() == turned.stride()
        assert sample["a"][1] is None and sample["b"] == (1.5, "x", True)
        assert np.array_equal(sample["c"], np.arange(6).reshape(2, 3).T)
        assert kept.get(2)[0].shape == (0, 4)
        found.putpixel((0, 0), (1, 2, 3))  # Pillow's images are the caller's
    assert kept.get(3) is None


def test_what_cannot_be_described_is_not_kept(kept: DecodedCache) -> None:
    for sample in (object(), (pixels(0, 2, 2), Path("x")), {"a": {1, 2}}):
        kept.keep(0, sample)
        assert kept.get(0) is None


def test_the_bound_holds(kept: DecodedCache, tmp_path: Path) -> None:
    for position in range(5):
        kept.keep(position, pixels(position, 100, 1000, 3))
    assert [kept.get(position) is not None for position in range(5)] == [True, True, True, False, False]
    assert sum(path.stat().st_size for path in tmp_path.rglob("pixels")) <= LIMIT


def test_older_stores_make_room(tmp_path: Path) -> None:
    for name in ("a", "b"):
        DecodedCache(MappedStore(tmp_path / name, 2, LIMIT)).keep(0, pixels(0, 100, 1500, 3))
    os.utime(tmp_path / "b" / "rows", (1, 1))  # used long ago
    newest = DecodedCache(MappedStore(tmp_path / "c", 2, LIMIT))
    newest.keep(0, pixels(0, 100, 1500, 3))
    assert newest.get(0) is not None and sorted(path.name for path in tmp_path.iterdir()) == ["a", "c"]


def keep_some(store: MappedStore, first: int) -> None:
    cache = DecodedCache(store)
    for position in (*range(first, 20), *range(first)):
        cache.keep(position, (pixels(position, 9, 11, 3), position))


def test_processes_share_the_files(tmp_path: Path) -> None:
    store = MappedStore(tmp_path / "a", 20, LIMIT)
    context = multiprocessing.get_context("fork")
    processes = [context.Process(target=keep_some, args=(store, first)) for first in (0, 10)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
    again = DecodedCache(pickle.loads(pickle.dumps(store)))
    for cache in (DecodedCache(store), again):
        for position in range(20):
            found, target = cache.get(position)
            assert target == position and torch.equal(found, pixels(position, 9, 11, 3))
    assert (tmp_path / "a" / "pixels").stat().st_size <= 20 * 4096  # nothing twice


def test_after_a_crash_of_the_machine_half_a_sample_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    store = MappedStore(tmp_path / "a", 2, LIMIT)
    for position in range(2):
        DecodedCache(store).keep(position, pixels(position, 50, 50, 3))
    with (tmp_path / "a" / "pixels").open("r+b") as file:
        file.seek(5000)
        file.write(bytes(1000))
    monkeypatch.setattr("overtone.data.mapped_store._machine_start", lambda: 12345)
    cache = DecodedCache(MappedStore(tmp_path / "a", 2, LIMIT))
    assert cache.get(0) is None and torch.equal(cache.get(1), pixels(1, 50, 50, 3))
    cache.keep(0, pixels(0, 50, 50, 3))
    assert torch.equal(cache.get(0), pixels(0, 50, 50, 3)) and torch.equal(cache.get(1), pixels(1, 50, 50, 3))


@pytest.mark.parametrize("failure", ["full", "removed"])
def test_a_full_disk_is_no_room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failure: str) -> None:
    store = MappedStore(tmp_path / "a", 2, LIMIT)

    def full(*_: object) -> int:
        raise OSError(28, "No space left on device")

    if failure == "full":
        monkeypatch.setattr("overtone.data.mapped_store.os.pwrite", full)
    else:
        monkeypatch.setattr("overtone.data.mapped_store.FileLock", full)
    cache = DecodedCache(store)
    cache.keep(0, pixels(0, 9, 9, 3))
    assert cache.get(0) is None and store.is_full


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number in range(12):
        place = tmp_path / "photos" / "ab"[number % 2] / f"{number}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels(number, 60, 80, 3).numpy()).save(place)
    return tmp_path / "photos"


def recipe_of(root: Path, **data: object) -> Recipe:
    known = Data(root=root, preprocess=Preprocess(size=24), val_fraction=0.25)
    return Recipe(data=replace(known, **data), augment=Augment(), train=Train(epochs=2, batch_size=3))  # type: ignore[arg-type]


def epochs_of(recipe: Recipe, store: MappedStore | None, workers: int = 0) -> list[torch.Tensor]:
    source = open_splits(recipe.data, "label").train
    cache = None if store is None else DecodedCache(store)
    pipeline = class_images(recipe_transform(recipe))
    loader = Loader(source, pipeline, batch_size=3, shuffle=True, cache=cache, workers=workers)
    found = []
    for epoch in range(3):
        loader.set_epoch(epoch)
        found += [batch.inputs for batch in loader]
    loader.close()
    return found


@pytest.mark.parametrize("side", [None, 32])
def test_the_same_pixels_with_and_without(photos: Path, tmp_path: Path, side: int | None) -> None:
    recipe = recipe_of(photos, cache="decoded", cache_side=side)
    store = MappedStore(tmp_path / "store", 12, LIMIT)
    expected = epochs_of(recipe, None)
    for _ in range(2):  # filled by one process that reads, used by another
        assert all(map(torch.equal, epochs_of(recipe, store, workers=1), expected))
    kept, _ = DecodedCache(store).get(0)
    assert tuple(kept.shape) == ((60, 80, 3) if side is None else (32, 43, 3))


def test_a_store_is_of_its_samples_place_and_decoding(photos: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERTONE_CACHE", str(photos.parent / "cache"))

    def folder(recipe: Recipe) -> Path:
        splits = open_splits(recipe.data, "label")
        store = decoded_store(recipe, splits, Samples.of(splits).digest)
        assert store is not None
        return store.folder

    recipe = recipe_of(photos, cache="decoded")
    first = folder(recipe)
    assert folder(replace(recipe, data=replace(recipe.data, cache_gb=3.0, shuffle_shards=2))) == first
    others = [folder(recipe_of(photos, cache="decoded", cache_side=32))]
    exif = replace(recipe.data, preprocess=Preprocess(size=24, exif="apply"))
    others.append(folder(replace(recipe, data=exif)))
    path = next((photos / "a").iterdir())
    path.write_bytes(path.read_bytes() + b"\0")  # another size
    others.append(folder(recipe))
    moved = photos.rename(photos.with_name("moved"))
    others.append(folder(recipe_of(moved, cache="decoded")))
    assert len({first, *others}) == 5
    assert decoded_store(recipe_of(moved), open_splits(recipe_of(moved).data, "label"), "digest") is None


def test_training_reads_each_file_once(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    reads: list[int] = []
    read = ImageList.read
    monkeypatch.setattr(ImageList, "read", lambda self, position: reads.append(position) or read(self, position))
    recipe = recipe_of(photos, cache="decoded")
    recipe = replace(recipe, model=replace(recipe.model, name="mobilenetv2_x035"))
    for number in range(2):
        run = Run(out=tmp_path / f"run{number}", workers=0, plots=False, tensorboard=False, device="cpu")
        train(recipe, run, "scratch")
    assert len(reads) == 12  # of 9 training and 3 validation images, in two runs of two epochs


def test_options_that_contradict_each_other() -> None:
    for data, named in (
        ({"cache_side": 256}, "data.cache_side"),
        ({"cache": "decoded", "cache_gb": 0.0}, "data.cache_gb"),
        ({"cache": "decoded", "scaled_decoding": True}, "data.scaled_decoding"),
        ({"cache": "decoded", "decoder": "gpu"}, "data.decoder"),
        ({"decoder": "dali", "scaled_decoding": True}, "data.decoder"),
    ):
        with pytest.raises(OvertoneError, match=named):
            Recipe(data=Data(**data))  # type: ignore[arg-type]
