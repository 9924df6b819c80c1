"""Shards in a store: by range or fetched whole into a bounded cache; failures are survived, or named."""

import os
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest
from http_store import HttpStore
from made_shards import write_folders, write_shards

from overtone.config import Data, Preprocess
from overtone.data import storage
from overtone.data.decoding import BadImage
from overtone.data.loader import Loader
from overtone.data.natural_parts import natural_parts
from overtone.data.packing import Packing, pack
from overtone.data.pipeline import class_images
from overtone.data.shard_files import ShardCache
from overtone.data.sources import ShardImages, Source, open_evaluation, open_splits
from overtone.data.storage import Changed, Unreachable, address_of, stamp
from overtone.data.transforms import evaluation_transform
from overtone.errors import OvertoneError

GB = 1e-9


@pytest.fixture
def store(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[HttpStore]:
    monkeypatch.setattr(storage, "WAITS", [0.01, 0.02])
    monkeypatch.setattr(storage, "TIMEOUT", 2.0)
    with HttpStore(write_shards(tmp_path / "store")) as store:
        yield store


def opened(store: HttpStore, what: str = "", cache_gb: float = 1.0) -> Source:
    return open_evaluation(Data(root=Path(f"{store.address}/{what}"), cache_gb=cache_gb), "label", "all")


def images(source: Source) -> list[object]:
    return [source.read(position).get("image") for position in range(len(source))]


def kept(cache: Path) -> list[Path]:
    return sorted((cache / "data" / "shards").glob("*.tar"))


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
@pytest.mark.parametrize("what", ["", "train-{000000..000002}.tar", "shards.txt"])
def test_the_same_as_on_this_machine(store: HttpStore, cache: Path, what: str, cache_gb: float) -> None:
    names = "\n".join(path.name for path in sorted(store.folder.glob("*.tar")))
    (store.folder / "shards.txt").write_text(names)
    source = opened(store, what, cache_gb)
    local = open_evaluation(Data(root=store.folder / "train-{000000..000002}.tar"), "label", "all")
    assert images(source) == images(local) and source.labels == local.labels
    assert source.name(7) == f"{store.address}/train-000001.tar#s/0007"
    assert len(kept(cache)) == (3 if cache_gb else 0)
    assert not [path for path in (cache / "data").rglob("*") if path.name.endswith(".part")]


def test_what_is_in_the_cache_is_not_fetched_again(store: HttpStore) -> None:
    wanted = images(opened(store))
    fetched = sum(store.asked["GET", f"train-00000{n}.tar"] for n in range(3))
    assert fetched == 3 and images(opened(store)) == wanted
    assert sum(store.asked["GET", f"train-00000{n}.tar"] for n in range(3)) == 3


def test_an_index_beside_saves_fetching(tmp_path: Path, store: HttpStore, cache: Path) -> None:
    pack(natural_parts(Data(root=write_folders(tmp_path / "p")), "label"), store.folder / "packed", Packing(0.03))
    source = opened(store, "packed")
    assert len(source) == 24 and source.labels == ("blue", "green", "red") and not kept(cache)
    source.read(0)
    assert len(kept(cache)) == 1 and not open_splits(Data(root=Path(f"{store.address}/packed")), "label").test


def test_the_cache_is_bounded(store: HttpStore, cache: Path) -> None:
    size = (store.folder / "train-000000.tar").stat().st_size
    source = opened(store, cache_gb=2.5 * size * GB)
    assert len(kept(cache)) <= 2
    assert len(images(source)) == 18 and len(kept(cache)) == 2
    folder = cache / "own"
    addresses = [f"{store.address}/train-00000{n}.tar" for n in range(3)]
    own = ShardCache(folder, int(2.5 * size))
    first, second = (own.get(address, stamp(address)) for address in addresses[:2])
    os.utime(second, ns=(0, 0))
    assert own.get(addresses[0], stamp(addresses[0])) == first
    third = own.get(addresses[2], stamp(addresses[2]))
    assert first.exists() and third.exists() and not second.exists()


def test_failures_that_pass(store: HttpStore) -> None:
    store.fail = lambda name, number: 503 if number == 1 else None
    store.cut = {"train-000001.tar": 2}
    store.pause = 0.01
    assert len(images(opened(store))) == 18
    assert store.asked["GET", "train-000001.tar"] == 3


def test_an_address_that_stays_unreachable_is_named(store: HttpStore) -> None:
    store.fail = lambda name, number: 500 if name == "train-000001.tar" else None
    with pytest.raises(Unreachable, match=r"train-000001\.tar cannot be read: 500"):
        opened(store)
    assert store.asked["HEAD", "train-000001.tar"] == 3
    with pytest.raises(Unreachable, match="404"):
        opened(store, "gone-{0..1}.tar")
    with pytest.raises(Unreachable, match="cannot be read"):
        stamp("http://127.0.0.1:9/a.tar")


def test_a_store_that_goes_away_later(store: HttpStore) -> None:
    source = opened(store, cache_gb=0.0)
    store.fail = lambda name, number: 500
    with pytest.raises(BadImage, match=r"train-000000\.tar cannot be read"):
        source.read(0)
    asked = store.asked["GET", "train-000000.tar"]
    with pytest.raises(BadImage):
        source.read(1)
    assert store.asked["GET", "train-000000.tar"] == asked  # it is not waited for with every image


def test_a_store_that_hangs(store: HttpStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage, "TIMEOUT", 0.05)
    monkeypatch.setattr(storage, "WAITS", [0.01])
    store.pause = 0.3
    with pytest.raises(Unreachable, match="timed out"):
        stamp(f"{store.address}/train-000000.tar")


def test_bytes_that_change_on_the_way(tmp_path: Path, store: HttpStore, cache: Path) -> None:
    pack(natural_parts(Data(root=write_folders(tmp_path / "p")), "label"), store.folder / "packed", Packing(1.0))
    store.alter = lambda name, body: body if not name.endswith(".tar") else body[:-9] + b"?" + body[-8:]
    source = opened(store, "packed")
    with pytest.raises(BadImage, match="SHA256"):
        source.read(0)
    assert not kept(cache) and store.asked["GET", "packed/train-000000.tar"] == 3


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_a_shard_that_is_replaced(store: HttpStore, cache: Path, cache_gb: float) -> None:
    source = opened(store, cache_gb=cache_gb)
    for path in kept(cache):
        path.unlink()
    path = store.folder / "train-000001.tar"
    path.write_bytes(path.read_bytes() + bytes(512))
    with pytest.raises(BadImage, match="changed"):
        source.read(7)
    assert source.read(0)


def test_a_server_without_ranges(store: HttpStore) -> None:
    store.ranges = False
    write_shards(store.folder, shards=1, part="other").joinpath("other-000000.tar").rename(store.folder / "train-3.tar")
    assert len(images(opened(store, "train-{000000..000002}.tar"))) == 18
    with pytest.raises((OvertoneError, BadImage), match="cache-gb"):
        images(opened(store, "train-{3..3}.tar", cache_gb=0.0))


def test_other_stores_go_through_fsspec(tmp_path: Path) -> None:
    fsspec = pytest.importorskip("fsspec")
    memory = fsspec.filesystem("memory")
    for path in write_shards(tmp_path).glob("*.tar"):
        memory.pipe(f"/bucket/{path.name}", path.read_bytes())
    source = open_evaluation(Data(root=Path("memory://bucket")), "label", "all")
    assert source.name(0) == "memory://bucket/train-000000.tar#s/0000" and len(images(source)) == 18
    with pytest.raises(OvertoneError, match=r"nowhere://"):
        stamp("nowhere://a/b.tar")


def test_addresses_survive_paths() -> None:
    for address in ("http://host/a/b.tar", "s3://bucket/key-{0..3}.tar", "hf://datasets/a/b"):
        assert address_of(Path(address)) == address == address_of(address)
    assert address_of(Path("a/b")) == "a/b" and address_of("/a//b") == "/a//b"


def test_a_change_is_told_from_a_failure(store: HttpStore, tmp_path: Path) -> None:
    address = f"{store.address}/train-000000.tar"
    with pytest.raises(Changed):
        storage.fetch(address, tmp_path / "x", stamp(address)._replace(version="other"))
    assert storage.read_range(address, 0, 4) == (store.folder / "train-000000.tar").read_bytes()[:4]


def test_shards_are_fetched_ahead_in_order(store: HttpStore, cache: Path) -> None:
    write_shards(store.folder, shards=6)
    source = opened(store)
    for path in kept(cache):
        path.unlink()
    store.asked.clear()
    order = np.arange(len(source))[::-1].copy()
    assert isinstance(source, ShardImages)
    source.window = 1
    ahead = source.prefetcher(order)
    assert ahead is not None
    try:
        until(lambda: len(kept(cache)) == 2)
        assert set(store.asked) >= {("GET", "train-000005.tar"), ("GET", "train-000004.tar")}
        ahead.advance(source.shards_of([len(source) - 8]))
        until(lambda: len(kept(cache)) == 3)
        assert ("GET", "train-000003.tar") in store.asked and ("GET", "train-000000.tar") not in store.asked
    finally:
        ahead.close()


def test_a_loader_fetches_ahead_and_ends(store: HttpStore, cache: Path) -> None:
    source = opened(store)
    for path in kept(cache):
        path.unlink()
    pipeline = class_images(evaluation_transform(Preprocess(size=16)))
    loader = Loader(source, pipeline, batch_size=4, shuffle=True)
    assert sorted(n for batch in loader for n in batch.ids.tolist()) == list(range(18)) and len(kept(cache)) == 3
    next(iter(loader))
    until(lambda: not [thread for thread in threading.enumerate() if thread.name == "overtone-prefetch"])
    local = open_evaluation(Data(root=store.folder), "label", "all")
    assert isinstance(local, ShardImages) and local.prefetcher(np.arange(18)) is None


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + 5
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.01)
