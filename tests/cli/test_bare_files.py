"""`evaluate` and `predict` on bare files: inferred from keys and shapes in any wrapper, and named as well as can be."""

import dataclasses
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from small_photos import draw
from torch import Tensor, nn

from overtone import zoo
from overtone.data.decoding import decode_image
from overtone.data.imagenet import class_names, synsets
from overtone.data.transforms import evaluation_transform
from overtone.published import find

FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu", "--run.size", "32", "--json")
TINY_HORNET = {"depths": (1, 1, 2, 1), "base_dim": 16}
SYNSETS = ("n01440764", "n02123045", "n03028079")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.delenv("OVERTONE_WEIGHTS_DIR", raising=False)
    return tmp_path / "cache"


def net_of(name: str, seed: int = 0, **args: Any) -> nn.Module:
    """An untrained net whose outputs differ between images."""
    torch.manual_seed(seed)
    model = zoo.build(name, **args).eval()
    classifier = model.get_classifier()  # type: ignore[operator]
    nn.init.normal_(classifier.weight, std=1.0)  # type: ignore[union-attr, arg-type]
    return model


def published(model: nn.Module) -> dict[str, Tensor]:
    return model.published_state_dict()  # type: ignore[operator]


def save(path: Path, values: Any) -> Path:
    torch.save(values, path)
    return path


def logits(model: nn.Module, path: Path) -> Tensor:
    preprocess = dataclasses.replace(zoo.preprocess_of(model), size=32)
    with torch.no_grad():
        return model(evaluation_transform(preprocess)(decode_image(path))[None])[0]


Wrap = Callable[[dict[str, Tensor]], Any]
BARE: dict[str, tuple[Wrap, dict[str, Any], bool]] = {
    "mobilenetv2_x010": (lambda state: {f"module.{key}": value for key, value in state.items()}, {}, True),
    "hbonet_x010": (lambda state: {"state_dict": state, "epoch": 3}, {}, True),
    "harm_wrn16_4": (lambda state: state, {}, False),  # 10 classes, which nobody published names of
    "hornet_tiny_7x7": (lambda state: {"model": state}, {}, True),
    "hornet_tiny_gf": (lambda state: {"model": state}, TINY_HORNET | {"filter_size": 64}, False),  # not the published
    "harm_resnet18": (lambda state: {"module." + key: value for key, value in state.items()}, {}, False),
}


@pytest.mark.parametrize("name", BARE)
def test_predict_infers_the_network_and_names_what_can_be_named(overtone, tmp_path, name):
    wrap, args, has_words = BARE[name]
    model = net_of(name, **args)
    file, image = save(tmp_path / "some.pth", wrap(published(model))), draw(tmp_path, {"a": 1}) / "a" / "0.png"
    outcome = overtone("predict", file, image, *FEW)
    assert outcome.code == 0, outcome.err
    expected = logits(model, image).softmax(0).topk(5)
    (shown,) = outcome.json["images"]
    assert [found["index"] for found in shown["predictions"]] == expected.indices.tolist()
    assert [found["probability"] for found in shown["predictions"]] == pytest.approx(expected.values.tolist(), rel=1e-4)
    for found in shown["predictions"]:
        assert found["class"] == (class_names()[found["index"]] if has_words else str(found["index"]))
    assert ("are assumed to be those of the published" in outcome.err) == has_words
    assert "weights: its preprocessing is assumed" in outcome.err


def test_evaluate_matches_imagenets_folders_by_their_ids(overtone, tmp_path):
    """Three of the thousand folders are enough; what is right is a function of the id, not of the folder's place."""
    model = net_of("mobilenetv2_x010")
    file = save(tmp_path / "some.pth", published(model))
    drawn = draw(tmp_path / "val", dict.fromkeys(SYNSETS, 3))
    said = [int(logits(model, path).argmax()) for path in sorted(drawn.rglob("*.png"))]
    right = (drawn / SYNSETS[0] / "0.png").rename(tmp_path / "right.png")  # one that is right by the id of its folder
    (drawn / synsets()[said[0]]).mkdir(exist_ok=True)
    right.rename(drawn / synsets()[said[0]] / "right.png")
    outcome = overtone("evaluate", file, "--data.root", drawn, *FEW)
    assert outcome.code == 0, outcome.err
    assert outcome.json["num_used"] == 9 and tuple(outcome.json["classes"]) == synsets()
    truth = [synsets().index(name) for name in SYNSETS for _ in range(3)]
    assert outcome.json["correct_top1"] == 1 + sum(map(int.__eq__, said[1:], truth[1:]))
    assert outcome.json["class_correct"][said[0]] >= 1
    assert "assumed to be those of the published mobilenetv2_x010.dli14_in1k" in outcome.err
    table = overtone("evaluate", file, "--data.root", drawn, *FEW[:-1])
    assert "tench, Tinca tinca" in table.out and table.code == 0


def test_evaluate_takes_nameless_outputs_for_the_folders_in_their_order(overtone, tmp_path):
    model = net_of("harm_wrn16_4", num_classes=3)
    photos, file = draw(tmp_path / "photos", {"a": 2, "b": 3, "c": 2}), tmp_path / "some.pth"
    save(file, {"params": published(model)})
    outcome = overtone("evaluate", file, "--data.root", photos, *FEW)
    assert outcome.code == 0, outcome.err
    paths = sorted(photos.rglob("*.png"))
    right = [int(logits(model, path).argmax()) == "abc".index(path.parent.name) for path in paths]
    assert outcome.json["correct_top1"] == sum(right)
    assert "the outputs are taken for the folders in their order (a, b, c)" in outcome.err
    draw(tmp_path / "photos2", {"a": 2, "b": 3})
    assert "has 3 outputs" in overtone("evaluate", file, "--data.root", tmp_path / "photos2", *FEW).error


def test_the_wider_classes_of_imagenet_22k_are_measured_on_the_thousand(overtone, tmp_path, monkeypatch):
    """Bare, and converted with class names of its own: the thousand outputs that ImageNet-1K shares are taken."""
    model = net_of("hornet_tiny_gf", num_classes=10459, filter_size=64, **TINY_HORNET)
    bare = save(tmp_path / "22k.pth", {"model": published(model)})
    row = dataclasses.replace(find("hornet_large_gf.rao_in22k"), architecture="hornet_tiny_gf")  # type: ignore[type-var]
    monkeypatch.setattr("overtone.zoo.class_names._row_by_shape", lambda loaded: row if loaded.layout else None)
    converted = tmp_path / "22k.safetensors"
    assert overtone("weights", "convert", bare, "--out", converted).code == 0
    monkeypatch.undo()
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    val = draw(tmp_path / "val", dict.fromkeys(SYNSETS, 2))
    outcome = overtone("evaluate", converted, "--data.root", val, *FEW)
    assert outcome.code == 0, outcome.err
    assert tuple(outcome.json["classes"]) == synsets() and "reduced to 1000" in outcome.err
    reduced = zoo.load_model(str(bare), num_classes=1000).model
    said = [int(logits(reduced, path).argmax()) for path in sorted(val.rglob("*.png"))]
    truth = [synsets().index(name) for name in SYNSETS for _ in range(2)]
    assert outcome.json["correct_top1"] == sum(map(int.__eq__, said, truth))


def test_the_averaged_weights_and_an_architecture_by_name(overtone, tmp_path):
    plain, average = net_of("hbonet_x010", num_classes=3), net_of("hbonet_x010", num_classes=3, seed=1)
    file = save(tmp_path / "last.pth.tar", {"model": published(plain), "model_ema": published(average)})
    image = draw(tmp_path / "photos", {"a": 1, "b": 1, "c": 1}) / "a" / "0.png"
    for words, model in (((), plain), (("--ema",), average), (("--architecture", "hbonet_x010"), plain)):
        found = overtone("predict", file, image, *words, *FEW).json["images"][0]["predictions"]
        best = logits(model, image).softmax(0)
        assert [p["probability"] for p in found] == pytest.approx(best.sort(descending=True).values.tolist(), rel=1e-4)
    assert (
        "no moving average" in overtone("predict", save(tmp_path / "bare.pth", published(plain)), image, "--ema").error
    )
    assert "does not fit hbonet_x025" in overtone("predict", file, image, "--architecture", "hbonet_x025").error
    assert overtone("evaluate", file, "--data.root", tmp_path / "photos", "--ema", *FEW).code == 0


def test_a_network_for_grey_images_is_fed_in_colour(overtone, tmp_path):
    file = save(tmp_path / "grey.pth", published(net_of("mobilenetv2_x010", num_classes=3, in_chans=1)))
    image = draw(tmp_path, {"a": 1}) / "a" / "0.png"
    outcome = overtone("predict", file, image, *FEW)
    assert outcome.code == 0 and "takes 3 channels, adapted from 1" in outcome.err


def test_converted_weights_go_by_path_and_by_the_rows_name(overtone, tmp_path):
    name, model = "mobilenetv2_x010.dli14_in1k", net_of("mobilenetv2_x010")
    file, image = save(tmp_path / "some.pth", published(model)), draw(tmp_path, {"a": 1}) / "a" / "0.png"
    converted = tmp_path / "weights" / f"{name}.safetensors"
    assert overtone("weights", "convert", file, "--out", converted).code == 0
    answers = [
        overtone("predict", *spec, *FEW)
        for spec in ((converted, image), (name, image, "--weights-dir", converted.parent))
    ]
    assert all(answer.code == 0 for answer in answers), answers[1].err
    best = [answer.json["images"][0]["predictions"] for answer in answers]
    assert best[0] == best[1] and best[0][0]["index"] == int(logits(model, image).argmax())
    assert f"weights: {name} ({converted}; converted" in answers[1].err


def test_an_unverified_file_is_said_in_one_line_and_no_path_of_code(tmp_path):
    """In a process of its own, with Python's own filters."""
    file = tmp_path / "weights" / "hornet_tiny_7x7.rao_in1k.pth"
    file.parent.mkdir()
    save(file, {"model": {}, "extra": torch.zeros(1)})
    words = ["weights", "verify", "hornet_tiny_7x7.rao_in1k", "--weights-dir", str(file.parent)]
    done = subprocess.run(
        [sys.executable, "-m", "overtone", *words], capture_output=True, text=True, env=dict(os.environ), check=False
    )
    assert done.returncode == 1
    (line,) = done.stderr.splitlines()
    assert line.startswith(f"overtone: warning: {file} is unverified") and ".py" not in line
