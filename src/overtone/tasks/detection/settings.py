"""What a recipe says of a detection beside what every recipe says."""

from dataclasses import dataclass
from typing import Literal

from overtone.config import TaskSettings
from overtone.errors import OvertoneError


@dataclass(frozen=True)
class DetectionSettings(TaskSettings):
    """Sizes, random changes and metrics of a detection; data.preprocess.size is the shorter side in evaluation."""

    longest: int = 1333
    """Longer side that a resized image may have at most, pixels; images keep their ratio."""
    shorter: tuple[int, ...] = ()
    """Shorter sides that training draws from; none given: data.preprocess.size."""
    jitter: tuple[float, float] = (1.0, 1.0)
    """Training multiplies these sizes by a factor between the two."""
    crop: float = 0.0
    """Probability that training resizes to one of crop_shorter, crops, and then resizes as without a crop."""
    crop_shorter: tuple[int, ...] = (400, 500, 600)
    """Shorter sides that are drawn from before a crop."""
    crop_sides: tuple[int, int] = (384, 600)
    """Least and largest sides of a crop, pixels."""
    mosaic: float = 0.0
    """Probability that training joins four images into one of data.preprocess.size."""
    antialias: bool = True
    """Smooth where images shrink; off as published for COCO."""
    smallest: float = 1.0
    """Sides that a box must keep after random changes, pixels."""
    size_divisor: int = 32
    """Images of a batch are padded with zeros, right and below, to the largest and to a multiple of this."""
    by_orientation: bool = False
    """Training batches hold images that are all wider than high, or all not: less is padded."""
    score: Literal["ap", "ap50"] = "ap"
    """Figure that decides which epoch is best: mean AP over IoU 0.50 to 0.95, or AP at IoU 0.50; of masks if any."""
    threshold: float = 0.3
    """Score from which a prediction shows a detection, and which the confusion of classes is counted at."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        sides = {"longest": (self.longest,), "shorter": self.shorter, "crop_shorter": self.crop_shorter}
        sides |= {"crop_sides": self.crop_sides, "size_divisor": (self.size_divisor,)}
        for name, values in sides.items():
            if any(value < 1 for value in values):
                raise OvertoneError(f"settings.{name} is {values}; it must be at least 1 pixel")
        for name in ("crop", "mosaic", "threshold"):
            if not 0 <= getattr(self, name) <= 1:
                raise OvertoneError(f"settings.{name} is {getattr(self, name)}; it must be in [0, 1]")
        for name in ("jitter", "crop_sides"):
            low, high = getattr(self, name)
            if not 0 < low <= high:
                raise OvertoneError(f"settings.{name} is {(low, high)}; give two above 0, the smaller one first")
        if self.crop and not self.crop_shorter:
            raise OvertoneError("settings.crop is set and settings.crop_shorter is empty; give sides")


SETTINGS = DetectionSettings
