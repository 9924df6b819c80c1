"""Detectors of two and more stages as graphs of a fixed input size: torchvision's Faster and Mask R-CNN, and ours.

Between the stages the number of regions is fixed: where suppression keeps fewer, regions without size follow, which
count for nothing. Only the last suppression leaves as many detections as there are.
"""

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torchvision.models.detection import FasterRCNN
from torchvision.models.detection.image_list import ImageList
from torchvision.ops import roi_align

from overtone.heads.box_coding import limits_of
from overtone.heads.light_detectors import LightDetector
from overtone.heads.mask_rcnn import MaskRcnn
from overtone.heads.roi_heads import RoiHeads
from overtone.heads.rpn import flat_maps
from overtone.heads.suppression import Limits, Size, filled, suppressed, within

_SMALLEST_PROPOSAL, _SMALLEST_BOX = 1e-3, 1e-2  # sides in pixels, of torchvision's


def has_regions(network: nn.Module) -> bool:
    """Whether a detector has a second stage, which looks at regions."""
    return isinstance(network, MaskRcnn) or isinstance(getattr(network, "detector", None), FasterRCNN)


def detection_limits(network: nn.Module) -> Limits:
    """What turns a detector's candidates into its detections."""
    if isinstance(network, MaskRcnn):
        return Limits(network.roi.settings.score, network.roi.settings.nms, network.roi.settings.detections)
    detector: Any = network.detector
    holder: Any = detector.roi_heads if isinstance(detector, FasterRCNN) else detector
    return Limits(holder.score_thresh, holder.nms_thresh, holder.detections_per_img)


class _Level(NamedTuple):
    """Scores (A,), deltas (A, 4) and anchors (A, 4) of a level of the pyramid."""

    scores: Tensor
    deltas: Tensor
    anchors: Tensor


class _Proposing(NamedTuple):
    """Of each level how many anchors are decoded, how many proposals stay, their largest IoU, and smallest side."""

    per_level: int
    most: int
    overlap: float
    smallest: float


def _proposals(
    levels: Sequence[_Level], decode: Callable[[Tensor, Tensor], Tensor], wanted: _Proposing, size: Size
) -> Tensor:
    """Boxes (wanted.most, 4) within an image of a height and width; those without size are none."""
    boxes, scores, numbers = [], [], []
    for number, level in enumerate(levels):
        best, at = level.scores.topk(min(wanted.per_level, len(level.scores)))
        boxes.append(within(decode(level.deltas[at], level.anchors[at]), size))
        scores.append(best)
        numbers.append(torch.full_like(at, number))
    found, surest, number = torch.cat(boxes), torch.cat(scores), torch.cat(numbers)
    solid = torch.nonzero((found[:, 2:] - found[:, :2] > wanted.smallest).all(1))[:, 0]
    kept = solid[suppressed(found[solid], surest[solid], number[solid], Limits(0, wanted.overlap, wanted.most), size)]
    return filled(found, kept, wanted.most)


class Regions(nn.Module):
    """Boxes `(1, N, 4)` in pixels, scores and labels `(1, N)`, with mask heads also masks `(1, N, 28, 28)`.

    Args:
        network: in eval mode.
        size: height and width of the images (1, 3, height, width), pixels.
    """

    def __init__(self, network: LightDetector | MaskRcnn, size: Size) -> None:
        super().__init__()
        self.stages: Any = _OfTorchvision(network, size) if isinstance(network, LightDetector) else _Ours(network, size)
        self.size, self.limits = size, detection_limits(network)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        """Detections in images (1, 3, height, width)."""
        pyramid = self.stages.pyramid(images)
        regions = self.stages.proposals(pyramid)
        boxes, scores = self.stages.found(pyramid, regions)  # (P, K, 4), (P, K)
        scores = scores * (regions[:, 2:] > regions[:, :2]).all(1, keepdim=True)
        sides = (boxes[..., 2:] - boxes[..., :2]).amin(-1)
        region, label = torch.nonzero((scores > self.limits.score) & (sides >= self.stages.smallest)).unbind(1)
        boxes, scores = boxes[region, label], scores[region, label]
        kept = suppressed(boxes, scores, label, self.limits, self.size)
        boxes, scores, label = boxes[kept], scores[kept], label[kept]
        outputs = [boxes, scores, label]
        if self.stages.has_masks:
            rows = torch.ones_like(kept).cumsum(0) - 1
            every = torch.ones_like(label, dtype=boxes.dtype).cumsum(0).long() - 1
            padded = filled(boxes, every, self.limits.most)
            labels = filled(label[:, None], every, self.limits.most)[:, 0]
            outputs.append(self.stages.masks(pyramid, padded, labels)[rows])
        return tuple(output[None] for output in outputs)


class _OfTorchvision(nn.Module):
    """The stages of Faster R-CNN and Mask R-CNN."""

    smallest = _SMALLEST_BOX

    def __init__(self, network: LightDetector, size: Size) -> None:
        super().__init__()
        detector: Any = network.detector
        self.detector: Any
        self.detector, self.size, self.has_masks = detector, size, detector.roi_heads.has_mask()
        rpn = detector.rpn
        self.proposing = _Proposing(rpn.pre_nms_top_n(), rpn.post_nms_top_n(), rpn.nms_thresh, _SMALLEST_PROPOSAL)
        example = torch.zeros(1, 3, *size)
        with torch.no_grad():
            network(example)  # its pools take their scales from a first image
            maps = list(detector.backbone(example).values())
            anchors = rpn.anchor_generator(ImageList(example, [size]), maps)[0]
            counts = [x[0].numel() for x in rpn.head(maps)[0]]
        self.anchors = anchors.split(counts)

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return list(self.detector.backbone(images).values())

    def proposals(self, pyramid: list[Tensor]) -> Tensor:
        logits, deltas = self.detector.rpn.head(pyramid)
        found = zip(logits, deltas, self.anchors, strict=True)
        levels = [_Level(flat_maps(a, 1)[0, :, 0].sigmoid(), flat_maps(b, 4)[0], c) for a, b, c in found]
        return _proposals(levels, self.detector.rpn.box_coder.decode_single, self.proposing, self.size)

    def found(self, pyramid: list[Tensor], regions: Tensor) -> tuple[Tensor, Tensor]:
        heads: Any = self.detector.roi_heads
        logits, deltas = heads.box_predictor(heads.box_head(_pooled(heads.box_roi_pool, pyramid, regions)))
        boxes = heads.box_coder.decode_single(deltas, regions).unflatten(1, (-1, 4))
        return within(boxes, self.size)[:, 1:], logits.softmax(-1)[:, 1:]

    def masks(self, pyramid: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        heads: Any = self.detector.roi_heads
        logits = heads.mask_predictor(heads.mask_head(_pooled(heads.mask_roi_pool, pyramid, boxes)))
        return logits[torch.arange(len(labels)), labels + 1].sigmoid()


def _pooled(pool: Any, pyramid: Sequence[Tensor], boxes: Tensor) -> Tensor:
    """Features of boxes (P, 4) as torchvision's `MultiScaleRoIAlign` of a single image gives them."""
    levels = pool.map_levels([boxes])
    rois, scales = torch.cat((torch.zeros_like(boxes[:, :1]), boxes), 1), pool.scales
    features = None
    for number, (maps, scale) in enumerate(zip(pyramid, scales, strict=False)):
        own = levels == number
        part = roi_align(maps, rois * own[:, None], pool.output_size, scale, pool.sampling_ratio)
        features = part if features is None else torch.where(own[:, None, None, None], part, features)
    assert features is not None
    return features


class _Ours(nn.Module):
    """The stages of `MaskRcnn`, whose parts are shared with it; its levels are chosen by `roi_features`."""

    smallest = 0.0

    def __init__(self, network: MaskRcnn, size: Size) -> None:
        super().__init__()
        self.network, self.size, self.has_masks = network, size, network.spec.masks
        rpn = network.rpn.settings
        self.proposing = _Proposing(rpn.test_per_level, rpn.test_proposals, rpn.nms, 0.0)
        with torch.no_grad():
            self.anchors = network.rpn.anchors(network.rpn(network.pyramid(torch.zeros(1, 3, *size)))[0])

    def pyramid(self, images: Tensor) -> list[Tensor]:
        return self.network.pyramid(images)

    def proposals(self, pyramid: list[Tensor]) -> Tensor:
        logits, deltas = self.network.rpn(pyramid)
        found = zip(logits, deltas, self.anchors, strict=True)
        levels = [_Level(flat_maps(a, 1)[0, :, 0].sigmoid(), flat_maps(b, 4)[0], c) for a, b, c in found]
        return _proposals(levels, self._decoded, self.proposing, self.size)

    def _decoded(self, deltas: Tensor, anchors: Tensor) -> Tensor:
        return self.network.rpn.coder.decode(deltas, anchors)[:, 0]

    def found(self, pyramid: list[Tensor], regions: Tensor) -> tuple[Tensor, Tensor]:
        rois = torch.cat((torch.zeros_like(regions[:, :1]), regions), 1)
        limits = limits_of([self.size], regions)
        scores, boxes, _ = self._heads.scores_and_boxes(pyramid, rois, limits)
        return boxes, scores

    def masks(self, pyramid: list[Tensor], boxes: Tensor, labels: Tensor) -> Tensor:
        rois = torch.cat((torch.zeros_like(boxes[:, :1]), boxes), 1)
        return self._heads.mask_probabilities(pyramid, rois, labels)

    @property
    def _heads(self) -> RoiHeads:
        return self.network.roi
