"""One batch: mixup and CutMix."""

import numpy as np
import pytest
import torch
from torch import Tensor

from overtone.config import Augment
from overtone.data.mixing import Mixer, mixer_of


def batch(size: int) -> tuple[Tensor, Tensor]:
    """Image i is i + 1 everywhere, its class is i."""
    images = torch.arange(1.0, size + 1).view(-1, 1, 1, 1).expand(size, 3, 8, 8)
    return images.clone(), torch.arange(size)


def test_off() -> None:
    assert mixer_of(Augment(), 10) is None
    assert mixer_of(Augment(mixup=0.2), 10) is not None
    with pytest.raises(ValueError, match="neither"):
        Mixer(Augment(), 10)


@pytest.mark.parametrize("size", [1, 2, 5, 6])
@pytest.mark.parametrize("augment", [Augment(mixup=0.8), Augment(cutmix=1.0), Augment(mixup=0.8, cutmix=1.0)])
def test_shares_are_those_of_the_pixels(augment: Augment, size: int) -> None:
    mixed_once = False
    for step in range(20):
        images, targets = batch(size)
        mixed, shares = Mixer(augment, size)(images, targets, (0, step))
        assert mixed.shape == (size, 3, 8, 8) and shares.shape == (size, size) and shares.dtype == torch.float32
        torch.testing.assert_close(shares.sum(1), torch.ones(size))
        # The mean of the pixels is the mean of the values by their shares.
        values = torch.arange(1.0, size + 1)
        torch.testing.assert_close(mixed.mean(dim=(1, 2, 3)), shares @ values, rtol=1e-5, atol=1e-5)
        mixed_once |= bool((shares.max(dim=1).values < 1).any())
    assert mixed_once == (size > 1)


def test_odd_batches_keep_the_last_image() -> None:
    images, targets = batch(5)
    mixed, shares = Mixer(Augment(mixup=1.0), 5)(images, targets, (1, 1))
    assert torch.equal(mixed[4], batch(5)[0][4]) and shares[4].tolist() == [0, 0, 0, 0, 1]
    assert shares[:4].max() < 1
    assert (shares[0, [0, 1]] > 0).all() and (shares[2, [2, 3]] > 0).all()


@pytest.mark.parametrize("augment", [Augment(mixup=0.8), Augment(cutmix=1.0)])
def test_parts_of_a_batch_are_mixed_as_the_whole(augment: Augment) -> None:
    """So the number of processes that share a batch changes nothing."""
    for step in range(5):
        images, targets = batch(8)
        mixer = Mixer(augment, 8)
        whole = mixer(images.to(memory_format=torch.channels_last), targets, (0, step))
        parts = [mixer(images[part], targets[part], (0, step)) for part in (slice(0, 6), slice(6, 8))]
        assert torch.equal(whole[0], torch.cat([part[0] for part in parts]))
        assert torch.equal(whole[1], torch.cat([part[1] for part in parts]))
        assert whole[0].is_contiguous(memory_format=torch.channels_last)


def test_randomness_is_a_function_of_the_numbers() -> None:
    mixer = Mixer(Augment(mixup=0.8, cutmix=1.0), 6)
    before = np.random.get_state()[1].copy()  # type: ignore[union-attr]
    runs = [[mixer(*batch(6), (seed, step))[0] for step in range(6)] for seed in (0, 0, 1)]
    assert all(torch.equal(a, b) for a, b in zip(runs[0], runs[1], strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(runs[0], runs[2], strict=True))
    assert len({image.numpy().tobytes() for image in runs[0]}) == 6
    assert (np.random.get_state()[1] == before).all()  # type: ignore[index]


def test_probabilities() -> None:
    def mixed(augment: Augment) -> list[Tensor]:
        return [Mixer(augment, 4)(*batch(4), (0, step))[0] for step in range(200)]

    def is_cut(images: Tensor) -> bool:
        return torch.equal(images, images.round())  # whole values: pasted, not blended

    untouched = sum(torch.equal(images, batch(4)[0]) for images in mixed(Augment(mixup=1.0, mix_prob=0.3)))
    assert 120 < untouched < 160
    cut = sum(is_cut(images) for images in mixed(Augment(mixup=1.0, cutmix=1.0, mix_switch_prob=0.25)))
    assert 30 < cut < 70


def test_label_smoothing_is_pytorchs() -> None:
    logits = torch.randn(4, 10, generator=torch.Generator().manual_seed(0))
    images, targets = batch(4)
    _, shares = Mixer(Augment(mixup=1.0, mix_prob=0.0), 10, label_smoothing=0.1)(images, targets, (0,))
    smoothed = torch.nn.functional.cross_entropy(logits, targets, label_smoothing=0.1)
    torch.testing.assert_close(torch.nn.functional.cross_entropy(logits, shares), smoothed)


def test_an_empty_batch_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="empty"):
        Mixer(Augment(mixup=1.0), 2)(torch.empty(0, 3, 8, 8), torch.empty(0, dtype=torch.int64), (0,))
