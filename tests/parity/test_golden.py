"""Our networks against the recorded outputs of the original ones."""

import copy

import numpy as np
import pytest
import torch
from fill import image_batch
from golden_record import FLOOR, NAMES, Record, filled_model, published_state, read_record, training_step

from overtone.models.multiply_adds import count_multiply_adds

pytestmark = pytest.mark.slow


@pytest.fixture(params=NAMES, scope="module")
def record(request: pytest.FixtureRequest) -> Record:
    return read_record(request.param)


@pytest.fixture(scope="module")
def state(record: Record) -> dict[str, torch.Tensor]:
    return published_state(record)


@pytest.fixture(scope="module")
def model(record: Record, state: dict[str, torch.Tensor]) -> torch.nn.Module:
    return filled_model(record, state)


def test_logits(record: Record, model: torch.nn.Module) -> None:
    bound = 1e-7 if record.loose else 1e-9
    assert record.logits
    for size, expected in record.logits.items():
        height, width = map(int, size.split("x")) if "x" in size else (int(size), int(size))
        images = torch.from_numpy(image_batch(record.name, 1, height, width))
        with torch.inference_mode():
            logits = model.eval()(images)[0].numpy()
        error = np.abs(logits - expected).max() / np.abs(expected).max()
        assert error < bound, f"{size}: relative error {error:.1e}"


def test_published_keys_and_shapes_both_ways(
    record: Record, state: dict[str, torch.Tensor], model: torch.nn.Module
) -> None:
    published = model.published_state_dict()
    assert [(key, tuple(value.shape)) for key, value in published.items()] == record.state
    for key, value in state.items():
        torch.testing.assert_close(published[key], value, rtol=0, atol=1e-15, msg=lambda m, key=key: f"{key}: {m}")


def test_trainable_parameters(record: Record, model: torch.nn.Module) -> None:
    trainable = sum(p.numel() for p in model.parameters() if p.requires_grad)
    assert trainable == record.values["params_trainable"]


def test_multiply_adds(record: Record, model: torch.nn.Module) -> None:
    for key, expected in record.values.items():
        if key.startswith("conv_linear_macs_"):
            size = int(key.rsplit("_", 1)[-1])
            assert count_multiply_adds(model, (3, size, size)) == expected


def test_training_step(record: Record, model: torch.nn.Module) -> None:
    step = record.training()
    if step is None:
        assert record.name == "hornet_large_gf"  # the one record without a training step
        return
    _, expected_loss, expected_gradients, expected_buffers, _ = step
    bound = 1e-6 if record.loose else 1e-7
    loss, gradients, buffers = training_step(record, copy.deepcopy(model))
    assert loss == pytest.approx(expected_loss, rel=bound)
    for key, expected in expected_gradients.items():
        assert gradients[key] == pytest.approx(expected, rel=bound, abs=FLOOR), key
    for key, expected in expected_buffers.items():
        assert buffers[key] == pytest.approx(expected, rel=bound, abs=FLOOR), key
