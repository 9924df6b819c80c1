"""What happens to images and masks on their way: against the recorded pipeline, and by what must hold."""

import json
import random
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from small_scenes import COLOURS, draw, recipe_for

from overtone.config import Augment, Data, Preprocess, Recipe
from overtone.data.decoding import BadImage
from overtone.data.loader import Loader
from overtone.data.masks import IGNORED
from overtone.data.sources import open_splits
from overtone.tasks.segmentation.distortion import (
    brightened,
    contrasted,
    distorted,
    from_hsv,
    hue_turned,
    saturated,
    to_hsv,
)
from overtone.tasks.segmentation.settings import SegmentationSettings
from overtone.tasks.segmentation.task import Segmentation
from overtone.tasks.segmentation.transforms import MaskPipeline, TrainingChanges, fitted_size, is_mixed
from overtone.tasks.task import Setup

GOLDEN = Path(__file__).parent.parent / "parity" / "golden_downstream"
RECORD = json.loads((GOLDEN / "preprocess_ade20k.json").read_text())
ARRAYS = np.load(GOLDEN / "preprocess_ade20k.npz")
SIZES = [key for key in RECORD if "x" in key]
PUBLISHED = Preprocess(
    size=512,
    mean=(123.675 / 255, 116.28 / 255, 103.53 / 255),
    std=(58.395 / 255, 57.12 / 255, 57.375 / 255),
    exif="apply",
)


def noise(height: int, width: int) -> torch.Tensor:
    """The recorded pipeline's image, uint8 (3, H, W): splitmix64 over the flat index, as in tests/parity/fill.py."""
    name, count = f"image:{height}x{width}", height * width * 3
    with np.errstate(over="ignore"):
        z = np.arange(1, count + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        z += np.uint64(zlib.crc32(name.encode())) * np.uint64(0xD1342543DE82EF95)
        z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        z ^= z >> np.uint64(31)
    values = (z >> np.uint64(11)).astype(np.float64) / float(1 << 53)
    return torch.from_numpy(np.floor(256 * values).astype(np.uint8).reshape(height, width, 3)).permute(2, 0, 1)


@pytest.mark.parametrize("size", SIZES)
def test_evaluation_sees_what_the_published_pipeline_gave(size):
    height, width = map(int, size.split("x"))
    record = RECORD[size]
    pipeline = MaskPipeline(PUBLISHED, SegmentationSettings(scale=(2048, 512), antialias=False))
    views = pipeline.views(noise(height, width))
    (pixels,), kept = views
    assert list(pixels.shape[1:]) == record["shape"] and kept == (height, width)
    # one grey level, since the original resizes in fixed point
    assert np.abs(pixels[0, :, ::37, ::41].numpy() - ARRAYS[size]).max() < 1.01 / 57
    assert np.abs(pixels[0, :, -8:, -8:].numpy() - ARRAYS[f"{size}_corner"]).max() < 1.01 / 57
    assert pixels[0].mean((1, 2)).tolist() == pytest.approx(record["mean"], abs=0.2 / 57)
    assert pixels[0].std((1, 2)).tolist() == pytest.approx(record["std"], abs=0.2 / 57)


def test_several_scales_are_views_of_the_published_sizes():
    wanted = SegmentationSettings(scale=(2048, 512), antialias=False, scales=(0.5, 1.75))
    pixels, size = MaskPipeline(PUBLISHED, wanted).views(noise(60, 90))
    assert [tuple(view.shape[2:]) for view in pixels] == [
        fitted_size(60, 90, 1024, 256),
        fitted_size(60, 90, 3584, 896),
    ]
    assert size == (60, 90)


@pytest.mark.parametrize(
    ("name", "change"),
    [
        ("brightness_+20.5", lambda image: brightened(image, 20.5)),
        ("contrast_1.3", lambda image: contrasted(image, 1.3)),
        ("saturation_0.6", lambda image: saturated(image, 0.6)),
        ("hue_+10", lambda image: hue_turned(image, 10)),
        (
            "all_contrast_first",
            lambda image: hue_turned(saturated(contrasted(brightened(image, -12.25), 0.7), 1.4), -9),
        ),
        ("all_contrast_last", lambda image: contrasted(hue_turned(saturated(brightened(image, -12.25), 1.4), -9), 0.7)),
    ],
)
def test_distortion_is_the_recorded_one(name, change):
    changed = change(noise(16, 16)).permute(1, 2, 0).numpy()
    assert np.array_equal(changed, ARRAYS[f"distort_{name}"])


def test_greys_have_no_hue_and_come_back():
    grey = torch.arange(256, dtype=torch.uint8).expand(3, 1, 256)
    hue, saturation, value = to_hsv(grey)
    assert not hue.any() and not saturation.any()
    assert torch.equal(from_hsv(hue, saturation, value), grey)


def test_distortion_draws_from_the_global_generator():
    image = noise(16, 16)
    random.seed(3)
    first = distorted(image)
    random.seed(3)
    assert torch.equal(distorted(image), first)
    results = {distorted(image).numpy().tobytes() for _ in range(20)}
    assert len(results) > 5


def changes(size: int = 16, **options) -> TrainingChanges:
    wanted = SegmentationSettings(**{"distort": False, "ratio": (1.0, 1.0), "most_of_one_class": 1.0, **options})
    return TrainingChanges(Preprocess(size=size), Augment(hflip=0.5, vflip=0.5), wanted)


def test_image_and_mask_move_together():
    mask = (torch.arange(40 * 50) % 251).reshape(40, 50).byte()
    image = mask.expand(3, 40, 50).contiguous()
    random.seed(0)
    change = changes()
    for _ in range(20):
        pixels, labels = change(image, mask)
        assert pixels.shape == (3, 16, 16) and torch.equal(pixels[0], labels)
    assert type(pixels) is torch.Tensor and type(labels) is torch.Tensor


def test_masks_are_resized_to_the_nearest_pixel():
    mask = torch.zeros(20, 20, dtype=torch.uint8)
    mask[:, 10:] = 200
    random.seed(0)
    change = changes(64, ratio=(0.5, 2.0))
    for _ in range(10):
        pixels, labels = change(mask.expand(3, 20, 20).contiguous(), mask)
        assert pixels.shape[1:] == labels.shape
        assert set(labels.unique().tolist()) == {0, 200}


def test_a_crop_with_too_much_of_one_class_is_drawn_anew():
    mask = torch.zeros(64, 64, dtype=torch.uint8)
    mask[28:36, 28:36] = 1
    image = torch.zeros(3, 64, 64, dtype=torch.uint8)
    random.seed(0)
    free = sum(is_mixed(changes()(image, mask)[1], 0.9) for _ in range(60))
    wanted = sum(is_mixed(changes(most_of_one_class=0.9)(image, mask)[1], 0.9) for _ in range(60))
    assert wanted > 2 * free > 0
    assert not is_mixed(torch.full((4, 4), IGNORED, dtype=torch.uint8), 0.75)
    assert not is_mixed(torch.zeros(4, 4, dtype=torch.uint8), 0.75)
    assert is_mixed(torch.tensor([[0, 0, 0, 1, 1, 255, 255, 255]], dtype=torch.uint8), 0.75)
    assert not is_mixed(torch.tensor([[0, 0, 0, 1]], dtype=torch.uint8), 0.75)


def task_for(recipe: Recipe, labels: tuple[str, ...]) -> Segmentation:
    return Segmentation(Setup(labels, recipe))


def test_batches_are_padded_with_zeros_and_without_classes(tmp_path):
    root = draw(tmp_path, 3, size=(10, 12))
    recipe = recipe_for(root)
    train = open_splits(Data(root=root, val_fraction=0), "mask").train
    task = task_for(recipe, train.labels)
    loader = Loader(train, task.pipeline(train=True), batch_size=3, shuffle=True)
    batch = next(iter(loader))
    assert batch.inputs.shape == (3, 3, 16, 16) and batch.targets.shape == (3, 16, 16)
    outside = batch.targets[:, 13:] == IGNORED
    assert outside.all() and not batch.inputs[:, :, 13:].any()
    assert batch.inputs[:, :, :8, :8].abs().amax((1, 2, 3)).min() > 0


def test_what_is_drawn_does_not_depend_on_workers(tmp_path):
    root = draw(tmp_path, 6)
    train = open_splits(Data(root=root, val_fraction=0), "mask").train
    task = task_for(recipe_for(root), train.labels)
    found = []
    for workers in (0, 2):
        loader = Loader(train, task.pipeline(train=True), batch_size=3, workers=workers, shuffle=True, seed=4)
        found.append([(batch.inputs, batch.targets) for batch in loader])
        loader.close()
    assert all(torch.equal(a, b) for one, two in zip(*found, strict=True) for a, b in zip(one, two, strict=True))


def test_evaluation_gives_each_image_at_its_own_size(tmp_path):
    root = draw(tmp_path, 3)
    train = open_splits(Data(root=root, val_fraction=0), "mask").train
    loader = Loader(train, task_for(recipe_for(root), train.labels).pipeline(train=False), batch_size=1)
    sizes = [(batch.inputs.size, tuple(batch.inputs.pixels[0].shape), tuple(batch.targets.shape)) for batch in loader]
    assert sizes == [((h, w), (1, 3, h, w), (1, h, w)) for h, w in ((24, 32), (30, 22), (26, 26))]


def test_a_mask_of_another_size_is_a_bad_image(tmp_path):
    root = draw(tmp_path, 2)
    (root / "masks" / "train" / "0.png").write_bytes((root / "masks" / "train" / "1.png").read_bytes())
    train = open_splits(Data(root=root, val_fraction=0), "mask").train
    pipeline = task_for(recipe_for(root), train.labels).pipeline(train=True)
    with pytest.raises(BadImage, match="32x24 pixels and its mask 22x30"):
        pipeline.decode(train.read(0))
    assert len(COLOURS) == 3
