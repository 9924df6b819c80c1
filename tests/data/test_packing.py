"""Packing, verification and description of images; shards that were packed are the images that went in."""

import json
import tarfile
from pathlib import Path

import pytest
from made_shards import COLOURS, image_bytes, write_folders
from PIL import Image

from overtone import cli
from overtone.config import Data
from overtone.data import packing
from overtone.data.natural_parts import natural_parts
from overtone.data.packing import Packing, pack
from overtone.data.sources import open_evaluation, open_splits
from overtone.data.surveying import survey, verify_shards
from overtone.errors import OvertoneError

SMALL = Packing(size_mb=0.02, workers=2)


def packed(root: Path, out: Path, how: Packing = SMALL) -> packing.Packed:
    return pack(natural_parts(Data(root=root), "label"), out, how)


def contents(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(folder.iterdir())}


def by_image(root: Path) -> dict[bytes, str]:
    source = open_evaluation(Data(root=root), "label", "all")
    found = {}
    for position in range(len(source)):
        record = source.read(position)
        image = record.get("image", b"")
        assert isinstance(image, (bytes, Path))
        content = image if isinstance(image, bytes) else image.read_bytes()
        found[content] = source.labels[record.get("label", -1)]
    return found


def test_shards_hold_the_images_that_went_in(tmp_path: Path) -> None:
    root, out = write_folders(tmp_path / "photos"), tmp_path / "shards"
    report = packed(root, out)
    assert report.counts == {"train": 24} and report.shards > 1 and not report.bad
    assert by_image(out) == by_image(root) and len(by_image(out)) == 24
    splits = open_splits(Data(root=out), "label")
    assert splits.train.labels == tuple(COLOURS)
    index = json.loads((out / "index.json").read_text())
    assert index["classes"] == list(COLOURS) and sum(shard["nsamples"] for shard in index["shardlist"]) == 24
    with tarfile.open(out / "train-000000.tar") as archive:  # a reader that is not ours
        assert {name.rpartition(".")[2] for name in archive.getnames()} == {"jpg", "cls", "json"}


def test_parts_stay_parts(tmp_path: Path) -> None:
    for part in ("train", "val", "test"):
        write_folders(tmp_path / "photos" / part, each=3)
    report = packed(tmp_path / "photos", tmp_path / "shards")
    assert report.counts == {"train": 9, "val": 9, "test": 9}
    splits = open_splits(Data(root=tmp_path / "shards"), "label")
    assert len(splits.val) == 9 and splits.test is not None and not splits.seeded


def test_the_same_bytes_wherever_and_whenever(tmp_path: Path) -> None:
    packed(write_folders(tmp_path / "a" / "photos"), tmp_path / "a" / "shards")
    packed(write_folders(tmp_path / "b" / "photos"), tmp_path / "b" / "shards", Packing(size_mb=0.02, workers=1))
    assert contents(tmp_path / "a" / "shards") == contents(tmp_path / "b" / "shards")


def test_a_call_that_was_stopped_is_continued(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root, out = write_folders(tmp_path / "photos"), tmp_path / "shards"
    packed(root, tmp_path / "whole")
    write_tar, calls = packing._write_tar, []

    def dies(path: Path, shard: object, *rest: object) -> None:
        calls.append(shard)
        if len(calls) == 2:
            path.write_bytes(b"half")
            raise KeyboardInterrupt
        write_tar(path, shard, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(packing, "_write_tar", dies)
    with pytest.raises(KeyboardInterrupt):
        packed(root, out, Packing(size_mb=0.02, workers=1))
    monkeypatch.undo()
    assert not (out / "index.json").exists()
    report = packed(root, out)
    assert 1 <= report.kept < report.shards
    assert contents(out) == contents(tmp_path / "whole")
    assert packed(root, out).kept == report.shards


def test_other_images_are_not_mixed_in(tmp_path: Path) -> None:
    root, out = write_folders(tmp_path / "photos"), tmp_path / "shards"
    packed(root, out)
    (root / "red" / "more.jpg").write_bytes(image_bytes("red", 77))
    with pytest.raises(OvertoneError, match="shards is not empty"):
        packed(root, out)


def test_smaller_images(tmp_path: Path) -> None:
    root = write_folders(tmp_path / "photos", each=2)
    Image.new("RGB", (90, 60), (9, 200, 30)).save(root / "green" / "large.png")
    packed(root, tmp_path / "shards", Packing(max_side=30))
    sizes = survey(open_evaluation(Data(root=tmp_path / "shards"), "label", "all")).sizes
    assert sizes == {(16, 16): 6, (45, 30): 1}


def test_images_that_cannot_be_read_are_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root, out = write_folders(tmp_path / "photos", each=3), tmp_path / "shards"
    (root / "red" / "0.jpg").write_bytes(b"no image")
    assert cli.main(["data", "pack", str(root), "--out", str(out), "--json"]) == 1
    printed = capsys.readouterr()
    result = json.loads(printed.out)
    assert result["counts"] == {"train": 8} and len(result["bad"]) == 1 and "red/0.jpg" in printed.err
    assert len(open_evaluation(Data(root=out), "label", "all")) == 8


def test_verification_finds_what_is_wrong(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "shards"
    packed(write_folders(tmp_path / "photos"), out)
    assert verify_shards(out) == [] and cli.main(["data", "verify", str(out)]) == 0
    assert "24 images decoded" in capsys.readouterr().out
    first, second, third, *_ = sorted(out.glob("*.tar"))
    content = bytearray(first.read_bytes())
    content[700] ^= 1
    first.write_bytes(content)
    second.write_bytes(second.read_bytes()[:1000])
    third.rename(out / "train-9.tar")
    wrong = dict(verify_shards(out))
    assert "SHA-256" in wrong[first.name] and "1,000 bytes" in wrong[second.name]
    assert "cannot be read" in wrong[third.name] and "index.json" in wrong["train-9.tar"]
    assert cli.main(["data", "verify", str(out)]) == 1
    with pytest.raises(OvertoneError, match=f"{third.name}.*put them back"):  # nothing is left out unseen
        open_splits(Data(root=out), "label")
    with pytest.raises(OvertoneError, match="index"):
        verify_shards(tmp_path)


def test_what_a_folder_holds(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    root = write_folders(tmp_path / "photos", each=3)
    (root / "red" / "same.jpg").write_bytes((root / "red" / "1.jpg").read_bytes())
    (root / "blue" / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n")
    assert cli.main(["data", "info", str(root), "--json", "--out", str(tmp_path / "report")]) == 1
    found = json.loads(capsys.readouterr().out)["train"]
    assert found["labels"] == {"blue": 4, "green": 3, "red": 4} and found["samples"] == 11
    assert found["sizes"] == [{"width": 16, "height": 16, "images": 10}] and found["formats"] == {"JPEG": 10}
    assert [bad["image"] for bad in found["bad"]] == [str(root / "blue" / "broken.png")]
    assert found["same"] == [[str(root / "red" / "1.jpg"), str(root / "red" / "same.jpg")]]
    assert (tmp_path / "report" / "train-labels.png").stat().st_size > 1000
    assert cli.main(["data", "info", str(root)]) == 1
    assert "groups of equal files" in capsys.readouterr().out
