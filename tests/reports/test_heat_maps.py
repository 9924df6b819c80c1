"""Heat maps: they lie on what a network was trained to find, whatever the layout of its maps."""

import json
from pathlib import Path

import numpy as np
import pytest
import timm
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor, nn

from overtone import cli, load
from overtone.config import Data, Preprocess, Recipe, Run
from overtone.engine.inference import Computing, Inference
from overtone.engine.placement import place
from overtone.errors import OvertoneError
from overtone.reports.heat_maps import heat_maps, panels
from overtone.tasks import task_named
from overtone.tasks.task import Setup

pytest.importorskip("captum")
SIDE = 64


def scene(random: np.random.Generator, label: int) -> tuple[np.ndarray, tuple[int, int]]:
    """Noise with a bright patch: red for label 0, green for label 1, and where it is."""
    pixels = random.integers(60, 140, (SIDE, SIDE, 3), dtype=np.uint8)
    x, y = (int(v) for v in random.integers(0, SIDE - 16, 2))
    pixels[y : y + 16, x : x + 16, label] = 255
    return pixels, (x + 8, y + 8)


def inference_of(model: nn.Module) -> Inference:
    preprocess = Preprocess(size=SIDE, crop_fraction=1.0)
    task = task_named("classification")(Setup(("red", "green"), Recipe(data=Data(preprocess=preprocess))))
    return Inference(model.eval(), task, place(Run(device="cpu")), preprocess, Computing(device="cpu"))


class Seeker(nn.Module):
    """Two stages of stride 4 and 8 and a mean; the maps have their channels first or last."""

    def __init__(self, *, channels_last: bool) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 4, 4), nn.BatchNorm2d(8), nn.ReLU())
        self.stage = Stage(channels_last)
        self.head = nn.Linear(16, 2)
        self.feature_info = [{"num_chs": 8, "module": "stem"}, {"num_chs": 16, "module": "stage"}]

    def forward(self, x: Tensor) -> Tensor:
        maps = self.stage(self.stem(x))
        return self.head(F.relu_(maps).mean((1, 2) if self.stage.channels_last else (2, 3)))


class Stage(nn.Sequential):
    def __init__(self, channels_last: bool) -> None:
        super().__init__(nn.Conv2d(8, 16, 3, 2, 1), nn.BatchNorm2d(16))
        self.channels_last = channels_last

    def forward(self, input: Tensor) -> Tensor:
        maps = super().forward(input)
        return maps.permute(0, 2, 3, 1) if self.channels_last else maps


@pytest.fixture(scope="module", params=[False, True], ids=["channels first", "channels last"])
def trained(request: pytest.FixtureRequest) -> Inference:
    torch.manual_seed(0)
    inference = inference_of(Seeker(channels_last=request.param))
    random, optimizer = np.random.default_rng(0), torch.optim.AdamW(inference.model.parameters(), 1e-2)
    inference.model.train()
    for _ in range(60):
        labels = random.integers(0, 2, 16)
        images = [Image.fromarray(scene(random, label)[0]) for label in labels]
        inputs = torch.cat([inference.task.view(image).pixels for image in images])
        F.cross_entropy(inference.model(inputs), torch.from_numpy(labels)).backward()
        optimizer.step()
        optimizer.zero_grad()
    inference.model.eval()
    return inference


def test_lies_on_the_patch_that_the_class_is_of(trained: Inference) -> None:
    random, distances = np.random.default_rng(1), []
    for number in range(12):
        pixels, centre = scene(random, number % 2)
        (found,) = heat_maps(trained, Image.fromarray(pixels))
        assert found.label == ("red", "green")[number % 2]
        assert found.values.max() == pytest.approx(1) and found.strength().shape == (SIDE, SIDE)
        distances.append(float(np.hypot(*np.subtract(found.peak(), centre))))
    assert max(distances) <= 12  # the patch has 16 pixels a side, a place of the maps 8


def test_lies_where_the_network_saw_the_image(trained: Inference) -> None:
    pixels, (x, y) = scene(np.random.default_rng(2), 0)
    wide = Image.new("RGB", (SIDE + 80, SIDE), (90, 90, 90))
    wide.paste(Image.fromarray(pixels), (40, 0))
    (found,) = heat_maps(trained, wide, ["red"])
    assert found.box == (40, 0, 40 + SIDE, SIDE)
    assert np.hypot(*np.subtract(found.peak(), (40 + x, y))) <= 12
    strength = found.strength()
    assert strength.shape == (SIDE, SIDE + 80) and not strength[:, :39].any() and strength[:, 40:-40].max() > 0.9
    assert found.overlay(wide).size == wide.size and found.layer().mode == "RGBA"
    assert panels(wide, [found, found]).width > 3 * wide.width


def test_every_kind_of_backbone_has_maps() -> None:
    image = Image.fromarray(scene(np.random.default_rng(0), 0)[0])
    arguments = {"depths": (1, 1, 1, 1), "base_dim": 16, "filter_size": SIDE}
    for model in (
        timm.create_model("hornet_tiny_gf", num_classes=2, **arguments),
        timm.create_model("test_vit", num_classes=2, img_size=SIDE),
        timm.create_model("mobilenetv2_x035", num_classes=2),
    ):
        for found in heat_maps(inference_of(model), image, ["red", "green"]):
            assert np.isfinite(found.values).all() and 0 <= found.values.min() <= found.values.max() <= 1


def test_what_cannot_be_explained() -> None:
    inference, image = inference_of(timm.create_model("resnet10t", num_classes=2)), Image.new("RGB", (SIDE, SIDE))
    for arguments, named in ({"labels": ["blue"]}, "blue"), ({"layer": "layer9"}, "layer9"), ({"layer": "fc"}, "shape"):
        with pytest.raises(OvertoneError, match=named):
            heat_maps(inference, image, **arguments)


def test_the_verb_writes_an_image_and_json_for_each(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photos, out = tmp_path / "photos", tmp_path / "heat"
    photos.mkdir()
    Image.fromarray(scene(np.random.default_rng(0), 0)[0]).save(photos / "a.png")
    (photos / "b.png").write_bytes(b"no image")
    words = ["explain", "test_resnet", str(photos), "--out", str(out), "--top-k", "2", "--run.size", "64"]
    assert cli.main(words) == 1
    assert "b.png" in capsys.readouterr().err
    assert sorted(path.name for path in out.iterdir()) == ["a.json", "a.png"]
    record = json.loads((out / "a.json").read_text())
    assert len(record["maps"]) == 2 and record["maps"][0]["score"] >= record["maps"][1]["score"]
    with Image.open(out / "a.png") as drawn:
        assert drawn.width > 3 * SIDE
    assert cli.main(words) == 2
    assert "not empty" in capsys.readouterr().err


def test_from_python(tmp_path: Path) -> None:
    (found,) = load("test_resnet").explain(np.zeros((80, 60, 3), np.uint8))
    assert found.size == (60, 80) and set(found.to_dict()) == {"label", "index", "score", "peak", "box"}
