"""What a region is and where its box really is: one stage of Cascade R-CNN (arXiv:1712.00726), or Mask R-CNN's."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead

from overtone.heads.assignment import Assigner
from overtone.heads.box_coding import BoxCoder, at_least_float32, clip_boxes, generalized_iou

POOLED = 7  # side of the features of a region
_HIDDEN = 1024
_HALF = Assigner(0.5, 0.5)


@dataclass(frozen=True)
class BoxHeadSettings:
    """What one stage is built and trained with.

    Attributes:
        stds: Standard deviations of its deltas.
        assigner: Which proposals are positive.
        weight: Of all losses of the stage, that of its masks included.
        convs: 3x3 convolutions with batch norm before the linear layers.
        fcs: Linear layers of 1024.
        loss: `giou` (times 10, between boxes) or `l1` (between deltas).
    """

    stds: tuple[float, float, float, float] = (0.1, 0.1, 0.2, 0.2)
    assigner: Assigner = _HALF
    weight: float = 1.0
    convs: int = 4
    fcs: int = 1
    loss: str = "giou"


CASCADE = (
    BoxHeadSettings(),
    BoxHeadSettings((0.05, 0.05, 0.1, 0.1), Assigner(0.6, 0.6), weight=0.5),
    BoxHeadSettings((0.033, 0.033, 0.067, 0.067), Assigner(0.7, 0.7), weight=0.25),
)
SINGLE = (BoxHeadSettings(assigner=Assigner(0.5, 0.5, low_quality=0.5), convs=0, fcs=2, loss="l1"),)


class BoxHead(nn.Module):
    """Class logits, the background last, and four deltas for each class.

    Args:
        channels: Channels of a region's features.
        num_classes: Classes without the background.
        settings: The stage's.
    """

    giou_weight = 10.0

    def __init__(self, channels: int, num_classes: int, settings: BoxHeadSettings) -> None:
        super().__init__()
        self.settings = settings
        self.num_classes = num_classes
        self.coder = BoxCoder(settings.stds)
        # In the published order: predictors first.
        self.cls = nn.Linear(_HIDDEN, num_classes + 1)
        self.reg = nn.Linear(_HIDDEN, 4 * num_classes)
        shape, convs, fcs = (channels, POOLED, POOLED), [channels] * settings.convs, [_HIDDEN] * settings.fcs
        self.features = FastRCNNConvFCHead(shape, convs, fcs, nn.BatchNorm2d)
        self.init_weights()

    def init_weights(self) -> None:
        """Logits normal of std 0.01, deltas of 0.001, linear layers Xavier uniform; convolutions as torchvision."""
        for module in self.features.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for module, std in ((self.cls, 0.01), (self.reg, 0.001)):
            nn.init.normal_(module.weight, std=std)
            nn.init.zeros_(module.bias)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Features (N, C, 7, 7) to logits (N, K + 1) and deltas (N, 4 K)."""
        x = self.features(x)
        return at_least_float32(self.cls(x)), at_least_float32(self.reg(x))

    def best_foreground(self, logits: Tensor) -> Tensor:
        """The class of the highest logit but the background's, (N,)."""
        return logits[:, : self.num_classes].argmax(1)

    def refine(self, rois: Tensor, classes: Tensor, deltas: Tensor, limits: Tensor) -> Tensor:
        """Regions (N, 5) moved by the deltas of one class each, and clipped.

        Args:
            rois: Image, x1, y1, x2, y2.
            classes: (N,) whose deltas to take.
            deltas: (N, 4 K).
            limits: (B, 4), width and height of each image, twice.
        """
        boxes = self.coder.decode(_of_class(deltas, classes), rois[:, 1:])[:, 0]
        return torch.cat((rois[:, :1], clip_boxes(boxes, limits[rois[:, 0].long()])), dim=1)

    def box_targets(self, truth: Tensor, rois: Tensor) -> Tensor:
        """What positives (P, 5) with ground-truth boxes (P, 4) are trained to: those boxes, or deltas to them."""
        return truth if self.settings.loss == "giou" else self.coder.encode(truth, rois[:, 1:])

    def losses(
        self, logits: Tensor, deltas: Tensor, labels: Tensor, positive_rois: Tensor, targets: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Cross entropy over all regions, and the box loss of the positive ones over the number of all regions.

        Args:
            logits: (N, K + 1).
            deltas: (N, 4 K).
            labels: (N,), K for the background.
            positive_rois: Regions (P, 5) of the labels below K, in their order.
            targets: (P, 4) as `box_targets` returns them.
        """
        positive = (labels < self.num_classes).nonzero()[:, 0]
        own = _of_class(deltas[positive], labels[positive])
        if self.settings.loss == "giou":
            boxes = self.coder.decode(own, positive_rois[:, 1:])[:, 0]
            distance = self.giou_weight * (1 - generalized_iou(boxes, targets)).sum()
        else:
            distance = (own - targets).abs().sum()
        weight, count = self.settings.weight, max(len(labels), 1)
        return weight * F.cross_entropy(logits, labels, reduction="sum") / count, weight * distance / count


def _of_class(deltas: Tensor, classes: Tensor) -> Tensor:
    """Of deltas (N, 4 K) those of one class a row, (N, 4)."""
    return deltas.unflatten(1, (-1, 4))[torch.arange(len(deltas), device=deltas.device), classes]
