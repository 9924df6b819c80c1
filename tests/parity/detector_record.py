"""The recorded outputs of the original detectors (tests/parity/golden_downstream) and ours filled with the same numbers.

One detector has four records, computed in float64 on the CPU with mmdet 2.28.2 and mmcv 1.7.2: maps and proposals (`NAME`),
pieces without the backbone (`NAME.parts`), the whole test path (`NAME.detect`), a training step (`NAME.train`).
"""

import json
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fill import fill_value, image_batch
from torch import Tensor

from overtone.heads.detector_files import infer_detector, load_published
from overtone.heads.mask_rcnn import MaskRcnn
from overtone.heads.roi_heads import RoiSettings

FOLDER = Path(__file__).parent / "golden_downstream"
NAMES = sorted(path.name.removesuffix(".detect.json") for path in FOLDER.glob("*.detect.json"))
PADDED = (160, 224)
ALL = 10**6  # candidates are all taken, so that nothing is random


@dataclass(frozen=True)
class Part:
    """One of the four records of a detector."""

    values: dict[str, Any]
    arrays: dict[str, np.ndarray]

    def tensor(self, key: str) -> Tensor:
        return torch.from_numpy(self.arrays[key])


@dataclass(frozen=True)
class DetectorRecord:
    name: str
    maps: Part
    parts: Part
    detect: Part
    train: Part

    @property
    def loose(self) -> bool:
        """Whether a global filter, which works in float32, is in the net."""
        return any(key.endswith("complex_weight") for key, _ in self.maps.values["state"])

    @property
    def bound(self) -> float:
        return 1e-6 if self.loose else 1e-9

    @property
    def loss_bound(self) -> float:
        return 1e-6 if self.loose else 1e-8

    @property
    def image_sizes(self) -> list[tuple[int, int]]:
        return [tuple(image["img_shape"][:2]) for image in self.maps.values["images"]]

    @property
    def original_sizes(self) -> list[tuple[int, int]]:
        return [tuple(image["ori_shape"][:2]) for image in self.maps.values["images"]]

    @property
    def scale_factors(self) -> list[tuple[float, float]]:
        return [tuple(image["scale_factor"][:2]) for image in self.maps.values["images"]]

    def images(self, suffix: str = "") -> Tensor:
        return torch.from_numpy(image_batch(self.name + suffix, 2, *PADDED))

    def targets(self) -> list[dict[str, Tensor]]:
        """Ground truth; masks are the pixels whose centre is in the ellipse inscribed in the box."""
        targets = []
        for truth in self.train.values["truth"]:
            boxes = torch.tensor(truth["boxes"], dtype=torch.float64)
            y, x = torch.meshgrid(*(torch.arange(n, dtype=torch.float64) + 0.5 for n in PADDED), indexing="ij")
            x1, y1, x2, y2 = boxes.T[:, :, None, None]
            inside = ((2 * x - x1 - x2) / (x2 - x1)) ** 2 + ((2 * y - y1 - y2) / (y2 - y1)) ** 2 <= 1
            targets.append({"boxes": boxes, "labels": torch.tensor(truth["labels"]), "masks": inside})
        return targets


def read_part(name: str) -> Part:
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return Part(json.loads((FOLDER / f"{name}.json").read_text()), dict(arrays))


def read_detector(name: str) -> DetectorRecord:
    return DetectorRecord(name, *(read_part(name + part) for part in ("", ".parts", ".detect", ".train")))


def published_detector_state(record: DetectorRecord) -> dict[str, Tensor]:
    """The published state dict filled with the deterministic numbers."""
    scaled, state = record.maps.values["scaled"], {}
    for key, shape in record.maps.values["state"]:
        value = fill_value(key, tuple(shape))
        state[key] = torch.tensor(0) if value is None else torch.from_numpy(value) * scaled.get(key, 1)
    return state


def filled_detector(record: DetectorRecord) -> MaskRcnn:
    """Our detector in float64, inferred from the shapes and loaded from a file's content, with the record's limits."""
    state = published_detector_state(record)
    spec = infer_detector({key: tuple(value.shape) for key, value in state.items()})
    assert spec is not None
    with torch.device("meta"):  # no time for an initialisation that is replaced
        detector = MaskRcnn(spec, roi=RoiSettings(sampled=ALL))
    detector = detector.double().to_empty(device="cpu")
    detector.rpn.settings = replace(detector.rpn.settings, test_proposals=100, train_proposals=60, sampled=ALL)
    load_published(detector, {"meta": {"epoch": 36}, "state_dict": {f"module.{key}": state[key] for key in state}})
    return detector


def decode_run_lengths(code: dict[str, Any]) -> np.ndarray:
    """A mask (H, W) from COCO's compressed run lengths: base 32 with a sign bit, differences to the run before last."""
    runs, value, shift = [], 0, 0
    for sign in code["counts"]:
        digit = ord(sign) - 48
        value |= (digit & 31) << shift
        shift += 5
        if digit & 32:
            continue
        if digit & 16:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    height, width = code["size"]
    bits = np.repeat(np.arange(len(runs)) % 2 == 1, runs)
    return bits.reshape(width, height).T
