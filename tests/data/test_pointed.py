"""Tables whose images are members of tar archives or lie in a store, among files."""

import csv
import pickle
from pathlib import Path
from typing import Any

import pytest
from http_store import HttpStore
from made_shards import COLOURS, image_bytes, write_tar

from overtone.config import Data
from overtone.data import storage
from overtone.data.decoding import BadImage
from overtone.data.sources import open_evaluation, open_splits
from overtone.errors import OvertoneError

CONTENTS = [image_bytes(list(COLOURS)[n % 3], n) for n in range(6)]


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Six images: a file, four members of two archives, and a file to be served."""
    root = tmp_path / "photos"
    write_tar(root / "a.tar", [("x/IMG.1.jpg", CONTENTS[1]), ("x/IMG.2.jpg", CONTENTS[2])])
    write_tar(root / "b.tar", [("3.jpg", CONTENTS[3]), ("4.png", CONTENTS[4]), ("4.jpg", CONTENTS[0])])
    (root / "0.jpg").write_bytes(CONTENTS[0])
    (root / "5.jpg").write_bytes(CONTENTS[5])
    return root


NAMES = ["0.jpg", "a.tar#x/IMG.1.jpg", "a.tar#x/IMG.2.jpg", "b.tar#3.jpg", "b.tar#4.png", "5.jpg"]


def write(path: Path, names: list[str]) -> Path:
    rows = [[name, list(COLOURS)[n % 3], "a|b" if n % 2 else "a"] for n, name in enumerate(names)]
    with path.open("w", newline="") as file:
        csv.writer(file).writerows([["image", "label", "tags"], *rows])
    return path


def read(source: Any) -> list[bytes]:
    found = [source.read(at)["image"] for at in range(len(source))]
    return [image if isinstance(image, bytes) else image.read_bytes() for image in found]


@pytest.mark.parametrize("target", ["label", "labels"])
def test_members_of_archives(photos: Path, target: str) -> None:
    table = write(photos / "table.csv", NAMES)
    source: Any = pickle.loads(pickle.dumps(open_evaluation(Data(table=table), target, "all")))
    assert read(source) == CONTENTS and source.name(1) == f"{photos}/a.tar#x/IMG.1.jpg"
    assert source.entry(1)[0] == "a.tar#x/IMG.1.jpg" and source.entry(1)[2] == len(CONTENTS[1])
    splits: Any = open_splits(Data(table=table, val_fraction=0.34), target)
    assert sorted(read(splits.train) + read(splits.val)) == sorted(CONTENTS)
    elsewhere = write(photos.parent / "table.csv", NAMES[1:5])
    assert read(open_evaluation(Data(table=elsewhere, root=photos), target, "all")) == CONTENTS[1:5]


def test_what_is_not_there_is_named(photos: Path) -> None:
    table = write(photos / "table.csv", [NAMES[1], "a.tar#gone.jpg", NAMES[3]])
    source: Any = open_evaluation(Data(table=table), "label", "all")
    with pytest.raises(BadImage, match=r"no member gone\.jpg"):
        source.read(1)
    assert source.entry(1)[2] == -1 and read(source.part([0, 2], "")) == [CONTENTS[1], CONTENTS[3]]
    (photos / "a.tar").write_bytes((photos / "a.tar").read_bytes()[:600])
    with pytest.raises(BadImage, match="changed"):
        source.read(0)
    cut: Any = open_evaluation(Data(table=table), "label", "all")
    with pytest.raises(BadImage, match="cut off"):
        cut.read(1)
    (photos / "b.tar").unlink()
    with pytest.raises(OvertoneError, match=r"b\.tar cannot be read"):
        open_evaluation(Data(table=table), "label", "all")


@pytest.mark.parametrize("cache_gb", [0.0, 1.0])
def test_images_in_a_store(photos: Path, monkeypatch: pytest.MonkeyPatch, cache_gb: float) -> None:
    monkeypatch.setattr(storage, "WAITS", [0.01])
    with HttpStore(photos) as store:
        names = [*NAMES[:3], f"{store.address}/b.tar#3.jpg", f"{store.address}/b.tar#4.png", f"{store.address}/5.jpg"]
        table = write(photos / "table.csv", names)
        source: Any = open_evaluation(Data(table=table, cache_gb=cache_gb), "label", "all")
        assert read(source) == CONTENTS and source.name(3) == names[3]
        served = Data(table=Path(f"{store.address}/table.csv"), cache_gb=cache_gb)
        write(photos / "table.csv", NAMES)
        assert read(open_evaluation(served, "label", "all")) == CONTENTS
        store.fail = lambda name, number: 500 if name == "5.jpg" else None
        with pytest.raises(BadImage, match=r"5\.jpg cannot be read: 500"):
            source.read(5)
