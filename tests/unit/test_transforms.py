"""One sample: evaluation equals Pillow and torchvision, training draws what it should."""

import pickle
import random
from dataclasses import replace

import numpy as np
import pytest
import torch
from images_on_disk import noise
from PIL import Image
from torchvision import transforms as tv

from overtone.config import Augment, Preprocess
from overtone.data.seeding import derived_seed, preserved, reseed, seeded
from overtone.data.transforms import (
    PadAndCrop,
    evaluation_transform,
    normalise,
    training_transform,
)
from overtone.errors import OvertoneError

SIZES = [(24, 18), (18, 24), (37, 101), (224, 224), (5, 9), (300, 200), (33, 32)]
STILL = Augment(crop="none", hflip=0.0)
MODES = {"nearest": 0, "bilinear": 2, "bicubic": 3, "lanczos": 1}  # Pillow's numbers


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", MODES)
@pytest.mark.parametrize(("side", "fraction"), [(32, 0.875), (28, 1.0), (21, 0.7), (64, 0.95)])
def test_evaluation_equals_torchvision(size: tuple[int, int], interpolation: str, side: int, fraction: float) -> None:
    preprocess = Preprocess(size=side, crop_fraction=fraction, interpolation=interpolation)  # type: ignore[arg-type]
    expected = tv.Compose(
        [
            tv.Resize(int(side / fraction), tv.InterpolationMode(interpolation)),
            tv.CenterCrop(side),
            tv.ToTensor(),
            tv.Normalize(preprocess.mean, preprocess.std),
        ]
    )(noise(*size))
    assert torch.equal(evaluation_transform(preprocess)(noise(*size)), expected)


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("interpolation", MODES)
def test_evaluation_equals_pillow(size: tuple[int, int], interpolation: str) -> None:
    side = 32
    width, height = size
    shorter = int(side / 0.875)
    long = int(shorter * max(size) / min(size))
    resized = noise(*size).resize((shorter, long) if width <= height else (long, shorter), MODES[interpolation])
    left, top = round((resized.width - side) / 2), round((resized.height - side) / 2)
    pixels = np.asarray(resized.crop((left, top, left + side, top + side)))
    preprocess = Preprocess(size=side, interpolation=interpolation, mean=(0, 0, 0), std=(1, 1, 1))  # type: ignore[arg-type]
    tensor = evaluation_transform(preprocess)(noise(*size))
    np.testing.assert_array_equal((tensor * 255).round().byte().permute(1, 2, 0).numpy(), pixels)


def test_squash_takes_the_whole_image() -> None:
    preprocess = Preprocess(size=32, resize="squash", interpolation="bicubic")
    expected = tv.ToTensor()(noise(50, 20).resize((32, 32), Image.Resampling.BICUBIC))
    assert torch.equal(evaluation_transform(preprocess)(noise(50, 20)), normalise(expected, preprocess))


def test_evaluation_draws_nothing() -> None:
    transform = evaluation_transform(Preprocess(size=16))
    random.seed(0)
    torch.manual_seed(0)
    before = random.getstate(), torch.get_rng_state()
    assert torch.equal(transform(noise()), transform(noise()))
    assert random.getstate() == before[0] and torch.equal(torch.get_rng_state(), before[1])


def test_normalise_subtracts_the_mean_and_divides_by_the_deviation() -> None:
    preprocess = Preprocess(mean=(0.1, 0.5, 0.9), std=(0.2, 0.3, 0.4))
    images = torch.rand(2, 3, 4, 5)
    found = normalise(images, preprocess)
    for channel, (mean, std) in enumerate(((0.1, 0.2), (0.5, 0.3), (0.9, 0.4))):
        torch.testing.assert_close(found[:, channel], (images[:, channel] - mean) / std)


def test_the_exif_policy_travels_with_the_transform() -> None:
    preprocess = Preprocess(size=8, exif="apply")
    assert evaluation_transform(preprocess).exif == training_transform(preprocess, STILL).exif == "apply"


# Training

EVERYTHING = Augment(hflip=0.5, vflip=0.5, rand_augment="rand-m9-mstd0.5-inc1", color_jitter=0.4, random_erasing=0.5)
KINDS = {
    "random_resized": Augment(),
    "pad": Augment(crop="pad"),
    "pad_constant": Augment(crop="pad", pad_mode="constant"),
    "none": Augment(crop="none"),
    "everything": EVERYTHING,
    "jitter": Augment(color_jitter=0.4),
    "erasing": replace(STILL, random_erasing=1.0),
}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("size", [(24, 18), (5, 90)])
def test_training_is_a_function_of_the_seed(kind: str, size: tuple[int, int]) -> None:
    transform = training_transform(Preprocess(size=16), KINDS[kind])

    def draw(number: int) -> torch.Tensor:
        with seeded(3, number):
            return transform(noise(*size))

    first = [draw(number) for number in range(8)]
    assert all(tensor.shape == (3, 16, 16) and tensor.dtype == torch.float32 for tensor in first)
    assert all(torch.equal(draw(number), first[number]) for number in reversed(range(8)))
    assert len({tensor.numpy().tobytes() for tensor in first}) > 1


def test_without_augmentation_training_is_evaluation() -> None:
    preprocess = Preprocess(size=16)
    assert torch.equal(training_transform(preprocess, STILL)(noise()), evaluation_transform(preprocess)(noise()))


def test_flips() -> None:
    preprocess = Preprocess(size=16, crop_fraction=1.0)
    straight = evaluation_transform(preprocess)(noise(16, 16))
    across = training_transform(preprocess, replace(STILL, hflip=1.0))(noise(16, 16))
    upside_down = training_transform(preprocess, replace(STILL, vflip=1.0))(noise(16, 16))
    assert torch.equal(across, straight.flip(2)) and torch.equal(upside_down, straight.flip(1))
    half = training_transform(preprocess, replace(STILL, hflip=0.5))
    flipped = 0
    for number in range(400):
        with seeded(number):
            flipped += not torch.equal(half(noise(16, 16)), straight)
    assert 160 < flipped < 240


def test_random_resized_crop_takes_the_areas_asked_for() -> None:
    # An image that holds its own coordinates: the spread of the crop shows its share of the side.
    ramp = np.zeros((256, 256, 3), dtype=np.uint8)
    ramp[..., 0], ramp[..., 1] = np.arange(256)[None, :], np.arange(256)[:, None]
    preprocess = Preprocess(size=64, mean=(0, 0, 0), std=(1, 1, 1))
    transform = training_transform(preprocess, Augment(scale=(0.2, 0.3), ratio=(1.0, 1.0), hflip=0.0))
    corners = set()
    for number in range(50):
        with seeded(number):
            crop = transform(Image.fromarray(ramp)) * 255
        width, height = (float(crop[channel].max() - crop[channel].min()) for channel in (0, 1))
        assert 0.18 < width * height / 256**2 < 0.31 and abs(width - height) < 3
        corners.add((float(crop[0].min()), float(crop[1].min())))
    assert len(corners) > 40


def test_pad_and_crop_equals_torchvisions_padding() -> None:
    image = noise(16, 16)
    padded = np.asarray(tv.Pad(2, padding_mode="reflect")(image))
    windows = {padded[y : y + 16, x : x + 16].tobytes() for y in range(5) for x in range(5)}
    drawn = set()
    for number in range(400):
        reseed(number)
        drawn.add(np.asarray(PadAndCrop(16, 2)(image)).tobytes())
    assert drawn == windows  # all 25 windows and no other


def test_constant_padding_is_black() -> None:
    preprocess = Preprocess(size=16, crop_fraction=1.0, mean=(0, 0, 0), std=(1, 1, 1))
    transform = training_transform(preprocess, Augment(crop="pad", pad_mode="constant", hflip=0.0))
    white = Image.new("RGB", (16, 16), "white")
    borders = set()
    for number in range(100):
        with seeded(number):
            borders.add(int((transform(white)[0].amax(dim=1) == 0).sum()))
    assert borders == {0, 1, 2}


def test_rand_augment_survives_its_highest_magnitude() -> None:
    transform = training_transform(Preprocess(size=16), Augment(rand_augment="rand-m15-n4-p1.0-inc1"))
    for number in range(300):
        with seeded(number):
            assert torch.isfinite(transform(noise())).all()


def test_rand_augment_takes_the_place_of_color_jitter() -> None:
    both = training_transform(Preprocess(size=16), replace(STILL, rand_augment="rand-m9", color_jitter=0.4))
    alone = training_transform(Preprocess(size=16), replace(STILL, rand_augment="rand-m9"))
    for number in range(5):
        with seeded(number):
            first = both(noise())
        with seeded(number):
            assert torch.equal(first, alone(noise()))


@pytest.mark.parametrize("policy", ["nonsense", "rand-x9", "rand-m9.5"])
def test_unknown_rand_augment(policy: str) -> None:
    with pytest.raises(OvertoneError, match=r"augment\.rand_augment is .* rand-m9-mstd0.5-inc1"):
        training_transform(Preprocess(), Augment(rand_augment=policy))


@pytest.mark.parametrize("interpolation", MODES)
def test_every_interpolation_trains(interpolation: str) -> None:
    preprocess = Preprocess(size=16, interpolation=interpolation)  # type: ignore[arg-type]
    assert training_transform(preprocess, EVERYTHING)(noise()).shape == (3, 16, 16)


@pytest.mark.parametrize("kind", KINDS)
def test_transforms_can_be_sent_to_workers(kind: str) -> None:
    transform = training_transform(Preprocess(size=16), KINDS[kind])
    copy = pickle.loads(pickle.dumps(transform))
    with seeded(1):
        expected = transform(noise())
    with seeded(1):
        assert torch.equal(copy(noise()), expected)


# Seeding


def draws() -> tuple[float, ...]:
    return random.random(), float(np.random.rand()), float(torch.rand(1))


def test_seeded_is_a_function_of_all_its_numbers() -> None:
    seen = set()
    for numbers in [(0,), (0, 0), (0, 1), (1, 0), (-1, 0), (2**62, 0)]:
        with seeded(*numbers):
            seen.add(draws())
        with seeded(*numbers):
            assert draws() in seen
    assert len(seen) == 6
    with seeded(0, 7):
        # Recorded once: a training resumed by a newer version has the same randomness.
        assert draws() == (0.24344143757124603, 0.10287039308315316, 0.7221920490264893)
    assert derived_seed(0, 7) == 2919741290430436627


def test_seeded_leaves_the_generators_as_they_were() -> None:
    with preserved():
        reseed(5)
        expected = draws()
        reseed(5)
        with seeded(1, 2, 3):
            draws()
        assert draws() == expected
