"""Predictions as Parquet parts: every image once, by any number of processes, also after a stop."""

import importlib
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_shards import image_bytes, write_folders, write_shards

from overtone import cli, zoo
from overtone.data.sources import ImageList, find_images
from overtone.engine import prediction_parts
from overtone.engine.distributed import World
from overtone.engine.inference import Computing, Inference, ready
from overtone.engine.prediction_parts import Wanted, write_parts
from overtone.errors import OvertoneError

parquet = importlib.import_module("pyarrow.parquet")
LABELS = ("blue", "green", "red")


@pytest.fixture(scope="module")
def inference() -> Inference:
    torch.manual_seed(0)
    loaded = zoo.load_model("mobilenetv2_x010", num_classes=3)
    return ready(loaded, LABELS, Computing(batch_size=4, workers=0, size=32))


@pytest.fixture
def source(tmp_path: Path) -> ImageList:
    """24 images, one of which cannot be read."""
    root = write_folders(tmp_path / "photos")
    (root / "green" / "2.jpg").write_bytes(b"no image")
    paths = find_images([root])
    return ImageList(LABELS, paths, [0] * len(paths))


def write(inference: Inference, source: Any, folder: Path, wanted: Wanted | None = None, **more: Any) -> Any:
    chosen = wanted or Wanted(2, part_size=5)
    return write_parts(inference, source, folder, chosen, model="m", warn=pytest.fail, **more)


def rows(folder: Path) -> list[dict[str, Any]]:
    return [row for path in sorted(folder.glob("*.parquet")) for row in parquet.read_table(path).to_pylist()]


def test_every_image_once(inference: Inference, source: ImageList, tmp_path: Path) -> None:
    written = write(inference, source, tmp_path / "out")
    assert (written.images, written.parts, written.kept) == (24, 5, 0) and len(written.bad) == 1
    found = rows(tmp_path / "out")
    assert [row["key"] for row in found] == [source.name(n) for n in range(24)]
    bad = [row for row in found if row["error"]]
    assert [Path(row["key"]).name for row in bad] == ["2.jpg"] and bad[0]["predictions"] is None
    assert all(len(row["predictions"]) == 2 for row in found if not row["error"])


@pytest.mark.parametrize("size", [2, 7])
def test_shares_are_the_whole(inference: Inference, source: ImageList, tmp_path: Path, size: int, monkeypatch) -> None:
    write(inference, source, tmp_path / "alone")
    monkeypatch.setattr(World, "from_first", lambda world, value: value)
    for rank in range(size):
        write(inference, source, tmp_path / "shared", world=World(rank, size))
    assert [(row["key"], row["error"]) for row in rows(tmp_path / "shared")] == [
        (row["key"], row["error"]) for row in rows(tmp_path / "alone")
    ]


def test_a_stop_is_continued(inference: Inference, source: ImageList, tmp_path: Path, monkeypatch) -> None:
    whole, calls = prediction_parts.write_whole, []

    def stops(path: Path, write: Any) -> None:
        calls.append(path.name)
        if path.name == "part-000002.parquet":
            raise KeyboardInterrupt
        whole(path, write)

    monkeypatch.setattr(prediction_parts, "write_whole", stops)
    with pytest.raises(KeyboardInterrupt):
        write(inference, source, tmp_path / "out")
    monkeypatch.undo()
    assert len(rows(tmp_path / "out")) == 10
    written = write(inference, source, tmp_path / "out")
    assert (written.parts, written.kept) == (3, 2)
    assert [row["key"] for row in rows(tmp_path / "out")] == [source.name(n) for n in range(24)]
    with pytest.raises(OvertoneError, match="kind"):
        write(inference, source, tmp_path / "out", Wanted(3, part_size=5))


@pytest.mark.parametrize("dtype", ["float32", "float16"])
def test_features(inference: Inference, source: ImageList, tmp_path: Path, dtype: Any) -> None:
    write(inference, source, tmp_path / "out", Wanted(features=True, dtype=dtype, part_size=10))
    found = rows(tmp_path / "out")
    features = np.array([row["features"] for row in found if not row["error"]])
    assert features.shape == (23, inference.model.num_features) and np.isfinite(features).all()  # type: ignore[attr-defined]
    batch = next(iter(inference.loader(source, pytest.fail)))
    network: Any = inference.model
    with torch.inference_mode():
        outputs = network.get_classifier()(torch.tensor(features[:4], dtype=torch.float32))
        torch.testing.assert_close(outputs, network(batch.inputs), rtol=2e-2, atol=2e-2)


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_shards(tmp_path / "shards")
    words = ["--run.workers", "0", "--run.size", "32", "--top-k", "1"]
    command = ["predict", "mobilenetv2_x010", str(shards), "--parts", str(tmp_path / "out"), *words]
    assert cli.main(command) == 0
    assert [row["key"] for row in rows(tmp_path / "out")][7] == f"{shards}/train-000001.tar#s/0007"
    assert cli.main(command) == 0
    assert "1 were there" in capsys.readouterr().err
    (tmp_path / "one.jpg").write_bytes(image_bytes("red", 1))
    assert cli.main(["predict", "mobilenetv2_x010", str(tmp_path / "one.jpg"), "--features", *words]) == 2
