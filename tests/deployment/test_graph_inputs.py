"""The preprocessing within the graph against Pillow's."""

import pytest
import torch
from nets_to_fold import relative_error

from overtone.config import Preprocess
from overtone.deployment.images import generated_images, given_images, read_images
from overtone.deployment.inputs import FromPixels, PillowResize, as_batch, input_transform
from overtone.errors import OvertoneError


@pytest.mark.parametrize(
    "preprocess",
    [
        Preprocess(size=64),
        Preprocess(size=48, interpolation="bicubic"),
        Preprocess(size=33, interpolation="lanczos", crop_fraction=0.95),
        Preprocess(size=32, interpolation="nearest", crop_fraction=1.0),
    ],
    ids=lambda preprocess: preprocess.interpolation,
)
@pytest.mark.parametrize(("source", "share"), [(20, 3e-2), (60, 5e-3), (150, 5e-3)])
def test_the_resize_is_pillows(preprocess, source, share):
    """Within a grey level; where an image is enlarged, more of its new pixels lie halfway between two."""
    resize = PillowResize(preprocess)
    wrong = total = 0
    for image in generated_images(4, source, seed=3):
        expected = as_batch(input_transform("pixels", preprocess), image).permute(0, 3, 1, 2).float()
        got = resize(as_batch(input_transform("image", preprocess), image).permute(0, 3, 1, 2).float())
        assert got.shape == (1, 3, preprocess.size, preprocess.size)
        assert (got - expected).abs().max() <= 1, "more than one grey level"
        wrong, total = wrong + int((got != expected).sum()), total + got.numel()
    assert wrong / total < share


def test_pixels_are_normalised_in_the_graph():
    preprocess = Preprocess(size=16, mean=(0.1, 0.2, 0.3), std=(0.5, 0.6, 0.7))
    (image,) = generated_images(1, 30)
    inside = FromPixels(torch.nn.Identity(), preprocess, resize=False)
    got = inside(as_batch(input_transform("pixels", preprocess), image))
    assert relative_error(got, as_batch(input_transform("normalised", preprocess), image)) < 1e-6


def test_generated_images_are_always_the_same_and_differ():
    one, two = generated_images(2, 24), generated_images(2, 24)
    assert [p.tobytes() for p in one] == [p.tobytes() for p in two]
    assert one[0].tobytes() != one[1].tobytes() != generated_images(2, 24, seed=1)[1].tobytes()
    assert one[0].width < one[0].height and one[1].width > one[1].height


def test_given_images_are_spread_over_the_folder(tmp_path):
    for number, image in enumerate(generated_images(9, 8)):
        image.save(tmp_path / f"{number}.png")
    assert [path.name for path in given_images(tmp_path, 3)] == ["0.png", "4.png", "8.png"]
    assert len(given_images(tmp_path, 100)) == 9
    for path in tmp_path.iterdir():
        path.write_bytes(b"")
    with pytest.raises(OvertoneError, match="none of the 2 images could be read"):
        list(read_images(given_images(tmp_path, 2), "ignore"))
    (tmp_path / "empty").mkdir()
    with pytest.raises(OvertoneError, match="no images"):
        given_images(tmp_path / "empty", 3)
