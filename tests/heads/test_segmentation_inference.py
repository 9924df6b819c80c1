"""Inference over whole images, windows, scales and mirrors, with networks that are simple functions."""

import pytest
import torch
from torch import Tensor

from overtone.errors import OvertoneError
from overtone.heads import build_segmenter
from overtone.heads.segmentation_inference import (
    labels_of,
    mean_probabilities,
    probabilities,
    sliding_window_logits,
    whole_image_logits,
    window_starts,
)


def colours(images: Tensor) -> Tensor:
    """A network of stride 1 that looks at nothing but the pixel: windows cannot change its answer."""
    return torch.cat([images, -images], dim=1)


def means(images: Tensor) -> Tensor:
    """A network whose logits depend on the whole window."""
    return images + images.mean((2, 3), keepdim=True)


@pytest.mark.parametrize(
    ("length", "window", "stride", "starts"),
    [
        (90, 64, 43, [0, 26]),
        (131, 64, 43, [0, 43, 67]),
        (64, 64, 43, [0]),
        (65, 64, 43, [0, 1]),
        (40, 64, 43, [0]),
        (1, 64, 64, [0]),
        (683, 512, 341, [0, 171]),
    ],
)
def test_windows_end_at_the_border(length: int, window: int, stride: int, starts: list[int]) -> None:
    assert window_starts(length, window, stride) == starts


@pytest.mark.parametrize("length", range(1, 40))
def test_windows_cover_every_pixel(length: int) -> None:
    for window in (1, 5, 8):
        for stride in range(1, window + 1):
            covered = {i + k for i in window_starts(length, window, stride) for k in range(min(window, length))}
            assert covered == set(range(length))


def test_strides_that_leave_pixels_out_are_refused() -> None:
    with pytest.raises(OvertoneError, match=r"64.*65.*1 to 64"):
        sliding_window_logits(colours, torch.zeros(1, 3, 90, 90), 64, 65)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("size", [(90, 131), (33, 200), (20, 30), (1, 1)])
def test_windows_of_a_local_network_join_without_a_seam(dtype: torch.dtype, size: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *size, dtype=dtype)
    logits = sliding_window_logits(colours, images, 32, 21)
    assert logits.dtype == dtype
    torch.testing.assert_close(logits, colours(images))


def test_overlaps_are_averaged() -> None:
    images = torch.randn(1, 3, 4, 6, dtype=torch.float64)
    left, right = means(images[..., :4]), means(images[..., 2:])
    expected = torch.cat([left[..., :2], (left[..., 2:] + right[..., :2]) / 2, right[..., 2:]], dim=3)
    torch.testing.assert_close(sliding_window_logits(means, images, 4, 2), expected)


def test_windows_at_once_change_nothing() -> None:
    images = torch.randn(2, 3, 50, 70, dtype=torch.float64)
    one = sliding_window_logits(means, images, (32, 40), (20, 25), (30, 31))
    torch.testing.assert_close(sliding_window_logits(means, images, (32, 40), (20, 25), (30, 31), 4), one)


def test_half_precision_is_added_up_in_float32() -> None:
    images = torch.randn(1, 3, 40, 40).bfloat16()
    assert sliding_window_logits(colours, images, 32, 16).dtype == torch.float32


def test_passes_are_averaged_as_probabilities() -> None:
    small, large = torch.randn(1, 3, 10, 12), torch.randn(1, 3, 20, 24)
    mean = mean_probabilities(lambda x: whole_image_logits(means, x), [small, large], (10, 12))
    resized = torch.nn.functional.interpolate(means(large), (10, 12), mode="bilinear")
    torch.testing.assert_close(mean, (means(small).softmax(1) + resized.softmax(1)) / 2)
    torch.testing.assert_close(mean.sum(1), torch.ones(1, 10, 12))


def test_a_mirrored_pass_makes_the_answer_symmetric() -> None:
    def leaning(images: Tensor) -> Tensor:
        return images + torch.arange(images.shape[-1])

    images = torch.randn(1, 3, 9, 14)
    both = mean_probabilities(leaning, [images], (9, 14), mirrored=True)
    of_the_mirror = mean_probabilities(leaning, [images.flip(-1)], (9, 14), mirrored=True)
    torch.testing.assert_close(of_the_mirror.flip(-1), both)


def test_nothing_to_average_is_refused() -> None:
    with pytest.raises(OvertoneError, match="no image"):
        mean_probabilities(colours, [], (4, 4))


def test_a_network_in_training_mode_is_refused() -> None:
    model = build_segmenter("hbonet_x010", "fcn", 2)
    with pytest.raises(OvertoneError, match="eval"):
        whole_image_logits(model, torch.zeros(2, 3, 64, 64))


def test_labels_of_a_network_have_the_size_of_the_image() -> None:
    model = build_segmenter("hbonet_x010", "lraspp", 4).eval()
    with torch.inference_mode():
        logits = whole_image_logits(model, torch.randn(2, 3, 70, 53))
    assert labels_of(logits).shape == (2, 70, 53)
    torch.testing.assert_close(labels_of(probabilities(logits)), labels_of(logits))
