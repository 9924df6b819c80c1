"""torchvision's detectors over timm's and our backbones."""

from typing import Any

import pytest
import torch

from overtone.errors import OvertoneError
from overtone.heads.light_detectors import LIGHT_HEADS, build_light_detector
from overtone.heads.roi_heads import Detections

SMALL = {"faster_rcnn": "hbonet_x010", "mask_rcnn": "mobilenetv2_x010", "retinanet": "resnet18", "fcos": "hbonet_x010"}
FEW_REGIONS = {"rpn_post_nms_top_n_train": 30, "rpn_post_nms_top_n_test": 30, "box_batch_size_per_image": 32}


def a_batch() -> tuple[torch.Tensor, list[tuple[int, int]], list[dict[str, torch.Tensor]]]:
    torch.manual_seed(0)
    boxes = torch.tensor([[10.0, 12.0, 50.0, 60.0], [30.0, 5.0, 70.0, 40.0]])
    masks = torch.zeros(2, 96, 96, dtype=torch.bool)
    masks[0, 12:60, 10:50] = masks[1, 5:40, 30:70] = True
    full = {"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks}
    empty = {"boxes": torch.zeros(0, 4), "labels": torch.zeros(0, dtype=torch.int64), "masks": masks[:0]}
    return torch.randn(2, 3, 96, 96), [(96, 96), (80, 72)], [full, empty]


@pytest.mark.parametrize("head", LIGHT_HEADS)
def test_training_and_detection(head: str) -> None:
    images, sizes, targets = a_batch()
    options: dict[str, Any] = {"score_thresh": 0.0, "detections_per_img": 10}
    if head.endswith("rcnn"):
        options = {f"box_{name}": value for name, value in options.items()} | FEW_REGIONS
    detector = build_light_detector(SMALL.get(head, "mobilenetv2_x010"), head, 3, **options)
    losses = detector(images, sizes, targets)
    assert isinstance(losses, dict)
    total = torch.stack(list(losses.values())).sum()
    assert torch.isfinite(total)
    total.backward()
    assert all(p.grad is not None for p in detector.detector.backbone.parameters())
    with torch.no_grad():
        found = detector.eval()(images, sizes, None, [(2.0, 2.0), (0.5, 0.5)], [(48, 48), (160, 144)])
    for result, (height, width) in zip(found, [(48, 48), (160, 144)], strict=True):
        assert isinstance(result, Detections)
        assert len(result.boxes) == len(result.scores) == len(result.labels) > 0
        assert (result.boxes >= 0).all()
        assert result.boxes[:, 2].max() <= width and result.boxes[:, 3].max() <= height
        assert ((result.labels >= 0) & (result.labels < 3)).all()
        if head == "mask_rcnn":
            assert result.masks().shape == (len(result.boxes), height, width)


def test_labels_are_learned_from_zero() -> None:
    torch.manual_seed(0)
    images, _, targets = a_batch()
    detector = build_light_detector("mobilenetv2_x010", "fcos", 3, score_thresh=0.0)
    optimizer = torch.optim.Adam(detector.parameters(), 1e-3)
    batch = [targets[0], targets[0]]
    first = last = 0.0
    for _ in range(8):
        losses = detector(images, None, batch)
        assert isinstance(losses, dict)
        optimizer.zero_grad()
        losses["classification"].backward()
        optimizer.step()
        last = losses["classification"].item()
        first = first or last
    assert last < first


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(OvertoneError, match=r"yolo.*ssdlite"):
        build_light_detector("mobilenetv2_x010", "yolo", 3)
    with pytest.raises(OvertoneError, match=r"vit_tiny_patch16_224.*stride 4"):
        build_light_detector("vit_tiny_patch16_224", "faster_rcnn", 3)
    with pytest.raises(OvertoneError, match="no_such_net"):
        build_light_detector("no_such_net", "fcos", 3)
