"""Whether an exported network computes what the network computes: outputs side by side, and how far apart they may be.

Which decisions an output stands for belongs to a task: its `OutputSpec` counts those that are equal. The bounds:

| precision | largest difference of a logit | root mean square | equal decisions (of images, or of their pixels) |
|---|---|---|---|
| float32 | 1e-4 | - | all |
| float32 with the resize in the graph | 2e-3 | - | all |
| bfloat16 | - | 0.05 | 95 % |
| int8, int8+bfloat16 | - | 0.30 | 85 % |

Differences are relative to the logits' scale: the largest is divided by the largest absolute logit of the network, the
root mean square, taken after the mean of each image's logits is subtracted (it changes no probability), by that of the
network's logits. The best class of an image is equal if it is the network's, or one whose logit the network puts within
the tie of its best: 1e-4 of the scale in float32 (2e-3 with the resize), 0.01 in bfloat16, 0.05 in int8. The resize has
a bound of its own because one grey level in a thousand is rounded differently from Pillow, which the network is given.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from overtone.deployment.inputs import InputKind
from overtone.errors import OvertoneError
from overtone.tasks.task import OutputSpec, agreement_of_classes


@dataclass(frozen=True)
class Bound:
    """How far apart logits may be; see the table above."""

    largest: float | None
    rms: float | None
    agreement: float
    tie: float


LOGITS_OF_CLASSES = OutputSpec("logits", agreement_of_classes, shift_free=True)
"""The output of a classification."""

_FLOAT = Bound(largest=1e-4, rms=None, agreement=1.0, tie=1e-4)
_RESIZED = Bound(largest=2e-3, rms=None, agreement=1.0, tie=2e-3)
_HALF = Bound(largest=None, rms=0.05, agreement=0.95, tie=0.01)
_WHOLE_NUMBERS = Bound(largest=None, rms=0.30, agreement=0.85, tie=0.05)


def bound_of(precision: str, kind: InputKind = "normalised") -> Bound:
    """The bound for an export in a precision with such an input."""
    if precision.startswith("int8"):
        return _WHOLE_NUMBERS
    if precision == "bfloat16":
        return _HALF
    return _RESIZED if kind == "image" else _FLOAT


@dataclass(frozen=True)
class Parity:
    """Logits of an export beside those of the network.

    Attributes:
        images: how many were compared.
        pictures: `given` ones or `generated` ones.
        scale: largest absolute logit of the network.
        largest: largest absolute difference, divided by `scale`.
        rms: root mean square of the difference over that of the network's logits, each image's mean subtracted.
        same_decisions: share of the images, or of their pixels, with the same best class.
        agreement: share of those whose best class is the network's or within the tie.
        bound: that applies.
    """

    images: int
    pictures: str
    scale: float
    largest: float
    rms: float
    same_decisions: float
    agreement: float
    bound: Bound

    def failures(self) -> list[str]:
        """Which bounds do not hold, in words; NaN is within none."""
        bound, failures = self.bound, []
        if bound.largest is not None and not self.largest <= bound.largest:
            failures.append(f"the largest difference is {self.largest:.2e} of the logits' scale, above {bound.largest}")
        if bound.rms is not None and not self.rms <= bound.rms:
            failures.append(f"the logits differ by {self.rms:.3f} (root mean square), above {bound.rms}")
        if not self.agreement >= bound.agreement:
            failures.append(
                f"the best class is equal for {self.agreement:.1%} of what is classified, below {bound.agreement:.0%}"
            )
        return failures

    def check(self, what: str) -> None:
        """Refuse an export that does not agree.

        Raises:
            OvertoneError: it does not.
        """
        refuse(what, self.failures(), f"{self.images} {self.pictures}", is_exact=self.bound.largest is not None)


def refuse(what: str, failures: Sequence[str], images: str, *, is_exact: bool) -> None:
    """Refuse an export for which bounds do not hold.

    Args:
        what: the export.
        failures: the bounds, in words; none: it agrees.
        images: how many of which kind were compared.
        is_exact: whether float32 was asked for.

    Raises:
        OvertoneError: there are failures.
    """
    if failures:
        hint = "try another runtime" if is_exact else "keep float32, or calibrate on other images"
        raise OvertoneError(
            f"{what} does not agree with the network on {images} images: {'; '.join(failures)}; nothing is written; "
            f"{hint}"
        )


def compare(
    reference: np.ndarray,
    found: np.ndarray,
    bound: Bound,
    images: str,
    spec: OutputSpec = LOGITS_OF_CLASSES,
    count: int | None = None,
) -> Parity:
    """Compare an output (B, K, ...) of an export with the network's.

    Args:
        reference: of the network.
        found: of the export.
        bound: that applies.
        images: kind of images, `given` or `generated`.
        spec: the output.
        count: how many images they are of; None: B.

    Raises:
        OvertoneError: values of another shape.
    """
    if reference.shape != found.shape:
        raise OvertoneError(f"the export gives {spec.name} of shape {found.shape} instead of {reference.shape}")
    reference, found = reference.astype(np.float64), found.astype(np.float64)
    scale = float(np.abs(reference).max())
    difference = found - reference
    error, centred = difference, reference
    if spec.shift_free:
        error = difference - difference.mean(axis=1, keepdims=True)
        centred = reference - reference.mean(axis=1, keepdims=True)
    tiny = np.finfo(np.float64).tiny
    same, near = spec.agreement(reference, found, bound.tie * scale)
    return Parity(
        images=len(reference) if count is None else count,
        pictures=images,
        scale=scale,
        largest=float(np.abs(difference).max()) / max(scale, tiny),
        rms=float(np.sqrt((error**2).mean()) / max(float(np.sqrt((centred**2).mean())), tiny)),
        same_decisions=same,
        agreement=near,
        bound=bound,
    )
