"""The report of a run is one file that needs nothing else; a temperature stays with the network."""

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import overtone
from overtone import cli, train
from overtone.checkpoint import read_checkpoint
from overtone.engine.folder import PLOTS


class Addresses(HTMLParser):
    """All that a page loads, and its text."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.text = ""

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "srcset", "data")]

    def handle_data(self, data: str) -> None:
        self.text += data


def read(path: Path) -> Addresses:
    page = Addresses()
    page.feed(path.read_text(encoding="utf-8"))
    return page


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder, random = tmp_path_factory.mktemp("reported"), np.random.default_rng(0)
    for label, shift in (("cold & wet", 2), ("<b>warm</b>", 0)):
        (folder / "photos" / label.replace("/", "")).mkdir(parents=True)
        for number in range(10):
            pixels = random.integers(60, 200, (32, 32, 3), dtype=np.uint8)
            pixels[..., shift] = np.minimum(pixels[..., shift], 255 - 5 * number)
            Image.fromarray(pixels).save(folder / "photos" / label.replace("/", "") / f"{number}.png")
    overrides = {"epochs": 1, "batch_size": 8, "data__preprocess__size": 32, "warmup_epochs": 0, "tensorboard": False}
    train("scratch", folder / "photos", folder / "run", model__name="test_resnet", workers=0, plots=False, **overrides)
    return folder / "run"


def test_one_file_with_all_of_it(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "report.html"
    assert cli.main(["report", str(run), "--out", str(out)]) == 0
    page = read(out)
    assert page.loaded and all(address.startswith("data:image/") for address in page.loaded)
    for expected in ("test_resnet", "cold & wet", "<b>warm<b>", "Calibration", "16 images to train, 4 to validate"):
        assert expected in page.text
    assert "<b>warm" not in out.read_text(encoding="utf-8")  # names are text, not markup
    assert not re.search(r"<script", out.read_text(encoding="utf-8"))
    assert cli.main(["report", str(run), "--out", str(out)]) == 2
    assert "exists" in capsys.readouterr().err


def test_without_the_images_it_says_so(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    record = json.loads((copy / "recipe.json").read_text())
    record["recipe"]["data"]["root"] = str(tmp_path / "moved away")
    (copy / "recipe.json").write_text(json.dumps(record))
    assert cli.main(["report", str(copy)]) == 0
    assert "moved away" in read(copy / "report.html").text
    assert cli.main(["report", str(copy), "--calibrate", "--overwrite"]) == 2
    photos = str(run.parent / "photos")
    assert cli.main(["report", str(copy), "--data.root", photos, "--overwrite"]) == 0
    assert "moved away" not in read(copy / "report.html").text.partition("Recipe")[0]


def test_a_temperature_is_kept_with_the_network(run: Path, tmp_path: Path) -> None:
    copy = Path(shutil.copytree(run, tmp_path / "run"))
    before = read_checkpoint(copy / "best.safetensors")
    assert cli.main(["report", str(copy), "--calibrate"]) == 0
    after = read_checkpoint(copy / "best.safetensors")
    assert set(after.manifest.settings) == {"temperature"} and before.manifest.settings == {}
    assert before.weights.keys() == after.weights.keys()


def test_what_is_no_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for subject, named in (("nowhere", "nowhere"), (str(tmp_path), "recipe.json")):
        assert cli.main(["report", subject]) == 2
        assert named in capsys.readouterr().err


def test_every_plot_of_a_task_is_a_file_of_its_run() -> None:
    source = "".join(path.read_text() for path in (Path(overtone.__file__).parent / "tasks").rglob("*.py"))
    names = set(re.findall(r"""\bPlot\(\s*"(\w+)",""", source))
    assert len(names) >= 5 and {f"{name}.png" for name in names} == set(PLOTS)
