"""Boxes in every form: the same records, and what is wrong is refused or left out by name."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_boxes import Drawn, coco, draw, in_every_form, write_coco, write_table, write_voc, write_yolo, xml

from overtone.config import Data, Model, Preprocess, Recipe, Train
from overtone.data.loader import Loader
from overtone.data.segments import bitmap, mask_module, pack
from overtone.data.sources import BoxedImages, Objects, open_evaluation, open_splits
from overtone.errors import OvertoneError
from overtone.heads.roi_heads import Detections
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.detection.task import Detection
from overtone.tasks.task import Setup


def boxed(**data: Any) -> BoxedImages:
    source = open_splits(Data(**data), "boxes").train
    assert isinstance(source, BoxedImages)
    return source


def test_the_same_annotations_give_the_same_batches(tmp_path: Path) -> None:
    recipe = Recipe(
        task="detection",
        settings=DetectionSettings(mosaic=0.5, jitter=(0.8, 1.2), longest=96),
        model=Model(name="mobilenetv2_x010", head="ssdlite"),
        data=Data(preprocess=Preprocess(size=64)),
        train=Train(batch_size=3),
    )
    batches = {}
    for form, where in in_every_form(tmp_path).items():
        splits = open_splits(Data(**where), "boxes")
        assert splits.train.labels == splits.val.labels == ("disc", "frame")
        assert (len(splits.train), len(splits.val), splits.seeded) == (6, 6, False)
        pipeline = Detection(Setup(splits.train.labels, recipe)).pipeline(train=True)
        batches[form] = list(Loader(splits.train, pipeline, batch_size=3, shuffle=True))
    expected = batches.pop("coco")
    assert sum(len(target["boxes"]) for batch in expected for target in batch.targets) > 5
    for found in batches.values():
        for one, other in zip(found, expected, strict=True):
            assert one.ids.tolist() == other.ids.tolist() and one.inputs.sizes == other.inputs.sizes
            assert torch.equal(one.inputs.pixels, other.inputs.pixels)
            for target, wanted in zip(one.targets, other.targets, strict=True):
                assert target.keys() == wanted.keys() and all(torch.equal(target[key], wanted[key]) for key in wanted)


def test_the_same_annotations_give_the_same_average_precision(tmp_path: Path) -> None:
    """Boxes near the marked ones, each in its place moved alike, measured on what is read from every form."""
    recipe = Recipe(
        task="detection",
        model=Model(name="mobilenetv2_x010", head="ssdlite"),
        data=Data(preprocess=Preprocess(size=64)),
    )
    reports = {}
    for form, where in in_every_form(tmp_path).items():
        source = open_splits(Data(**where), "boxes").val
        task, noise = Detection(Setup(source.labels, recipe)), torch.Generator().manual_seed(0)
        tally = task.tally()
        for batch in Loader(source, task.pipeline(train=False), batch_size=4):
            found = [_near(truth.objects, noise) for truth in batch.targets]
            tally.add(found, [truth._replace(name=Path(truth.name).name) for truth in batch.targets])
        reports[form] = tally.report()
    assert 20 < reports["coco"].boxes.ap < 95
    assert all(report == reports["coco"] for report in reports.values())


def _near(objects: Objects, noise: torch.Generator) -> Detections:
    boxes, labels = torch.from_numpy(objects.boxes), torch.from_numpy(objects.labels)
    scores = torch.rand(len(boxes), generator=noise).sort(descending=True).values
    moved = boxes + torch.randn(boxes.shape, generator=noise)
    return Detections(moved, scores, labels, mask_probabilities=None, image_size=objects.size)


def test_records_are_bit_for_bit_the_same_and_a_seed_holds_the_same_images_out(tmp_path: Path) -> None:
    images = draw(tmp_path / "images", 10)
    draw(tmp_path / "voc" / "JPEGImages", 10)
    draw(tmp_path / "yolo" / "images" / "train", 10)
    (tmp_path / "coco.json").write_text(json.dumps(coco(images)))
    forms: list[dict[str, Any]] = [
        {"root": tmp_path, "table": tmp_path / "coco.json"},
        {"root": write_voc(tmp_path / "voc", {"train": images})},
        {"root": write_yolo(tmp_path / "yolo", {"train": images})},
    ]
    splits = [open_splits(Data(**where), "boxes") for where in forms]
    assert all(split.seeded for split in splits) and {len(split.val) for split in splits} == {2}
    for part in ("train", "val"):
        sources: list[Any] = [getattr(split, part) for split in splits]
        for position in range(len(sources[0])):
            names = {Path(source.name(position)).name for source in sources}
            assert len(names) == 1
            records = [source.read(position)["boxes"] for source in sources]
            assert records[0] == records[1] == records[2] and records[0].boxes.dtype == np.float32
    held: Any = open_evaluation(Data(**forms[1]), "boxes", "auto", Data(**forms[1]))
    assert [held.name(i) for i in range(2)] == [splits[1].val.name(i) for i in range(2)]


def test_outlines_polygons_and_runs_give_the_same_pixels(tmp_path: Path) -> None:
    pytest.importorskip("pycocotools")
    polygon = pack([[2.0, 3.0, 10.0, 3.0, 10.0, 9.0, 2.0, 9.0]])
    pixels = bitmap(polygon, (0, 0, 1, 1), 12, 14)
    assert pixels.sum() == 48 and pixels[3:9, 2:10].all()
    counts, value = [0], 0
    for pixel in pixels.T.ravel():
        if pixel != value:
            counts.append(0)
            value = pixel
        counts[-1] += 1
    runs = pack({"size": [12, 14], "counts": counts})
    assert np.array_equal(bitmap(runs, (0, 0, 1, 1), 12, 14), pixels)
    assert np.array_equal(bitmap(b"", (2, 3, 10, 9), 12, 14), pixels)
    text = mask_module().encode(np.asfortranarray(pixels))["counts"].decode()
    assert pack({"size": [12, 14], "counts": text}) == runs
    for counts in ([5], text[:-1], text + "1", text + "x", "é", 5):  # of which the evaluators take text on trust
        with pytest.raises(ValueError, match="run lengths"):
            pack({"size": [12, 14], "counts": counts})
    images = draw(tmp_path / "train", 3)
    content = coco(images, outlines=True)
    content["annotations"][0] |= {"iscrowd": 1, "segmentation": {"size": [64, 96], "counts": [0, 64 * 96]}}
    (tmp_path / "a.json").write_text(json.dumps(content))
    objects = boxed(root=tmp_path / "train", table=tmp_path / "a.json", val_fraction=0).objects(0)
    assert objects.crowd.tolist()[0] and objects.outlines is not None and objects.outlines[0][:1] == b"R"


Broken = Callable[[Path, list[Drawn]], Any]


def _xml(root: Path, image: Drawn, text: str) -> None:
    (root / "Annotations" / image.name).with_suffix(".xml").write_text(text)


REFUSED: dict[str, tuple[Broken, str]] = {
    "broken": (lambda root, images: _xml(root, images[0], xml(images[0])[:-20]), r"1 annotation files.*0-000\.xml"),
    "entities": (
        lambda root, images: _xml(root, images[1], '<!DOCTYPE a [<!ENTITY b "c">]>' + xml(images[1])),
        r"0-001\.xml.*document type",
    ),
    "word": (
        lambda root, images: _xml(root, images[0], xml(images[0]).replace("<xmin>", "<xmin>x")),
        r"0-000\.xml.*xmin",
    ),
    "infinite": (
        lambda root, images: _xml(root, images[0], xml(images[0]).replace("<xmax>", "<xmax>inf</xmax><xmax>")),
        r"0-000\.png.*finite",
    ),
}


@pytest.mark.parametrize("fault", REFUSED)
def test_annotation_files_that_cannot_be_read_are_refused_by_name(tmp_path: Path, fault: str) -> None:
    images = draw(tmp_path / "JPEGImages", 4)
    write_voc(tmp_path, {"train": images})
    REFUSED[fault][0](tmp_path, images)
    with pytest.raises(OvertoneError, match=REFUSED[fault][1]):
        boxed(root=tmp_path)


def test_boxes_of_no_size_or_outside_and_lone_files_are_left_out_by_name(tmp_path: Path) -> None:
    images = draw(tmp_path / "JPEGImages", 5)
    images[0] = Drawn(images[0].name, (96, 64), (("disc", (5, 5, 0, 9)), ("disc", (1, 2, 3, 4))))
    images[1] = Drawn(images[1].name, (96, 64), (("frame", (200, 5, 9, 9)), ("disc", (90, 60, 20, 20))))
    write_voc(tmp_path, {"train": images})
    (tmp_path / "JPEGImages" / images[3].name).unlink()
    (tmp_path / "Annotations" / images[4].name).with_suffix(".xml").unlink()
    source = boxed(root=tmp_path, val_fraction=0)
    assert len(source) == 3 and source.objects(0).boxes.tolist() == [[1, 2, 4, 6]]
    assert source.objects(1).boxes.tolist() == [[90, 60, 96, 64]] and len(source.objects(2)) == 0
    for found, name in (
        ("no size", "0-000"),
        ("outside", "0-001"),
        ("without image", "0-003"),
        ("without annotation", "0-004"),
    ):
        assert found in source.origin and name in source.origin
    assert "1 boxes of no size" in source.origin


def _coco_fault(change: Callable[[dict[str, Any]], Any], root: Path) -> None:
    content = coco(draw(root / "train", 3))
    change(content)
    (root / "annotations").mkdir()
    (root / "annotations" / "instances_train.json").write_text(json.dumps(content))


COCO_FAULTS: dict[str, tuple[Callable[[dict[str, Any]], Any], str]] = {
    "images twice": (lambda c: c["images"][1].update(id=0), "image ids are there twice"),
    "annotations twice": (lambda c: c["annotations"][1].update(id=0), "annotation ids are there twice"),
    "files twice": (lambda c: c["images"][1].update(file_name="0-000.png"), r"1 images twice \(0-000\.png"),
    "class": (lambda c: c["annotations"][0].update(category_id=99), "unknown category ids.*99"),
    "image": (lambda c: c["annotations"][0].update(image_id=99), "not listed.*99"),
    "box": (lambda c: c["annotations"][0].update(bbox=[1, 2]), "annotation 0.*bbox"),
    "size": (lambda c: c["images"][0].pop("width"), "0-000.png.*width"),
    "runs": (
        lambda c: c["annotations"][0].update(segmentation={"size": [4, 4], "counts": [16]}),
        "annotation 0: run lengths of 4x4 pixels in an image of 96x64",
    ),
    "list as class": (lambda c: c["annotations"][0].update(category_id=[]), "unknown category ids"),
    "lists": (lambda c: c.pop("categories"), "categories"),
}


@pytest.mark.parametrize("fault", COCO_FAULTS)
def test_faults_of_a_coco_file_are_refused_by_name(tmp_path: Path, fault: str) -> None:
    _coco_fault(COCO_FAULTS[fault][0], tmp_path)
    with pytest.raises(OvertoneError, match=COCO_FAULTS[fault][1]):
        boxed(root=tmp_path)


def test_an_image_that_is_not_there_is_left_out_by_name(tmp_path: Path) -> None:
    _coco_fault(lambda content: content["images"][1].update(file_name="gone.png"), tmp_path)
    source = boxed(root=tmp_path, val_fraction=0)
    assert len(source) == 2 and "1 annotated images that are not there (gone.png)" in source.origin


def test_lines_of_yolo_are_checked(tmp_path: Path) -> None:
    images = draw(tmp_path / "images" / "train", 3)
    write_yolo(tmp_path, {"train": images})
    file = tmp_path / "labels" / "train" / "0-000.txt"
    for line, reason in (("5 0.5 0.5 0.1 0.1", "class 5"), ("0 0.5 0.5", "four numbers"), ("0 a b c d", "line 1")):
        file.write_text(line)
        with pytest.raises(OvertoneError, match=f"0-000.txt.*{reason}"):
            boxed(root=tmp_path)
    file.write_text("0 0.25 0.25 0.75 0.25 0.75 0.75")
    (tmp_path / "labels" / "train" / "lone.txt").write_text("")
    source = boxed(root=tmp_path, val_fraction=0)
    assert source.objects(0).boxes.tolist() == [[24, 16, 72, 48]] and "lone.txt" in source.origin


def test_rows_of_a_table_are_checked(tmp_path: Path) -> None:
    images = draw(tmp_path, 3)
    table = write_table(tmp_path / "boxes.csv", {"train": images})
    assert len(boxed(table=table, val_fraction=0)) == 3
    lines = table.read_text().splitlines()
    table.write_text("\n".join([*lines, f"{images[0].name},disc,,2,3,4,train"]) + "\n")
    with pytest.raises(OvertoneError, match=f"row {len(lines)} has not a class and four numbers"):
        boxed(table=table)
    table.write_text("\n".join([*lines, f"{images[0].name},disc,1,2,3,4,val"]) + "\n")
    with pytest.raises(OvertoneError, match=f"{images[0].name} is in train and in val"):
        boxed(table=table)


def test_images_without_objects_and_small_ones_can_be_dropped(tmp_path: Path) -> None:
    draw(tmp_path / "train", 4)
    write_coco(tmp_path, {"train": draw(tmp_path / "train", 4)})
    assert len(boxed(root=tmp_path, val_fraction=0)) == 4
    dropped = boxed(root=tmp_path, val_fraction=0, drop_empty=True)
    assert len(dropped) == 3 and all(len(dropped.objects(i)) for i in range(3))


def test_samples_know_their_annotations(tmp_path: Path) -> None:
    images = draw(tmp_path / "JPEGImages", 3)
    write_voc(tmp_path, {"train": images})
    before = [boxed(root=tmp_path, val_fraction=0).entry(i) for i in range(3)]
    _xml(tmp_path, images[0], xml(images[0]).replace("disc", "frame").replace("<xmin>", "<xmin>0"))
    after = [boxed(root=tmp_path, val_fraction=0).entry(i) for i in range(3)]
    _xml(tmp_path, images[0], xml(Drawn(images[0].name, (96, 64), (("disc", (1, 1, 9, 9)),))))
    moved = [boxed(root=tmp_path, val_fraction=0).entry(i) for i in range(3)]
    assert before[1:] == moved[1:] and before[0] != moved[0] and after[1:] == before[1:]


def test_a_folder_of_no_form_says_what_is_wanted(tmp_path: Path) -> None:
    draw(tmp_path / "images", 2)
    with pytest.raises(OvertoneError, match=r"COCO.*VOC.*YOLO"):
        boxed(root=tmp_path)
    with pytest.raises(OvertoneError, match="does not exist"):
        boxed(root=tmp_path / "nowhere")
