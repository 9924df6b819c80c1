"""The recorded outputs of the original segmentation networks (tests/parity/golden_downstream) and ours with their numbers.

One network is `NAME.json` + `NAME.npz`, computed in float64 on the CPU by the original classes (mmsegmentation 0.30.0 and
the HorNet repository's own folder). `state` holds the published keys and shapes in order, each filled by
`fill_value(key, shape) * scaled.get(key, 1)`; images are `image_batch(NAME, batch, height, width)`. Dropout and
stochastic depth were off.

- `features_HxW` [L2 norm, mean] by stage and image, `featureN_HxW` `[:, ::max(1, C // 4), ::4, ::4]`; `logits_HxW` and
  `aux_HxW` `[:, ::25]`; `prediction_HxW` after resizing to the images. 96x128 has two images, 90x131 one.
- `slide`, `slide_flip` (the mirrored image, mirrored back): probability `[:, ::25, ::3, ::3]` and prediction.
- `multiscale`: `image_batch(f"{NAME}:{h}x{w}", 1, h, w)` for each size, plain and mirrored, mean of the probabilities.
- `train`: `image_batch(NAME + ":train", 2, 64, 96)`, see `training_labels`.
"""

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from fill import fill_value, image_batch, uniform
from torch import Tensor, nn

from overtone.heads import Segmenter, build_segmenter
from overtone.heads.segmentation_files import infer_segmenter, load_published_segmenter, segmentation_state

FOLDER = Path(__file__).parent / "golden_downstream"
NAMES = sorted(path.stem for path in FOLDER.glob("upernet_*.json"))


@dataclass(frozen=True)
class SegmentationRecord:
    """One golden record."""

    name: str
    values: dict[str, Any]
    arrays: dict[str, np.ndarray]

    @property
    def state(self) -> list[tuple[str, tuple[int, ...]]]:
        """Published keys and shapes, in the published order."""
        return [(key, tuple(shape)) for key, shape in self.values["state"]]

    @property
    def has_global_filter(self) -> bool:
        """Whether a global filter, which works in float32, is in the net."""
        return any(key.endswith(".complex_weight") for key, _ in self.state)

    def bound(self, usual: float = 1e-9) -> float:
        """Largest relative error: as the records' authors give it."""
        return 1e-6 if self.has_global_filter else usual

    def sizes(self) -> list[tuple[int, int]]:
        """Height and width of the recorded whole images."""
        names = [key.removeprefix("logits_") for key in self.arrays if key.startswith("logits_")]
        return [(int(name.split("x")[0]), int(name.split("x")[1])) for name in names]

    def images(self, height: int, width: int, suffix: str = "") -> Tensor:
        """The images of one size."""
        batch = 2 if (height, width) == (96, 128) else 1
        return torch.from_numpy(image_batch(self.name + suffix, batch, height, width))


def read_record(name: str) -> SegmentationRecord:
    values = json.loads((FOLDER / f"{name}.json").read_text())
    with np.load(FOLDER / f"{name}.npz") as arrays:
        return SegmentationRecord(name, values, dict(arrays))


def write_published_file(record: SegmentationRecord, path: Path) -> None:
    """A file in the published layout with the record's numbers."""
    state = {}
    for key, shape in record.state:
        value = fill_value(key, shape)
        factor = record.values["scaled"].get(key, 1)
        state[f"module.{key}"] = torch.tensor(0) if value is None else torch.from_numpy(value * factor)
    torch.save({"meta": {"CLASSES": ("wall", "building"), "iter": 160000}, "state_dict": state}, path)


def load_published_file(path: Path) -> Segmenter:
    """The network that a file of the published layout is of, in float64, with its weights."""
    values = torch.load(path, weights_only=True)
    inferred = infer_segmenter({key: tuple(value.shape) for key, value in segmentation_state(values).items()})
    assert inferred is not None
    with torch.device("meta"):  # no time for an initialisation that is replaced
        model = build_segmenter(**inferred.arguments)
    model = model.double().to_empty(device="cpu")
    load_published_segmenter(model, values)
    return model.eval()


def training_labels(name: str) -> Tensor:
    """Labels (2, 64, 96) in blocks of 8 x 8, a seventh of them ignored."""
    labels = np.floor(150 * uniform(f"labels:{name}", (2, 8, 12)))
    labels[uniform(f"ignored:{name}", (2, 8, 12)) < 1 / 7] = 255
    return torch.from_numpy(labels.astype(np.int64).repeat(8, 1).repeat(8, 2))


def without_dropout(model: nn.Module) -> nn.Module:
    for module in model.modules():
        if isinstance(module, (nn.Dropout, nn.Dropout2d)):
            module.p = 0.0
    return model
