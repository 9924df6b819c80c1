"""Predictions as Parquet parts: every image once, by any number of processes, also after a stop."""

import copy
import dataclasses
import importlib
import io
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from made_shards import image_bytes, write_folders, write_shards
from PIL import Image

from overtone import cli, zoo
from overtone.config import Model, Preprocess, Recipe, Run
from overtone.data.segments import decoded
from overtone.data.sources import ImageList, Record, find_images
from overtone.engine import prediction_parts
from overtone.engine.distributed import World
from overtone.engine.evaluation import measure
from overtone.engine.evaluation_parts import measure_parts
from overtone.engine.inference import Computing, Inference, ready
from overtone.engine.placement import place
from overtone.engine.prediction_parts import Wanted, write_parts
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.segmentation.settings import SegmentationSettings
from overtone.tasks.task import Setup

sys.path.append(str(Path(__file__).parent.parent / "engine"))
import ranks

pa, parquet = (importlib.import_module(name) for name in ("pyarrow", "pyarrow.parquet"))
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
    trained_on = copy.deepcopy(inference.model)
    next(trained_on.parameters()).data += 1
    with pytest.raises(OvertoneError, match="weights"):
        write(dataclasses.replace(inference, model=trained_on), source, tmp_path / "out")


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


def test_an_evaluation_in_parts_has_the_figures_of_a_whole_one(
    inference: Inference, source: ImageList, tmp_path: Path, monkeypatch
) -> None:
    labelled = ImageList(LABELS, source.paths, [n // 8 for n in range(24)])
    whole = measure(inference, labelled, warn=pytest.fail).report

    def measured(**more: Any) -> Any:
        wanted = Wanted(2, part_size=5)
        return measure_parts(inference, labelled, tmp_path / "out", wanted, model="m", warn=pytest.fail, **more)

    monkeypatch.setattr(World, "from_first", lambda world, value: value)
    monkeypatch.setattr(World, "gather", lambda world, value: [value])
    assert measured(world=World(1, 2)) is None and len(rows(tmp_path / "out")) == 10
    for damaged in (tmp_path / "out").glob("part-000001.*"):
        damaged.unlink()
    there = {path.name: path.read_bytes() for path in (tmp_path / "out").glob("part-*")}
    found = measured()
    assert found.correct_top1 == whole.correct_top1 and found.confusion == whole.confusion
    assert found.loss == pytest.approx(whole.loss, rel=1e-5) and found.bad == whole.bad and len(found.bad) == 1
    assert [row["expected"] for row in rows(tmp_path / "out")] == [LABELS[n // 8] for n in range(24)]
    assert there and all((tmp_path / "out" / name).read_bytes() == content for name, content in there.items())
    (tmp_path / "out" / "part-000002.counts.safetensors").write_bytes(b"?")
    with pytest.raises(OvertoneError, match=r"part-000002\.counts"):
        measured()
    with pytest.raises(OvertoneError, match="kind"):
        write(inference, labelled, tmp_path / "out")


class Slow:
    """A source whose images take a while."""

    def __init__(self, source: ImageList) -> None:
        self._source, self.labels, self.origin = source, source.labels, source.origin

    def __len__(self) -> int:
        return len(self._source)

    def name(self, position: int) -> str:
        return self._source.name(position)

    def read(self, position: int) -> Record:
        time.sleep(0.05)
        return self._source.read(position)


def _write(world: World, folder: Path, root: Path) -> int:
    torch.manual_seed(0)
    loaded = zoo.load_model("mobilenetv2_x010", num_classes=3)
    made = ready(loaded, LABELS, Computing(batch_size=2, workers=0, size=32))
    paths = find_images([root])
    source = Slow(ImageList(LABELS, paths, [0] * len(paths)))
    return write_parts(made, source, folder, Wanted(2, part_size=2), model="m", warn=str, world=world).parts


def test_killed_and_resumed_by_another_number_of_processes(source: ImageList, tmp_path: Path) -> None:
    out, root = tmp_path / "out", tmp_path / "photos"
    queue: Any = ranks._CONTEXT.Queue()
    port = ranks.free_port()
    running: list[Any] = [
        ranks._CONTEXT.Process(target=ranks._rank, args=(_write, rank, 2, port, 60.0, queue, (out, root)))
        for rank in range(2)
    ]
    for process in running:
        process.start()
    for _ in range(1000):
        if len(list(out.glob("*.parquet"))) >= 3:
            break
        time.sleep(0.02)
    for process in running:
        process.kill()
        process.join()
    there = {path.name: path.read_bytes() for path in out.glob("*.parquet")}
    assert 3 <= len(there) < 12
    written = ranks.run_ranks(_write, 3, out, root)
    assert sum(written) == 12 - len(there)
    assert [row["key"] for row in rows(out)] == [source.name(n) for n in range(24)]
    assert all((out / name).read_bytes() == content for name, content in there.items())


@pytest.mark.parametrize("task", ["segmentation", "detection"])
def test_masks_and_boxes(source: ImageList, tmp_path: Path, task: str) -> None:
    root = tmp_path / "photos"
    if task == "segmentation":
        recipe = Recipe(task=task, settings=SegmentationSettings(), model=Model("mobilenetv2_x010", head="lraspp"))
    else:
        settings = DetectionSettings(longest=64, threshold=0.0)
        recipe = Recipe(task=task, settings=settings, model=Model("mobilenetv2_x010", head="mask_rcnn"))
    kind = task_named(task)
    torch.manual_seed(0)
    network = kind.build(recipe.model, LABELS).eval()
    made = Inference(
        network, kind(Setup(LABELS, recipe)), place(Run(device="cpu")), Preprocess(size=32), Computing(workers=0)
    )
    few = ImageList(LABELS, [root / "green" / name for name in ("1.jpg", "2.jpg", "3.jpg")], [0] * 3)
    write(made, few, tmp_path / "out", Wanted(3, part_size=2))
    found = rows(tmp_path / "out")
    assert [row["width"] for row in found] == [16, None, 16] and found[1]["error"]
    if task == "segmentation":
        mask = np.array(Image.open(io.BytesIO(found[0]["mask"])))
        share = {one["index"]: one["pixels"] for one in found[0]["predictions"]}
        assert mask.shape == (16, 16) and share == {n: int((mask == n).sum()) for n in share}
    else:
        surest = found[0]["predictions"][0]
        assert len(surest["box"]) == 4 and decoded({"size": [16, 16], "counts": surest["mask"]}).shape == (16, 16)
        nothing = dataclasses.replace(recipe, settings=dataclasses.replace(settings, threshold=1.0))
        empty = dataclasses.replace(made, task=kind(Setup(LABELS, nothing)))
        write(empty, few, tmp_path / "empty", Wanted(3, part_size=2))
        schemas = [parquet.read_schema(tmp_path / name / "part-000000.parquet") for name in ("out", "empty")]
        assert schemas[0].equals(schemas[1])


def test_by_the_command_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    shards = write_shards(tmp_path / "shards")
    words = ["--run.workers", "0", "--run.size", "32", "--top-k", "1"]
    command = ["predict", "mobilenetv2_x010", str(shards), "--parts", str(tmp_path / "out"), *words]
    torch.manual_seed(0)
    assert cli.main(command) == 0
    assert [row["key"] for row in rows(tmp_path / "out")][7] == f"{shards}/train-000001.tar#s/0007"
    torch.manual_seed(0)  # the same random weights
    assert cli.main(command) == 0
    assert "1 were there" in capsys.readouterr().err
    (tmp_path / "one.jpg").write_bytes(image_bytes("red", 1))
    assert cli.main(["predict", "mobilenetv2_x010", str(tmp_path / "one.jpg"), "--features", *words]) == 2
    table = pa.table({"image": [{"bytes": image_bytes("red", 1), "path": "a"}], "label": ["x"]})
    parquet.write_table(table, tmp_path / "images.parquet")
    command = [
        "predict",
        "mobilenetv2_x010",
        str(tmp_path / "images.parquet"),
        "--parts",
        str(tmp_path / "table"),
        *words,
    ]
    assert cli.main(command) == 0
    assert [row["key"] for row in rows(tmp_path / "table")] == [f"{tmp_path}/images.parquet#0"]
