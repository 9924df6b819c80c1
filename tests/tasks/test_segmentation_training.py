"""A segmentation trained, stopped, killed, resumed, evaluated and predicted with, alone and in company."""

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from ranks import run_ranks
from small_scenes import CLASSES, Tiny, draw, recipe_for, run_in

from overtone import zoo
from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.cli import main
from overtone.config import Optim
from overtone.data.masks import IGNORED
from overtone.data.sources import open_evaluation, open_splits
from overtone.engine import folder as files
from overtone.engine.distributed import World
from overtone.engine.evaluation import measure
from overtone.engine.inference import Computing, ready
from overtone.engine.step import Trainer
from overtone.engine.summary import Summary
from overtone.engine.training import train
from overtone.errors import OvertoneError, Preempted
from overtone.tasks import task_named
from overtone.tasks.segmentation.report import SegmentationReport
from overtone.tasks.task import Setup

TIMES = ("seconds", "images_per_second", "data_wait", "memory_mb")


@pytest.fixture
def scenes(tmp_path: Path) -> Path:
    """A folder with 10 training and 5 validation images of three sizes."""
    draw(tmp_path / "data", 10)
    return draw(tmp_path / "data", 5, "val", seed=1)


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path, Summary]:
    """Scenes, the folder of a run on them, and its summary."""
    folder = tmp_path_factory.mktemp("trained")
    root = draw(draw(folder / "data", 10), 5, "val", seed=1)
    return root, folder / "run", train(recipe_for(root), run_in(folder / "run"), "scenes")


def end_of(folder: Path) -> dict:
    """All of a finished run that does not depend on how often it was interrupted."""
    last, best = read_checkpoint(folder / files.LAST), read_checkpoint(folder / files.BEST)
    rows = [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()]
    return {
        "last": last.weights | last.training,
        "best": best.weights,
        "rows": [{key: value for key, value in row.items() if key not in TIMES} for row in rows],
        "report": (folder / files.REPORT).read_text(),
    }


def assert_same(one: dict, two: dict) -> None:
    assert one["rows"] == two["rows"] and one["report"] == two["report"]
    for part in ("last", "best"):
        assert one[part].keys() == two[part].keys()
        assert all(torch.equal(value, two[part][key]) for key, value in one[part].items()), part


def test_a_training_reports_counts_and_keeps_what_evaluation_needs(trained):
    _, folder, summary = trained
    report = summary.report
    assert isinstance(report, SegmentationReport) and report.labels == CLASSES
    pixels = sum(h * (w - 1) for h, w in ((24, 32), (30, 22), (26, 26), (24, 32), (30, 22)))
    assert sum(map(sum, report.confusion)) == pixels and report.num_used == 5
    manifest = read_manifest(folder / files.BEST)
    assert (manifest.task, manifest.head, manifest.labels) == ("segmentation", "lraspp", CLASSES)
    rows = [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()]
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert {"miou", "pixel_accuracy", "val_loss", "train_loss"} <= rows[0].keys()
    assert min(row["train_loss"] for row in rows[1:]) < rows[0]["train_loss"]


@pytest.mark.parametrize("stop_at", [1, 4])
def test_stopped_and_resumed_it_ends_the_same(trained, tmp_path, monkeypatch, stop_at):
    root, whole, _ = trained
    original = Trainer.step

    def step(self, batch, number, *agreement):
        if number == stop_at:
            os.kill(os.getpid(), signal.SIGTERM)
        original(self, batch, number, *agreement)

    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "step", step)
        with pytest.raises(Preempted):
            train(recipe_for(root), run_in(tmp_path / "run"), "scenes")
    assert read_manifest(tmp_path / "run" / files.LAST).progress["step"] == stop_at + 1
    train(recipe_for(root), run_in(tmp_path / "run"), "scenes")
    assert_same(end_of(whole), end_of(tmp_path / "run"))


CHILD = """
import sys
from pathlib import Path
from small_scenes import recipe_for, run_in
from overtone.engine.training import train
import torch
torch.set_num_threads(1)
train(recipe_for(Path(sys.argv[1])), run_in(Path(sys.argv[2]), save_steps=1), "scenes")
"""


@pytest.mark.slow
def test_killed_and_resumed_it_ends_the_same(trained, tmp_path):
    root, whole, _ = trained
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    child = subprocess.Popen([sys.executable, "-c", CHILD, str(root), str(tmp_path / "run")], env=environment)
    deadline = time.monotonic() + 120
    while not (tmp_path / "run" / files.LAST).exists() and time.monotonic() < deadline:
        assert child.poll() is None
        time.sleep(0.01)
    child.kill()
    child.wait()
    assert not (tmp_path / "run" / files.SUMMARY).exists()
    train(recipe_for(root), run_in(tmp_path / "run"), "scenes")
    assert_same(end_of(whole), end_of(tmp_path / "run"))


def test_training_by_steps_ends_within_an_epoch_and_is_then_over(scenes, tmp_path):
    recipe = recipe_for(scenes, epochs=1, steps=7)  # an epoch has three
    summary = train(recipe, run_in(tmp_path / "run"), "scenes")
    assert summary.epochs == 3 and read_manifest(tmp_path / "run" / files.LAST).progress["step"] == 7
    rows = [json.loads(line) for line in (tmp_path / "run" / files.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows] == [3, 6, 7]
    with pytest.raises(OvertoneError, match="finished"):
        train(recipe, run_in(tmp_path / "run"), "scenes")


def test_evaluations_are_so_many_steps_apart_and_the_last_epoch_has_one(scenes, tmp_path):
    recipe = recipe_for(scenes, epochs=5, eval_steps=7)  # an epoch has three
    summary = train(recipe, run_in(tmp_path / "run"), "scenes")
    rows = [json.loads(line) for line in (tmp_path / "run" / files.METRICS).read_text().splitlines()]
    assert [row["step"] for row in rows if "miou" in row] == [9, 15] and len(rows) == 5
    assert summary.best_epoch in (3, 5) and not rows[0]["is_best"]
    with pytest.raises(OvertoneError, match="patience"):
        recipe_for(scenes, eval_steps=7, patience=2)


def test_micro_batches_take_the_same_steps(scenes, tmp_path):
    recipe = recipe_for(scenes, epochs=1, ema_decay=None)
    frozen = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, freeze=True))
    losses = []
    for number, micro_batch in enumerate((None, 2)):
        train(frozen, run_in(tmp_path / str(number), micro_batch=micro_batch), "scenes")
        losses.append(json.loads((tmp_path / str(number) / files.METRICS).read_text())["train_loss"])
    assert losses[0] == pytest.approx(losses[1], rel=0.2)  # batch norm of the head sees two images


def spoil(root: Path, part: str) -> None:
    """A missing mask, a damaged one and one with an unknown index."""
    masks = root / "masks" / part
    (masks / "0.png").unlink()
    (masks / "1.png").write_bytes(b"\x89PNG")
    Image.fromarray(np.full((26, 26), 9, dtype=np.uint8)).save(masks / "2.png")


def test_bad_masks_of_a_training_are_named_once_and_left_out(scenes, tmp_path):
    spoil(scenes, "train")
    recipe = recipe_for(scenes)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_bad_fraction=0.5))
    train(recipe, run_in(tmp_path / "run"), "scenes")
    said = (tmp_path / "run" / "log.txt").read_text()
    for name, reason in (("0.png", "mask 0.png"), ("1.png", "mask 1.png"), ("2.png", "index 9")):
        lines = [line for line in said.splitlines() if "left out" in line and f"train/{name}:" in line]
        assert len(lines) == 1 and reason in lines[0]
    strict = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, max_bad_fraction=0.1))
    with pytest.raises(OvertoneError, match="max-bad-fraction"):
        train(strict, run_in(tmp_path / "strict"), "scenes")


def evaluated(run: Path, root: Path, world: World | None = None) -> SegmentationReport:
    loaded = zoo.load_model(str(run))
    assert loaded.labels is not None
    source = open_evaluation(recipe_for(root).data, "mask", "val")
    inference = ready(loaded, loaded.labels, Computing(device="cpu", batch_size=3, workers=0))
    return measure(inference, source, warn=print, world=world).report


def test_bad_masks_of_an_evaluation_are_left_out_and_counted(trained, scenes, capfd):
    _, run, _ = trained
    whole = evaluated(run, scenes)
    spoil(scenes, "val")
    part = evaluated(run, scenes)
    assert (part.num_expected, part.num_used, len(part.bad)) == (5, 2, 3)
    assert {Path(name).name for name in part.bad} == {"0.png", "1.png", "2.png"}
    assert sum(map(sum, part.confusion)) < sum(map(sum, whole.confusion))
    command = ["evaluate", str(run), "--data.root", str(scenes), "--json", "--run.device", "cpu"]
    assert main(command) == 1
    out, err = capfd.readouterr()
    assert json.loads(out)["confusion"] == [list(row) for row in part.confusion] and "could not be read" in err
    assert main([*command, "--allow-bad"]) == 0


def test_an_index_that_the_training_ignored_is_ignored_in_evaluation(scenes, tmp_path, capfd):
    recipe = recipe_for(scenes, epochs=1)
    recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, ignore_index=1))
    summary = train(recipe, run_in(tmp_path / "run"), "scenes")
    assert summary.report is not None and summary.report.labels == ("ground", "bar")
    assert main(["evaluate", str(tmp_path / "run"), "--data.root", str(scenes), "--json", "--run.device", "cpu"]) == 0
    assert json.loads(capfd.readouterr().out)["confusion"] == [list(row) for row in summary.report.confusion]


def test_evaluate_writes_tables_and_plots(trained, tmp_path, capfd):
    root, run, summary = trained
    command = ["evaluate", str(run), "--data.root", str(root), "--out", str(tmp_path / "out"), "--run.device", "cpu"]
    assert main(command) == 0
    out = capfd.readouterr().out
    assert f"{summary.report.mean_iou:.2f} %" in out and all(name in out for name in CLASSES)
    names = {"evaluation.json", "confusion.png", "iou.png", "examples"}
    assert {path.name for path in (tmp_path / "out").iterdir()} == names
    worst = summary.report.worst
    assert len(worst) == 5 and worst[0][1] <= worst[-1][1] and Path(worst[0][0]).name in out
    with Image.open(tmp_path / "out" / "examples" / f"worst-1-{Path(worst[0][0]).stem}.png") as sheet:
        assert sheet.width >= 2 * 22
    assert main(command) == 2 and "overwritten" in capfd.readouterr().err


def test_inference_settings_of_evaluate_and_predict(trained, tmp_path, capfd):
    root, run, summary = trained
    command = ["evaluate", str(run), "--data.root", str(root), "--json", "--run.device", "cpu"]
    averaged = ["--settings.scales", "1", "1.5", "--settings.flip"]
    losses = []
    for more in ([], averaged, ["--settings.window", "16", "--settings.stride", "8"]):
        assert main([*command, *more]) == 0
        losses.append(json.loads(capfd.readouterr().out)["loss"])
    assert losses[0] == pytest.approx(summary.report.loss) and len(set(losses)) == 3
    image = str(root / "images" / "val" / "1.png")
    assert main(["predict", str(run), image, "--out", str(tmp_path / "out"), *averaged, "--run.device", "cpu"]) == 0
    assert main([*command, "--settings.stride", "99"]) == 2 and "99" in capfd.readouterr().err


def test_a_run_shows_masks_beside_the_truth(scenes, tmp_path):
    class Nothing:
        def curves(self, *given: object) -> None: ...

        def plot(self, *given: object) -> None: ...

    train(recipe_for(scenes, epochs=1), run_in(tmp_path / "run", plots=True), "scenes", artist=Nothing())
    names = sorted(path.name.partition("-")[0] for path in (tmp_path / "run" / files.EXAMPLES).iterdir())
    assert names.count("worst") == 4 and "example" in names


def test_data_info_counts_the_pixels_of_classes_and_names_bad_masks(scenes, tmp_path, capfd):
    spoil(scenes, "train")
    (scenes / "masks" / "train" / "4.png").write_bytes((scenes / "masks" / "train" / "3.png").read_bytes())
    assert main(["data", "info", str(scenes), "--out", str(tmp_path / "info")]) == 1
    out, err = capfd.readouterr()
    assert "share of pixels" in out and "disc" in out and "4 unreadable" in out and "its mask" in err
    info = json.loads((tmp_path / "info" / "info.json").read_text())
    masks = [np.asarray(Image.open(path)) for path in (scenes / "masks" / "val").iterdir()]
    assert info["val"]["pixels"]["bar"] == sum(int((mask == CLASSES.index("bar")).sum()) for mask in masks)
    assert info["val"]["pixels"]["(none)"] == sum(int((mask == IGNORED).sum()) for mask in masks)
    assert len(info["train"]["bad"]) == 4 and (tmp_path / "info" / "val-shares.png").is_file()
    assert len(list((tmp_path / "info" / "examples").glob("val-*.png"))) == 5


def test_more_classes_than_an_index_holds_are_refused():
    with pytest.raises(OvertoneError, match="300 classes"):
        task_named("segmentation")(Setup(tuple(map(str, range(300)))))


def evaluate_together(world: World, run: Path, root: Path) -> SegmentationReport:
    return evaluated(run, root, world)


@pytest.mark.slow
def test_two_processes_evaluate_as_one(trained):
    root, run, summary = trained
    together = run_ranks(evaluate_together, 2, run, root)
    assert together[0] == together[1] == evaluated(run, root)
    assert together[0].confusion == summary.report.confusion


def train_here(rank: int, root: Path, folder: Path) -> None:
    # a shallow network without dropout, which draws by rank: nothing that makes much of a rounding
    zoo.build_for_training = lambda *settings: Tiny(drop=0.0)
    recipe = recipe_for(root, epochs=2, sync_bn=True)
    train(dataclasses.replace(recipe, optim=Optim(name="sgd", lr=0.1)), run_in(folder), "scenes")


@pytest.mark.slow
def test_two_processes_train_as_one(scenes, tmp_path, monkeypatch):
    alone, together = tmp_path / "alone", tmp_path / "together"
    monkeypatch.setattr(zoo, "build_for_training", zoo.build_for_training)  # put back what is replaced here
    train_here(0, scenes, alone)
    assert run_ranks(train_here, 2, scenes, together, join=False) == [None, None]
    rows = [
        [json.loads(line) for line in (folder / files.METRICS).read_text().splitlines()] for folder in (alone, together)
    ]
    for one, two in zip(*rows, strict=True):
        assert one["train_loss"] == pytest.approx(two["train_loss"], rel=1e-5)
        assert one["miou"] == pytest.approx(two["miou"], abs=0.1)
    one, two = (read_checkpoint(folder / files.LAST).weights for folder in (alone, together))
    assert all(torch.allclose(one[key].float(), two[key].float(), atol=1e-5) for key in one)


def test_predict_writes_indices_overlays_and_shares(trained, tmp_path, capfd):
    root, run, _ = trained
    image = root / "images" / "val" / "1.png"
    command = ["predict", str(run), str(image), "--out", str(tmp_path / "out"), "--json", "--run.device", "cpu"]
    assert main(command) == 0
    found = json.loads(capfd.readouterr().out)["images"][0]
    indices = np.asarray(Image.open(tmp_path / "out" / "1.png"))
    assert indices.shape == (30, 22) == (found["height"], found["width"])
    counts = {CLASSES[index]: int((indices == index).sum()) for index in np.unique(indices)}
    assert {entry["label"]: entry["pixels"] for entry in found["predictions"]} == counts
    assert sum(entry["share"] for entry in found["predictions"]) == pytest.approx(1.0)
    with Image.open(tmp_path / "out" / "1.overlay.png") as overlay:
        assert overlay.size == (22, 30)
    assert json.loads((tmp_path / "out" / "1.json").read_text())["predictions"] == found["predictions"]
    assert main(command) == 2 and "--out" in capfd.readouterr().err


def test_a_training_starts_from_a_backbone_and_from_a_segmentation_of_other_classes(trained, scenes, tmp_path):
    _, run, _ = trained
    (scenes / "classes.txt").write_text("ground\ndisc\nbar\nmore\n")
    recipe = recipe_for(scenes, epochs=1)
    started = dataclasses.replace(recipe, model=dataclasses.replace(recipe.model, weights=str(run)))
    notes: list[str] = []
    model = zoo.build_for_training(task_named("segmentation"), started.model, [*CLASSES, "more"], notes.append)
    weights = read_checkpoint(run / files.BEST).weights
    state = model.state_dict()
    shared = [key for key, value in weights.items() if state[key].shape == value.shape]
    assert all(torch.equal(state[key], weights[key]) for key in shared) and "new" in notes[0]
    assert 0 < len(weights) - len(shared) <= 4
    torch.save(zoo.build("hbonet_x010").state_dict(), tmp_path / "backbone.pth")
    bare = dataclasses.replace(recipe.model, weights=str(tmp_path / "backbone.pth"))
    zoo.build_for_training(task_named("segmentation"), bare, CLASSES, notes.append)
    assert "classifier" in notes[-1]
    other = dataclasses.replace(recipe.model, name="hbonet_x025", weights=str(run))
    with pytest.raises(OvertoneError, match="backbone"):
        zoo.build_for_training(task_named("segmentation"), other, CLASSES)


def test_labels_of_the_data_must_be_the_networks(trained, scenes, capfd):
    _, run, _ = trained
    (scenes / "classes.txt").write_text("bar\ndisc\nground\n")
    assert main(["evaluate", str(run), "--data.root", str(scenes)]) == 2
    assert "order" in capfd.readouterr().err
    assert open_splits(recipe_for(scenes).data, "mask").train.labels == ("bar", "disc", "ground")
    assert IGNORED == 255
