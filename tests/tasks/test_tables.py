"""Tables of images: forms of labels, splits, and what is wrong with a table is named."""

import importlib
from pathlib import Path

import numpy as np
import pytest
from tagged_photos import COLOURS, draw_tagged, write_csv

from overtone.config import Data
from overtone.data.sources import ImageList, TaggedImages, open_evaluation, open_splits
from overtone.errors import OvertoneError

pa, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))


def tags_of(source: object) -> dict[str, set[str]]:
    assert isinstance(source, TaggedImages)
    return {
        Path(source.name(i)).name: {source.labels[k] for k in source.read(i).get("labels", ())}
        for i in range(len(source))
    }


def test_every_form_of_labels_is_the_same(tmp_path: Path, tagged: Path) -> None:
    rows = draw_tagged(tmp_path / "photos")
    folder = tmp_path / "photos"
    bars = write_csv(folder / "bars.csv", [["image", "labels"], *([n, "|".join(sorted(t))] for n, t in rows)])
    commas = write_csv(folder / "commas.csv", [["image", "tags"], *([n, ", ".join(sorted(t))] for n, t in rows)])
    lists = folder / "lists.parquet"
    parquet.write_table(pa.table({"path": [n for n, _ in rows], "labels": [sorted(t) for _, t in rows]}), lists)
    flags = folder / "flags.parquet"
    parquet.write_table(
        pa.table({"file": [n for n, _ in rows], **{c: [c in t for _, t in rows] for c in COLOURS}}), flags
    )
    wanted = {name: set(tags) for name, tags in rows}
    for table in (tagged, bars, commas, lists, flags):
        assert tags_of(open_evaluation(Data(table=table), "labels", "all")) == wanted, table.name


def test_one_label_each(tmp_path: Path) -> None:
    draw_tagged(tmp_path, 6)
    rows = [[f"{i}.png", ("dog", "cat")[i % 2], ("train", "train", "train", "val", "val", "test")[i]] for i in range(6)]
    table = write_csv(tmp_path / "t.csv", [["image", "class", "split"], *rows])
    splits = open_splits(Data(table=table), "label")
    assert isinstance(splits.train, ImageList) and isinstance(splits.val, ImageList)
    assert splits.train.labels == ("cat", "dog") and not splits.seeded
    assert [len(part) for part in (splits.train, splits.val, splits.test or ())] == [3, 2, 1]
    assert splits.train.targets.tolist() == [1, 0, 1]


def test_paths_are_relative_to_the_root_or_the_table(tmp_path: Path) -> None:
    draw_tagged(tmp_path / "photos", 3)
    rows = [["image", "labels"], *([f"{i}.png", "a" if i else "b"] for i in range(3))]
    outside = write_csv(tmp_path / "labels.csv", rows)
    source = open_evaluation(Data(root=tmp_path / "photos", table=outside), "labels", "all")
    assert Path(source.name(0)) == tmp_path / "photos" / "0.png"
    write_csv(tmp_path / "photos" / "inside.csv", rows)
    source = open_evaluation(Data(root=tmp_path / "photos", table=Path("inside.csv")), "labels", "all")
    assert Path(source.name(2)) == tmp_path / "photos" / "2.png"


def test_the_seeded_split_depends_on_names_alone(tmp_path: Path, tagged: Path) -> None:
    splits = open_splits(Data(table=tagged, val_fraction=0.3), "labels")
    assert splits.seeded and len(splits.val) == 9 and len(splits.train) == 21
    lines = tagged.read_text().splitlines()
    tagged.write_text("\n".join([lines[0], *reversed(lines[1:])]) + "\n")
    again = open_splits(Data(table=tagged, val_fraction=0.3), "labels")
    assert set(tags_of(again.val)) == set(tags_of(splits.val))
    held_out = open_evaluation(Data(table=tagged), "labels", "auto", Data(table=tagged, val_fraction=0.3))
    assert set(tags_of(held_out)) == set(tags_of(splits.val))


@pytest.mark.parametrize(
    ("rows", "named"),
    [
        ([["image", "a"], ["0.png", "2"], ["1.png", "1"]], ("row 1", "a", "2", "0 or 1")),
        ([["photo", "a"], ["0.png", "1"]], ("image", "photo, a", "a, photo", "image-column")),
        ([["image", "a"], ["0.png", "1"], ["0.png", "0"]], ("rows 1 and 2", "0.png")),
        ([["image", "a"], ["", "1"], ["1.png", "0"]], ("row 1", "image")),
        ([["image", "a", "split"], ["0.png", "1", "train"], ["1.png", "1", "dev"]], ("row 2", "dev", "train, val")),
        ([["image", "a"]], ("no rows",)),
        ([["image", "labels"], ["0.png", ""]], ("labels", "no label")),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, rows: list[list[object]], named: tuple[str, ...]) -> None:
    table = write_csv(tmp_path / "t.csv", rows)
    with pytest.raises(OvertoneError) as error:
        open_splits(Data(table=table), "labels")
    assert "t.csv" in str(error.value) and "\n" not in str(error.value)
    assert sum(word in str(error.value) for word in named) >= len(named) - 1


def test_what_is_no_table(tmp_path: Path) -> None:
    with pytest.raises(OvertoneError, match=r"gone\.csv is not there"):
        open_splits(Data(table=tmp_path / "gone.csv"), "labels")
    broken = tmp_path / "broken.parquet"
    broken.write_bytes(b"PAR1 no table PAR1")
    with pytest.raises(OvertoneError, match=r"broken\.parquet cannot be read as a table"):
        open_splits(Data(table=broken), "labels")


def test_entries_identify_the_samples(tagged: Path) -> None:
    source = open_evaluation(Data(table=tagged), "labels", "all")
    assert isinstance(source, TaggedImages)
    name, labels, size = source.entry(2)
    assert name == "2.png" and set(labels.split("|")) == tags_of(source)["2.png"] and size > 0
    assert np.array_equal(source.counts(), source.tags.sum(0))
