"""Where images and masks are found, what the values in masks mean, and how bad ones are named."""

import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from small_scenes import draw

from overtone.config import Data
from overtone.data.decoding import BadImage
from overtone.data.masks import IGNORED
from overtone.data.sources import open_evaluation, open_splits
from overtone.data.sources.mask_coco import drawn
from overtone.data.sources.mask_layouts import CITYSCAPES_CLASSES
from overtone.errors import OvertoneError


def save(path: Path, values: np.ndarray, palette: list[int] | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(np.asarray(values, dtype=np.uint8))
    if palette is not None:
        image.putpalette(palette)
    image.save(path)
    return path


def pair(root: Path, name: str, mask: np.ndarray, palette: list[int] | None = None) -> None:
    save(root / "images" / f"{name}.png", np.zeros((*np.shape(mask)[:2], 3)))
    save(root / "masks" / f"{name}.png", mask, palette)


def mask_of(root: Path, position: int = 0, **options) -> np.ndarray:
    source = open_splits(Data(root=root, val_fraction=0, **options), "mask").train
    return source.read(position)["mask"].pixels()


def reason_of(root: Path) -> str:
    with pytest.raises(BadImage) as caught:
        mask_of(root)
    return caught.value.reason


@pytest.mark.parametrize("above", [True, False])
def test_split_folders_above_and_below(tmp_path, above):
    for part, count in (("train", 3), ("val", 2)):
        for number in range(count):
            for kind in ("images", "masks"):
                folder = tmp_path / part / kind if above else tmp_path / kind / part
                save(folder / f"{number}.png", np.zeros((4, 6, 3) if kind == "images" else (4, 6)))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    splits = open_splits(Data(root=tmp_path), "mask")
    assert (len(splits.train), len(splits.val), splits.seeded) == (3, 2, False)
    assert splits.train.labels == splits.val.labels == ("road", "car")
    name, mask, size = splits.train.entry(0)
    assert name.endswith("0.png") and mask.endswith("0.png") and "train" in name and size > 0
    assert len(open_evaluation(Data(root=tmp_path), "mask", "train")) == 3


def test_without_split_folders_a_seed_chooses_the_same_part_for_evaluation(tmp_path):
    for number in range(10):
        pair(tmp_path, str(number), np.full((4, 4), number % 2))
    data = Data(root=tmp_path, val_fraction=0.3, split_seed=7)
    splits = open_splits(data, "mask")
    assert splits.seeded and (len(splits.train), len(splits.val)) == (7, 3)
    again = open_evaluation(Data(root=tmp_path), "mask", trained_on=data)
    assert [again.name(i) for i in range(3)] == [splits.val.name(i) for i in range(3)]
    assert len(open_evaluation(Data(root=tmp_path), "mask")) == 10


def test_indices_are_classes_and_those_named_unlabelled_are_ignored(tmp_path):
    pair(tmp_path, "a", np.array([[0, 1, 2, 255]]))
    (tmp_path / "classes.txt").write_text("road\nunlabelled\ncar\n")
    assert mask_of(tmp_path).tolist() == [[0, IGNORED, 1, IGNORED]]
    assert open_splits(Data(root=tmp_path, val_fraction=0), "mask").train.labels == ("road", "car")


def test_an_index_can_be_ignored_by_a_setting_within_and_beyond_the_list(tmp_path):
    pair(tmp_path, "a", np.array([[0, 1, 9]]))
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    assert mask_of(tmp_path, ignore_index=9).tolist() == [[0, 1, IGNORED]]
    (tmp_path / "classes.txt").write_text("\n".join(f"c{i}" for i in range(10)))
    assert mask_of(tmp_path, ignore_index=0).tolist() == [[IGNORED, 0, 8]]


def test_without_a_list_the_largest_index_counts_the_classes(tmp_path):
    pair(tmp_path, "a", np.array([[0, 3, 255]]))
    pair(tmp_path, "b", np.array([[1, 7, 0]]))
    labels = open_splits(Data(root=tmp_path, val_fraction=0, ignore_index=7), "mask").train.labels
    assert labels == ("class 0", "class 1", "class 2", "class 3")


def test_a_palette_gives_indices_or_the_colours_of_a_list(tmp_path):
    palette = [0, 0, 0, 255, 0, 0, 0, 0, 255]
    pair(tmp_path, "a", np.array([[0, 1, 2]]), palette)
    assert mask_of(tmp_path).tolist() == [[0, 1, 2]]
    (tmp_path / "classes.csv").write_text("name, r, g, b\nsea,0,0,255\nvoid,0,0,0\nfire,255,0,0\n")
    assert mask_of(tmp_path).tolist() == [[IGNORED, 1, 0]]


@pytest.mark.parametrize("header", ["name,r,g,b\na,1,2,3\nb,200,100,50\n", "label,color\na,#010203\nb,200 100 50\n"])
def test_colours_of_a_list(tmp_path, header):
    pair(tmp_path, "a", np.array([[[1, 2, 3], [200, 100, 50]]]))
    (tmp_path / "classes.csv").write_text(header)
    assert mask_of(tmp_path).tolist() == [[0, 1]]


def test_what_a_mask_holds_beyond_its_classes_is_named(tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    pair(tmp_path, "a", np.array([[0, 5]]))
    assert "a.png" in reason_of(tmp_path) and "index 5" in reason_of(tmp_path)
    pair(tmp_path, "a", np.array([[[1, 2, 3], [4, 5, 6]]]))
    assert "classes.csv" in reason_of(tmp_path)
    (tmp_path / "classes.csv").write_text("name,r,g,b\nroad,1,2,3\ncar,9,9,9\n")
    assert "(4, 5, 6)" in reason_of(tmp_path)


def test_missing_and_damaged_masks_are_named(tmp_path):
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    pair(tmp_path, "a", np.zeros((4, 4)))
    pair(tmp_path, "b", np.zeros((4, 4)))
    (tmp_path / "masks" / "a.png").unlink()
    assert "mask a.png" in reason_of(tmp_path)
    (tmp_path / "masks" / "a.png").write_bytes((tmp_path / "masks" / "b.png").read_bytes()[:40])
    assert "mask a.png" in reason_of(tmp_path)


@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("classes.csv", "r,g,b\n1,2,3\n", "name,r,g,b"),
        ("classes.csv", "name,r,g,b\na,1,2\n", "fewer columns"),
        ("classes.csv", "name,r,g,b\na,1,2,300\n", "0..255"),
        ("classes.csv", "name,r,g,b\na,1,2,3\nb,1,2,3\n", "same colour"),
        ("classes.txt", "a\na\n", "name of its own"),
    ],
)
def test_lists_of_classes_that_cannot_be(tmp_path, name, text, expected):
    pair(tmp_path, "a", np.zeros((4, 4)))
    (tmp_path / name).write_text(text)
    with pytest.raises(OvertoneError, match=expected) as caught:
        open_splits(Data(root=tmp_path), "mask")
    assert name in str(caught.value)


def test_folders_without_masks_say_what_is_wanted(tmp_path):
    with pytest.raises(OvertoneError, match="masks/"):
        open_splits(Data(root=tmp_path), "mask")
    with pytest.raises(OvertoneError, match=r"data\.root"):
        open_splits(Data(), "mask")
    save(tmp_path / "images" / "a.png", np.zeros((2, 2, 3)))
    (tmp_path / "masks").mkdir()
    with pytest.raises(OvertoneError, match="no masks"):
        open_splits(Data(root=tmp_path), "mask")


def test_ade20k(tmp_path):
    for part, count in (("training", 2), ("validation", 1)):
        for number in range(count):
            save(tmp_path / "images" / part / f"{number}.jpg", np.zeros((4, 4, 3)))
            save(tmp_path / "annotations" / part / f"{number}.png", np.array([[0, 1, 150, 7]] * 4))
    splits = open_splits(Data(root=tmp_path), "mask")
    assert (len(splits.train), len(splits.val)) == (2, 1)
    assert (len(splits.train.labels), splits.train.labels[0], splits.train.labels[149]) == (150, "wall", "flag")
    assert splits.val.read(0)["mask"].pixels()[0].tolist() == [IGNORED, 0, 149, 6]


def test_pascal_voc(tmp_path):
    root = tmp_path / "VOCdevkit" / "VOC2012"
    for name in ("a", "b", "c"):
        save(root / "JPEGImages" / f"{name}.jpg", np.zeros((4, 4, 3)))
    save(root / "SegmentationClass" / "a.png", np.array([[0, 20, 255]]), list(range(256)) * 3)
    (root / "ImageSets" / "Segmentation").mkdir(parents=True)
    (root / "ImageSets" / "Segmentation" / "train.txt").write_text("a\n")
    (root / "ImageSets" / "Segmentation" / "val.txt").write_text("b\n")
    splits = open_splits(Data(root=tmp_path), "mask")
    assert (len(splits.train), len(splits.val), splits.train.labels[20]) == (1, 1, "tvmonitor")
    assert splits.train.read(0)["mask"].pixels().tolist() == [[0, 20, IGNORED]]


def test_cityscapes_has_19_of_its_34_ids(tmp_path):
    for part in ("train", "val"):
        save(tmp_path / "leftImg8bit" / part / "ulm" / "ulm_0_leftImg8bit.png", np.zeros((1, 34, 3)))
        save(tmp_path / "gtFine" / part / "ulm" / "ulm_0_gtFine_labelIds.png", np.arange(34)[None])
        save(tmp_path / "gtFine" / part / "ulm" / "ulm_0_gtFine_color.png", np.zeros((1, 34, 3)))
    splits = open_splits(Data(root=tmp_path), "mask")
    assert len(splits.train) == len(splits.val) == 1
    found = splits.train.read(0)["mask"].pixels()[0]
    assert {i: splits.train.labels[k] for i, k in enumerate(found) if k != IGNORED} == CITYSCAPES_CLASSES


def test_coco_draws_polygons_and_run_lengths_the_smaller_on_top(tmp_path):
    whole = {"size": [4, 6], "counts": [0, 24]}
    objects = [
        {"id": 1, "image_id": 5, "category_id": 30, "area": 4, "segmentation": [[1, 1, 3, 1, 3, 3, 1, 3]]},
        {"id": 2, "image_id": 5, "category_id": 7, "area": 24, "segmentation": whole},
    ]
    content = {
        "images": [{"id": 5, "file_name": "a.png", "height": 4, "width": 6}]
        + [{"id": i, "file_name": f"{i}.png", "height": 4, "width": 6} for i in range(4)],
        "annotations": objects,
        "categories": [{"id": 7, "name": "sea"}, {"id": 30, "name": "boat"}, {"id": 31, "name": "unused"}],
    }
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    source = open_splits(Data(root=tmp_path, val_fraction=0), "mask").train
    assert source.labels == ("background", "sea", "boat")
    mask = source.read(0)["mask"].pixels()
    assert (mask == 2).sum() >= 4 and mask[1, 1] == mask[2, 2] == 2
    assert (mask[:, 4:] == 1).all()
    assert not source.read(1)["mask"].pixels().any()


def test_run_lengths_as_text_are_those_of_numbers():
    # 5 outside, 3 inside, 4 outside, 3 inside (a difference of 0), 5 outside (of 1), down the columns of 4 rows
    numbers = drawn({"size": [4, 5], "counts": [5, 3, 4, 3, 5]}, 4, 5)
    text = drawn({"size": [4, 5], "counts": "53401"}, 4, 5)
    assert np.array_equal(numbers, text)
    assert np.flatnonzero(numbers.T.ravel()).tolist() == [5, 6, 7, 12, 13, 14]
    with pytest.raises(ValueError, match="run lengths"):
        drawn({"size": [4, 5], "counts": [5]}, 4, 5)


@pytest.mark.parametrize("name", ["../a.png", "/a.png"])
def test_coco_images_outside_of_their_folder_are_refused(tmp_path, name):
    content = {
        "images": [{"id": 1, "file_name": name, "height": 2, "width": 2}],
        "annotations": [{"id": 1, "image_id": 1, "category_id": 1, "area": 1, "segmentation": []}],
        "categories": [{"id": 1, "name": "sea"}],
    }
    (tmp_path / "train").mkdir()
    (tmp_path / "train" / "_annotations.coco.json").write_text(json.dumps(content))
    with pytest.raises(OvertoneError, match="outside"):
        open_splits(Data(root=tmp_path), "mask")


def test_scenes_of_the_other_tests_are_read(tmp_path):
    splits = open_splits(Data(root=draw(tmp_path, 4)), "mask")
    assert {len(splits.train), len(splits.val)} == {3, 1}
