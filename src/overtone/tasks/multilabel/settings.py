"""What a recipe says of a multi-label training beside what every recipe says."""

from dataclasses import dataclass
from typing import Literal

from overtone.config import TaskSettings
from overtone.ranges import FractionBelowOne, NonNegative


@dataclass(frozen=True)
class MultilabelSettings(TaskSettings):
    """Loss of a multi-label training."""

    loss: Literal["bce", "asymmetric"] = "bce"
    """`bce`: binary cross entropy; `asymmetric`: the asymmetric loss, for many labels that seldom hold."""
    positive_weights: Literal["none", "balanced"] = "none"
    """`balanced`: weight a label's positive images by its number of negative ones for each positive, at most 100."""
    gamma_negative: NonNegative = 4.0
    """Focusing of the asymmetric loss on negatives that are taken for positives."""
    gamma_positive: NonNegative = 0.0
    """Focusing of the asymmetric loss on positives."""
    clip: FractionBelowOne = 0.05
    """Probability below which the asymmetric loss leaves negatives out."""


SETTINGS = MultilabelSettings
