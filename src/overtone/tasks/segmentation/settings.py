"""What a recipe says of a segmentation beside what every recipe says."""

from dataclasses import dataclass
from typing import Literal

from overtone.config import TaskSettings
from overtone.ranges import FractionBelowOne, NonNegative, Pixels, Positive, PositiveFraction, require


@dataclass(frozen=True)
class SegmentationSettings(TaskSettings):
    """Loss, random changes and inference of a segmentation; crops have sides of data.preprocess.size."""

    loss: Literal["cross_entropy", "focal", "dice", "cross_entropy_dice"] = "cross_entropy"
    """Loss of every pixel; `dice`: 1 - mean Dice coefficient of an image's classes; `cross_entropy_dice`: their sum."""
    focal_gamma: NonNegative = 2.0
    """`focal`: cross entropy times (1 - probability of the true class) to this power (Lin et al., arXiv:1708.02002)."""
    class_weights: Literal["none", "sqrt", "balanced"] = "none"
    """Weight a class by 1 / its share of the training pixels (`balanced`) or the root of that, mean 1."""
    normalise: Literal["labelled", "all"] = "labelled"
    """Divide the loss by the pixels that have a class, or, as published for ADE20K, by all pixels of the batch."""
    auxiliary_weight: NonNegative = 0.4
    """Weight of the auxiliary head's loss, for heads that have one."""
    scale: tuple[Pixels, Pixels] | None = None
    """Longer and shorter side that images are resized into, keeping their ratio; none: they keep their size. Outputs
    are resized to the image, so evaluation is always at the image's own size."""
    antialias: bool = True
    """Smooth where images shrink; off as published for ADE20K."""
    ratio: tuple[Positive, Positive] = (0.5, 2.0)
    """Training resizes an image by a factor between these before it is cropped."""
    most_of_one_class: PositiveFraction = 0.75
    """Draw a crop anew, up to ten times, where one class takes this share of its pixels or more; 1: take any crop."""
    distort: bool = True
    """Photometric distortion of training images: brightness, contrast, saturation, hue, each with probability 0.5."""
    inference: Literal["whole", "slide"] = "whole"
    """Whole images through the network, or overlapping windows of the crop's size, whose logits are averaged."""
    window: Pixels | None = None
    """`slide`: side of the windows, pixels; none: that of the crops."""
    stride: Pixels | None = None
    """`slide`: pixels from window to window; none: two thirds of the window."""
    pad: bool = False
    """`slide`: pad images that are smaller than a window with zeros, as training pads crops; off: the window is then as
    small as the image."""
    scales: tuple[Positive, ...] = (1.0,)
    """Evaluate at these factors and average the probabilities."""
    flip: bool = False
    """Evaluate mirrored images too and average the probabilities."""
    boundary: FractionBelowOne = 0.0
    """Report a boundary F-score too, of borders within this share of the image's diagonal, such as 0.0075; 0: none."""

    def __post_init__(self) -> None:
        """Refuse values that no run could use."""
        super().__post_init__()
        require(self.ratio[0] <= self.ratio[1], "settings.ratio", self.ratio, "two factors, the smaller one first")
        if self.window is not None and self.stride is not None:
            require(self.stride <= self.window, "settings.stride", self.stride, f"at most the window, {self.window}")
        require(bool(self.scales), "settings.scales", self.scales, "one factor or more")

    def windows(self, crop: int) -> tuple[int, int]:
        """Side and distance of sliding windows, pixels, where crops have sides of `crop`."""
        window = self.window or crop
        return window, self.stride or max(2 * window // 3, 1)


SETTINGS = SegmentationSettings
