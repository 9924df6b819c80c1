"""Losses and counts of a segmentation, against values worked out by hand or recorded."""

import json
import math
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from small_scenes import CLASSES, draw

from overtone.config import Data, Model, Recipe, Train
from overtone.data.masks import IGNORED
from overtone.data.pipeline import Batch
from overtone.data.sources import open_splits
from overtone.errors import OvertoneError
from overtone.heads import TrainingLogits
from overtone.heads.segmentation_loss import segmentation_losses
from overtone.tasks import recipe_from_dict, task_named
from overtone.tasks.segmentation.losses import counted_pixels, pixel_loss
from overtone.tasks.segmentation.prediction import MaskPrediction, palette
from overtone.tasks.segmentation.report import SegmentationReport, SegmentationTally, border_counts
from overtone.tasks.segmentation.settings import SegmentationSettings
from overtone.tasks.segmentation.task import Segmentation, class_weights
from overtone.tasks.task import Setup

PARITY = Path(__file__).parent.parent / "parity"
sys.path.append(str(PARITY))
from fill import uniform  # noqa: E402

METRIC = json.loads((PARITY / "golden_downstream" / "preprocess_ade20k.json").read_text())["metric"]


def one_hot(classes: torch.Tensor, num_classes: int, sharpness: float = 1.0) -> torch.Tensor:
    return sharpness * F.one_hot(classes, num_classes).permute(0, 3, 1, 2).float()


def labels_map(name: str) -> np.ndarray:
    """Blocks of 8 x 8 of 150 classes, a seventh of them ignored, as the record describes."""
    labels = np.floor(150 * uniform(f"labels:{name}", (3, 8, 12))).astype(np.int64)
    labels[uniform(f"ignored:{name}", (3, 8, 12)) < 1 / 7] = 255
    return np.kron(labels, np.ones((1, 8, 8), dtype=np.int64))


def test_figures_are_the_recorded_ones():
    truth, guess = labels_map("metric"), labels_map("guess") % 150
    guess[:, ::2] = np.where(truth[:, ::2] == 255, 3, truth[:, ::2])
    truth[truth == 7], guess[guess == 9] = 255, 10
    truth[truth == 9] = 11
    tally = SegmentationTally([str(index) for index in range(150)])
    for one, two in zip(torch.from_numpy(guess), torch.from_numpy(truth), strict=True):
        tally.add(one_hot(one[None], 150), two[None])
    report = tally.report()
    assert report.mean_iou / 100 == pytest.approx(METRIC["mIoU"], rel=1e-12)
    assert report.mean_accuracy / 100 == pytest.approx(METRIC["mAcc"], rel=1e-12)
    assert report.pixel_accuracy / 100 == pytest.approx(METRIC["aAcc"], rel=1e-12)
    assert [index for index, value in enumerate(report.iou) if value is None] == METRIC["absent"]


def small_tally(boundary: float = 0.0) -> SegmentationTally:
    tally = SegmentationTally(("a", "b", "c"), boundary)
    truth = torch.tensor([[[0, 0, 1, 1], [0, 0, 1, 255]]])
    tally.add(one_hot(torch.tensor([[[0, 1, 1, 1], [0, 0, 0, 2]]]), 3), truth)
    return tally


def test_figures_by_hand_and_through_json():
    report = small_tally().report(["bad.png"])
    assert report.confusion == ((3, 1, 0), (1, 2, 0), (0, 0, 0))
    assert report.iou == (60.0, 50.0, None) and report.mean_iou == 55.0
    assert report.accuracy == (75.0, pytest.approx(200 / 3), None)
    assert report.pixel_accuracy == pytest.approx(500 / 7)
    assert (report.num_expected, report.num_used, report.score) == (2, 1, 55.0)
    # right with a logit of 1 against zeros, wrong with 0 against a 1
    right, wrong = math.log(math.e + 2) - 1, math.log(math.e + 2)
    assert report.loss == pytest.approx((5 * right + 2 * wrong) / 7)
    again = SegmentationReport.from_dict(json.loads(json.dumps(report.to_dict())))
    assert again == report
    shown = {cell for table in report.tables(full=True) for row in table.rows for cell in row}
    assert {"55.00 %", "1 of 2", "60.00 %", "a", None} <= shown
    assert {plot.kind for plot in report.plots()} == {"matrix", "bars"}


def test_parts_of_an_evaluation_add_up_to_the_whole():
    whole = small_tally(0.01).joined([small_tally(0.01).counted()]).report()
    parts = SegmentationTally(("a", "b", "c"), 0.01).joined([small_tally(0.01).counted() for _ in range(2)]).report()
    assert whole == parts
    assert sum(map(sum, whole.confusion)) == 14


def test_borders_that_are_near_count_as_found():
    truth = torch.zeros(20, 20, dtype=torch.int64)
    truth[:, 10:] = 1
    moved = torch.zeros(20, 20, dtype=torch.int64)
    moved[:, 12:] = 1
    near, far = border_counts(moved, truth, 2, 0.1), border_counts(moved, truth, 2, 0.01)
    assert near.tolist() == [[20, 20, 20, 20]] * 2  # within 3 pixels
    assert far[:, [0, 2]].sum() == 0 and far[:, [1, 3]].tolist() == [[20, 20]] * 2  # within 1
    truth[:, 10:] = 255
    assert border_counts(moved, truth, 2, 0.1)[1].sum() == 0


def batch_of(random: torch.Generator, count: int = 2) -> Batch:
    targets = torch.randint(0, 3, (count, 12, 10), generator=random, dtype=torch.uint8)
    targets[:, :3] = IGNORED
    return Batch(torch.randn(count, 3, 12, 10, generator=random), targets, torch.arange(count))


def test_published_normalisation_divides_by_all_pixels():
    random = torch.Generator().manual_seed(0)
    batch, logits = batch_of(random), torch.randn(2, 3, 6, 5, generator=random)
    auxiliary = torch.randn(2, 3, 3, 3, generator=random)
    recipe = Recipe(task="segmentation", settings=SegmentationSettings(normalise="all"))
    task = Segmentation(Setup(CLASSES, recipe))
    loss = task.loss(lambda _: TrainingLogits(logits, auxiliary), batch) / task.weight(batch)
    expected = sum(segmentation_losses(TrainingLogits(logits, auxiliary), batch.targets.long()).values())
    assert float(loss) == pytest.approx(float(expected), rel=1e-6)
    plain = Segmentation(Setup(CLASSES, Recipe(task="segmentation", settings=SegmentationSettings())))
    assert (task.weight(batch), plain.weight(batch)) == (240, 180)


@pytest.mark.parametrize("loss", ["cross_entropy", "focal", "dice", "cross_entropy_dice"])
@pytest.mark.parametrize("normalise", ["labelled", "all"])
def test_a_loss_is_the_sum_of_its_parts_and_small_where_all_is_right(loss, normalise):
    random = torch.Generator().manual_seed(1)
    batch, wanted = batch_of(random, 3), SegmentationSettings(loss=loss, normalise=normalise)
    logits = torch.randn(3, 3, 12, 10, generator=random)
    whole = pixel_loss(logits, batch.targets, wanted)
    parts = sum(pixel_loss(logits[i : i + 1], batch.targets[i : i + 1], wanted) for i in range(3))
    assert float(whole) == pytest.approx(float(parts), rel=1e-5)
    right = one_hot(batch.targets.long().where(batch.targets != IGNORED, 0), 3, 30.0)
    best = pixel_loss(right, batch.targets, wanted) / counted_pixels(batch.targets, wanted)
    assert float(best) < 1e-3 < float(whole / counted_pixels(batch.targets, wanted))
    nothing = torch.full_like(batch.targets, IGNORED)
    assert float(pixel_loss(logits, nothing, wanted)) == 0.0
    assert float(pixel_loss(logits[:0], nothing[:0], wanted)) == 0.0


def test_focal_loss_and_dice_by_hand():
    targets = torch.zeros(1, 1, 1, dtype=torch.uint8)
    logits = torch.tensor([2.0, 0.0]).view(1, 2, 1, 1)
    share = math.exp(2) / (math.exp(2) + 1)
    focal = pixel_loss(logits, targets, SegmentationSettings(loss="focal", focal_gamma=2.0))
    assert float(focal) == pytest.approx(-((1 - share) ** 2) * math.log(share), rel=1e-5)
    dice = pixel_loss(logits, targets, SegmentationSettings(loss="dice"))
    assert float(dice) == pytest.approx(1 - 2 * share / (share + 1), rel=1e-5)
    weighted = pixel_loss(logits, targets, SegmentationSettings(), torch.tensor([3.0, 1.0]))
    assert float(weighted) == pytest.approx(-3 * math.log(share), rel=1e-5)


def test_class_weights_follow_the_pixels_and_leave_bad_masks_out(tmp_path):
    train = open_splits(Data(root=draw(tmp_path, 4), val_fraction=0), "mask").train
    counts = np.zeros(3)
    for position in range(1, 4):
        mask = train.read(position)["mask"].pixels()
        counts += [(mask == label).sum() for label in range(3)]
    (tmp_path / "masks" / "train" / "0.png").write_bytes(b"no mask")
    balanced, root = class_weights(train, 3, 1.0), class_weights(train, 3, 0.5)
    assert balanced.mean() == pytest.approx(1.0) and root.mean() == pytest.approx(1.0)
    assert (balanced * torch.tensor(counts)).std() / balanced.mean() < 1e-3 * counts.mean()
    assert torch.allclose(root**2 / (root**2).sum(), balanced / balanced.sum(), atol=1e-5)


@pytest.mark.parametrize("inference", ["whole", "slide"])
def test_several_scales_and_mirrors_average_probabilities(inference):
    recipe = Recipe(
        task="segmentation",
        settings=SegmentationSettings(inference=inference, window=8, stride=5, scales=(1.0, 1.5), flip=True),
    )
    task = Segmentation(Setup(CLASSES, recipe))
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 3, 3, padding=1).eval()
    image = torch.randint(0, 256, (3, 13, 17), dtype=torch.uint8)
    views = task.pipeline(train=False).views(image)
    scores = task.predict(network, views)
    assert scores.shape == (1, 3, 13, 17)
    assert torch.allclose(scores.exp().sum(1), torch.ones(1, 13, 17), atol=1e-5)
    mirrored = task.predict(network, task.pipeline(train=False).views(image.flip(-1)))
    assert torch.allclose(mirrored.flip(-1).exp(), scores.exp(), atol=1e-5)


def test_one_pass_over_an_image_gives_logits_at_its_size():
    task = Segmentation(Setup(CLASSES, Recipe(task="segmentation", settings=SegmentationSettings(scale=(40, 30)))))
    views = task.pipeline(train=False).views(torch.zeros(3, 13, 17, dtype=torch.uint8))
    assert tuple(views.pixels[0].shape) == (1, 3, 30, 39)
    assert task.predict(torch.nn.Conv2d(3, 3, 2, stride=2), views).shape == (1, 3, 13, 17)
    assert task.outputs()[0].agreement(torch.eye(3)[None, :, :, None], torch.eye(3)[None, :, :, None]) == (0.0, 1.0)


def test_another_head_than_a_dense_one_is_refused():
    task = Segmentation(Setup(CLASSES, Recipe(task="segmentation", settings=SegmentationSettings())))
    with pytest.raises(OvertoneError, match=r"model\.head"):
        task.loss(lambda _: torch.zeros(2, 3), batch_of(torch.Generator()))


@pytest.mark.parametrize(
    "options", [{"train": Train(label_smoothing=0.1)}, {"train": Train(class_weights="balanced")}], ids=str
)
def test_options_of_classification_are_refused_in_a_training(options, tmp_path):
    train = open_splits(Data(root=draw(tmp_path, 2), val_fraction=0), "mask").train
    with pytest.raises(OvertoneError, match=r"train\."):
        Segmentation(Setup(CLASSES, Recipe(task="segmentation", settings=SegmentationSettings(), **options), {}, train))


@pytest.mark.parametrize(
    "options", [{"scale": (0, 3)}, {"ratio": (2.0, 1.0)}, {"scales": ()}, {"most_of_one_class": 0.0}, {"stride": 0}]
)
def test_settings_that_cannot_be(options):
    with pytest.raises(OvertoneError, match="settings"):
        SegmentationSettings(**options)


def test_settings_come_back_from_plain_values():
    values = {"task": "segmentation", "settings": {"scale": [2048, 512], "scales": [0.5, 1.0], "loss": "dice"}}
    settings = recipe_from_dict(values).settings
    assert settings == SegmentationSettings(scale=(2048, 512), scales=(0.5, 1.0), loss="dice")
    assert task_named("segmentation") is Segmentation


@pytest.mark.parametrize(
    "model",
    [
        Model(name="hbonet_x010", head="lraspp"),
        Model(name="mobilenetv2_x010", head="fcn", args={"output_stride": 16}),
        Model(name="upernet_hbonet_x010", args={"head_args": {"channels": 8}, "auxiliary": False}),
        Model(name="resnet18", head="deeplabv3"),
    ],
    ids=lambda model: f"{model.name}-{model.head}",
)
def test_networks_are_built_by_head_and_backbone_or_by_name(model):
    network = Segmentation.build(model, CLASSES).eval()
    with torch.no_grad():
        assert network(torch.zeros(1, 3, 50, 41)).shape[:2] == (1, 3)


def test_a_prediction_names_shares_and_writes_files(tmp_path):
    classes = np.zeros((6, 8), dtype=np.uint8)
    classes[:, :2] = 2
    prediction = MaskPrediction(classes, CLASSES, most=1)
    assert prediction.rows() == [("ground", "75.00 %")]
    assert [found["label"] for found in prediction.to_dict()["predictions"]] == ["ground", "bar"]
    image = Image.new("RGB", (8, 6), (10, 20, 30))
    index, overlay, shares = prediction.write(image, tmp_path / "new", "a")
    assert np.array_equal(np.asarray(Image.open(index)), classes)
    drawn = np.asarray(Image.open(overlay))
    assert drawn.shape == (6, 8, 3) and (drawn[0, 0] != drawn[0, 7]).any()
    assert json.loads(shares.read_text())["predictions"][1]["pixels"] == 12
    assert len({tuple(colour) for colour in palette(150)}) == 150
