"""Our detectors against the recorded detections and masks of the original ones."""

import pytest
import torch
from detector_record import NAMES, decode_run_lengths, filled_detector, read_detector

from overtone.heads.roi_heads import Detections

pytestmark = pytest.mark.slow


@pytest.mark.parametrize("name", NAMES)
def test_detections_and_masks_at_the_original_size(name: str) -> None:
    record = read_detector(name)
    detector = filled_detector(record).eval()
    with torch.no_grad():
        all_found = detector(
            record.images(),
            record.image_sizes,
            scale_factors=record.scale_factors,
            original_sizes=record.original_sizes,
        )
    for i, found in enumerate(all_found):
        assert isinstance(found, Detections)
        assert torch.equal(found.scores, found.scores.sort(descending=True).values)
        found = found.by_class()
        expected = record.detect.tensor(f"boxes{i}")
        assert len(found.boxes) == record.detect.values[f"count{i}"]
        assert torch.equal(found.labels, record.detect.tensor(f"labels{i}"))
        torch.testing.assert_close(found.boxes, expected[:, :4], rtol=0, atol=500 * record.bound)
        torch.testing.assert_close(found.scores, expected[:, 4], rtol=record.bound, atol=record.bound)
        masks = found.masks()
        assert masks.shape == (len(found.boxes), *record.original_sizes[i])
        solid = (expected[:, 2:4] > expected[:, :2]).all(1)
        pixels = record.original_sizes[i][0] * record.original_sizes[i][1]
        allowed = pixels * 3e-4 if record.loose else 0
        areas = torch.tensor(record.detect.values[f"mask_areas{i}"])
        assert ((masks.sum((1, 2)) - areas).abs()[solid] <= allowed).all()
        assert not masks[~solid].any()
        for number, code in enumerate(record.detect.values[f"masks{i}"]):
            if solid[number]:
                mask = torch.from_numpy(decode_run_lengths(code))
                assert (masks[number] != mask).sum() <= allowed, f"image {i}, mask {number}"
