"""Whether an exported network computes what the network computes: outputs side by side, and how far apart they may be.

What "equal" means belongs to a task: an `OutputSpec` names an output and the function that compares two implementations
of it. This module has the one for logits of a classification, (B, K):

| precision | largest difference of a logit | root mean square | images with an equal best class |
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

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, ClassVar, Protocol

import numpy as np

from overtone.deployment.inputs import InputKind
from overtone.deployment.runtimes.runtime import LOGITS
from overtone.errors import OvertoneError


class Agreement(Protocol):
    """What a comparison found; a dataclass, whose plain form is kept in `model.json`."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    def check(self, what: str) -> None:
        """Refuse an export, named by `what`, whose output does not agree (`OvertoneError`)."""


Agree = Callable[[np.ndarray, np.ndarray, str, InputKind, str], Agreement]
"""Compares the network's output with an export's: (reference, found, precision, kind of input, kind of images)."""


@dataclass(frozen=True)
class OutputSpec:
    """An output of a network.

    Attributes:
        name: in the exported graph and in `model.json`.
        agree: how two implementations of it are compared.
    """

    name: str
    agree: Agree


@dataclass(frozen=True)
class Bound:
    """How far apart logits may be; see the table above."""

    largest: float | None
    rms: float | None
    agreement: float
    tie: float


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
    return _RESIZED if kind == "picture" else _FLOAT


@dataclass(frozen=True)
class Parity:
    """Logits of an export beside those of the network.

    Attributes:
        images: how many were compared.
        pictures: `given` ones or `generated` ones.
        scale: largest absolute logit of the network.
        largest: largest absolute difference, divided by `scale`.
        rms: root mean square of the difference over that of the network's logits, each image's mean subtracted.
        same_top1: share of the images with the same best class.
        agreement: share of those whose best class is the network's or within the tie.
        bound: that applies.
    """

    images: int
    pictures: str
    scale: float
    largest: float
    rms: float
    same_top1: float
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
                f"the best class is equal for {self.agreement:.1%} of the images, below {bound.agreement:.0%}"
            )
        return failures

    def check(self, what: str) -> None:
        """Refuse an export that does not agree.

        Raises:
            OvertoneError: it does not.
        """
        failures = self.failures()
        if failures:
            hint = (
                "try another runtime"
                if self.bound.largest is not None
                else "keep float32, or calibrate on other images"
            )
            raise OvertoneError(
                f"{what} does not agree with the network on {self.images} {self.pictures} images: "
                f"{'; '.join(failures)}; nothing is written; {hint}"
            )


def compare(reference: np.ndarray, logits: np.ndarray, bound: Bound, pictures: str) -> Parity:
    """Compare logits (B, K) of an export with the network's.

    Raises:
        OvertoneError: logits of another shape.
    """
    if reference.shape != logits.shape:
        raise OvertoneError(f"the export gives logits of shape {logits.shape} instead of {reference.shape}")
    reference, logits = reference.astype(np.float64), logits.astype(np.float64)
    scale = float(np.abs(reference).max())
    centred = reference - reference.mean(axis=1, keepdims=True)
    difference = logits - reference
    error = difference - difference.mean(axis=1, keepdims=True)
    best, said = reference.argmax(axis=1), logits.argmax(axis=1)
    rows = np.arange(len(reference))
    tied = reference[rows, said] >= reference[rows, best] - bound.tie * scale
    finite = np.isfinite(logits).all(axis=1)
    tiny = np.finfo(np.float64).tiny
    return Parity(
        images=len(reference),
        pictures=pictures,
        scale=scale,
        largest=float(np.abs(difference).max()) / max(scale, tiny),
        rms=float(np.sqrt((error**2).mean()) / max(float(np.sqrt((centred**2).mean())), tiny)),
        same_top1=float(((best == said) & finite).mean()),
        agreement=float((tied & finite).mean()),
        bound=bound,
    )


def agree_on_logits(reference: np.ndarray, found: np.ndarray, precision: str, kind: InputKind, images: str) -> Parity:
    """`compare` within the bound of the precision."""
    return compare(reference, found, bound_of(precision, kind), images)


CLASSIFICATION = (OutputSpec(LOGITS, agree_on_logits),)
"""The outputs of a classification."""
