"""`overtone predict` on files and folders."""

import shutil

import pytest
import torch

from overtone import zoo
from overtone.data.decoding import decode_image
from overtone.data.transforms import evaluation_transform

FEW = ("--run.workers", "0", "--run.threads", "1", "--run.device", "cpu")


def test_names_and_probabilities(overtone, trained):
    path = trained / "photos" / "green" / "0.png"
    outcome = overtone("predict", trained / "run", path, "--top-k", "2", "--json", *FEW)
    assert outcome.code == 0, outcome.err
    loaded = zoo.load_model(str(trained / "run"))
    with torch.no_grad():
        expected = loaded.model(evaluation_transform(loaded.preprocess)(decode_image(path))[None])[0].softmax(0)
    (image,) = outcome.json["images"]
    assert image["image"] == str(path)
    assert len(image["predictions"]) == 2
    for prediction in image["predictions"]:
        assert ("blue", "green", "red")[prediction["index"]] == prediction["class"]
        assert prediction["probability"] == pytest.approx(float(expected[prediction["index"]]), rel=1e-4)
    assert image["predictions"][0]["index"] == int(expected.argmax())
    assert outcome.json["bad"] == []


def test_folders_are_searched_and_batches_keep_the_order(overtone, trained):
    outcome = overtone("predict", trained / "run", trained / "photos", "--run.batch-size", "7", "--json", *FEW)
    images = [image["image"] for image in outcome.json["images"]]
    assert len(set(images)) == 45
    assert images[0].endswith("blue/0.png") and images[-1].startswith(str(trained / "photos" / "red"))


def test_a_bad_image_does_not_stop_the_others(overtone, trained, photos):
    (photos / "blue" / "1.png").write_bytes((photos / "blue" / "1.png").read_bytes()[:100])
    words = (photos / "blue", photos / "nowhere.jpg", photos / "red" / "0.png")
    outcome = overtone("predict", trained / "run", *words, "--json", *FEW)
    assert outcome.code == 1
    assert len(outcome.json["images"]) == 10
    assert {bad["image"] for bad in outcome.json["bad"]} == {str(photos / "blue/1.png"), str(photos / "nowhere.jpg")}
    assert all(bad["reason"] for bad in outcome.json["bad"])
    assert "nowhere.jpg could not be read" in outcome.err
    table = overtone("predict", trained / "run", *words, *FEW)
    assert table.code == 1
    assert table.out.count("%") == 30


def test_unknown_classes_are_numbers(overtone, trained):
    words = ("predict", "resnet18", trained / "photos" / "red" / "0.png", "--run.size", "32", "--json", *FEW)
    outcome = overtone(*words)
    assert "random weights" in outcome.err
    best = outcome.json["images"][0]["predictions"]
    assert [prediction["class"] for prediction in best] == [str(prediction["index"]) for prediction in best]
    assert len(best) == 5


def test_a_checkpoint_file_is_as_good_as_its_run(overtone, trained, tmp_path):
    file = shutil.copy(trained / "run" / zoo.BEST, tmp_path / "mine.safetensors")
    path = trained / "photos" / "red" / "0.png"
    answers = [overtone("predict", model, path, "--json", *FEW).json["images"] for model in (trained / "run", file)]
    assert answers[0] == answers[1]
