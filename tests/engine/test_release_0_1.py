"""A run that release 0.1.0 began is resumed to the end that the release itself came to.

`release_0_1/` is its run folder after 5 of 12 steps, on 18 + 6 images of noise in 3 classes that `photos` draws again.
The figures below are those of the same release when nothing interrupted it, on the processor that the folder is from.
"""

import dataclasses
import json
import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.config import Preprocess, Recipe, Run
from overtone.data import transforms
from overtone.engine import folder as files
from overtone.engine.log import read_rows
from overtone.engine.training import train
from overtone.errors import OvertoneError
from overtone.tasks import recipe_from_dict

FOLDER = Path(__file__).with_name("release_0_1")
COLOURS = {"blue": (30, 40, 200), "green": (20, 180, 40), "red": (210, 30, 30)}
TRAIN_LOSSES = (1.1756753126780193, 1.1878205670250788, 1.0856682989332411, 1.040221134821574)
VAL_LOSSES = (1.0987184047698975, 1.0989964803059895, 1.1024250984191895, 1.107521375020345)
ABSOLUTE_SUM_OF_LAST = 12145.961265521288
# another processor rounds otherwise
ROUNDING = 1e-6
ROUNDING_OF_WEIGHTS = 1e-5


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """The images of the run."""
    random = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        (tmp_path / "photos" / name).mkdir(parents=True)
        for number in range(8):
            noise = random.integers(-25, 25, (24, 24, 3))
            pixels = np.clip(np.array(colour)[None, None] + noise, 0, 255).astype("uint8")
            Image.fromarray(pixels).save(tmp_path / "photos" / name / f"{number}.png")
    return tmp_path / "photos"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """The run folder as the release left it."""
    return Path(shutil.copytree(FOLDER, tmp_path / "run"))


@pytest.fixture(autouse=True)
def _threads():
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


class TwoDivisions(transforms.Normalise):
    """The release's arithmetic. Today's product rounds the last bit otherwise, which ten steps make a tenth."""

    def __init__(self, preprocess: Preprocess, **_: bool) -> None:
        super().__init__(preprocess)


@pytest.fixture(autouse=True)
def _normalised_as_by_the_release(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(transforms, "Normalise", TwoDivisions)


def recipe_on(root: Path) -> Recipe:
    """The recipe of the run, with what is younger than the release as it is by default."""
    recipe = recipe_from_dict(json.loads((FOLDER / files.RECIPE).read_text())["recipe"])
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, root=root))


def resumed(folder: Path, root: Path):
    quiet = {"device": "cpu", "workers": 0, "threads": 1, "tensorboard": False, "plots": False, "keep_last": 1}
    return train(recipe_on(root), Run(out=folder, **quiet), "scratch")


def assert_the_release_ended_so(folder: Path) -> None:
    rows = read_rows(folder)
    assert [row["step"] for row in rows] == [3, 6, 9, 12]
    assert [row["train_loss"] for row in rows] == pytest.approx(TRAIN_LOSSES, rel=ROUNDING)
    assert [row["val_loss"] for row in rows] == pytest.approx(VAL_LOSSES, rel=ROUNDING)
    weights = read_checkpoint(folder / files.LAST).weights.values()
    total = sum(float(weight.double().abs().sum()) for weight in weights)
    assert total == pytest.approx(ABSOLUTE_SUM_OF_LAST, rel=ROUNDING_OF_WEIGHTS)


def test_a_run_of_the_release_ends_as_the_release_itself(folder: Path, photos: Path, capsys) -> None:
    assert read_manifest(folder / files.LAST).progress["step"] == 5
    summary = resumed(folder, photos)
    assert "resumed at epoch 2, batch 2, step 5" in capsys.readouterr().err
    assert_the_release_ended_so(folder)
    # equal scores: the release kept the first epoch, and no loss of it is known to compare with
    assert (summary.epochs, summary.best_epoch) == (4, 1) and summary.report is not None
    assert summary.report.loss == VAL_LOSSES[0] and summary.report.confusion[0] == (0, 2, 0)
    with pytest.raises(OvertoneError, match="is finished"):
        resumed(folder, photos)


def test_images_that_the_release_held_out_are_compared(folder: Path, photos: Path) -> None:
    (photos / "red" / "7.png").unlink()
    with pytest.raises(OvertoneError, match=r"the images held out are not those of .*split\.json: red/7\.png"):
        resumed(folder, photos)


def test_a_run_of_the_release_that_validated_on_its_test_images_does_so_to_the_end(
    folder: Path, photos: Path, tmp_path: Path
) -> None:
    """The same images in `train/` and `test/`, for which the release wrote no split."""
    held_out = json.loads((folder / files.OLD_SPLIT).read_text())["val"]
    (folder / files.OLD_SPLIT).unlink()
    root = tmp_path / "data"
    for path in photos.rglob("*.png"):
        name = path.relative_to(photos)
        (root / "train" / name.parent).mkdir(parents=True, exist_ok=True)
        (root / "test" / name.parent).mkdir(parents=True, exist_ok=True)
        shutil.copy(path, root / ("test" if name.as_posix() in held_out else "train") / name)
    summary = resumed(folder, root)
    assert_the_release_ended_so(folder)
    assert summary.test is None and "test" not in json.loads((folder / files.SUMMARY).read_text())
