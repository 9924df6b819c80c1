"""Tar shards: forms, splits, labels, indices, and what is wrong with a shard is named and counted."""

import os
import pickle
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from made_shards import COLOURS, image_bytes, sample, to_json, write_shards, write_tar

from overtone.config import Data, Preprocess
from overtone.data.decoding import BadImage, decode_image
from overtone.data.loader import Loader
from overtone.data.pipeline import class_images
from overtone.data.sources import ShardImages, Source, open_evaluation, open_splits
from overtone.data.tar_members import BrokenTar, Member, members
from overtone.data.transforms import evaluation_transform
from overtone.errors import OvertoneError


def opened(root: Path, target: str = "label", **data: object) -> ShardImages:
    source = open_evaluation(Data(root=root, **data), target, "all")  # type: ignore[arg-type]
    assert isinstance(source, ShardImages)
    return source


def problems(source: Source) -> dict[str, str]:
    found = {}
    for position in range(len(source)):
        try:
            source.read(position)
        except BadImage as error:
            found[source.name(position).partition("#")[2]] = error.reason
    return found


def labels_of(source: Source) -> dict[str, str]:
    return {
        source.name(i).partition("#")[2]: source.labels[source.read(i).get("label", -1)] for i in range(len(source))
    }


WANTED = {f"s/{n:04}": list(COLOURS)[n % 3] for n in range(18)}


@pytest.mark.parametrize("form", ["folder", "braces", "list", "one by one"])
def test_every_form_gives_the_same(tmp_path: Path, form: str) -> None:
    write_shards(tmp_path / "a")
    roots = {"folder": tmp_path / "a", "braces": tmp_path / "a" / "train-{000000..000002}.tar"}
    if form == "list":
        (tmp_path / "shards.txt").write_text("# three\na/train-000000.tar\n\na/train-{000001..000002}.tar\n")
        roots["list"] = tmp_path / "shards.txt"
    if form == "one by one":
        found = {}
        for shard in range(3):
            found |= labels_of(opened(tmp_path / "a" / f"train-{shard:06}.tar"))
        assert found == WANTED
        return
    source = opened(roots[form])
    assert source.labels == tuple(COLOURS) and labels_of(source) == WANTED
    assert source.name(7) == f"{tmp_path}/a/train-000001.tar#s/0007" and source.counts() == (6, 6, 6)
    content = source.read(7).get("image")
    assert isinstance(content, bytes) and content == image_bytes("green", 7)
    assert labels_of(pickle.loads(pickle.dumps(source))) == WANTED


def test_splits_by_the_names_of_the_shards(tmp_path: Path) -> None:
    write_shards(tmp_path)
    write_shards(tmp_path, shards=1, part="imagenet-val", first=100)
    write_shards(tmp_path, shards=1, part="test", first=200)
    splits = open_splits(Data(root=tmp_path), "label")
    assert [len(part) for part in (splits.train, splits.val, splits.test or ())] == [18, 6, 6] and not splits.seeded
    assert open_evaluation(Data(root=tmp_path), "label").name(0).endswith("imagenet-val-000000.tar#s/0100")
    assert len(open_evaluation(Data(root=tmp_path), "label", "test")) == 6


def test_the_seeded_split_depends_on_names_alone(tmp_path: Path) -> None:
    splits = open_splits(Data(root=write_shards(tmp_path), val_fraction=1 / 3), "label")
    assert isinstance(splits.val, ShardImages) and isinstance(splits.train, ShardImages)
    assert splits.seeded and splits.val.counts() == (2, 2, 2) and splits.train.groups().sum() == 12
    again = open_evaluation(Data(root=tmp_path), "label", "auto", Data(root=tmp_path, val_fraction=1 / 3))
    assert labels_of(again) == labels_of(splits.val)


def test_numbers_are_positions(tmp_path: Path) -> None:
    files = [file for n, label in enumerate((2, 0, 2)) for file in sample(f"{n}", n, label)]
    write_tar(tmp_path / "train-0.tar", files)
    assert opened(tmp_path).labels == ("0", "1", "2") and opened(tmp_path).counts() == (1, 0, 2)
    (tmp_path / "classes.txt").write_text("ant\nbee\ncat\n")
    assert labels_of(opened(tmp_path)) == {"0": "cat", "1": "ant", "2": "cat"}
    assert labels_of(opened(tmp_path).relabelled(("cat", "x", "bee", "ant"))) == labels_of(opened(tmp_path))


def test_several_labels(tmp_path: Path) -> None:
    image = image_bytes("blue", 1)
    write_tar(tmp_path / "train-0.tar", [("7.jpg", image), ("7.json", to_json(labels=["a", "b"]))])
    (tmp_path / "classes.txt").write_text("a\nb\nc\n")
    assert opened(tmp_path, "labels").read(0) == {"image": image, "labels": [0, 1]}
    assert opened(tmp_path, "labels").relabelled(("c", "b", "x", "a")).read(0)["labels"] == [1, 3]
    assert problems(opened(tmp_path)) == {"7": "no label (cls or json member)"}


def test_what_is_wrong_with_samples(tmp_path: Path) -> None:
    good = [file for n in range(3) for file in sample(f"good{n}", n, list(COLOURS)[n])]
    files = [
        *good,
        ("text.jpg", b"no image"),
        ("text.cls", b"red"),
        ("bare.jpg", image_bytes("red", 9)),
        ("alone.cls", b"red"),
        *sample("twice", 1, "red"),
        *sample("other", 2, "red"),
        *sample("twice", 3, "red"),
        ("broken.jpg", image_bytes("red", 9)),
        ("broken.json", b"{"),
    ]
    write_tar(tmp_path / "train-0.tar", files)
    write_tar(tmp_path / "val-0.tar", [*sample("v0", 0, "blue"), *sample("v1", 1, "pink")])
    splits = open_splits(Data(root=tmp_path), "label")
    assert splits.train.labels == tuple(COLOURS)
    found = problems(splits.train)
    assert found.keys() == {"bare", "alone", "twice (again)", "broken"} and len(splits.train) == 10
    assert "label" in found["bare"] and "image" in found["alone"] and "two samples" in found["twice (again)"]
    assert "broken.json" in found["broken"]
    assert "pink" in problems(splits.val)["v1"]
    pipeline = class_images(evaluation_transform(Preprocess(size=16)))
    batches = list(Loader(splits.train, pipeline, batch_size=4, shuffle=True))
    bad = {splits.train.name(position).partition("#")[2] for batch in batches for position, _ in batch.bad}
    assert bad == {*found, "text"} and sum(batch.num_samples for batch in batches) == 5


@pytest.mark.parametrize("cut", [700, 1600, 2048])
def test_a_shard_that_is_cut_off(tmp_path: Path, cut: int) -> None:
    write_shards(tmp_path, shards=2)
    path = tmp_path / "train-000001.tar"
    whole = len(opened(tmp_path))
    path.write_bytes(path.read_bytes()[:cut])
    source = opened(tmp_path)
    found = problems(source)
    assert found and len(source) < whole and "(end)" in found
    assert any("cut off" in reason or "ends within" in reason for reason in found.values())
    assert all(source.name(i).partition("#")[0].endswith("000001.tar") for i in range(6, len(source)))


def test_a_shard_that_changes(tmp_path: Path) -> None:
    source = opened(write_shards(tmp_path))
    path = tmp_path / "train-000001.tar"
    status = path.stat()
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns + 10**9))
    assert set(problems(source)) == {f"s/{n:04}" for n in range(6, 12)}
    assert "changed" in problems(source)["s/0006"] and problems(opened(tmp_path)) == {}


def test_a_system_without_pread(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "pread")
    assert labels_of(opened(write_shards(tmp_path))) == WANTED


def test_the_index_is_made_once(tmp_path: Path, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = labels_of(opened(write_shards(tmp_path)))
    kept = sorted((cache / "data" / "indices").iterdir())
    assert len(kept) == 3
    made = "overtone.data.sources.shard_indices.index_of"
    monkeypatch.setattr(made, lambda *_: pytest.fail("made again"))
    assert labels_of(opened(tmp_path)) == wanted
    monkeypatch.undo()
    monkeypatch.setenv("OVERTONE_CACHE", str(cache))
    kept[0].write_bytes(kept[0].read_bytes()[:-40])  # one that is broken is made again
    assert labels_of(opened(tmp_path)) == wanted


def test_an_index_that_points_elsewhere_is_not_believed(tmp_path: Path, cache: Path) -> None:
    opened(write_shards(tmp_path, shards=1))
    kept = next((cache / "data" / "indices").iterdir())
    with np.load(kept) as file:
        columns = dict(file)
    columns["spans"][0, 0, 0] = 10**12
    np.savez(kept, **columns)
    assert problems(opened(tmp_path)) == {}


def test_a_listing_of_dali_is_read(tmp_path: Path) -> None:
    path = write_tar(tmp_path / "train-0.tar", [*sample("a", 0, "x"), *sample("b", 1, "y")])
    found = list(members(lambda at, n: path.read_bytes()[at : at + n], path.stat().st_size))
    words = [f"{m.name.partition('.')[2]} {m.offset} {m.size} {m.name}" for m in found]
    (tmp_path / "train-0.idx").write_text(f"v1.2 1\n{' '.join(words[:2])}\n")
    assert len(opened(tmp_path)) == 1


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_members_are_those_of_tarfile(tmp_path: Path, form: int) -> None:
    long = "folder" * 10 + "/" + "n" * 90
    files = [("a.txt", b"x" * 513), (f"{long}.txt", b""), ("ü.txt", b"1" * 512), ("b.txt", b"2")]
    path = write_tar(tmp_path / "a.tar", files, form)
    content = path.read_bytes()
    with tarfile.open(path) as archive:
        wanted = [Member(info.name, info.offset_data, info.size) for info in archive]
    assert list(members(lambda at, n: content[at : at + n], len(content))) == wanted
    damaged = content[:600] + b"?" + content[601:]
    broken = bytearray(content)
    broken[20] ^= 1
    assert list(members(lambda at, n: damaged[at : at + n], len(content))) == wanted
    with pytest.raises(BrokenTar, match="damaged"):
        list(members(lambda at, n: bytes(broken[at : at + n]), len(content)))


@pytest.mark.parametrize(
    ("root", "named"),
    [
        ("gone-{00..01}.tar", "gone-00.tar"),
        ("gone.tar", "gone.tar"),
        ("list.txt", "list.txt"),
        ("a-{3..1}.tar", "3..1"),
    ],
)
def test_what_is_not_there_is_named(tmp_path: Path, root: str, named: str) -> None:
    with pytest.raises(OvertoneError, match=named.replace(".", r"\.")):
        open_splits(Data(root=tmp_path / root), "label")


def test_batches_are_those_of_the_files(tmp_path: Path) -> None:
    source = opened(write_shards(tmp_path))
    pipeline = class_images(evaluation_transform(Preprocess(size=16)))
    batch = next(iter(Loader(source, pipeline, batch_size=5, workers=0)))
    assert torch.equal(batch.targets, torch.tensor([0, 1, 2, 0, 1])) and batch.inputs.shape == (5, 3, 16, 16)
    assert decode_image(source.read(0).get("image", b"")).size == (16, 16)  # type: ignore[arg-type]
