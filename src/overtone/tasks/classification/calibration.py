"""Whether a classifier's probabilities are right: reliability, expected calibration error, temperature scaling.

Guo et al. 2017, "On Calibration of Modern Neural Networks", arXiv:1706.04599: of the images that get a class with a
probability of about p, a share of p should be of that class; dividing the logits by one number, the temperature, that
minimises the cross entropy on held-out images, mostly makes it so, and changes no top-1.
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from overtone.tasks.task import Plot

NUM_BINS = 15
TEMPERATURES = tuple(float(value) for value in np.geomspace(0.2, 5, 41))


@dataclass(frozen=True)
class Calibration:
    """How probabilities and their truth compare.

    Attributes:
        counts: images by their highest probability, in 15 bins of equal width.
        correct: those of them whose top-1 is right.
        confidence: sum of their highest probabilities.
        temperature: divided by which the logits have the least cross entropy, between 0.2 and 5.
    """

    counts: tuple[int, ...]
    correct: tuple[int, ...]
    confidence: tuple[float, ...]
    temperature: float

    @property
    def error(self) -> float:
        """Expected calibration error, percent: the mean over the images of |share correct - mean probability|."""
        total = max(sum(self.counts), 1)
        return 100 * sum(abs(right - sure) for right, sure in zip(self.correct, self.confidence, strict=True)) / total

    def plot(self) -> Plot:
        """The reliability diagram."""
        filled = [index for index, count in enumerate(self.counts) if count]
        found = [[values[i] / self.counts[i] for i in filled] for values in (self.confidence, self.correct)]
        series = {"calibrated": ([0.0, 1.0], [0.0, 1.0]), "network": (found[0], found[1])}
        title = f"expected calibration error {self.error:.2f} %"
        return Plot("reliability", "curves", title, series=series, axes=("probability", "share correct"))

    def to_dict(self) -> dict[str, Any]:
        """As JSON values, with the error."""
        return {**asdict(self), "error": self.error}

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> "Calibration":
        """What `to_dict` gave."""
        counted = {name: tuple(values[name]) for name in ("counts", "correct", "confidence")}
        return cls(**counted, temperature=float(values["temperature"]))


def counts_of(logits: Tensor, targets: Tensor, temperature: float) -> Tensor:
    """What a batch adds to a calibration: three rows of bins, then the cross entropy at each temperature.

    It stays on the device, which an evaluation need not wait for; float64 where the device has it.

    Args:
        logits: `(B, K)`.
        targets: `(B,)`.
        temperature: of the probabilities that are judged.
    """
    sure, best = (logits / temperature).softmax(1).max(1)
    bins = (sure * NUM_BINS).long().clamp(0, NUM_BINS - 1)
    rows = [torch.ones_like(sure), (best == targets).to(sure), sure]
    dtype = torch.float32 if logits.device.type == "mps" else torch.float64
    binned = [logits.new_zeros(NUM_BINS, dtype=dtype).index_add(0, bins, row.to(dtype)) for row in rows]
    losses = [F.cross_entropy(logits / value, targets, reduction="sum").to(dtype) for value in TEMPERATURES]
    return torch.cat([*binned, torch.stack(losses)])


def calibration_of(counted: Tensor) -> Calibration:
    """The calibration from the sum of what all batches add."""
    counts, correct, confidence, losses = counted.split([NUM_BINS, NUM_BINS, NUM_BINS, len(TEMPERATURES)])
    return Calibration(
        tuple(int(value) for value in counts.tolist()),
        tuple(int(value) for value in correct.tolist()),
        tuple(confidence.tolist()),
        _lowest(losses.numpy()),
    )


def _lowest(losses: np.ndarray) -> float:
    """The temperature of least loss, between those of the grid by a parabola in the logarithm."""
    at = int(losses.argmin())
    if not 0 < at < len(losses) - 1 or not np.isfinite(losses[at - 1 : at + 2]).all():
        return TEMPERATURES[at]
    before, least, after = losses[at - 1 : at + 2]
    bend = before - 2 * least + after
    shift = 0.5 * (before - after) / bend if bend > 0 else 0.0
    step = np.log(TEMPERATURES[1] / TEMPERATURES[0])
    return float(TEMPERATURES[at] * np.exp(shift * step))
