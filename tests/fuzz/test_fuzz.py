"""Nothing that a file holds is more than a bad image or a clear error: no other exception, hang or flood of memory.

Every case is a function of (seed, number), which a failure names. `make fuzz` runs many more, with a seed of the day.
"""

import json
import os
import random
import resource
import shutil
import signal
import struct
import sys
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_boxes import draw as draw_shapes
from drawn_boxes import in_every_form, write_coco
from mutations import damaged, damaged_json, image_files, with_other_numbers
from PIL import Image
from safetensors.torch import save_file

from overtone import checkpoint
from overtone.cli import main
from overtone.config import Augment, Data, Preprocess
from overtone.data.decoding import BadImage, StoredJpeg, decode_image, decode_pixels, open_scaled
from overtone.data.segments import bitmap
from overtone.data.sources import open_splits
from overtone.data.transforms import evaluation_transform, training_transform
from overtone.errors import OvertoneError

SEED = int(os.environ.get("OVERTONE_FUZZ_SEED", "0"))
CASES = int(os.environ.get("OVERTONE_FUZZ_CASES", "0"))  # 0: as many as take seconds
_SECONDS = 30
_MEGABYTES = 2600  # what the largest image that is accepted takes


def cases(usual: int) -> Iterator[tuple[int, random.Random]]:
    """Numbers of cases, each with the generator that it is a function of."""
    for number in range(CASES or usual):
        yield number, random.Random(f"{SEED} {number}")


@contextmanager
def bounded(number: int) -> Iterator[None]:
    """A case that may neither hang nor take more memory than is stated."""

    def hangs(*_: object) -> None:
        raise TimeoutError(f"case {number} of seed {SEED} takes more than {_SECONDS} s")

    before = signal.signal(signal.SIGALRM, hangs)
    signal.alarm(_SECONDS)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)
    grown = (resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - peak) // (
        1024 if sys.platform == "linux" else 1 << 20
    )
    assert grown < _MEGABYTES, f"case {number} of seed {SEED} took {grown} MB"


def test_images(tmp_path: Path) -> None:
    evaluate = evaluation_transform(Preprocess(size=16))
    train = training_transform(Preprocess(size=16), Augment())
    path = tmp_path / "image"

    def scaled() -> None:
        found = open_scaled(path, "apply")
        if isinstance(found, StoredJpeg):
            width, height = found.size
            found.part(0, 0, height, width, 8)

    calls: tuple[Callable[[], object], ...] = (
        lambda: evaluate(decode_image(path, "apply")),
        lambda: train(decode_pixels(path)),
        scaled,
    )
    read, reasons = 0, set()
    for number, draw in cases(1500):
        files = image_files(draw) if number % 100 == 0 else files  # noqa: F821
        kind = draw.choice(list(files))
        path.write_bytes(damaged(files[kind], draw))
        with bounded(number):
            for call in calls:
                try:
                    call()
                    read += 1
                except BadImage as error:
                    reasons.add(error.reason)
                except Exception:
                    pytest.fail(f"case {number} of seed {SEED}, {kind}: {traceback.format_exc()}")
    assert read  # some damage leaves an image
    assert all(reasons) and not any("\n" in reason or "/" in reason for reason in reasons)


@pytest.fixture(scope="module")
def image(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("image") / "a.png"
    Image.new("RGB", (40, 30), "green").save(path)
    return path


def called(number: int, capfd: pytest.CaptureFixture[str], *words: object) -> int:
    """The exit code of a command that may succeed or refuse, in lines without control characters."""
    with bounded(number):
        code = main([str(word) for word in words])
    out, err = capfd.readouterr()
    assert "internal error" not in err, f"case {number} of seed {SEED}: {err}"
    assert code in (0, 1, 2) and "\x1b" not in out + err, f"case {number} of seed {SEED}: {err}"
    return code


def small_checkpoint(path: Path) -> Path:
    """A small network as `train` writes it."""
    words = "train digits --model.name hbonet_x010 --data.preprocess.size 16 --train.epochs 1 --run.workers 0"
    photos = path / "photos"
    for name in ("a", "b"):
        (photos / name).mkdir(parents=True)
        for position in range(4):
            Image.new("RGB", (20, 20), (60 * position, 0, 255 * (name == "a"))).save(photos / name / f"{position}.png")
    quiet = "--run.no-tensorboard --run.no-plots --train.batch-size 4 --run.device cpu --run.threads 1"
    assert main([*words.split(), *quiet.split(), "--data.root", str(photos), "--run.out", str(path / "run")]) == 0
    return path / "run" / "best.safetensors"


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return small_checkpoint(tmp_path_factory.mktemp("trained"))


FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu", "--json")


def test_checkpoints(trained: Path, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    content = trained.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    path = tmp_path / "a.safetensors"
    codes = []
    for number, draw in cases(60):
        header = content[8 : 8 + length]
        if draw.random() < 0.5:
            header = damaged_json(json.loads(header), draw).encode()
            size = draw.choice((len(header), len(header), draw.choice((0, 1, 1 << 40, (1 << 64) - 1))))
            path.write_bytes(struct.pack("<Q", size) + header + content[8 + length :])
        else:
            path.write_bytes(damaged(content, draw))
        codes.append(called(number, capfd, "predict", path, image, *FEW))
    assert 2 in codes


def test_manifests(trained: Path, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """What a file says of itself, with the digest that belongs to it: somebody wrote it on purpose."""
    with checkpoint._opened(trained) as file:
        metadata = dict(file.metadata())
        tensors = {key: file.get_tensor(key) for key in file.keys()}  # noqa: SIM118 - not a mapping
    path = tmp_path / "a.safetensors"
    for number, draw in cases(100):
        manifest = damaged_json(json.loads(metadata[checkpoint._MANIFEST]), draw)
        proof = checkpoint._sha256(manifest, tensors)
        save_file(tensors, path, metadata={checkpoint._MANIFEST: manifest, checkpoint._PROOF: proof})
        called(number, capfd, "predict", path, image, *FEW)
        if number % 5 == 0:
            called(number, capfd, "runs", tmp_path)


def test_other_weights(image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    """Files of `torch.save`, new and old."""
    state = {"state_dict": {"conv.weight": torch.zeros(3, 3), "n": torch.tensor(1)}, "epoch": 3, "name": "a"}
    contents = []
    for new in (True, False):
        torch.save(state, tmp_path / "a.pth", _use_new_zipfile_serialization=new)
        contents.append((tmp_path / "a.pth").read_bytes())
    for number, draw in cases(60):
        (tmp_path / "a.pth").write_bytes(damaged(draw.choice(contents), draw))
        assert called(number, capfd, "predict", tmp_path / "a.pth", image, *FEW) == 2


def test_exports(trained: Path, image: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("onnx")
    pytest.importorskip("onnxruntime")
    whole = tmp_path / "whole"
    assert main(["export", str(trained), "--to", "onnx", "--out", str(whole)]) == 0
    capfd.readouterr()
    about = json.loads((whole / "model.json").read_text())
    folder = shutil.copytree(whole, tmp_path / "damaged")
    files = [path.name for path in whole.iterdir() if path.suffix not in (".py", ".json")]
    for number, draw in cases(50):
        name = draw.choice(files)
        if draw.random() < 0.7:
            (folder / "model.json").write_text(damaged_json(about, draw))
        else:
            (folder / "model.json").write_bytes((whole / "model.json").read_bytes())
            (folder / name).write_bytes(damaged((whole / name).read_bytes(), draw))
        called(number, capfd, "predict", folder, image, *FEW)
        shutil.copy(whole / name, folder / name)


def test_run_folders(trained: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    whole = trained.parent
    folder = shutil.copytree(whole, tmp_path / "runs" / "a")
    files = [path.name for path in whole.iterdir() if path.suffix in (".json", ".jsonl", ".csv")]
    for number, draw in cases(60):
        name = draw.choice(files)
        content = (whole / name).read_bytes()
        try:
            text = damaged_json(json.loads(content), draw).encode()
        except ValueError:
            text = damaged(content, draw)
        (folder / name).write_bytes(text if draw.random() < 0.7 else damaged(content, draw))
        called(number, capfd, "runs", tmp_path / "runs")
        called(number, capfd, "compare", folder, whole, "--json", "--out", tmp_path / "compare.png")
        shutil.copy(whole / name, folder / name)


def annotations(root: Path) -> dict[str, tuple[Data, Path]]:
    """The same boxes in every form: how each is opened, and the file to damage."""
    places = {form: Data(**where) for form, where in in_every_form(root, 3).items()}
    outlined = write_coco(root / "outlines", {"train": draw_shapes(root / "outlines" / "train", 3)}, outlines=True)
    return {
        "coco": (places["coco"], root / "coco" / "annotations" / "instances_train.json"),
        "outlines": (Data(root=outlined), outlined / "annotations" / "instances_train.json"),
        "voc": (places["voc"], root / "voc" / "Annotations" / "0-000.xml"),
        "voc list": (places["voc"], root / "voc" / "ImageSets" / "Main" / "train.txt"),
        "yolo": (places["yolo"], root / "yolo" / "labels" / "train" / "0-000.txt"),
        "yolo names": (places["yolo"], root / "yolo" / "data.yaml"),
        "table": (places["table"], root / "table" / "boxes.csv"),
    }


def test_annotations(tmp_path: Path) -> None:
    """Boxes are read, or refused in one line that names the file or the image."""
    forms = annotations(tmp_path)
    read: set[str] = set()
    refused: dict[str, set[str]] = {}
    for number, draw in cases(350):
        form = list(forms)[number % len(forms)]
        data, path = forms[form]
        content = path.read_bytes()
        if path.suffix == ".json" and draw.random() < 0.8:
            path.write_text(damaged_json(json.loads(content), draw))
        else:
            path.write_bytes(with_other_numbers(content, draw) if draw.random() < 0.5 else damaged(content, draw))
        with bounded(number):
            try:
                source: Any = open_splits(data, "boxes").train
                for position in range(len(source)):
                    objects = source.objects(position)
                    assert np.isfinite(objects.boxes).all() and (objects.boxes[:, 2:] > objects.boxes[:, :2]).all()
                    for outline, box in zip(objects.outlines or (), objects.boxes.tolist(), strict=False):
                        bitmap(outline, box, *objects.size)
                read.add(form)
            except OvertoneError as error:
                refused.setdefault(form, set()).add(f"case {number} of seed {SEED}: {error}")
            except Exception:
                pytest.fail(f"case {number} of seed {SEED}, {form}: {traceback.format_exc()}")
        path.write_bytes(content)
    assert read == refused.keys() == forms.keys()
    assert not [text for texts in refused.values() for text in texts if "\n" in text or "\x1b" in text]
