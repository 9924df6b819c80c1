"""Our segmentation networks, loaded from files in the published layout, against recorded outputs of the originals."""

import copy
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from fill import image_batch
from segmentation_record import (
    NAMES,
    SegmentationRecord,
    load_published_file,
    read_record,
    training_labels,
    without_dropout,
    write_published_file,
)
from torch import Tensor

from overtone.heads import Segmenter
from overtone.heads.segmentation_files import published_checkpoint
from overtone.heads.segmentation_inference import (
    labels_of,
    mean_probabilities,
    probabilities,
    sliding_window_logits,
    whole_image_logits,
)
from overtone.heads.segmentation_loss import segmentation_losses

pytestmark = pytest.mark.slow
LABELS_THAT_MAY_DIFFER = 3e-4  # of a label map, where a global filter is in the net


@pytest.fixture(params=NAMES, scope="module")
def record(request: pytest.FixtureRequest) -> SegmentationRecord:
    return read_record(request.param)


@pytest.fixture(scope="module")
def model(record: SegmentationRecord, tmp_path_factory: pytest.TempPathFactory) -> Segmenter:
    path: Path = tmp_path_factory.mktemp("published") / f"{record.name}.pth"
    write_published_file(record, path)
    loaded = load_published_file(path)
    path.unlink()
    return loaded


def assert_near(record: SegmentationRecord, actual: Tensor, expected: np.ndarray, what: str) -> None:
    error = np.abs(actual.detach().numpy() - expected).max() / np.abs(expected).max()
    assert error < record.bound(), f"{what}: relative error {error:.1e}"


def assert_same_labels(record: SegmentationRecord, actual: Tensor, expected: np.ndarray) -> None:
    share = (actual.numpy() != expected).mean()
    assert share <= (LABELS_THAT_MAY_DIFFER if record.has_global_filter else 0)


def test_published_keys_and_order(record: SegmentationRecord, model: Segmenter) -> None:
    state = published_checkpoint(model)["state_dict"]
    assert [(key, tuple(value.shape)) for key, value in state.items()] == record.state
    assert sum(parameter.numel() for parameter in model.parameters()) == record.values["params"]


def test_whole_images(record: SegmentationRecord, model: Segmenter) -> None:
    for height, width in record.sizes():
        size = f"{height}x{width}"
        with torch.inference_mode():
            images = record.images(height, width)
            maps = model.features(images)
            logits = model.decode_head(maps)
            auxiliary = model.auxiliary_logits(maps)
            prediction = labels_of(whole_image_logits(model, images))
        for stage, (x, recorded) in enumerate(zip(maps, record.values[f"features_{size}"], strict=True)):
            norms = x.flatten(1).norm(dim=1)
            assert_near(record, norms, np.array([norm for norm, _ in recorded]), f"norm of map {stage}, {size}")
            for image, (norm, mean) in zip(x, recorded, strict=True):
                scale = norm / image.numel() ** 0.5
                assert image.mean().item() == pytest.approx(mean, abs=record.bound() * scale)
            part = x[:, :: max(1, x.shape[1] // 4), ::4, ::4]
            assert_near(record, part, record.arrays[f"feature{stage}_{size}"], f"map {stage}, {size}")
        assert_near(record, logits[:, ::25], record.arrays[f"logits_{size}"], f"logits, {size}")
        norms = np.array([norm for norm, _ in record.values[f"logits_{size}_norm"]])
        assert_near(record, logits.flatten(1).norm(dim=1), norms, f"norm of the logits, {size}")
        if f"aux_{size}" in record.arrays:
            assert auxiliary is not None
            assert_near(record, auxiliary[:, ::25], record.arrays[f"aux_{size}"], f"auxiliary logits, {size}")
        assert_same_labels(record, prediction, record.arrays[f"prediction_{size}"])


def _windows_of(record: SegmentationRecord, model: Segmenter, kind: str) -> Callable[[Tensor], Tensor]:
    settings = record.values[kind]
    return partial(
        sliding_window_logits,
        model,
        window=settings["crop"],
        stride=settings["stride"],
        size=settings["to"],
        windows_at_once=4,
    )


def test_sliding_windows(record: SegmentationRecord, model: Segmenter) -> None:
    logits_of = _windows_of(record, model, "slide")
    images = record.images(90, 131)
    with torch.inference_mode():
        plain = probabilities(logits_of(images))
        mirrored = probabilities(logits_of(images.flip(-1))).flip(-1)
    assert_near(record, plain[:, ::25, ::3, ::3], record.arrays["slide_probability"], "windows")
    assert_near(record, mirrored[:, ::25, ::3, ::3], record.arrays["slide_flip_probability"], "mirrored windows")
    assert_same_labels(record, labels_of(plain), record.arrays["slide_prediction"])


def test_scales_and_mirrors(record: SegmentationRecord, model: Segmenter) -> None:
    settings = record.values["multiscale"]
    inputs = [record.images(height, width, f":{height}x{width}") for height, width in settings["sizes"]]
    with torch.inference_mode():
        logits_of = _windows_of(record, model, "multiscale")
        mean = mean_probabilities(logits_of, inputs, settings["to"], mirrored=True)
    assert_near(record, mean[:, ::25, ::3, ::3], record.arrays["multiscale_probability"], "scales")
    assert_same_labels(record, labels_of(mean), record.arrays["multiscale_prediction"])


def _accuracy(logits: Tensor, labels: Tensor) -> float:
    """Correct pixels of those not ignored, in percent."""
    resized = torch.nn.functional.interpolate(logits, labels.shape[-2:], mode="bilinear")
    counted = labels != 255
    return 100 * (resized.argmax(1)[counted] == labels[counted]).double().mean().item()


def test_training_step(record: SegmentationRecord, model: Segmenter) -> None:
    trained = without_dropout(copy.deepcopy(model)).train()
    assert isinstance(trained, Segmenter)
    expected, bound = record.values["train"], record.bound()
    labels = training_labels(record.name)
    assert (labels == 255).sum() == expected["ignored_pixels"]
    outputs = trained(torch.from_numpy(image_batch(f"{record.name}:train", 2, 64, 96)))
    losses = segmentation_losses(outputs, labels)
    total = sum(losses.values())
    assert isinstance(total, Tensor)
    total.backward()
    for key, value in (("decode.loss_ce", losses["decode"]), ("aux.loss_ce", losses["auxiliary"]), ("loss", total)):
        assert value.item() == pytest.approx(expected["losses"][key], rel=record.bound(1e-8)), key
    for key, logits in (("decode.acc_seg", outputs.logits), ("aux.acc_seg", outputs.auxiliary)):
        assert _accuracy(logits, labels) == pytest.approx(expected["losses"][key], abs=1e-7), key
    gradients = {name: p.grad.norm().item() for name, p in trained.named_parameters() if p.grad is not None}
    assert gradients.keys() == expected["grad_norm"].keys()
    for key, value in expected["grad_norm"].items():
        assert gradients[key] == pytest.approx(value, rel=bound, abs=1e-9), key
    buffers = dict(trained.named_buffers())
    for key, (mean, std) in expected["buffers_after"].items():
        assert buffers[key].mean().item() == pytest.approx(mean, rel=bound, abs=1e-9), key
        assert buffers[key].std().item() == pytest.approx(std, rel=bound, abs=1e-9), key
