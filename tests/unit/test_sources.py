"""Which files are found, how they are split, and what the errors say (reliability rows 5 and 6)."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import pytest
from images_on_disk import make_images, noise

from overtone.config import Data
from overtone.data.sources import ImageList, find_images
from overtone.data.sources.class_folders import find_evaluation, find_splits
from overtone.errors import OvertoneError


def names(images: ImageList, root: Path) -> set[str]:
    return {path.relative_to(root).as_posix() for path in images.paths}


def labelled(images: ImageList) -> dict[str, str]:
    return {path.as_posix(): images.labels[target] for path, target in zip(images.paths, images.targets, strict=True)}


def test_folders_are_the_splits(tmp_path: Path) -> None:
    make_images(tmp_path / "train", {"dog": 3, "cat": 2})
    make_images(tmp_path / "val", {"cat": 1, "dog": 2})
    splits = find_splits(Data(root=tmp_path))
    assert splits.train.labels == splits.val.labels == ("cat", "dog")
    assert splits.train.counts() == (2, 3)
    assert splits.val.counts() == (1, 2)
    assert not splits.seeded
    assert "train/" in splits.origin and "val/" in splits.origin
    assert all(path.parent.name == name for path, name in ((Path(p), c) for p, c in labelled(splits.val).items()))


@pytest.mark.parametrize("name", ["val", "valid", "validation", "Val"])
def test_names_of_the_validation_folder(tmp_path: Path, name: str) -> None:
    make_images(tmp_path / "train", {"a": 2, "b": 2})
    make_images(tmp_path / name, {"a": 1, "b": 1})
    splits = find_splits(Data(root=tmp_path))
    assert len(splits.train) == 4
    assert names(splits.val, tmp_path) == {f"{name}/a/0.png", f"{name}/b/0.png"}


def test_val_comes_before_test(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        make_images(tmp_path / part, {"a": 2, "b": 2})
    assert all("/val/" in path for path in labelled(find_splits(Data(root=tmp_path)).val))


@pytest.mark.parametrize("name", ["test", "Testing"])
def test_test_images_alone_beside_the_training_ones_choose_nothing(tmp_path: Path, name: str) -> None:
    make_images(tmp_path / "train", {"a": 5, "b": 5, "c": 5})
    make_images(tmp_path / name, {"a": 1, "c": 1})
    splits = find_splits(Data(root=tmp_path))
    assert splits.seeded and len(splits.train) == 12 and splits.val.counts() == (1, 1, 1)
    assert names(splits.val, tmp_path) | names(splits.train, tmp_path) == {
        f"train/{label}/{number}.png" for label in "abc" for number in range(5)
    }
    assert splits.test is not None and names(splits.test, tmp_path) == {f"{name}/a/0.png", f"{name}/c/0.png"}
    assert splits.test.labels == splits.train.labels and splits.test.counts() == (1, 0, 1)
    assert find_splits(Data(root=tmp_path, val_fraction=0.0)).test == splits.test


def test_validating_on_the_test_images_by_wish(tmp_path: Path) -> None:
    make_images(tmp_path / "train", {"a": 5, "b": 5})
    make_images(tmp_path / "test", {"a": 2, "b": 1})
    splits = find_splits(Data(root=tmp_path, validate_on="test"))
    assert not splits.seeded and splits.test is None and len(splits.train) == 10
    assert names(splits.val, tmp_path) == {"test/a/0.png", "test/a/1.png", "test/b/0.png"}
    # a val/ folder is what is validated on all the same, and the test images are measured at the end
    make_images(tmp_path / "val", {"a": 1, "b": 1})
    splits = find_splits(Data(root=tmp_path, validate_on="test"))
    assert names(splits.val, tmp_path) == {"val/a/0.png", "val/b/0.png"}
    assert splits.test is not None and len(splits.test) == 3


def test_seeded_split_is_stratified_and_complete(two_classes: Path) -> None:
    splits = find_splits(Data(root=two_classes, val_fraction=0.25))
    assert splits.seeded
    assert splits.val.counts() == (round(10 * 0.25), round(14 * 0.25))
    assert len(set(splits.train.paths) | set(splits.val.paths)) == len(splits.train) + len(splits.val) == 24
    assert "seed 0" in splits.origin


def test_seeded_split_depends_on_names_and_seed_only(two_classes: Path, tmp_path: Path) -> None:
    data = Data(root=two_classes)
    first = find_splits(data)
    assert find_splits(data) == first
    other = tmp_path / "elsewhere"
    other.mkdir()
    # Another place, another order of creation: the same files are held out.
    for path in sorted(two_classes.rglob("*.png"), reverse=True):
        (other / path.parent.name).mkdir(exist_ok=True)
        shutil.copy(path, other / path.parent.name / path.name)
    assert names(find_splits(replace(data, root=other)).val, other) == names(first.val, two_classes)
    assert names(find_splits(replace(data, split_seed=1)).val, two_classes) != names(first.val, two_classes)


def test_seeded_split_of_known_names(two_classes: Path) -> None:
    # Recorded once: a split written down by an older version must come out again.
    expected = {"cat/3.png", "cat/7.png", "dog/0.png", "dog/10.png", "dog/4.png"}
    assert names(find_splits(Data(root=two_classes)).val, two_classes) == expected


def test_files_added_to_one_class_leave_the_others_alone(two_classes: Path) -> None:
    before = names(find_splits(Data(root=two_classes)).val, two_classes)
    for number in range(100, 120):
        noise().save(two_classes / "dog" / f"{number}.png")
    after = names(find_splits(Data(root=two_classes)).val, two_classes)
    assert {name for name in before if name.startswith("cat")} == {name for name in after if name.startswith("cat")}


def test_small_classes_keep_a_training_image(tmp_path: Path) -> None:
    make_images(tmp_path, {"one": 1, "two": 2, "many": 9})
    splits = find_splits(Data(root=tmp_path, val_fraction=0.1))
    by_name = dict(zip(splits.train.labels, zip(splits.train.counts(), splits.val.counts(), strict=True), strict=True))
    assert by_name == {"one": (1, 0), "two": (1, 1), "many": (8, 1)}
    assert find_splits(Data(root=tmp_path, val_fraction=0.99)).train.counts() == (1, 1, 1)


def test_train_folder_alone_is_split(tmp_path: Path) -> None:
    make_images(tmp_path / "train", {"a": 10, "b": 10})
    (tmp_path / "test").mkdir()
    noise().save(tmp_path / "test" / "unlabelled.png")
    splits = find_splits(Data(root=tmp_path))
    assert splits.seeded and splits.val.counts() == (2, 2)
    assert names(splits.val, tmp_path / "train") == names(
        find_splits(Data(root=tmp_path / "train")).val, tmp_path / "train"
    )


def test_a_class_may_be_called_train(tmp_path: Path) -> None:
    make_images(tmp_path, {"train": 5, "plane": 5})
    assert find_splits(Data(root=tmp_path)).train.labels == ("plane", "train")


@pytest.mark.parametrize("suffix", ["jpg", "JPEG", "png", "webp", "bmp", "gif", "tif", "TIFF"])
def test_formats(tmp_path: Path, suffix: str) -> None:
    make_images(tmp_path, {"a": 2, "b": 2})
    noise().save(tmp_path / "a" / f"new.{suffix}")
    assert find_evaluation(tmp_path).counts() == (3, 2)


# Row 5


def test_hidden_files_and_non_images_are_ignored(two_classes: Path) -> None:
    expected = find_evaluation(two_classes)
    for name in ("notes.txt", ".hidden.png", "._0.png", "Thumbs.db", "0.png.part", "model.pt"):
        (two_classes / "cat" / name).write_bytes(b"no image")
    (two_classes / "README.md").write_text("about the pets")
    make_images(two_classes / ".cache", {"0": 3})
    make_images(two_classes / "cat" / ".thumbnails", {"small": 3})
    os.mkfifo(two_classes / "cat" / "pipe.png")
    (two_classes / "cat" / "folder.png").mkdir()
    assert find_evaluation(two_classes) == expected


def test_nested_images_belong_to_the_class(two_classes: Path) -> None:
    make_images(two_classes / "cat", {"siamese": 3, "siamese/kittens": 2})
    assert find_evaluation(two_classes).counts() == (15, 14)


def test_symlink_loops_end_and_add_nothing(two_classes: Path, tmp_path: Path) -> None:
    expected = labelled(find_evaluation(two_classes))
    (two_classes / "cat" / "up").symlink_to(two_classes)
    (two_classes / "cat" / "above").symlink_to(tmp_path)
    (two_classes / "cat" / "self").symlink_to(two_classes / "cat")
    (two_classes / "cat" / "other").symlink_to(two_classes / "dog")
    (two_classes / "loop").symlink_to(two_classes)
    (two_classes / "ring").symlink_to(two_classes / "ring")
    (two_classes / "cat" / "ring.png").symlink_to(two_classes / "cat" / "ring.png")
    (two_classes / "dog" / "gone.png").symlink_to(two_classes / "nowhere.png")
    assert labelled(find_evaluation(two_classes)) == expected


def test_each_file_once_and_under_its_own_name(two_classes: Path) -> None:
    expected = labelled(find_evaluation(two_classes))
    (two_classes / "cat" / "00_first.png").symlink_to(two_classes / "cat" / "3.png")
    (two_classes / "cat" / "dog.png").symlink_to(two_classes / "dog" / "3.png")
    assert labelled(find_evaluation(two_classes)) == expected


def test_links_are_followed(tmp_path: Path) -> None:
    store = make_images(tmp_path / "store", {"cats": 4, "dogs": 3, "more": 2})
    root = tmp_path / "chosen"
    (root / "dog").mkdir(parents=True)
    (root / "cat").symlink_to(store / "cats")
    (root / "dog" / "store").symlink_to(store / "dogs")
    (root / "dog" / "extra.png").symlink_to(store / "more" / "0.png")
    images = find_evaluation(root)
    assert images.labels == ("cat", "dog") and images.counts() == (4, 4)


# Row 6


@pytest.mark.parametrize(
    ("counts", "words"),
    [
        ({"cat": 3, "dog": 0}, ("dog", "--data.allow-empty-classes")),
        ({"cat": 0, "dog": 0}, ("holds no images", "JPEG")),
        ({"cat": 3}, ("one class only", "cat")),
        ({}, ("holds no images",)),
    ],
)
def test_folders_that_cannot_be_trained_on(tmp_path: Path, counts: dict[str, int], words: tuple[str, ...]) -> None:
    root = make_images(tmp_path / "data", counts)
    root.mkdir(exist_ok=True)
    with pytest.raises(OvertoneError) as error:
        find_splits(Data(root=root))
    message = str(error.value)
    assert str(root) in message and "\n" not in message
    assert all(word in message for word in words)


def test_empty_classes_by_permission(tmp_path: Path) -> None:
    make_images(tmp_path, {"ant": 0, "cat": 5, "dog": 5})
    splits = find_splits(Data(root=tmp_path, allow_empty_classes=True))
    assert splits.train.labels == ("ant", "cat", "dog")
    assert splits.train.counts() == (0, 4, 4)


def test_images_without_class_folders(tmp_path: Path) -> None:
    noise().save(tmp_path / "1.png")
    with pytest.raises(OvertoneError, match="no class folders"):
        find_splits(Data(root=tmp_path))
    for part in ("train", "val"):
        (tmp_path / "flat" / part).mkdir(parents=True)
        noise().save(tmp_path / "flat" / part / "1.png")
    with pytest.raises(OvertoneError, match=r"train holds images but no class folders"):
        find_splits(Data(root=tmp_path / "flat"))


def test_missing_roots(tmp_path: Path) -> None:
    with pytest.raises(OvertoneError, match=r"data\.root is not given"):
        find_splits(Data())
    with pytest.raises(OvertoneError, match="nowhere does not exist"):
        find_splits(Data(root=tmp_path / "nowhere"))
    noise().save(tmp_path / "a.png")
    with pytest.raises(OvertoneError, match="is not a folder"):
        find_splits(Data(root=tmp_path / "a.png"))


def test_train_and_val_with_different_classes(tmp_path: Path) -> None:
    make_images(tmp_path / "train", {"a": 2, "b": 2, "c": 2})
    make_images(tmp_path / "val", {"a": 1, "b": 1})
    with pytest.raises(OvertoneError, match=r"only in train/: c; .*allow-empty-classes"):
        find_splits(Data(root=tmp_path))
    splits = find_splits(Data(root=tmp_path, allow_empty_classes=True))
    assert splits.val.labels == ("a", "b", "c") and splits.val.counts() == (1, 1, 0)
    make_images(tmp_path / "val", {"0": 1})
    with pytest.raises(OvertoneError, match=r"only in train/: c; only in val/: 0;"):
        find_splits(Data(root=tmp_path, allow_empty_classes=True))


def test_nothing_held_out(two_classes: Path, tmp_path: Path) -> None:
    splits = find_splits(Data(root=two_classes, val_fraction=0.0))
    assert len(splits.train) == 24 and not splits.val and splits.val.labels == splits.train.labels
    assert not splits.seeded and "nothing held out" in splits.origin
    with pytest.raises(OvertoneError, match=r"the training held nothing of .* out"):
        find_evaluation(two_classes, trained_on=Data(root=two_classes, val_fraction=0.0))
    assert len(find_evaluation(two_classes, "all", Data(root=two_classes, val_fraction=0.0))) == 24
    with pytest.raises(OvertoneError, match="one image in each class"):
        find_splits(Data(root=make_images(tmp_path / "few", {"a": 1, "b": 1})))


# What is evaluated


def test_evaluation_of_folders(tmp_path: Path) -> None:
    make_images(tmp_path / "train", {"a": 4, "b": 4})
    make_images(tmp_path / "test", {"a": 2, "b": 2})
    for split, count in {"auto": 4, "val": 4, "test": 4, "train": 8, "all": 12}.items():
        assert len(find_evaluation(tmp_path, split)) == count, split  # type: ignore[arg-type]
    make_images(tmp_path / "val", {"a": 1, "b": 1})
    assert len(find_evaluation(tmp_path)) == len(find_evaluation(tmp_path, "val")) == 2
    shutil.rmtree(tmp_path / "train")
    assert len(find_evaluation(tmp_path)) == 2
    with pytest.raises(OvertoneError, match=r"no train/; it has val/ and test/"):
        find_evaluation(tmp_path, "train")


def test_evaluation_of_a_folder_of_class_folders(two_classes: Path, tmp_path: Path) -> None:
    data = Data(root=two_classes, val_fraction=0.3, split_seed=5)
    splits = find_splits(data)
    assert len(find_evaluation(two_classes)) == 24  # a model from elsewhere: all of it
    assert find_evaluation(two_classes, "auto", data).paths == splits.val.paths
    assert find_evaluation(two_classes, "train", data).paths == splits.train.paths
    assert len(find_evaluation(two_classes, "all", data)) == 24
    assert "held-out" in find_evaluation(two_classes, "auto", data).origin
    with pytest.raises(OvertoneError, match="no test/"):
        find_evaluation(two_classes, "test")
    elsewhere = make_images(tmp_path / "new", {"cat": 3, "dog": 3})
    assert len(find_evaluation(elsewhere, "auto", data)) == 6
    moved = two_classes.rename(tmp_path / "moved")
    assert names(find_evaluation(moved, "auto", data), moved) == names(splits.val, two_classes)


def test_find_images(two_classes: Path) -> None:
    dogs, cat, text = two_classes / "dog", two_classes / "cat" / "3.png", two_classes / "notes.txt"
    text.write_text("no image")
    found = find_images([cat, dogs, cat, text, two_classes / "gone.png"])
    assert found[0] == cat and found[-2:] == [text, two_classes / "gone.png"]
    assert len(found) == 1 + 14 + 2
    assert len(find_images([two_classes])) == 24
    (two_classes / "empty").mkdir()
    with pytest.raises(OvertoneError, match="empty holds no images"):
        find_images([two_classes / "empty"])
