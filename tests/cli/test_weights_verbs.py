"""`overtone weights`: list, fetch, verify, convert, inspect, on files of the smallest nets."""

import dataclasses
import json
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image
from torch import Tensor

from overtone import zoo
from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.config import Preprocess
from overtone.data.imagenet import class_names, synsets
from overtone.published import find
from overtone.zoo.class_names import names_of, published_classes

SMALL = "mobilenetv2_x010.dli14_in1k"
FILE = "mobilenetv2_0.1-7d1d638a.pth"


def weights_of(architecture: str, seed: int = 0) -> dict[str, Tensor]:
    """A state dict under the published keys, deterministic."""
    torch.manual_seed(seed)
    return zoo.build(architecture).published_state_dict()  # type: ignore[operator]


@pytest.fixture
def folder(tmp_path: Path, publish: Callable[..., object], monkeypatch: pytest.MonkeyPatch) -> Path:
    """`weights/` with the smallest published file; an empty cache, and no network."""
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERTONE_WEIGHTS_DIR", raising=False)
    (tmp_path / "weights").mkdir()
    torch.save(weights_of("mobilenetv2_x010"), tmp_path / "weights" / FILE)
    publish(SMALL, tmp_path / "weights" / FILE)
    return tmp_path


def test_list(overtone, folder):
    outcome = overtone("weights", "list", "--weights-dir", folder / "weights", "--json")
    rows = {row["name"]: row for row in outcome.json}
    assert len(rows) == 72 and outcome.code == 0
    assert rows[SMALL]["at_hand"] == str(folder / "weights" / FILE)
    assert (rows[SMALL]["file"], rows[SMALL]["proof"], rows[SMALL]["license"]) == (FILE, "git blob sha1", "Apache-2.0")
    assert rows["harm_vgg16_bn.ulicny_in1k"]["file"] is None
    assert rows["hornet_tiny_gf.rao_in1k"]["proof"] == "first use"
    assert rows["hbonet_x100.dli14_in1k"]["at_hand"] is None
    text = overtone("weights", "list", "mobilenetv2_x01*", "--weights-dir", folder / "weights")
    assert FILE in text.out and "34.896" in text.out and "1 of these at hand" in text.err
    assert "no published row" in overtone("weights", "list", "resnet*").error


def test_list_says_that_a_file_is_damaged(overtone, folder):
    (folder / "cache").mkdir()
    (folder / "cache" / FILE).write_bytes(b"not it")
    outcome = overtone("weights", "list", SMALL)
    assert outcome.code == 0 and "damaged" in outcome.out and FILE in outcome.err


def test_fetch_takes_what_is_there_and_names_what_cannot_be_had(overtone, folder):
    outcome = overtone("weights", "fetch", SMALL, "--weights-dir", folder / "weights")
    assert outcome.code == 0 and str(folder / "weights" / FILE) in outcome.out and "git blob sha1" in outcome.out
    assert "without weights" in overtone("weights", "fetch", "harm_vgg16_bn.ulicny_in1k").error
    assert "no published row matches 'vit_tiny'" in overtone("weights", "fetch", "vit_tiny").error
    assert "no weights are named" in overtone("weights", "fetch").error


def test_verify(overtone, folder):
    path = folder / "weights" / FILE
    outcome = overtone("weights", "verify", path, SMALL, "--weights-dir", folder / "weights", "--json")
    assert outcome.code == 0
    assert [(line["published"], line["state"]) for line in outcome.json] == [(SMALL, "verified")] * 2
    renamed = path.rename(folder / "renamed.pth")  # known by its bytes, whatever its name
    assert overtone("weights", "verify", renamed, "--json").json[0]["published"] == SMALL
    content = bytearray(renamed.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    altered = overtone("weights", "verify", path, renamed)
    assert altered.code == 1 and "altered" in altered.out and "verified" in altered.out
    torch.save({"a": torch.zeros(1)}, folder / "mine.pth")
    unknown = overtone("weights", "verify", folder / "mine.pth", "--json")
    assert unknown.code == 1 and unknown.json[0]["state"] == "unknown"
    assert "neither a file" in overtone("weights", "verify", "nothing.pth").error


def test_convert_there_and_back(overtone, folder):
    there, back = folder / "x010.safetensors", folder / "back.pth"
    outcome = overtone("weights", "convert", folder / "weights" / FILE, "--out", there)
    assert outcome.code == 0, outcome.err
    manifest = read_manifest(there)
    assert manifest.architecture == "mobilenetv2_x010" and manifest.labels == synsets()
    assert (manifest.preprocess.size, manifest.preprocess.interpolation) == (224, "bilinear")
    assert manifest.source is not None and SMALL in manifest.source and "git blob sha1" in manifest.source
    assert overtone("weights", "verify", there).code == 0
    outcome = overtone("weights", "convert", there, "--to", "published", "--out", back)
    assert outcome.code == 0, outcome.err
    assert_same(torch.load(back, weights_only=True), torch.load(folder / "weights" / FILE, weights_only=True))


def test_convert_by_name_and_with_constants(overtone, folder, publish):
    """Harm-ResNet's file has `module.` before every key, and constant filter banks, which come back."""
    row = find("harm_resnet50.ulicny_in1k")
    assert row is not None and row.file is not None
    original = weights_of("harm_resnet50")
    assert any(key.endswith("dct") for key in original)
    torch.save({f"module.{key}": value for key, value in original.items()}, folder / "weights" / row.file)
    publish(row.full_name, folder / "weights" / row.file)
    there, back = folder / "harm.safetensors", folder / "back.pth"
    names = ("--weights-dir", folder / "weights")
    assert overtone("weights", "convert", row.full_name, "--out", there, *names).code == 0
    assert overtone("weights", "convert", there, "--to", "published", "--out", back).code == 0
    assert_same(torch.load(back, weights_only=True), {f"module.{key}": value for key, value in original.items()})
    bare = folder / "bare.pth"
    assert overtone("weights", "convert", there, "--to", "published", "--layout", "bare", "--out", bare).code == 0
    assert_same(torch.load(bare, weights_only=True), original)


def assert_same(found: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    assert list(found) == list(expected)
    for key, value in expected.items():
        assert found[key].dtype == value.dtype and torch.equal(found[key], value), key


@pytest.mark.parametrize(
    ("name", "args"),
    [
        ("mobilenetv2_x010", {"num_classes": 3}),
        ("hbonet_x025_4x", {"num_classes": 3}),
        ("harm_resnet18", {"num_classes": 3}),
        ("harm_wrn16_4", {"depth": 10, "width": 1}),
        ("hornet_tiny_7x7", {"depths": (1, 1, 2, 1), "base_dim": 16, "num_classes": 3}),
        ("hornet_tiny_gf", {"depths": (1, 1, 2, 1), "base_dim": 16, "filter_size": 64, "num_classes": 3}),
        ("harm_vgg11_bn", {"num_classes": 0, "global_pool": ""}),  # without its classifier of half a gigabyte
        pytest.param("harm_se_resnext101_32x4d", {"num_classes": 3}, marks=pytest.mark.slow),
    ],
)
def test_every_family_there_and_back(overtone, folder, name, args):
    """In each of the published wrappers; what the original code reads is what was there before."""
    torch.manual_seed(0)
    original = zoo.build(name, **args).published_state_dict()  # type: ignore[operator]
    torch.save(original, folder / "some.pth")
    there = folder / "there.safetensors"
    outcome = overtone("weights", "convert", folder / "some.pth", "--out", there)
    assert outcome.code == 0, outcome.err
    large = sum(value.numel() for value in original.values()) > 5e6
    for layout in ("module",) if large else ("bare", "module", "model", "state_dict"):
        back = folder / f"{layout}.pth"
        outcome = overtone("weights", "convert", there, "--to", "published", "--layout", layout, "--out", back)
        assert outcome.code == 0, outcome.err
        values = torch.load(back, weights_only=True)
        prefix = "module." if layout in ("module", "state_dict") else ""
        assert_same(values.get(layout, values), {prefix + key: value for key, value in original.items()})


def test_convert_overwrites_nothing(overtone, folder):
    source, out = folder / "weights" / FILE, folder / "x.safetensors"
    out.write_bytes(b"mine")
    assert "--overwrite" in overtone("weights", "convert", source, "--out", out).error
    assert out.read_bytes() == b"mine"
    assert overtone("weights", "convert", source, "--out", out, "--overwrite").code == 0
    assert len(read_checkpoint(out).weights) > 0
    assert "should end in" in overtone("weights", "convert", source, "--out", folder / "x.pth").error
    assert "random weights" in overtone("weights", "convert", "hbonet_x010", "--out", folder / "y.safetensors").error
    same = ("--to", "published", "--overwrite", "--out", source)
    assert "the file to convert" in overtone("weights", "convert", source, *same).error


def test_convert_a_file_of_nobody(overtone, folder):
    """Weights that no row is known for: the network comes from the keys, the classes have numbers."""
    torch.manual_seed(0)
    model = zoo.build("harm_wrn16_4", num_classes=7)
    torch.save({"state_dict": model.published_state_dict(), "epoch": 3}, folder / "mine.pth")  # type: ignore[operator]
    out = folder / "mine.safetensors"
    outcome = overtone("weights", "convert", folder / "mine.pth", "--out", out)
    assert outcome.code == 0, outcome.err
    manifest = read_manifest(out)
    assert manifest.architecture.startswith("harm_wrn") and manifest.labels == tuple(f"class {i}" for i in range(7))
    loaded = zoo.load_model(str(out))
    image = torch.randn(1, 3, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(image), model.eval()(image))


def test_the_header_names_no_folder_of_this_machine(overtone, folder):
    for source in (folder / "weights" / FILE, folder / "mine.pth"):
        torch.save(weights_of("mobilenetv2_x010", seed=1), folder / "mine.pth")
        out = folder / "x.safetensors"
        assert overtone("weights", "convert", source, "--out", out, "--overwrite").code == 0
        assert str(folder) not in str(read_manifest(out))


def test_classes_of_imagenet_22k():
    row = find("hornet_large_gf.rao_in22k")
    assert row is not None
    names = published_classes(row, 10459)
    assert len(set(names)) == 10459 and set(synsets()) < set(names)
    assert (names[0], names[209]) == ("class 0", "n01440764")
    assert published_classes(row, 1000) == synsets()
    model = torch.nn.Module()
    loaded = zoo.LoadedModel(model, "hornet_large_gf", None, Preprocess(), "x", published=row)
    model.num_classes = 10459  # type: ignore[assignment]
    assert names_of(loaded)[209] == "tench, Tinca tinca" and names_of(loaded)[0] == "class 0"
    model.num_classes = 1000  # type: ignore[assignment]
    timms = zoo.LoadedModel(model, "resnet18", None, Preprocess(), "resnet18.a1_in1k", tag="a1_in1k")
    assert names_of(timms)[0] == "tench, Tinca tinca"
    mine = zoo.LoadedModel(model, "resnet18", None, Preprocess(), "in1k/mine.pth", layout="bare")
    assert names_of(mine)[0] == "0"
    assert names_of(dataclasses.replace(timms, trained=False))[0] == "0"


@pytest.mark.filterwarnings("default")
def test_the_first_use_of_a_file_without_published_hash_is_said_in_one_line(overtone, folder):
    path = folder / "weights" / "hornet_tiny_7x7.rao_in1k.pth"
    torch.save({"model": {"a": torch.zeros(1)}}, path)
    outcome = overtone("weights", "list", "hornet_tiny_7x7*", "--weights-dir", folder / "weights")
    lines = outcome.err.splitlines()
    assert lines[0].startswith(f"overtone: warning: {path} is unverified") and len(lines) == 2


def test_inspect_builds_nothing(overtone, folder, monkeypatch):
    monkeypatch.setattr("timm.create_model", lambda *_, **__: pytest.fail("a network was built"))
    outcome = overtone("weights", "inspect", folder / "weights" / FILE, "--json")
    assert outcome.code == 0, outcome.err
    found = outcome.json
    assert (found["architecture"], found["classes"], found["layout"]) == ("mobilenetv2_x010", 1000, "bare")
    assert found["published as"] == SMALL and "float32" in json.dumps(found["types"])
    text = overtone("weights", "inspect", folder / "weights" / FILE).out
    assert "mobilenetv2_x010" in text and SMALL in text


def test_inspect_a_converted_file_and_one_that_is_refused(overtone, folder):
    out = folder / "x.safetensors"
    assert overtone("weights", "convert", folder / "weights" / FILE, "--out", out).code == 0
    found = overtone("weights", "inspect", out, "--json").json
    assert found["architecture"] == "mobilenetv2_x010" and found["class names"][0] == "n01440764"
    assert found["preprocess"]["size"] == 224 and SMALL in found["source"]
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save(Payload(folder / "ran"), folder / "bad.pth")
    assert "refused" in overtone("weights", "inspect", folder / "bad.pth").error
    assert not (folder / "ran").exists()


class Payload:
    """What unpickling it would run."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[object, ...]:
        return Path.touch, (self.marker,)


def test_predict_prints_words(overtone, folder, tmp_path):
    Image.new("RGB", (40, 30), (10, 200, 30)).save(tmp_path / "a.jpg")
    words = ("predict", folder / "weights" / FILE, tmp_path / "a.jpg", "--json", "--run.device", "cpu")
    outcome = overtone(*words)
    assert outcome.code == 0, outcome.err
    best = outcome.json["images"][0]["predictions"][0]
    assert best["class"] == class_names()[best["index"]]
