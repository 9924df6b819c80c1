"""The small pieces of the detectors: assignment, coding, overlap, suppression, masks at the image's size."""

import math

import pytest
import torch
from torchvision.ops import generalized_box_iou_loss

from overtone.heads.assignment import IGNORED, NEGATIVE, Assigner, sample
from overtone.heads.box_coding import (
    BoxCoder,
    best_of_each_image,
    clip_boxes,
    generalized_iou,
    limits_of,
    nms_in_groups,
)
from overtone.heads.mask_heads import mask_loss, mask_targets
from overtone.heads.mask_pasting import paste_masks
from overtone.heads.roi_align_levels import roi_features, roi_levels, rois_of


def boxes(*rows: tuple[float, ...]) -> torch.Tensor:
    return torch.tensor(rows, dtype=torch.float64).reshape(-1, 4)


def test_assignment_by_overlap() -> None:
    truth = boxes((0, 0, 10, 10), (20, 0, 30, 10))
    found = boxes((0, 0, 10, 9), (0, 0, 10, 5), (20, 0, 30, 2), (50, 50, 60, 60))  # IoU 0.9, 0.5, 0.2, 0
    assert Assigner(0.7, 0.3)(truth, found).tolist() == [0, IGNORED, NEGATIVE, NEGATIVE]
    # The second truth has 0.2 at best: below the bound of low-quality matches it gets nothing.
    assert Assigner(0.7, 0.3, 0.3)(truth, found).tolist() == [0, IGNORED, NEGATIVE, NEGATIVE]
    assert Assigner(0.7, 0.3, 0.1)(truth, found).tolist() == [0, IGNORED, 1, NEGATIVE]


def test_a_low_quality_match_takes_every_tie_and_the_last_truth_wins() -> None:
    truth = boxes((0, 0, 10, 10), (0, 0, 10, 5))
    found = boxes((0, 0, 10, 6), (0, 4, 10, 10))  # IoU with the first: 0.6 and 0.6; with the second: 5/6 and 0.1
    assert Assigner(0.9, 0.3)(truth, found).tolist() == [IGNORED, IGNORED]
    assert Assigner(0.9, 0.3, 0.3)(truth, found).tolist() == [1, 0]


def test_without_truth_or_boxes_nothing_is_assigned() -> None:
    assert Assigner(0.7, 0.3, 0.3)(boxes(), boxes((0, 0, 1, 1))).tolist() == [NEGATIVE]
    assert Assigner(0.7, 0.3, 0.3)(boxes((0, 0, 1, 1)), boxes()).tolist() == []
    assert Assigner(0.5, 0.5)(boxes((3, 3, 3, 3)), boxes((3, 3, 3, 3))).tolist() == [NEGATIVE]


def test_sampling_fills_up_with_negatives() -> None:
    torch.manual_seed(0)
    matched = torch.tensor([0] * 10 + [NEGATIVE] * 10 + [IGNORED] * 10)
    positive, negative = sample(matched, 8, 0.25)
    assert len(positive) == 2 and len(negative) == 6
    assert (positive < 10).all() and ((negative >= 10) & (negative < 20)).all()
    assert positive.tolist() == sorted(positive) and negative.tolist() == sorted(negative)
    positive, negative = sample(matched[8:], 8, 0.75)
    assert positive.tolist() == [0, 1] and len(negative) == 6


def test_decoding_undoes_encoding_and_sides_change_by_a_bounded_factor() -> None:
    coder = BoxCoder((0.1, 0.1, 0.2, 0.2))
    anchors, truth = boxes((0, 0, 10, 20), (5, 5, 9, 7)), boxes((3, 1, 12, 30), (4, 6, 10, 7))
    torch.testing.assert_close(coder.decode(coder.encode(truth, anchors), anchors)[:, 0], truth)
    extreme = torch.tensor([[0.0, 0.0, 1e3, -1e3]], dtype=torch.float64)
    (x1, y1, x2, y2) = coder.decode(extreme, boxes((0, 0, 16, 16)))[0, 0].tolist()
    assert (x2 - x1, y2 - y1) == pytest.approx((1000.0, 16 * 16 / 1000))


def test_generalized_iou_is_torchvisions_and_finite_without_area() -> None:
    torch.manual_seed(0)
    first, second = (torch.rand(50, 4, dtype=torch.float64) for _ in range(2))
    first[:, 2:] += first[:, :2] + 0.1
    second[:, 2:] += second[:, :2] + 0.1
    torch.testing.assert_close(
        1 - generalized_iou(first, second), generalized_box_iou_loss(first, second), rtol=1e-5, atol=1e-5
    )
    flat = boxes((1, 1, 1, 1)).requires_grad_()
    generalized_iou(flat, boxes((1, 1, 1, 1))).sum().backward()
    assert flat.grad is not None and torch.isfinite(flat.grad).all()


def test_suppression_within_groups_and_the_best_of_each_image() -> None:
    same = boxes(*[(0, 0, 10, 10)] * 6)
    scores = torch.tensor([0.1, 0.9, 0.5, 0.8, 0.3, 0.7], dtype=torch.float64)
    kept = nms_in_groups(same, scores, torch.tensor([0, 0, 1, 2, 2, 3]), 0.5)
    assert kept.tolist() == [1, 3, 5, 2]
    best, counts = best_of_each_image(torch.tensor([2, 0, 2, 0, 2]), 3, 2)
    assert best.tolist() == [1, 3, 0, 2] and counts == [2, 0, 2]


def test_levels_of_the_pyramid_by_size() -> None:
    sides = torch.tensor([10.0, 111.9, 112.1, 223.9, 224.1, 448.1, 5000.0])
    rois = torch.stack((0 * sides, 0 * sides, 0 * sides, sides, sides), dim=1)
    assert roi_levels(rois, 4).tolist() == [0, 0, 1, 1, 2, 3, 3]
    pyramid = [torch.full((1, 1, 64 >> i, 64 >> i), float(i)) for i in range(4)]
    assert roi_features(pyramid, (4, 8, 16, 32), rois[1:5] * 0.99, 7).mean((1, 2, 3)).tolist() == [0, 0, 1, 1]
    assert rois_of([boxes((1, 2, 3, 4)), boxes(), boxes((5, 6, 7, 8))])[:, 0].tolist() == [0, 2]


def test_boxes_are_clipped_to_their_image() -> None:
    limits = limits_of([(20, 30), (40, 50)], torch.zeros(1))
    clipped = clip_boxes(torch.tensor([[-5.0, -5.0, 99.0, 99.0]]).repeat(2, 1), limits)
    assert clipped.tolist() == [[0, 0, 30, 20], [0, 0, 50, 40]]


def bilinear(mask: torch.Tensor, x: float, y: float) -> float:
    """The value at (x, y) of a grid whose cell (j, i) is centred at (j + 0.5, i + 0.5), zeros around it."""
    left, top, total = math.floor(x - 0.5), math.floor(y - 0.5), 0.0
    for i in (top, top + 1):
        for j in (left, left + 1):
            if 0 <= i < mask.shape[0] and 0 <= j < mask.shape[1]:
                total += mask[i, j].item() * (1 - abs(x - 0.5 - j)) * (1 - abs(y - 0.5 - i))
    return total


def test_masks_are_sampled_at_pixel_centres() -> None:
    torch.manual_seed(0)
    found = torch.rand(3, 4, 4)
    places = torch.tensor([[2.3, 1.2, 17.9, 9.4], [-3.0, 4.0, 8.5, 30.0], [18.0, 10.0, 19.5, 11.0]])
    pasted = paste_masks(found, places, (12, 20), 0.5)
    for number, (x1, y1, x2, y2) in enumerate(places.tolist()):
        for row in range(12):
            for column in range(20):
                x, y = (column + 0.5 - x1) / (x2 - x1) * 4, (row + 0.5 - y1) / (y2 - y1) * 4
                value = bilinear(found[number], x, y)
                assert abs(value - 0.5) < 1e-4 or pasted[number, row, column] == (value >= 0.5)


def test_a_box_without_area_or_outside_has_an_empty_mask() -> None:
    places = torch.tensor(
        [[2.0, 2.0, 2.0, 8.0], [1.0, 5.0, 9.0, 5.0], [30.0, 30.0, 40.0, 40.0], [0.0, 0.0, 10.0, 10.0]]
    )
    pasted = paste_masks(torch.ones(4, 28, 28), places, (10, 10))
    assert pasted.sum((1, 2)).tolist() == [0, 0, 0, 100]
    assert paste_masks(torch.ones(0, 28, 28), torch.zeros(0, 4), (10, 12)).shape == (0, 10, 12)


def test_mask_targets_of_a_box_that_is_its_own_mask() -> None:
    masks = [torch.zeros(1, 40, 50, dtype=torch.bool), torch.zeros(2, 64, 64, dtype=torch.bool)]
    masks[1][1, 10:38, 20:48] = True
    rois = torch.tensor([[1.0, 20.0, 10.0, 48.0, 38.0], [1.0, 34.0, 10.0, 62.0, 38.0]])
    targets = mask_targets(masks, torch.tensor([2, 2]), rois, (64, 64))
    assert targets[0].eq(1).all()
    assert targets[1][:, :14].eq(1).all() and targets[1][:, 14:].eq(0).all()
    none = mask_targets(masks, torch.zeros(0, dtype=torch.int64), rois[:0], (64, 64))
    logits = torch.zeros(0, 28, 28, requires_grad=True)
    assert none.shape == (0, 28, 28) and mask_loss(logits, none).item() == 0
