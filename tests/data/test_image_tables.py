"""Parquet files with images in them, and folders of `save_to_disk`, read with pyarrow alone."""

import importlib
import io
import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from made_shards import COLOURS, SIZE, image_bytes
from PIL import Image

from overtone.config import Data, Preprocess
from overtone.data.decoding import BadImage
from overtone.data.loader import Loader
from overtone.data.pipeline import class_images
from overtone.data.sources import ImageList, open_evaluation, open_splits
from overtone.data.sources.image_tables import unlabelled_tables
from overtone.data.transforms import evaluation_transform
from overtone.errors import OvertoneError

pa, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))

FEATURES = {"info": {"features": {"label": {"names": list(COLOURS), "_type": "ClassLabel"}}}}


def table(first: int = 0, count: int = 12, *, named: bool = True, labels: list[Any] | None = None) -> Any:
    rows = range(first, first + count)
    images = [{"bytes": image_bytes(list(COLOURS)[n % 3], n), "path": f"{n}.jpg"} for n in rows]
    made = pa.table({"image": images, "label": [n % 3 for n in rows] if labels is None else labels})
    return made.replace_schema_metadata({"huggingface": json.dumps(FEATURES)}) if named else made


def save_to_disk(folder: Path, made: Any) -> None:
    folder.mkdir(parents=True)
    with (
        pa.OSFile(str(folder / "data-00000-of-00001.arrow"), "wb") as file,
        pa.ipc.new_stream(file, made.schema) as out,
    ):
        out.write_table(made, max_chunksize=5)
    (folder / "state.json").write_text("{}")


def test_a_file_and_a_folder_of_files(tmp_path: Path) -> None:
    parquet.write_table(table(), tmp_path / "train-00000-of-00002.parquet", row_group_size=5)
    parquet.write_table(table(12), tmp_path / "train-00001-of-00002.parquet", row_group_size=5)
    parquet.write_table(table(50, 6), tmp_path / "validation-00000-of-00001.parquet")
    splits = open_splits(Data(root=tmp_path), "label")
    assert [len(splits.train), len(splits.val), splits.seeded] == [24, 6, False]
    assert splits.train.labels == tuple(COLOURS)
    source = pickle.loads(pickle.dumps(splits.train))
    assert [source.read(n) for n in (0, 11, 13)] == [
        {"image": image_bytes(list(COLOURS)[n % 3], n), "label": n % 3} for n in (0, 11, 13)
    ]
    assert source.name(13) == f"{tmp_path}/train-00001-of-00002.parquet#1" and source.counts() == (8, 8, 8)
    assert source.groups().tolist() == [5, 5, 2, 5, 5, 2]
    alone = open_evaluation(Data(table=tmp_path / "train-00000-of-00002.parquet"), "label", "all")
    assert len(alone) == 12 and alone.read(3) == source.read(3)


def test_batches(tmp_path: Path) -> None:
    parquet.write_table(table(), tmp_path / "train.parquet", row_group_size=5)
    source = open_evaluation(Data(root=tmp_path), "label", "all")
    loader = Loader(source, class_images(evaluation_transform(Preprocess(size=16))), batch_size=5, shuffle=True)
    assert sorted(n for batch in loader for n in batch.ids.tolist()) == list(range(12))


def test_saved_to_disk(tmp_path: Path) -> None:
    save_to_disk(tmp_path / "train", table())
    save_to_disk(tmp_path / "test", table(30, 6))
    splits = open_splits(Data(root=tmp_path, val_fraction=0.25), "label")
    assert splits.seeded and [len(splits.train), len(splits.val), len(splits.test or ())] == [9, 3, 6]
    content = splits.test and splits.test.read(1).get("image")
    assert content == image_bytes(list(COLOURS)[31 % 3], 31)


def test_labels_without_names(tmp_path: Path) -> None:
    parquet.write_table(table(named=False), tmp_path / "a.parquet")
    assert open_evaluation(Data(root=tmp_path), "label", "all").labels == ("0", "1", "2")
    words = ["b", "a", None] * 4
    parquet.write_table(table(named=False, labels=words), tmp_path / "a.parquet")
    source = open_evaluation(Data(root=tmp_path), "label", "all")
    assert source.labels == ("a", "b") and source.read(0).get("label") == 1
    with pytest.raises(BadImage, match="label"):
        source.read(2)


def test_what_is_wrong_is_named(tmp_path: Path) -> None:
    made = table()
    parquet.write_table(made.drop_columns(["label"]), tmp_path / "a.parquet")
    with pytest.raises(OvertoneError, match=r"a\.parquet has no column of labels"):
        open_splits(Data(root=tmp_path), "label")
    assert unlabelled_tables(tmp_path).read(1) == {"image": image_bytes(list(COLOURS)[1], 1)}  # type: ignore[union-attr]
    empty = made.set_column(0, "image", pa.array([{"bytes": b"", "path": None}] * 12))
    parquet.write_table(empty, tmp_path / "a.parquet")
    with pytest.raises(BadImage, match="no image"):
        open_evaluation(Data(root=tmp_path), "label", "all").read(0)


@pytest.mark.parametrize("form", ["words", "numbers", "text"])
def test_several_labels(tmp_path: Path, form: str) -> None:
    rows: list[Any] = [["a", "c"], [], None, ["b"]]
    if form != "words":
        rows = [None if row is None else ["abc".index(word) for word in row] for row in rows]
    if form == "text":
        rows = ["a|c", "", None, "b"]
    made = table(0, 4, named=False).drop_columns(["label"]).append_column("labels", pa.array(rows))
    if form == "numbers":
        feature = {"feature": {"names": ["a", "b", "c"], "_type": "ClassLabel"}, "_type": "Sequence"}
        made = made.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": {"labels": feature}}})})
    parquet.write_table(made, tmp_path / "train.parquet")
    source: Any = open_evaluation(Data(root=tmp_path), "labels", "all")
    assert source.labels == ("a", "b", "c") and source.counts() == (1, 1, 1)
    assert [source.read(n)["labels"] for n in (0, 1, 3)] == [[0, 2], [], [1]]
    assert source.entry(0)[1] == "a|c"
    with pytest.raises(BadImage, match="label"):
        source.read(2)


def test_masks(tmp_path: Path) -> None:
    made = table(0, 3, named=False).drop_columns(["label"])
    content = io.BytesIO()
    Image.fromarray(np.full((SIZE, SIZE), 1, dtype=np.uint8)).save(content, "PNG")
    masks = [{"bytes": content.getvalue(), "path": None}] * 2 + [{"bytes": None, "path": None}]
    parquet.write_table(made.append_column("annotation", pa.array(masks)), tmp_path / "train.parquet")
    with pytest.raises(OvertoneError, match=r"classes\.txt"):
        open_evaluation(Data(root=tmp_path), "mask", "all")
    (tmp_path / "classes.txt").write_text("road\ncar\n")
    source: Any = open_evaluation(Data(root=tmp_path), "mask", "all")
    assert source.labels == ("road", "car") and (source.read(1)["mask"].pixels() == 1).all()
    with pytest.raises(BadImage, match="annotation"):
        source.read(2)


def test_tables_of_paths_are_still_read_as_such(tmp_path: Path) -> None:
    for n, colour in enumerate(COLOURS):
        (tmp_path / f"{n}.jpg").write_bytes(image_bytes(colour, n))
    made = pa.table({"image": [f"{n}.jpg" for n in range(3)], "label": list(COLOURS)})
    parquet.write_table(made, tmp_path / "table.parquet")
    assert isinstance(open_evaluation(Data(table=tmp_path / "table.parquet"), "label", "all"), ImageList)
