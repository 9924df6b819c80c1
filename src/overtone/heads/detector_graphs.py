"""torchvision's one-stage detectors as graphs of a fixed input size: FCOS, RetinaNet and SSDLite.

What their own `postprocess_detections` does in loops over levels or classes is written here for one image and a known
number of candidates, so that exporters can follow it. `Candidates` ends before non-maximum suppression and has outputs
of fixed shapes; `Suppressed` goes on to the detections, whose number depends on the image.
"""

from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, RetinaNet
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.ssd import SSD

from overtone.heads.light_detectors import LightDetector
from overtone.heads.suppression import Limits, Size, suppressed, within

OneStage = FCOS | RetinaNet | SSD


class Candidates(nn.Module):
    """Boxes `(1, C, 4)` in pixels, scores and labels `(1, C)` of the surest candidates of an image.

    C is the sum over levels (of SSDLite: over classes) of the detector's `topk_candidates`, or of all where there are
    fewer. Candidates below the score limit are among them.

    Args:
        network: in eval mode.
        size: height and width of the images (1, 3, height, width), pixels.
    """

    def __init__(self, network: LightDetector, size: Size) -> None:
        super().__init__()
        assert isinstance(network.detector, OneStage)
        self.detector: OneStage = network.detector
        self.limits = Limits(self.detector.score_thresh, self.detector.nms_thresh, self.detector.detections_per_img)
        self.first_label, self.size = network.first_label, size
        example = torch.zeros(1, 3, *size)
        with torch.no_grad():
            maps = list(self.detector.backbone(example).values())
            images = ImageList(example, [size])
            # No buffer: it stays float32 where the network is turned into bfloat16, in which a pixel is not a unit.
            self.anchors = self.detector.anchor_generator(images, maps)[0]
        positions = [x.shape[-2] * x.shape[-1] for x in maps]
        each = len(self.anchors) // sum(positions) if not isinstance(self.detector, SSD) else 1
        self.levels = [count * each for count in positions]

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Candidates of images (1, 3, height, width)."""
        found = self.detector.head(list(self.detector.backbone(images).values()))
        deltas, logits = found["bbox_regression"][0].float(), found["cls_logits"][0].float()
        if isinstance(self.detector, SSD):
            boxes, scores, labels = self._by_class(deltas, logits)
        else:
            scores = logits.sigmoid()
            if isinstance(self.detector, FCOS):
                scores = (scores * found["bbox_ctrness"][0].float().sigmoid()).sqrt()
            boxes, scores, labels = self._by_level(deltas, scores)
        return within(boxes, self.size)[None], scores[None], labels[None]

    def _by_level(self, deltas: Tensor, scores: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best pairs of an anchor and a class of each level."""
        classes, first, chosen, values = scores.shape[1], 0, [], []
        for count in self.levels:
            level = scores[first : first + count].flatten()
            best, at = level.topk(min(self.detector.topk_candidates, count * classes))
            values.append(best)
            chosen.append(at + first * classes)
            first += count
        pairs = torch.cat(chosen)
        anchors = torch.div(pairs, classes, rounding_mode="floor")
        coder: Any = self.detector.box_coder
        decode = coder.decode if isinstance(self.detector, FCOS) else coder.decode_single
        return decode(deltas[anchors], self.anchors[anchors]), torch.cat(values), pairs % classes

    def _by_class(self, deltas: Tensor, logits: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """The best anchors of each class but the background, which is the first."""
        scores = logits.softmax(-1)[:, self.first_label :]
        best, anchors = scores.topk(min(self.detector.topk_candidates, len(scores)), dim=0)  # (k, K)
        labels = torch.arange(scores.shape[1])[None].expand_as(anchors)
        at = anchors.t().flatten()
        coder: Any = self.detector.box_coder
        boxes = coder.decode_single(deltas[at], self.anchors[at])
        return boxes, best.t().flatten(), labels.t().flatten()


class Suppressed(nn.Module):
    """Boxes `(1, N, 4)` in pixels, scores and labels `(1, N)` of the detections of an image, by descending score.

    Args:
        candidates: gives the candidates.
    """

    def __init__(self, candidates: Candidates) -> None:
        super().__init__()
        self.candidates, self.limits = candidates, candidates.limits

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Detections in images (1, 3, height, width)."""
        boxes, scores, labels = (found[0] for found in self.candidates(images))
        sure = torch.nonzero(scores > self.limits.score)[:, 0]
        boxes, scores, labels = boxes[sure], scores[sure], labels[sure]
        kept = suppressed(boxes, scores, labels, self.limits, self.candidates.size)
        return boxes[kept][None], scores[kept][None], labels[kept][None]
