"""Detection: sizes and changes of images, figures against COCO's and VOC's own, and a run from boxes to predictions."""

import dataclasses
import json
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from drawn_boxes import COLOURS, draw, write_coco, write_voc
from PIL import Image

from overtone import api, cli
from overtone.checkpoint import Manifest, read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Schedule, Train, to_dict
from overtone.data.loader import Loader
from overtone.data.pipeline import Batch, Draw
from overtone.data.segments import mask_module
from overtone.data.sources import Objects, open_splits
from overtone.engine.evaluation import measure
from overtone.engine.evaluation_parts import measure_parts
from overtone.engine.inference import Computing, ready
from overtone.engine.prediction_parts import Wanted
from overtone.engine.training import train
from overtone.errors import OvertoneError
from overtone.heads.roi_heads import Detections
from overtone.tasks.detection.coco_metrics import Found, precisions
from overtone.tasks.detection.matching import confusion_of, voc_average_precisions
from overtone.tasks.detection.report import DetectionReport, DetectionTally
from overtone.tasks.detection.settings import DetectionSettings
from overtone.tasks.detection.task import Detection
from overtone.tasks.detection.transforms import BoxPipeline, Decoded, Resizer, TrainingChanges, Truth, marked
from overtone.tasks.task import Setup
from overtone.zoo import LoadedModel

pytest.importorskip("pycocotools")
LABELS = ("disc", "frame")
SMALL = {"head_args": {"strides": [8, 16, 32], "scales": [0.15, 0.9]}}


def recipe_for(root: Path, head: str = "ssdlite", **train_settings: Any) -> Recipe:
    return Recipe(
        task="detection",
        settings=DetectionSettings(longest=96, score="ap50"),
        model=Model(name="mobilenetv2_x010", head=head, args=SMALL if head == "ssdlite" else {}),
        data=Data(root=root, preprocess=Preprocess(size=64)),
        augment=Augment(crop="none", hflip=0.5),
        optim=Optim(name="adamw", lr=2e-3, clip_grad=10.0),
        schedule=Schedule(name="cosine", warmup_epochs=1),
        train=dataclasses.replace(Train(epochs=2, batch_size=4), **train_settings),
    )


def run_in(folder: Path, **settings: Any) -> Run:
    return Run(out=folder, workers=0, plots=False, tensorboard=False, **settings)


@pytest.fixture
def shapes(tmp_path: Path) -> Path:
    """Twelve images to train on and five to validate on."""
    root = tmp_path / "shapes"
    return write_coco(root, {"train": draw(root / "train", 12), "val": draw(root / "val", 5, 1)}, outlines=True)


# Images


@pytest.mark.parametrize(
    ("original", "size", "padded", "scale"),
    [
        ((60, 90), (800, 1200), (800, 1216), (13.333333015441895, 13.333333015441895)),
        ((97, 64), (1213, 800), (1216, 800), (12.5, 12.505154609680176)),
        ((1000, 1600), (800, 1280), (800, 1280), (0.800000011920929, 0.800000011920929)),
        ((900, 300), (1333, 444), (1344, 448), (1.4800000190734863, 1.4811111688613892)),
    ],
)
def test_sizes_and_scales_are_the_published_ones(
    original: tuple[int, int], size: tuple[int, int], padded: tuple[int, int], scale: tuple[float, float]
) -> None:
    """The numbers were recorded from the published test pipeline."""
    settings = DetectionSettings(antialias=False)
    pipeline = BoxPipeline(Preprocess(size=800), settings)
    view = pipeline.view(torch.zeros(3, *original, dtype=torch.uint8))
    batch = pipeline.collate([(view, Truth("", None))], torch.tensor([0]), ())
    assert batch.inputs.sizes == (size,) and batch.inputs.originals == (original,)
    assert tuple(batch.inputs.pixels.shape[2:]) == padded and batch.inputs.scales == (scale,)
    assert not batch.inputs.pixels[:, :, size[0] :].any() and not batch.inputs.pixels[..., size[1] :].any()


def test_drawn_sizes_keep_to_the_published_limits() -> None:
    resizer = Resizer(Preprocess(size=800), DetectionSettings())
    assert resizer.size(480, 640, 480) == (480, 640) and resizer.size(300, 900, 800) == (444, 1333)


CHANGES = {
    "mirrored": {},
    "cropped": {"crop": 1.0, "crop_shorter": (64, 96), "crop_sides": (40, 60)},
    "mosaic": {"mosaic": 1.0},
    "resized": {"shorter": (48, 80), "jitter": (0.7, 1.3)},
}


@pytest.mark.parametrize("change", CHANGES)
def test_boxes_and_masks_follow_the_pixels(shapes: Path, change: str) -> None:
    source: Any = open_splits(Data(root=shapes), "boxes").train
    settings = DetectionSettings(longest=200, smallest=4.0, **CHANGES[change])
    augment = Augment(crop="none", hflip=0.5, vflip=0.5)
    changes = TrainingChanges(Preprocess(size=64), augment, settings, masks=True)
    pipeline = BoxPipeline(Preprocess(size=64), settings, changes)
    decoded = [pipeline.decode(source.read(position)) for position in range(len(source))]
    frames = 0
    for position in range(len(source)):
        random.seed(position)
        sample = changes(decoded[position], Draw(0, 0, position, len(source), decoded.__getitem__))
        assert sample.masks is not None and len(sample.masks) == len(sample.boxes) == len(sample.labels)
        for box, label, mask in zip(sample.boxes.tolist(), sample.labels.tolist(), sample.masks, strict=True):
            left, top, right, bottom = (round(value) for value in box)
            colour = torch.tensor(COLOURS[LABELS[label]]).view(3, 1, 1)
            inside = (sample.image[:, top:bottom, left:right].float() - colour).abs().mean(0) < 60
            if LABELS[label] == "frame":
                frames += 1
                assert inside.float().mean() > 0.6  # another shape may cover a part
            rows, columns = mask.nonzero(as_tuple=True)
            assert rows.min() >= top - 2 and rows.max() < bottom + 2
            assert columns.min() >= left - 2 and columns.max() < right + 2
    assert frames > 4


def test_crowds_are_not_learned_and_other_sizes_are_refused(shapes: Path) -> None:
    objects = objects_of([[1, 1, 9, 9], [2, 2, 5, 5]], [0, 1], crowd=[True, False])
    sample = marked(Decoded(torch.zeros(3, 50, 50, dtype=torch.uint8), Truth("", objects)), masks=False)
    assert sample.labels.tolist() == [1] and sample.boxes.tolist() == [[2, 2, 5, 5]]
    source: Any = open_splits(Data(root=shapes), "boxes").train
    Image.new("RGB", (50, 40)).save(source.paths[3])
    pipeline = Detection(Setup(LABELS, recipe_for(shapes))).pipeline(train=True)
    batch = next(iter(Loader(source, pipeline, batch_size=12)))
    assert [position for position, _ in batch.bad] == [3] and "50x40" in batch.bad[0][1]


# Figures


def objects_of(boxes: Any, labels: Any, crowd: Any = None, difficult: Any = None, size: int = 50) -> Objects:
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    none = np.zeros(len(boxes), dtype=bool)
    areas = (boxes[:, 2:] - boxes[:, :2]).prod(1).astype(np.float64)
    flags = [none if flag is None else np.array(flag, dtype=bool) for flag in (crowd, difficult)]
    return Objects(boxes, np.array(labels, dtype=np.int64), *flags, areas=areas, outlines=None, size=(size, size))


def found_of(boxes: Any, scores: Any, labels: Any) -> Found:
    boxes = np.array(boxes, dtype=np.float32).reshape(-1, 4)
    return Found(boxes, np.array(scores, dtype=np.float32), np.array(labels, dtype=np.int64), None)


FAR = (0, 0, 70, 70)


def random_images(count: int = 12) -> tuple[list[Objects], list[Found]]:
    """Objects, and detections some of which are near them."""
    draws = np.random.default_rng(4)
    truths, found = [], []
    for _ in range(count):
        number = int(draws.integers(0, 6))
        corners = draws.integers(0, 150, (number, 2))
        boxes = np.concatenate((corners, corners + draws.integers(8, 120, (number, 2))), 1)
        labels = draws.integers(0, 3, number)
        truths.append(objects_of(boxes, labels, crowd=draws.random(number) < 0.1, size=300))
        near = np.concatenate((boxes + draws.normal(0, 6, boxes.shape), draws.integers(0, 60, (2, 4)) + np.array(FAR)))
        scores = np.sort(draws.random(len(near)))[::-1]
        found.append(found_of(near, scores, np.concatenate((labels, draws.integers(0, 3, 2)))))
    return truths, found


@pytest.mark.parametrize("masks", [False, True], ids=["boxes", "masks"])
def test_the_two_evaluators_agree(masks: bool) -> None:
    pytest.importorskip("faster_coco_eval")
    truths, found = random_images()
    if masks:
        found = [dataclasses.replace(one, masks=tuple(disc_in(box) for box in one.boxes)) for one in found]
    figures = [dataclasses.asdict(precisions(truths, found, 4, masks=masks, engine=e)) for e in ENGINES]
    assert figures[0]["ap"] is not None and 5 < figures[0]["ap"] < 95
    assert figures[0]["classes"][3] is None and figures[0]["curves"][3] == ()
    flat = [json.loads(json.dumps(one), parse_constant=float) for one in figures]
    for key in flat[0]:
        assert_close(flat[0][key], flat[1][key])


def disc_in(box: np.ndarray, size: int = 300) -> Any:
    """COCO's run lengths of a disc a little larger than its box."""
    y, x = np.mgrid[:size, :size] + 0.5
    inside = (((x - box[0]) / (box[2] - box[0]) * 2 - 1) ** 2 + ((y - box[1]) / (box[3] - box[1]) * 2 - 1) ** 2) < 1.2
    return mask_module().encode(np.asfortranarray(inside.astype(np.uint8)))


ENGINES: tuple[Any, ...] = ("pycocotools", "faster_coco_eval")


def assert_close(one: Any, other: Any) -> None:
    if isinstance(one, list):
        for a, b in zip(one, other, strict=True):
            assert_close(a, b)
    else:
        assert one == (None if other is None else pytest.approx(other, abs=1e-9))


def test_average_precision_by_hand() -> None:
    """One of two objects is found first, then a wrong box, then the other object."""
    truths = [objects_of([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 0])]
    found = [found_of([[0, 0, 10, 10], [30, 0, 40, 10], [20, 20, 40, 40]], [0.9, 0.8, 0.7], [0, 0, 0])]
    coco = precisions(truths, found, 1, masks=False)
    # recall 0 to 0.5 at precision 1 (51 of 101 points), then 2/3
    assert coco.ap50 == pytest.approx(100 * (51 + 50 * 2 / 3) / 101)
    assert voc_average_precisions(truths, found, 1)[0] == pytest.approx(100 * (0.5 + 0.5 * 2 / 3))
    confusion = confusion_of(truths[0], found[0], 1, threshold=0.75)
    assert confusion.tolist() == [[1, 1], [1, 0]]
    difficult = [objects_of([[0, 0, 10, 10], [20, 20, 40, 40]], [0, 0], difficult=[False, True])]
    assert voc_average_precisions(difficult, found, 1)[0] == pytest.approx(100)
    nothing = precisions(truths, [found_of([], [], [])], 1, masks=False)
    assert nothing.ap == 0.0 and voc_average_precisions(truths, [found_of([], [], [])], 2) == (0.0, None)


def detections_of(found: Found, size: int = 300) -> Detections:
    parts = (torch.from_numpy(part.copy()) for part in (found.boxes, found.scores, found.labels))
    return Detections(*parts, mask_probabilities=None, image_size=(size, size))


def test_counting_in_parts_is_counting_at_once() -> None:
    truths, found = random_images()
    targets = [Truth(f"{number}.png", objects) for number, objects in enumerate(truths)]
    outputs = [detections_of(one) for one in found]
    labels = ("a", "b", "c")

    def tally(chosen: slice) -> DetectionTally:
        counted = DetectionTally(labels, DetectionSettings(), masks=False)
        counted.add(outputs[chosen], targets[chosen])
        return counted

    whole = tally(slice(None)).report(["bad.png"])
    joined = DetectionTally(labels, DetectionSettings(), masks=False).joined(
        [tally(part).counted() for part in (slice(0, 5), slice(5, None))]
    )
    assert joined.report(["bad.png"]) == whole and whole.num_expected == 13
    assert DetectionReport.from_dict(json.loads(json.dumps(whole.to_dict()))) == whole
    assert sum(map(sum, whole.confusion)) >= sum(whole.objects) and whole.worst and whole.score == whole.boxes.ap
    assert {plot.kind for plot in whole.plots()} == {"curves", "matrix"}
    assert len(whole.tables()[0].rows[0]) == len(whole.tables()[0].columns)


@pytest.mark.parametrize("head", ["ssdlite", "mask_rcnn"])
def test_an_evaluation_in_parts_has_the_figures_of_a_whole_one(shapes: Path, tmp_path: Path, head: str) -> None:
    """Objects, outlines, boxes and masks come back from the files, of a part without a readable image too."""
    pytest.importorskip("pyarrow")
    recipe = recipe_for(shapes, head)
    if head == "mask_rcnn":
        few = {"rpn_pre_nms_top_n_test": 20, "rpn_post_nms_top_n_test": 10, "box_detections_per_img": 5}
        recipe = dataclasses.replace(
            recipe, model=dataclasses.replace(recipe.model, args={"head_args": few | {"width": 16}})
        )
    torch.manual_seed(0)
    loaded = LoadedModel(
        Detection.build(recipe.model, LABELS),
        recipe.model.name,
        LABELS,
        Preprocess(size=64),
        "a test",
        task="detection",
        manifest=Manifest(recipe.model.name, LABELS, Preprocess(size=64), recipe=to_dict(recipe), task="detection"),
    )
    inference = ready(loaded, LABELS, Computing(device="cpu", workers=0))
    source = open_splits(recipe.data, "boxes").val
    (shapes / "val" / "1-004.png").write_bytes(b"no image")
    whole = measure(inference, source, warn=pytest.fail).report
    for _ in range(2):  # the second time from the files
        found = measure_parts(inference, source, tmp_path / "parts", Wanted(part_size=2), model="m", warn=pytest.fail)
        assert found == whole and whole.num_used == 4 and sum(map(sum, whole.confusion))
    assert (whole.masks is not None) == (head == "mask_rcnn")


# The task


def test_batches_split_and_blank(shapes: Path) -> None:
    recipe = recipe_for(shapes)
    task = Detection(Setup(LABELS, recipe))
    source = open_splits(recipe.data, "boxes").train
    batch = next(iter(Loader(source, task.pipeline(train=True), batch_size=5)))
    parts = task.split(batch, 2)
    assert [part.num_samples for part in parts] == [2, 3] and len(parts[1].targets) == len(parts[1].inputs.sizes) == 3
    assert torch.equal(torch.cat([part.inputs.pixels for part in parts]), batch.inputs.pixels)
    assert [part.num_samples for part in task.split(parts[0], 3)] == [0, 1, 1]
    network = Detection.build(recipe.model, LABELS)
    blank = task.blank(batch, 2)
    assert task.weight(batch) == 5 and torch.isfinite(task.loss(network, blank))
    assert isinstance(blank, Batch) and len(blank.targets) == 2 and blank.num_samples == 0


def test_settings_of_other_tasks_and_masks_without_outlines_are_refused(shapes: Path, tmp_path: Path) -> None:
    recipe, source = recipe_for(shapes), open_splits(Data(root=shapes), "boxes").train
    with pytest.raises(OvertoneError, match=r"augment\.mixup"):
        Detection(Setup(LABELS, dataclasses.replace(recipe, augment=Augment(mixup=0.2)), train=source))
    draw(tmp_path / "voc" / "JPEGImages", 4)
    boxes = open_splits(
        Data(root=write_voc(tmp_path / "voc", {"train": draw(tmp_path / "voc" / "JPEGImages", 4)})), "boxes"
    )
    with pytest.raises(OvertoneError, match="learns masks"):
        Detection(Setup(LABELS, recipe_for(shapes, "mask_rcnn"), train=boxes.train))
    with pytest.raises(OvertoneError, match=r"no detection head 'yolo'.*ssdlite"):
        Detection.build(Model(name="hbonet_x025", head="yolo"), LABELS)
    with pytest.raises(OvertoneError, match="did you mean cascade_mask_rcnn_hornet_tiny_7x7"):
        Detection.build(Model(name="cascade_mask_rcnn_hornet_tiny_7"), LABELS)


def test_trained_stopped_resumed_evaluated_predicted(
    tmp_path: Path, shapes: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    recipe = recipe_for(shapes)
    summary: Any = train(recipe, run_in(tmp_path / "whole"), "detect")
    train(recipe, run_in(tmp_path / "parts", max_steps=4), "detect")
    train(recipe, run_in(tmp_path / "parts"), "detect")
    whole, parts = (read_checkpoint(tmp_path / name / "last.safetensors") for name in ("whole", "parts"))
    assert whole.weights and all(torch.equal(whole.weights[key], parts.weights[key]) for key in whole.weights)
    found = api.evaluate(tmp_path / "whole", shapes, workers=0)
    assert found.report.num_used == 5 and found.report.boxes == summary.report.boxes
    measured = ["evaluate", str(tmp_path / "whole"), "--data.root", str(shapes), "--out", str(tmp_path / "measured")]
    assert cli.main(measured) == 0
    assert "AP50" in capsys.readouterr().out
    plots = {"evaluation.json", "confusion.png", "precision_recall.png", "examples"}
    assert {path.name for path in (tmp_path / "measured").iterdir()} == plots
    drawn = [path.name for path in (tmp_path / "measured" / "examples").iterdir()]
    assert sum(name.startswith("worst-") for name in drawn) == min(len(found.report.worst), 4) > 0
    out, image = tmp_path / "out", shapes / "val" / "1-001.png"
    shown = ["predict", str(tmp_path / "whole"), str(image), "--json", "--out", str(out), "--threshold", "0"]
    assert cli.main(shown) == 0
    printed = json.loads(capsys.readouterr().out)["images"][0]
    assert (printed["width"], printed["height"]) == (96, 64)
    results = json.loads((out / "1-001.json").read_text())
    assert len(results) == len(printed["predictions"]) > 5
    with Image.open(out / "1-001.png") as shown:
        assert shown.size == (96, 64)


def test_predictions_are_drawn_and_written_as_coco_results(tmp_path: Path) -> None:
    found = found_of([[10, 10, 30, 40], [5, 5, 9, 9]], [0.8, 0.2], [1, 0])
    task = Detection(Setup(LABELS, recipe_for(tmp_path)))
    prediction = task.predictions([detections_of(found, 50)], top_k=5)[0]
    assert [entry["label"] for entry in prediction.to_dict()["predictions"]] == ["frame"]
    both, best = (task.predictions([detections_of(found, 50)], most, 0.1)[0].found.labels for most in (None, 1))
    assert both.tolist() == [1, 0] and best.tolist() == [1]
    written = prediction.write(Image.new("RGB", (50, 50)), tmp_path / "out", "000017")
    with Image.open(written[0]) as image:
        drawn = np.asarray(image)
    assert drawn[25, 10].any() and not drawn[25, 20].any()
    results = json.loads(written[1].read_text())
    expected = {"image_id": 17, "category_id": 2, "bbox": [10.0, 10.0, 20.0, 30.0], "score": pytest.approx(0.8)}
    assert results == [expected]
    marked = objects_of([[10, 10, 30, 40], [35, 30, 45, 45]], [1, 0])
    beside = np.asarray(prediction.beside(Image.new("RGB", (50, 50)), marked)).any(2)
    assert beside.shape == (50, 108) and beside[25, 10] and beside[25, 58 + 10]
    assert not beside[25, 11] and beside[40, 35:38].all()  # what was missed has thick lines


def test_an_evaluation_takes_the_network_s_labels(tmp_path: Path, shapes: Path) -> None:
    """The images to evaluate on may list fewer classes, and in another order."""
    train(recipe_for(shapes, epochs=1), run_in(tmp_path / "run"), "detect")
    images = draw(tmp_path / "voc" / "JPEGImages", 4)
    frames = [dataclasses.replace(image, shapes=tuple(s for s in image.shapes if s[0] == "frame")) for image in images]
    found = api.evaluate(tmp_path / "run", write_voc(tmp_path / "voc", {"val": frames}), workers=0)
    assert found.report.labels == LABELS and found.report.objects[0] == 0 < found.report.objects[1]


def test_batches_of_one_orientation(tmp_path: Path) -> None:
    sizes = [(64, 40), (40, 64)]
    images = [image for n, size in enumerate(sizes) for image in draw(tmp_path / "train", 7 + n, n, size, 20)]
    source = open_splits(Data(root=write_coco(tmp_path, {"train": images}), val_fraction=0), "boxes").train
    recipe = recipe_for(tmp_path)
    recipe = dataclasses.replace(recipe, settings=dataclasses.replace(recipe.settings, by_orientation=True))
    pipeline = Detection(Setup(LABELS, recipe)).pipeline(train=True)
    seen, firsts = [], set()
    for epoch in range(4):
        loader = Loader(source, pipeline, batch_size=3, shuffle=True)
        loader.set_epoch(epoch)
        batches = list(loader)
        seen.append(sorted(position for batch in batches for position in batch.ids.tolist()))
        mixed = [len({width > height for height, width in batch.inputs.sizes}) > 1 for batch in batches]
        assert len(batches) == 5 and not any(mixed[:4])
        firsts.add(tuple(batches[0].ids.tolist()))
        loader.set_epoch(epoch, 2)
        assert [batch.ids.tolist() for batch in loader] == [batch.ids.tolist() for batch in batches[2:]]
    assert all(positions == list(range(15)) for positions in seen) and len(firsts) == 4


def test_a_batch_is_learned(shapes: Path) -> None:
    recipe = recipe_for(shapes)
    task, source = Detection(Setup(LABELS, recipe)), open_splits(recipe.data, "boxes").train
    batch = next(iter(Loader(source, task.pipeline(train=True), batch_size=8)))
    torch.manual_seed(0)
    network = Detection.build(recipe.model, LABELS).train()
    optimizer = torch.optim.AdamW(network.parameters(), lr=5e-3)
    losses = []
    for _ in range(60):
        loss = task.loss(network, batch) / 8
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.4 * losses[0]


@pytest.mark.slow
def test_two_processes_measure_what_one_does(tmp_path: Path, shapes: Path) -> None:
    recipe = recipe_for(shapes, epochs=1, processes=2)
    summary: Any = train(recipe, run_in(tmp_path / "two"), "detect")
    alone = api.evaluate(tmp_path / "two", shapes, workers=0)
    assert alone.report.boxes == summary.report.boxes and summary.report.num_used == 5
    assert alone.report.confusion == summary.report.confusion
