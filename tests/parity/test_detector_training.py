"""Our detectors against the recorded training step of the original ones: losses, targets, gradients, statistics."""

import zlib

import numpy as np
import pytest
import torch
from detector_record import NAMES, PADDED, DetectorRecord, filled_detector, read_detector

from overtone.heads.detector_files import published_key, published_state_dict
from overtone.heads.mask_rcnn import MaskRcnn, total_loss

pytestmark = pytest.mark.slow
FLOOR = 1e-9


@pytest.fixture(params=NAMES, scope="module")
def record(request: pytest.FixtureRequest) -> DetectorRecord:
    return read_detector(request.param)


@pytest.fixture(scope="module")
def detector(record: DetectorRecord) -> MaskRcnn:
    return filled_detector(record).train()


def expected_losses(losses: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in losses.items() if name != "loss" and not name.endswith("acc")}


def test_targets_and_losses_of_the_proposal_network(record: DetectorRecord, detector: MaskRcnn) -> None:
    arrays, values, targets = record.train, record.train.values, record.targets()
    with torch.no_grad():
        logits, deltas = detector.rpn(detector.pyramid(record.images(":train")))
        anchors = torch.cat(detector.rpn.anchors(logits))
        truth = [target["boxes"] for target in targets]
        losses = detector.rpn.losses(logits, deltas, record.image_sizes, truth)
        proposals = detector.rpn.proposals(logits, deltas, record.image_sizes)
    counts = [0, 0]
    for i, size in enumerate(record.image_sizes):
        found = detector.rpn.targets(anchors, truth[i], size)
        assert found.positive.tolist() == arrays.arrays[f"rpn_positive{i}"].tolist()
        expected = arrays.tensor(f"rpn_positive_target{i}")
        torch.testing.assert_close(found.deltas, expected, rtol=1e-9, atol=1e-9)
        negative = np.zeros(len(anchors), dtype=np.uint8)
        negative[found.negative.numpy()] = 1
        assert negative.sum() == arrays.arrays[f"rpn_negative_count{i}"]
        assert zlib.crc32(negative.tobytes()) == arrays.arrays[f"rpn_negative_crc{i}"]
        counts[0] += len(found.positive)
        counts[1] += len(found.negative)
        boxes = torch.cat((proposals[i][0], proposals[i][1][:, None]), dim=1)
        torch.testing.assert_close(boxes, arrays.tensor(f"proposals{i}"), rtol=record.bound, atol=500 * record.bound)
    assert counts == [values["rpn_positive"], values["rpn_negative"]]
    for name, by_level in zip(("loss_rpn_cls", "loss_rpn_bbox"), losses, strict=True):
        assert by_level.tolist() == pytest.approx(values["losses_per_level"][name], rel=record.loss_bound, abs=1e-12)


def test_stages_on_given_proposals(record: DetectorRecord, detector: MaskRcnn) -> None:
    statistics = {key: value.clone() for key, value in detector.state_dict().items() if "running" in key}
    arrays, targets = record.train, record.targets()
    proposals = [arrays.tensor(f"fixed_proposals{i}") for i in range(2)]
    with torch.no_grad():
        pyramid = detector.pyramid(record.images(":train"))
        stages = detector.roi.train_stages(pyramid, proposals, record.image_sizes, targets, PADDED)
    losses = {}
    for i, stage in enumerate(stages):
        regions, prefix = stage.regions, f"s{i}." if len(stages) > 1 else ""
        losses |= {prefix + name: loss.item() for name, loss in stage.losses.items()}
        torch.testing.assert_close(regions.rois, arrays.tensor(f"stage{i}_rois"), rtol=0, atol=500 * record.bound)
        assert regions.labels.tolist() == arrays.arrays[f"stage{i}_labels"].tolist()
        expected = arrays.tensor(f"stage{i}_box_targets")
        torch.testing.assert_close(stage.box_targets, expected, rtol=record.bound, atol=record.bound)
        assert stage.mask_targets is not None
        bits = np.unpackbits(arrays.arrays[f"stage{i}_mask_targets"], axis=1)
        wrong = (stage.mask_targets.flatten(1).numpy() != bits).sum()
        assert wrong <= (3e-4 * bits.size if record.loose else 0)
        accuracy = 100 * (stage.logits.argmax(1) == regions.labels).double().mean().item()
        assert accuracy == pytest.approx(record.train.values["fixed_proposals_losses"][f"{prefix}acc"])
    expected = expected_losses(record.train.values["fixed_proposals_losses"])
    assert losses == pytest.approx(expected, rel=record.loss_bound)
    detector.load_state_dict(statistics, strict=False)


def test_training_step(record: DetectorRecord, detector: MaskRcnn) -> None:
    losses = detector(record.images(":train"), record.image_sizes, record.targets())
    assert isinstance(losses, dict)
    found = {name: loss.item() for name, loss in losses.items()}
    assert found == pytest.approx(expected_losses(record.train.values["losses"]), rel=record.loss_bound)
    total = total_loss(losses)
    assert total.item() == pytest.approx(record.train.values["losses"]["loss"], rel=record.loss_bound)
    total.backward()
    bound = record.loss_bound
    gradients = {
        published_key(key, detector): parameter.grad.norm().item()
        for key, parameter in detector.named_parameters()
        if parameter.grad is not None
    }
    assert gradients == pytest.approx(record.train.values["grad_norm"], rel=bound, abs=FLOOR)
    published = published_state_dict(detector)
    for key, expected in record.train.values["buffers_after"].items():
        summary = [published[key].mean().item(), published[key].std().item()]
        assert summary == pytest.approx(expected, rel=bound, abs=FLOOR), key
