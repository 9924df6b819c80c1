"""The scan of many files: what it finds, what it keeps, and when it looks again."""

import os
import pickle
from pathlib import Path

import numpy as np
import pytest

from overtone.config import Data
from overtone.data.folders import class_folders, images_in
from overtone.data.sources import ImageList, folder_scan, open_splits
from overtone.data.sources.folder_scan import scan
from overtone.data.sources.image_list import Paths


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """Class folders with images, folders in them, hidden and other files."""
    for name in (
        "b/2.jpg",
        "b/10.PNG",
        "b/x/1.jpeg",
        "b/x/y/1.webp",
        "a/1.jpg",
        "a/.hidden.jpg",
        "a/notes.txt",
        "c/ü.jpg",
    ):
        path = tmp_path / "tree" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "tree"


def age(root: Path, seconds: int = 100) -> None:
    for folder in (root, *(path for path in root.rglob("*") if path.is_dir())):
        status = folder.stat()
        os.utime(folder, ns=(status.st_atime_ns, status.st_mtime_ns - seconds * 10**9))


def listed(root: Path) -> tuple[list[str], list[int]]:
    found = scan(class_folders(root))
    assert found is not None
    return [str(path) for path in found[0]], found[1].tolist()


def test_the_same_files_in_the_same_order(tree: Path) -> None:
    found = images_in(class_folders(tree), tree)
    wanted = [image.path for images in found.values() for image in images]
    assert listed(tree) == (wanted, [1, 4, 1])


def test_links_are_left_to_the_other_scan(tree: Path) -> None:
    (tree / "a" / "2.jpg").symlink_to(tree / "b" / "2.jpg")
    assert scan(class_folders(tree)) is None
    train = open_splits(Data(root=tree, val_fraction=0), "label").train
    assert isinstance(train, ImageList) and train.counts() == (1, 4, 1)


def test_the_index_is_kept_and_renewed(tree: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder_scan, "KEPT_FROM", 3)
    wanted = listed(tree)
    assert not (cache / "data").exists()  # the folders have just changed, and may change again unnoticed
    age(tree)
    assert listed(tree) == wanted
    assert sorted(path.suffix for path in (cache / "data" / "folders").iterdir()) == [".names", ".npz"]
    shared = scan(class_folders(tree))
    assert shared is not None and shared[0] == pickle.loads(pickle.dumps(shared[0])) == Paths(wanted[0])
    look = folder_scan._listed
    monkeypatch.setattr(folder_scan, "_listed", lambda *_: pytest.fail("scanned again"))
    assert listed(tree) == wanted
    monkeypatch.setattr(folder_scan, "_listed", look)
    (tree / "b" / "x" / "y" / "2.jpg").touch()
    assert listed(tree)[1] == [1, 5, 1]
    (tree / "a" / "1.jpg").rename(tree / "a" / "9.jpg")
    assert listed(tree)[0][0].endswith("a/9.jpg")
    age(tree)
    for suffix, content in ((".npz", b"PK broken"), (".names", b""), (".names", b"short")):
        listed(tree)
        (path,) = (cache / "data" / "folders").glob(f"*{suffix}")
        path.unlink()  # as a file that is mapped is replaced
        path.write_bytes(content)
        assert listed(tree)[1] == [1, 5, 1]


def test_few_files_keep_nothing(tree: Path, cache: Path) -> None:
    age(tree)
    listed(tree)
    assert not (cache / "data").exists()


def test_chosen_paths() -> None:
    paths = Paths([Path(f"folder/{n}.jpg") for n in range(200)])
    chosen = np.array([199, 0, 7, 7])
    assert list(paths.chosen(chosen)) == [paths[int(n)] for n in chosen] and len(paths.chosen(chosen[:0])) == 0
