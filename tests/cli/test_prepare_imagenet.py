"""ImageNet's archives and its flat folder become class folders: safely, and again and again with the same result."""

import io
import tarfile
from pathlib import Path

import pytest
from PIL import Image

from overtone.data import imagenet
from overtone.data.imagenet import find_validation, ilsvrc_synsets, read_labels, synsets

# Facts of ILSVRC2012, from two files that were published apart: the official ground truth (ids) and Caffe's val.txt
# (positions) of the first ten validation images.
OFFICIAL = (490, 361, 171, 822, 297, 482, 13, 704, 599, 164)
CAFFE = (65, 970, 230, 809, 516, 57, 334, 415, 674, 332)
KAGGLE = "ImageId,PredictionString\n" + "".join(
    f"ILSVRC2012_val_{number:08d},{ilsvrc_synsets()[identifier - 1]} 1 2 30 40 {ilsvrc_synsets()[0]} 5 6 7 8\n"
    for number, identifier in enumerate(OFFICIAL, 1)
)
LABELS = {
    "ILSVRC2012_validation_ground_truth.txt": "".join(f"{identifier}\n" for identifier in OFFICIAL),
    "val.txt": "".join(f"ILSVRC2012_val_{number:08d}.JPEG {place}\n" for number, place in enumerate(CAFFE, 1)),
    "imagenet_2012_validation_synset_labels.txt": "".join(f"{synsets()[place]}\n" for place in CAFFE),
    "LOC_val_solution.csv": KAGGLE,
}


def jpeg(shade: int) -> bytes:
    content = io.BytesIO()
    Image.new("RGB", (8, 6), (shade, 0, 0)).save(content, "JPEG")
    return content.getvalue()


def draw_flat(folder: Path, count: int = 10) -> Path:
    folder.mkdir(parents=True)
    for number in range(1, count + 1):
        (folder / f"ILSVRC2012_val_{number:08d}.JPEG").write_bytes(jpeg(20 * number))
    return folder


def pack(path: Path, files: dict[str, bytes], *extra: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w") as archive:
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
        for member in extra:
            archive.addfile(member)
    return path


def sorted_images(out: Path) -> dict[str, str]:
    """Class by name of image."""
    return {path.name: path.parent.name for path in out.glob("*/*")}


EXPECTED = {f"ILSVRC2012_val_{number:08d}.JPEG": imagenet.synsets()[place] for number, place in enumerate(CAFFE, 1)}


def test_the_classes():
    assert len(synsets()) == 1000 and list(synsets()) == sorted(synsets())
    assert set(ilsvrc_synsets()) == set(synsets()) and len(ilsvrc_synsets()) == 1000
    assert tuple(synsets().index(ilsvrc_synsets()[identifier - 1]) for identifier in OFFICIAL) == CAFFE
    assert imagenet.readable("n01440764") == "tench, Tinca tinca"
    assert imagenet.readable("my class") == "my class"


@pytest.mark.parametrize("name", LABELS)
def test_a_flat_folder_by_every_kind_of_label_file(overtone, tmp_path, name):
    flat = draw_flat(tmp_path / "flat")
    (tmp_path / name).write_text(LABELS[name])
    outcome = overtone("data", "prepare-imagenet", flat, "--out", tmp_path / "val")  # the labels are found beside it
    assert outcome.code == 0, outcome.err
    assert sorted_images(tmp_path / "val") == EXPECTED
    assert "10 images in 10 class folders; 10 placed now, 0 existed already" in outcome.out
    assert len(list(flat.iterdir())) == 10
    again = overtone("data", "prepare-imagenet", flat, "--out", tmp_path / "val", "--labels", tmp_path / name)
    assert again.code == 0 and "0 placed now, 10 existed already" in again.out
    # The flat folder and the class folders are the same images with the same classes.
    before, after = find_validation(flat), find_validation(tmp_path / "val")
    assert {p.name: t for p, t in zip(before.paths, before.targets, strict=True)} == {
        p.name: t for p, t in zip(after.paths, after.targets, strict=True)
    }


@pytest.mark.parametrize("how", ["link", "move"])
def test_link_and_move(overtone, tmp_path, how):
    flat = draw_flat(tmp_path / "flat")
    content = {path.name: path.read_bytes() for path in flat.iterdir()}
    (tmp_path / "val.txt").write_text(LABELS["val.txt"])
    assert overtone("data", "prepare-imagenet", flat, "--out", tmp_path / "val", "--how", how).code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "val").glob("*/*")} == content
    assert len(list(flat.iterdir())) == (10 if how == "link" else 0)
    if how == "link":
        name = next(iter(EXPECTED))
        assert (tmp_path / "val" / EXPECTED[name] / name).samefile(flat / name)


def test_a_move_that_was_cut_short_goes_on(overtone, tmp_path):
    flat = draw_flat(tmp_path / "flat")
    (tmp_path / "val.txt").write_text(LABELS["val.txt"])
    first, second, *_ = sorted(EXPECTED)
    done = tmp_path / "val" / EXPECTED[first] / first  # placed, its original not yet removed
    done.parent.mkdir(parents=True)
    done.write_bytes((flat / first).read_bytes())
    half = tmp_path / "val" / EXPECTED[second] / f".{second}.overtone-part"
    half.parent.mkdir()
    half.write_bytes(b"half")
    outcome = overtone("data", "prepare-imagenet", flat, "--out", tmp_path / "val", "--how", "move")
    assert outcome.code == 0 and "9 placed now, 1 existed already" in outcome.out
    assert sorted_images(tmp_path / "val") == EXPECTED and not list(flat.iterdir())


def test_the_validation_archive(overtone, tmp_path):
    files = {path.name: path.read_bytes() for path in sorted(draw_flat(tmp_path / "flat").iterdir())}
    archive = pack(tmp_path / "ILSVRC2012_img_val.tar", files)
    labels = tmp_path / "given.csv"
    labels.write_text(KAGGLE)
    outcome = overtone("data", "prepare-imagenet", archive, "--out", tmp_path / "val", "--labels", labels)
    assert outcome.code == 0, outcome.err
    assert sorted_images(tmp_path / "val") == EXPECTED
    assert {path.name: path.read_bytes() for path in (tmp_path / "val").glob("*/*")} == files
    assert "move" in overtone("data", "prepare-imagenet", archive, "--out", tmp_path / "b", "--how", "move").error


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_training_archive(overtone, tmp_path, unpacked):
    images = {name: {f"{name}_{n}.JPEG": jpeg(n) for n in (1, 2)} for name in ("n01440764", "n01443537")}
    tars = tmp_path / "tars"
    tars.mkdir()
    for name, files in images.items():
        pack(tars / f"{name}.tar", files)
    whole = pack(tmp_path / "train.tar", {path.name: path.read_bytes() for path in sorted(tars.iterdir())})
    outcome = overtone("data", "prepare-imagenet", tars if unpacked else whole, "--out", tmp_path / "train")
    assert outcome.code == 0, outcome.err
    for name, files in images.items():
        assert {path.name: path.read_bytes() for path in (tmp_path / "train" / name).iterdir()} == files


def link(name: str, target: str, kind: bytes) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = kind, target
    return member


@pytest.mark.parametrize(
    "hostile",
    [
        {"files": {"../../outside.JPEG": jpeg(1)}},
        {"files": {"/tmp/outside.JPEG": jpeg(1)}},
        {"extra": link("a.JPEG", "../../../etc/passwd", tarfile.SYMTYPE)},
        {"extra": link("a.JPEG", "/etc/passwd", tarfile.LNKTYPE)},
        {"extra": link("a.JPEG", "", tarfile.FIFOTYPE)},
        {"files": {"run.sh": b"rm -rf /"}},
    ],
)
@pytest.mark.parametrize("nested", [False, True])
def test_a_hostile_archive_is_refused_before_anything_is_unpacked(overtone, tmp_path, hostile, nested):
    files = {"n01440764_1.JPEG": jpeg(1)} | hostile.get("files", {})
    archive = pack(tmp_path / "n01440764.tar", files, *([hostile["extra"]] if "extra" in hostile else []))
    if nested:
        archive = pack(tmp_path / "train.tar", {"n01440764.tar": archive.read_bytes()})
    error = overtone("data", "prepare-imagenet", archive, "--out", tmp_path / "deep" / "train").error
    assert "give ImageNet's archive" in error
    assert not list((tmp_path / "deep" / "train").glob("*/*"))
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(
        ["deep", "n01440764.tar", *(["train.tar"] if nested else [])]
    )


def test_a_truncated_archive(overtone, tmp_path):
    archive = pack(tmp_path / "n01440764.tar", {f"n01440764_{n}.JPEG": jpeg(n) for n in range(30)})
    archive.write_bytes(archive.read_bytes()[:9000])
    assert "truncated" in overtone("data", "prepare-imagenet", archive, "--out", tmp_path / "train").error


def test_another_file_in_its_place_is_kept(overtone, tmp_path):
    flat = draw_flat(tmp_path / "flat")
    labels = tmp_path / "val.txt"
    labels.write_text(LABELS["val.txt"])
    name = min(EXPECTED)
    mine = tmp_path / "val" / EXPECTED[name] / name
    mine.parent.mkdir(parents=True)
    mine.write_bytes(b"mine")
    error = overtone("data", "prepare-imagenet", flat, "--out", tmp_path / "val", "--labels", labels).error
    assert str(mine) in error
    assert mine.read_bytes() == b"mine"


@pytest.mark.parametrize(
    ("text", "said"),
    [
        (None, "--labels"),
        ("", "no labels"),
        ("0\n1\n", "positions from 0 need the image's name"),
        ("1001\n", "line 1: '1001'"),
        ("ILSVRC2012_val_00000001 1000\n", "line 1: '1000'"),
        ("ILSVRC2012_val_00000001 n99999999\n", "n99999999"),
        ("ILSVRC2012_val_00000001 3\n", "no label for ILSVRC2012_val_00000002.JPEG"),
        ("a 3\na 4\n", "a second label"),
        ("490\n361\n", "labels 2 images in order and there are 10"),
    ],
)
def test_labels_that_do_not_fit(overtone, tmp_path, text, said):
    flat = draw_flat(tmp_path / "flat")
    if text is not None:
        (tmp_path / "val.txt").write_text(text)
    assert said in overtone("data", "prepare-imagenet", flat, "--out", tmp_path / "val").error
    assert not list((tmp_path / "val").glob("*/*"))


def test_labels_in_order_for_part_of_the_images(tmp_path):
    (tmp_path / "truth.txt").write_text(LABELS["ILSVRC2012_validation_ground_truth.txt"])
    labels = read_labels(tmp_path / "truth.txt")
    assert len(labels) == 10
    assert labels.of(["x/ILSVRC2012_val_00000003.JPEG"]) == [synsets()[CAFFE[2]]]
    names = [f"{letter}.jpg" for letter in "jihgfedcba"]
    assert labels.of(names) == [synsets()[place] for place in reversed(CAFFE)]


@pytest.mark.parametrize("source", ["nothing", "empty", "text"])
def test_what_is_not_imagenet(overtone, tmp_path, source):
    (tmp_path / "empty").mkdir()
    (tmp_path / "text").write_text("hello")
    assert "give ImageNet's" in overtone("data", "prepare-imagenet", tmp_path / source, "--out", tmp_path / "o").error
