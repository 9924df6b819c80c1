"""What a recipe says of a segmentation beside what every recipe says."""

from dataclasses import dataclass
from typing import Literal

from overtone.config import TaskSettings
from overtone.errors import OvertoneError


@dataclass(frozen=True)
class SegmentationSettings(TaskSettings):
    """Loss, random changes and inference of a segmentation; crops have sides of data.preprocess.size."""

    loss: Literal["cross_entropy", "focal", "dice", "cross_entropy_dice"] = "cross_entropy"
    """Loss of every pixel; `dice`: 1 - mean Dice coefficient of an image's classes; `cross_entropy_dice`: their sum."""
    focal_gamma: float = 2.0
    """`focal`: cross entropy times (1 - probability of the true class) to this power (Lin et al., arXiv:1708.02002)."""
    class_weights: Literal["none", "sqrt", "balanced"] = "none"
    """Weight a class by 1 / its share of the training pixels (`balanced`) or the root of that, mean 1."""
    normalise: Literal["labelled", "all"] = "labelled"
    """Divide the loss by the pixels that have a class, or, as published for ADE20K, by all pixels of the batch."""
    auxiliary_weight: float = 0.4
    """Weight of the auxiliary head's loss, for heads that have one."""
    scale: tuple[int, int] | None = None
    """Longer and shorter side that images are resized into, keeping their ratio; none: they keep their size. Outputs
    are resized to the image, so evaluation is always at the image's own size."""
    antialias: bool = True
    """Smooth where images shrink; off as published for ADE20K."""
    ratio: tuple[float, float] = (0.5, 2.0)
    """Training resizes an image by a factor between these before it is cropped."""
    most_of_one_class: float = 0.75
    """Draw a crop anew, up to ten times, where one class takes this share of its pixels or more; 1: take any crop."""
    distort: bool = True
    """Photometric distortion of training images: brightness, contrast, saturation, hue, each with probability 0.5."""
    inference: Literal["whole", "slide"] = "whole"
    """Whole images through the network, or overlapping windows of the crop's size, whose logits are averaged."""
    window: int | None = None
    """`slide`: side of the windows, pixels; none: that of the crops."""
    stride: int | None = None
    """`slide`: pixels from window to window; none: two thirds of the window."""
    scales: tuple[float, ...] = (1.0,)
    """Evaluate at these factors and average the probabilities."""
    flip: bool = False
    """Evaluate mirrored images too and average the probabilities."""
    boundary: float = 0.0
    """Report a boundary F-score too, of borders within this share of the image's diagonal, such as 0.0075; 0: none."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        sides = (*(self.scale or (1,)), *(side for side in (self.window, self.stride) if side is not None))
        if min(sides) < 1:
            raise OvertoneError("settings.scale, window and stride are in pixels; give at least 1")
        if not 0 < self.ratio[0] <= self.ratio[1]:
            raise OvertoneError(
                f"settings.ratio is {self.ratio}; it must be two factors above 0, the smaller one first"
            )
        if not self.scales or min(self.scales) <= 0:
            raise OvertoneError(f"settings.scales is {self.scales}; it must be one factor above 0, or more")
        if not 0 < self.most_of_one_class <= 1 or not 0 <= self.boundary < 1 or self.auxiliary_weight < 0:
            raise OvertoneError(
                f"settings.most_of_one_class is {self.most_of_one_class}, boundary {self.boundary}, auxiliary_weight "
                f"{self.auxiliary_weight}; they must be in (0, 1], in [0, 1), and 0 or more"
            )


SETTINGS = SegmentationSettings
