"""What a recipe says of a detection beside what every recipe says."""

from dataclasses import dataclass
from typing import Literal

from overtone.config import TaskSettings
from overtone.ranges import Fraction, NonNegative, Pixels, Positive, require


@dataclass(frozen=True)
class DetectionSettings(TaskSettings):
    """Sizes, random changes and metrics of a detection; data.preprocess.size is the shorter side in evaluation."""

    longest: Pixels = 1333
    """Longer side that a resized image may have at most, pixels; images keep their ratio."""
    shorter: tuple[Pixels, ...] = ()
    """Shorter sides that training draws from; none given: data.preprocess.size."""
    jitter: tuple[Positive, Positive] = (1.0, 1.0)
    """Training multiplies these sizes by a factor between the two."""
    crop: Fraction = 0.0
    """Probability that training resizes to one of crop_shorter, crops, and then resizes as without a crop."""
    crop_shorter: tuple[Pixels, ...] = (400, 500, 600)
    """Shorter sides that are drawn from before a crop."""
    crop_sides: tuple[Pixels, Pixels] = (384, 600)
    """Least and largest sides of a crop, pixels."""
    mosaic: Fraction = 0.0
    """Probability that training joins four images into one of data.preprocess.size."""
    antialias: bool = True
    """Smooth where images shrink; off as published for COCO."""
    smallest: NonNegative = 1.0
    """Sides that a box must keep after random changes, pixels."""
    size_divisor: Pixels = 32
    """Images of a batch are padded with zeros, right and below, to the largest and to a multiple of this."""
    by_orientation: bool = False
    """Training batches hold images that are all wider than high, or all not: less is padded."""
    score: Literal["ap", "ap50"] = "ap"
    """Figure that decides which epoch is best: mean AP over IoU 0.50 to 0.95, or AP at IoU 0.50; of masks if any."""
    threshold: Fraction = 0.3
    """Score from which a prediction shows a detection, and which the confusion of classes is counted at."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        super().__post_init__()
        for name in ("jitter", "crop_sides"):
            low, high = getattr(self, name)
            require(low <= high, f"settings.{name}", (low, high), "two values, the smaller one first")
        require(not self.crop or bool(self.crop_shorter), "settings.crop_shorter", (), "sides, where crop is set")


SETTINGS = DetectionSettings
