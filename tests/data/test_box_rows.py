"""Objects in lists: Parquet files with images as the Hub's detection datasets are kept, and tables of paths."""

import importlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from overtone.config import Data
from overtone.data.sources import Source, open_evaluation, open_splits
from overtone.data.surveying import survey
from overtone.errors import OvertoneError

pa, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))

WIDTH, HEIGHT = 48, 36  # of the images
CORNERS = [[[2, 3, 12, 13], [30, 20, 39, 29]], [], [[5, 5, 25, 15]]]
SIDES = [[[left, top, right - left, bottom - top] for left, top, right, bottom in boxes] for boxes in CORNERS]
KINDS = [[0, 1], [], [1]]
NAMES = ["cat", "dog", "bird"]
AS_THE_HUB = {"feature": {"bbox": {"feature": {}}, "category": {"names": NAMES}}, "_type": "Sequence"}


def image_bytes(seed: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (WIDTH, HEIGHT), (seed, 0, 0)).save(content, "PNG")
    return content.getvalue()


def as_lists(boxes: Any, kinds: Any, **more: Any) -> list[Any]:
    return [{"bbox": own, "category": k, **more} for own, k in zip(boxes, kinds, strict=True)]


def as_objects(boxes: Any, kinds: Any) -> list[Any]:
    return [
        [{"bbox": box, "category": kind} for box, kind in zip(*pair, strict=True)]
        for pair in zip(boxes, kinds, strict=True)
    ]


def written(path: Path, columns: dict[str, Any], feature: Any = None) -> Path:
    images = [{"bytes": image_bytes(n), "path": None} for n in range(3)]
    made = pa.table({"image": images, **columns})
    if feature is not None:
        about = {"info": {"features": {"objects": feature}}}
        made = made.replace_schema_metadata({"huggingface": json.dumps(about)})
    path.parent.mkdir(parents=True, exist_ok=True)
    parquet.write_table(made, path, row_group_size=2)
    return path.parent


def found(source: Source) -> list[tuple[list[list[float]], list[str]]]:
    objects = [source.read(at)["boxes"] for at in range(len(source))]  # type: ignore[typeddict-item]
    return [(one.boxes.tolist(), [source.labels[label] for label in one.labels]) for one in objects]


EXPECTED = [(boxes, [NAMES[kind] for kind in kinds]) for boxes, kinds in zip(CORNERS, KINDS, strict=True)]


@pytest.mark.parametrize(
    ("columns", "feature"),
    [
        ({"objects": as_lists(SIDES, KINDS)}, AS_THE_HUB),
        ({"objects": as_lists(CORNERS, KINDS)}, AS_THE_HUB),  # found out by what fits into the images
        ({"objects": as_objects(SIDES, KINDS)}, [{"category": {"names": NAMES}}]),
        ({"bbox": SIDES, "category": [[NAMES[k] for k in kinds] for kinds in KINDS]}, None),
        ({"boxes": CORNERS, "labels": [[NAMES[k] for k in kinds] for kinds in KINDS]}, None),
        ({"objects": as_lists(SIDES, KINDS), "width": [WIDTH] * 3, "height": [HEIGHT] * 3}, AS_THE_HUB),
    ],
    ids=["lists", "corners", "objects", "columns", "columns of corners", "with sizes"],
)
def test_forms(tmp_path: Path, columns: dict[str, Any], feature: Any) -> None:
    source = open_evaluation(Data(root=written(tmp_path / "data.parquet", columns, feature)), "boxes", "all")
    assert found(source) == EXPECTED and set(source.labels) - {"bird"} == {"cat", "dog"}
    record = source.read(0)
    assert record["image"] == image_bytes(0) and record["boxes"].size == (HEIGHT, WIDTH)  # type: ignore[typeddict-item]


def test_parts(tmp_path: Path) -> None:
    for part in ("train", "validation"):
        written(tmp_path / "data" / f"{part}-00000-of-00001.parquet", {"objects": as_lists(SIDES, KINDS)}, AS_THE_HUB)
    splits = open_splits(Data(root=tmp_path), "boxes")
    assert len(splits.train) == len(splits.val) == 3 and not splits.seeded and "width" in splits.origin
    assert len(open_splits(Data(root=tmp_path, drop_empty=True), "boxes").train) == 2
    train: Any = pickle.loads(pickle.dumps(splits.train))
    assert found(train) == EXPECTED and train.is_wide().all() and train.groups().tolist() == [2, 1]
    assert survey(train).labels == {"bird": 0, "cat": 1, "dog": 2}  # images of each
    assert train.counts() == (0, 1, 2) and len({train.entry(at) for at in range(3)}) == 3
    held_out = open_splits(Data(root=tmp_path / "data" / "train-00000-of-00001.parquet", val_fraction=0.4), "boxes")
    assert held_out.seeded and len(held_out.train) + len(held_out.val) == 3


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    cases: dict[str, dict[str, Any]] = {
        "rename": {"objects": [{"places": [[1, 2, 3, 4]], "category": [0]}] * 3},
        "another length": {"objects": as_lists(SIDES, [[0], [], [1]])},
        "the class 7": {"objects": as_lists(SIDES, [[0, 7], [], [1]])},
        "not four numbers": {"objects": as_lists([[[1, 2, 3], [1, 2, 3]], [], [[1, 2, 3]]], KINDS)},
        "no column of objects": {"label": [0, 1, 2]},
        "no object": {"objects": as_lists([[], [], []], [[], [], []])},
    }
    for at, (message, columns) in enumerate(cases.items()):
        feature = AS_THE_HUB if message == "the class 7" else None
        with pytest.raises(OvertoneError, match=message):
            open_evaluation(Data(root=written(tmp_path / str(at) / "a.parquet", columns, feature)), "boxes", "all")


def test_boxes_outside_are_left_out_and_named(tmp_path: Path) -> None:
    boxes = [[[2, 3, 10, 10], [30, 20, 90, 9]], [], [[50, 5, 20, 10]]]
    root = written(tmp_path / "a.parquet", {"objects": as_lists(boxes, KINDS)}, AS_THE_HUB)
    source = open_evaluation(Data(root=root), "boxes", "all")
    assert [box for box, _ in found(source)] == [[[2, 3, 12, 13], [30, 20, 48, 29]], [], []]
    assert "outside" in source.origin and "a.parquet#2" in source.origin


def test_a_table_of_paths_with_lists(tmp_path: Path) -> None:
    for n in range(3):
        (tmp_path / f"{n}.jpg").write_bytes(image_bytes(n))
    words = [[NAMES[k] for k in kinds] for kinds in KINDS]
    made = {
        "image": [f"{n}.jpg" for n in range(3)],
        "objects": as_lists(SIDES, words),
        "split": ["train"] * 2 + ["val"],
    }
    parquet.write_table(pa.table(made), tmp_path / "boxes.parquet")
    splits = open_splits(Data(table=tmp_path / "boxes.parquet"), "boxes")
    assert found(splits.train) + found(splits.val) == EXPECTED
