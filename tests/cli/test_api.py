"""Python as the second front door: what the verbs do, by calls that return objects."""

import dataclasses
import shutil

import numpy as np
import pytest
import torch
from PIL import Image
from small_photos import draw

import overtone
from overtone import zoo
from overtone.cli import main
from overtone.errors import OvertoneError

SMALL = {
    "model": "hbonet_x010",
    "size": 32,
    "epochs": 2,
    "batch_size": 8,
    "workers": 0,
    "threads": 1,
    "tensorboard": False,
    "plots": False,
}


@pytest.fixture(scope="module")
def network(trained):
    return overtone.load(trained / "run", device="cpu")


def test_training_and_evaluation_return_what_the_verbs_print(tmp_path, overtone_json):
    photos = draw(tmp_path / "photos", {"cat": 10, "dog": 10})
    small = {key: value for key, value in SMALL.items() if key != "size"}
    summary = overtone.train("scratch", photos, tmp_path / "run", data__preprocess__size=32, **small)
    assert summary.folder == tmp_path / "run" and (summary.epochs, summary.report.num_used) == (2, 4)
    found = overtone.evaluate(tmp_path / "run", photos, workers=0)
    printed = overtone_json("evaluate", tmp_path / "run", photos, "--run.workers=0")
    assert found.report.score == pytest.approx(summary.report.score) == printed["top1"]
    assert found.source.origin == printed["images"] and len(found.source) == 4


@pytest.mark.parametrize(
    ("overrides", "named"),
    [({"epocs": 1}, ("epocs",)), ({"name": "x"}, ("model__name", "optim__name")), ({"optim": 1}, ("optim", "optim__"))],
)
def test_an_option_that_is_none_or_several_is_named(overrides, named, tmp_path):
    with pytest.raises(OvertoneError) as error:
        overtone.train("scratch", tmp_path, **overrides)
    assert all(name in str(error.value) for name in named)


def test_every_kind_of_image_gives_the_same_prediction(network, trained):
    path = trained / "photos" / "red" / "0.png"
    image = Image.open(path).convert("RGB")
    array = np.asarray(image)
    tensor = torch.from_numpy(array.copy()).permute(2, 0, 1)
    kinds = [path, str(path), image, array, tensor, tensor.float() / 255, array / 255]
    one = network.predict(path, top_k=2)
    assert one.name == str(path) and one.image.size == image.size
    assert len(one.best) == 2 and one.label in network.labels == ("blue", "green", "red")
    for result in network.predict(kinds, top_k=2):
        assert [entry[:2] for entry in result.best] == [entry[:2] for entry in one.best]
        assert result.best[0][2] == pytest.approx(one.best[0][2], abs=1e-5)
    assert network.predict([]) == []
    with torch.no_grad():
        logits = network.model(network.transform(image).unsqueeze(0))
    assert network.labels[int(logits.argmax())] == one.label


def test_a_batch_gives_what_its_images_give_alone(trained):
    paths = sorted((trained / "photos").rglob("*.png"))[:5]
    together = overtone.load(trained / "run", device="cpu", batch_size=2).predict(paths)
    alone = overtone.load(trained / "run", device="cpu")
    assert [result.name for result in together] == [str(path) for path in paths]
    for result, path in zip(together, paths, strict=True):
        assert result.label == alone.predict(path).label


@pytest.mark.parametrize(
    ("image", "named"),
    [
        (np.zeros((4, 4, 4), np.uint8), "(4, 4, 4)"),
        (np.full((4, 4, 3), -1.0), "float64"),
        (torch.zeros(1, 3, 4, 4), "(1, 3, 4, 4)"),
        (3, "int"),
        ("absent.png", "absent.png"),
    ],
)
def test_what_is_no_image_is_named(network, image, named):
    with pytest.raises(OvertoneError) as error:
        network.predict(image)
    assert named in str(error.value)
    with pytest.raises(OvertoneError, match="top_k"):
        network.predict(np.zeros((4, 4, 3), np.uint8), top_k=0)


def test_a_result_shows_itself_in_a_notebook(network, tmp_path):
    path = tmp_path / "<b>.png"
    Image.new("RGB", (400, 300), "red").save(path)
    result = network.predict(path)
    html = result._repr_html_()
    assert "data:image/png;base64," in html and "&lt;b&gt;" in html and "<b>" not in html
    assert result.label in html
    figure = result.plot()
    assert result.label in figure.axes[0].get_title(loc="left")
    assert result.to_dict()["image"] == str(path)


def test_an_export_from_python_is_the_verbs(trained, tmp_path, overtone_json):
    pytest.importorskip("onnxruntime")
    done = overtone.export(trained / "run", "onnx", tmp_path / "onnx", size=64)
    assert done.folder == tmp_path / "onnx" and (done.folder / "model.onnx").is_file()
    assert done.about.preprocess.size == 64 and done.about.parity["same_decisions"] == 1
    printed = overtone_json("export", trained / "run", "--to", "onnx", "--out", tmp_path / "verb", "--size", "64")
    assert printed["parity"] == done.about.parity and printed["labels"] == list(done.about.labels or ())
    image = trained / "photos" / "red" / "0.png"
    ours, theirs = (overtone.load(where, device="cpu").predict(image) for where in (trained / "run", done.folder))
    assert set(theirs.to_dict()["predictions"][0]) == {"class", "index", "probability"}
    assert {name for _, name, _ in theirs.best} == {name for _, name, _ in ours.best}
    with pytest.raises(OvertoneError, match="overwrite"):
        overtone.export(trained / "run", "onnx", done.folder)
    with pytest.raises(OvertoneError, match="export already"):
        overtone.export(done.folder, "onnx", tmp_path / "again")
    with pytest.raises(OvertoneError, match="calibration"):
        overtone.export(trained / "run", "onnx", tmp_path / "int8", precision="int8")
    with pytest.raises(OvertoneError, match="size"):
        overtone.export(trained / "run", "onnx", tmp_path / "tiny", size=0)


def test_a_network_is_created_from_whatever_load_takes(trained, tmp_path):
    best = trained / "run" / "best.safetensors"
    file = shutil.copy(best, tmp_path / "hbonet_x010.safetensors")  # an architecture's name with a suffix, not a tag
    loaded = overtone.load(trained / "run", device="cpu").model
    for spec in (trained / "run", str(trained / "run"), best, file):
        model = overtone.create_model(spec, pretrained=True)
        assert model.training
        assert all(torch.equal(a, b) for a, b in zip(model.parameters(), loaded.parameters(), strict=True))
    features = overtone.create_model(trained / "run", pretrained=True, num_classes=0).eval()
    assert features(torch.zeros(1, 3, 32, 32)).ndim == 2
    with pytest.raises(OvertoneError, match="features_only"):
        overtone.create_model(trained / "run", pretrained=True, features_only=True)
    with pytest.raises(OvertoneError, match="neither"):
        overtone.create_model("no_such_thing", pretrained=True)


def test_a_published_tag_is_created_and_loaded_alike(tmp_path, monkeypatch):
    monkeypatch.setenv("OVERTONE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("OVERTONE_WEIGHTS_DIR", str(tmp_path))
    tag = "hbonet_x025_div8.dli14_in1k"
    torch.save(zoo.build("hbonet_x025_div8").published_state_dict(), tmp_path / "bare.pth")
    assert main(["weights", "convert", str(tmp_path / "bare.pth"), "--out", str(tmp_path / f"{tag}.safetensors")]) == 0
    created, loaded = overtone.create_model(tag, pretrained=True), overtone.load(tag, device="cpu")
    assert all(torch.equal(a, b) for a, b in zip(created.parameters(), loaded.model.parameters(), strict=True))
    assert len(loaded.labels) == 1000 and loaded.task == "classification"


def test_a_hub_repository_is_created_by_its_name(monkeypatch):
    asked = []

    def load(spec, **wishes):
        asked.append((spec, wishes))
        return dataclasses.make_dataclass("Loaded", ["model"])(torch.nn.Linear(1, 1).eval())

    monkeypatch.setattr("overtone.zoo.load_model", load)
    assert overtone.create_model("hf-hub:owner/name", pretrained=True, num_classes=3).training
    assert asked == [("hf-hub:owner/name", {"num_classes": 3})]


@pytest.fixture
def overtone_json(overtone):
    """What a verb prints with `--json`."""

    def call(*words):
        outcome = overtone(*words, "--json")
        assert outcome.code == 0, outcome.err
        return outcome.json

    return call
