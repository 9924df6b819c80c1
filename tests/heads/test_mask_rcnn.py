"""Cascade Mask R-CNN and Mask R-CNN: their published layout, and training and detection over any backbone."""

import math
from dataclasses import replace
from functools import cache

import pytest
import torch

from overtone.errors import OvertoneError
from overtone.heads.detector_files import infer_detector, load_published, published_state_dict
from overtone.heads.fpn import NECKS, Neck
from overtone.heads.mask_rcnn import DETECTORS, DetectorSpec, MaskRcnn, build_detector, total_loss
from overtone.heads.roi_heads import Detections, RoiSettings

# The eight published rows say 80, 80, 107, 108, 144, 146, 251, 259 M; the rest was counted with the original classes.
PARAMETERS = {
    "cascade_mask_rcnn_hornet_tiny_7x7": 79_883_634,
    "cascade_mask_rcnn_hornet_tiny_gf": 80_465_970,
    "cascade_mask_rcnn_hornet_small_7x7": 106_869_714,
    "cascade_mask_rcnn_hornet_small_gf": 107_743_218,
    "cascade_mask_rcnn_hornet_base_7x7": 144_465_458,
    "cascade_mask_rcnn_hornet_base_gf": 145_630_130,
    "cascade_mask_rcnn_hornet_large_7x7": 251_485_938,
    "cascade_mask_rcnn_hornet_large_gf": 258_750_258,
    "mask_rcnn_hornet_small_7x7": 69_034_512,
    "mask_rcnn_horfpn_7x7_hornet_small_7x7": 67_672_592,
    "mask_rcnn_horfpn_gf_hornet_small_7x7": 68_444_432,
}
FEW = RoiSettings(sampled=8, detections=4)


@cache
def on_meta(name: str) -> MaskRcnn:
    with torch.device("meta"):
        return build_detector(name)


@cache
def small(head: str, masks: bool = True) -> MaskRcnn:
    torch.manual_seed(0)
    spec = DetectorSpec(head, "hbonet_x010", num_classes=3, masks=masks)
    detector = MaskRcnn(spec, roi=replace(FEW, score=0.0))
    detector.rpn.settings = replace(detector.rpn.settings, train_proposals=20, test_proposals=6)
    return detector


def a_batch(*, empty: bool = False) -> tuple[torch.Tensor, list[tuple[int, int]], list[dict[str, torch.Tensor]]]:
    torch.manual_seed(1)
    masks = torch.zeros(2, 96, 128, dtype=torch.bool)
    masks[0, 10:60, 20:90] = masks[1, 5:40, 30:70] = True
    boxes = torch.tensor([[20.0, 10.0, 90.0, 60.0], [30.0, 5.0, 70.0, 40.0]])
    full = {"boxes": boxes, "labels": torch.tensor([0, 2]), "masks": masks}
    none = {name: value[:0] for name, value in full.items()}
    return torch.randn(2, 3, 96, 128), [(96, 128), (80, 100)], [none if empty else full, none]


@pytest.mark.parametrize("name", DETECTORS)
def test_published_detectors(name: str) -> None:
    detector = on_meta(name)
    assert sum(p.numel() for p in detector.parameters()) == PARAMETERS[name]
    shapes = {key: tuple(value.shape) for key, value in published_state_dict(detector).items()}
    assert infer_detector(shapes) == DETECTORS[name]


def test_inference_of_other_classes_and_of_other_nets() -> None:
    with torch.device("meta"):
        detector = build_detector("mask_rcnn_horfpn_gf_hornet_small_7x7", num_classes=5, masks=False)
    shapes = {key: tuple(value.shape) for key, value in published_state_dict(detector).items()}
    spec = infer_detector(shapes)
    assert spec is not None
    assert (spec.num_classes, spec.masks, spec.neck) == (5, False, "horfpn_gf")
    assert infer_detector({key: shape for key, shape in shapes.items() if key.startswith("backbone.")}) is None
    assert infer_detector({"conv1.weight": (64, 3, 7, 7)}) is None


def test_a_state_dict_that_does_not_fit_is_refused() -> None:
    detector = small("mask_rcnn")
    state = published_state_dict(detector)
    load_published(detector, {"state_dict": state})
    with pytest.raises(OvertoneError, match=r"lacks rpn_head\.rpn_cls\.weight"):
        load_published(detector, {key: value for key, value in state.items() if key != "rpn_head.rpn_cls.weight"})
    with pytest.raises(OvertoneError, match=r"also has roi_head\.bbox_head\.1\.fc_cls\.weight"):
        load_published(detector, state | {"roi_head.bbox_head.1.fc_cls.weight": torch.zeros(4, 1024)})
    with pytest.raises(OvertoneError, match=r"another shape of roi_head\.bbox_head\.fc_cls\.bias.*3 classes"):
        load_published(detector, state | {"roi_head.bbox_head.fc_cls.bias": torch.zeros(81)})


@pytest.mark.parametrize("kind", NECKS)
def test_every_neck_gives_five_levels_and_learns(kind: str) -> None:
    neck = Neck(kind, [4, 8, 16, 32], out_channels=16)
    sizes = [(24, 31), (12, 15), (6, 7), (3, 3)]
    pyramid = neck([torch.randn(1, 4 << i, *size) for i, size in enumerate(sizes)])
    assert [tuple(level.shape) for level in pyramid] == [(1, 16, *size) for size in [*sizes, (2, 2)]]
    sum(level.square().mean() for level in pyramid).backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in neck.parameters())


@pytest.mark.parametrize("head", ["cascade_mask_rcnn", "mask_rcnn"])
@pytest.mark.parametrize("empty", [False, True])
def test_every_parameter_is_trained_with_and_without_objects(head: str, empty: bool) -> None:
    detector = small(head).train()
    images, sizes, targets = a_batch(empty=empty)
    detector.zero_grad()
    losses = detector(images, sizes, targets)
    assert isinstance(losses, dict)
    stages = 3 if head == "cascade_mask_rcnn" else 1
    assert len(losses) == 2 + 3 * stages
    total = total_loss(losses)
    assert math.isfinite(total.item())
    total.backward()
    assert all(p.grad is not None and torch.isfinite(p.grad).all() for p in detector.parameters())
    if empty:
        assert all(losses[name].item() == 0 for name in losses if name.endswith(("bbox", "mask")))


def test_without_masks() -> None:
    detector = small("cascade_mask_rcnn", masks=False).train()
    images, sizes, targets = a_batch()
    losses = detector(images, sizes, [{key: x[key] for key in ("boxes", "labels")} for x in targets])
    assert not any(name.endswith("mask") for name in losses)
    with torch.no_grad():
        found = detector.eval()(images, sizes)
    assert isinstance(found[0], Detections)
    assert found[0].mask_probabilities is None and found[0].by_class().mask_probabilities is None
    with pytest.raises(ValueError, match="mask"):
        found[0].masks()


def test_detections_do_not_depend_on_the_rest_of_the_batch() -> None:
    detector = small("cascade_mask_rcnn").double().eval()
    images, sizes, _ = a_batch()
    images = images.double()
    scales, originals = [(2.0, 2.0), (0.5, 0.5)], [(48, 64), (160, 200)]
    with torch.no_grad():
        together = detector(images, sizes, None, scales, originals)
        for i, found in enumerate(together):
            (alone,) = detector(images[i : i + 1], sizes[i : i + 1], None, scales[i : i + 1], originals[i : i + 1])
            assert isinstance(found, Detections) and isinstance(alone, Detections)
            assert len(found.boxes) == 4
            torch.testing.assert_close(found.boxes, alone.boxes)
            assert torch.equal(found.labels, alone.labels)
            height, width = originals[i]
            limit = torch.tensor([width, height, width, height])
            assert (found.boxes >= 0).all() and (found.boxes <= limit + 1e-6).all()
            assert torch.equal(found.masks(), alone.masks()) and found.masks().shape[1:] == (height, width)
    detector.float()


def test_nothing_found() -> None:
    detector = small("mask_rcnn").eval()
    images, sizes, _ = a_batch()
    settings = detector.roi.settings
    detector.roi.settings = replace(settings, score=1.0)
    with torch.no_grad():
        found = detector(images, sizes)
    detector.roi.settings = settings
    assert isinstance(found[1], Detections)
    assert found[1].boxes.shape == (0, 4) and found[1].masks().shape == (0, 80, 100)


def test_half_precision_training_has_full_precision_boxes() -> None:
    detector = small("cascade_mask_rcnn").train()
    images, sizes, targets = a_batch()
    with torch.autocast("cpu", torch.bfloat16):
        losses = detector(images, sizes, targets)
    assert isinstance(losses, dict)
    assert all(loss.dtype == torch.float32 and torch.isfinite(loss) for loss in losses.values())


def test_what_cannot_be_built_is_refused() -> None:
    with pytest.raises(OvertoneError, match="cascade_rcnn_resnet50"):
        build_detector("cascade_rcnn_resnet50")
    with pytest.raises(OvertoneError, match="retinanet"):
        MaskRcnn(DetectorSpec("retinanet", "resnet18"))
    with pytest.raises(OvertoneError, match="bifpn"):
        MaskRcnn(DetectorSpec("mask_rcnn", "hbonet_x010", neck="bifpn"))
    with pytest.raises(ValueError, match="targets"):
        small("mask_rcnn").train()(torch.zeros(1, 3, 64, 64))
