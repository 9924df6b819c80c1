"""Our detectors against the recorded outputs of the original ones: maps, proposals, regions and heads."""

import pytest
import torch
from detector_record import NAMES, DetectorRecord, filled_detector, published_detector_state, read_detector
from fill import image_batch
from torch import Tensor

from overtone.heads.box_coding import limits_of
from overtone.heads.box_heads import BoxHead
from overtone.heads.detector_files import published_state_dict
from overtone.heads.mask_heads import MaskHead
from overtone.heads.mask_rcnn import MaskRcnn
from overtone.heads.roi_align_levels import roi_levels
from overtone.heads.rpn import STRIDES, base_anchors

pytestmark = pytest.mark.slow
PARTS_SIZE = (512, 640)


@pytest.fixture(params=NAMES, scope="module")
def record(request: pytest.FixtureRequest) -> DetectorRecord:
    return read_detector(request.param)


@pytest.fixture(scope="module")
def detector(record: DetectorRecord) -> MaskRcnn:
    return filled_detector(record).eval()


@pytest.fixture(autouse=True)
def without_gradients():
    with torch.no_grad():
        yield


def check(found: Tensor, expected: Tensor, bound: float, what: str = "") -> None:
    assert found.shape == expected.shape, what
    error = (found - expected).abs().max().item() if expected.numel() else 0.0
    scale = max(expected.abs().max().item(), 1e-3) if expected.numel() else 1.0
    assert error <= bound * scale, f"{what}: relative error {error / scale:.1e}"


def test_state_dict_both_ways(record: DetectorRecord, detector: MaskRcnn) -> None:
    published = published_state_dict(detector)
    assert [[key, list(value.shape)] for key, value in published.items()] == record.maps.values["state"]
    for key, value in published_detector_state(record).items():
        assert torch.equal(published[key], value), key
    assert sum(p.numel() for p in detector.parameters()) == record.maps.values["params"]


def test_maps_and_proposals(record: DetectorRecord, detector: MaskRcnn) -> None:
    features = detector.backbone(record.images())
    pyramid = detector.neck(features)
    logits, deltas = detector.rpn(pyramid)
    channel_steps = {"feature": None, "pyramid": 64, "rpn_cls": 1, "rpn_reg": 2}
    summaries = {"feature": "features"}
    for kind, maps in zip(channel_steps, (features, pyramid, logits, deltas), strict=True):
        for i, x in enumerate(maps):
            channels, step = channel_steps[kind] or x.shape[1] // 4, max(1, x.shape[3] // 16)
            check(x[:, ::channels, ::step, ::step], record.maps.tensor(f"{kind}{i}"), record.bound, f"{kind}{i}")
            summary = torch.stack((x.flatten(1).norm(dim=1), x.flatten(1).mean(1)), dim=1)
            expected = torch.tensor(record.maps.values[summaries.get(kind, kind)][i], dtype=torch.float64)
            check(summary, expected, record.bound, f"summary of {kind}{i}")
    for i, (boxes, scores) in enumerate(detector.rpn.proposals(logits, deltas, record.image_sizes)):
        found = torch.cat((boxes, scores[:, None]), dim=1)
        check(found, record.maps.tensor(f"proposals{i}"), record.bound, f"proposals{i}")


def test_anchors(record: DetectorRecord) -> None:
    check(torch.cat([base_anchors(stride) for stride in STRIDES]), record.maps.tensor("base_anchors"), 1e-9)


def test_proposals_of_given_maps(record: DetectorRecord, detector: MaskRcnn) -> None:
    sizes = [(40, 56), (20, 28), (10, 14), (5, 7), (3, 4)]
    name = record.name
    logits = [image_batch(f"{name}:rpn_cls{i}", 2, *size, channels=3) for i, size in enumerate(sizes)]
    deltas = [image_batch(f"{name}:rpn_reg{i}", 2, *size, channels=12) for i, size in enumerate(sizes)]
    for training, key in ((False, "proposals"), (True, "proposals_train")):
        detector.rpn.train(training)
        found = detector.rpn.proposals(
            [2 * torch.from_numpy(x) for x in logits], [0.25 * torch.from_numpy(x) for x in deltas], record.image_sizes
        )
        for i, (boxes, scores) in enumerate(found):
            check(torch.cat((boxes, scores[:, None]), dim=1), record.parts.tensor(f"{key}{i}"), 1e-9, f"{key}{i}")
    detector.rpn.eval()


def test_region_features_and_heads(record: DetectorRecord, detector: MaskRcnn) -> None:
    parts, roi = record.parts, detector.roi
    pyramid = [
        torch.from_numpy(image_batch(f"{record.name}:feature{i}", 2, 128 >> i, 160 >> i, channels=256))
        for i in range(5)
    ]
    rois = parts.tensor("rois")
    assert torch.equal(roi_levels(rois, 4), parts.tensor("roi_levels"))
    small, large = roi.box_features(pyramid, rois), roi.mask_features(pyramid, rois)
    check(small[:, ::128], parts.tensor("roi_features_7"), 1e-9)
    check(large[:, ::256], parts.tensor("roi_features_14"), 1e-9)
    for size, x in ((7, small), (14, large)):
        expected = torch.tensor(parts.values[f"roi_features_{size}_norm"], dtype=torch.float64)
        check(x.flatten(1).norm(dim=1), expected, 1e-9, f"norms at {size}")
    limits = limits_of([PARTS_SIZE] * 2, rois)
    classes = torch.arange(len(rois)) % 80
    for i, (box_head, mask_head) in enumerate(zip(roi.box_heads, roi.mask_heads, strict=True)):
        assert isinstance(box_head, BoxHead) and isinstance(mask_head, MaskHead)
        logits, deltas = box_head(small)
        masks = mask_head(large)
        check(logits[:6], parts.tensor(f"stage{i}_cls"), 1e-9, f"logits {i}")
        check(deltas[:6, ::5], parts.tensor(f"stage{i}_reg"), 1e-9, f"deltas {i}")
        check(masks[:3, ::40], parts.tensor(f"stage{i}_mask"), 1e-9, f"masks {i}")
        norms = torch.stack([x.norm() for x in (logits, deltas, masks)])
        check(norms, torch.tensor(parts.values[f"stage{i}_norm"], dtype=torch.float64), 1e-9, f"norms {i}")
        moved = box_head.refine(rois, classes, deltas, limits)
        check(moved, parts.tensor(f"stage{i}_refined"), 1e-9, f"refined {i}")
