"""Box and mask heads over the regions of a batch: training with stages (arXiv:1712.00726), and detection."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from overtone.heads.assignment import sample
from overtone.heads.box_coding import best_of_each_image, clip_boxes, limits_of, nms_in_groups
from overtone.heads.box_heads import POOLED as BOX_POOLED
from overtone.heads.box_heads import BoxHead, BoxHeadSettings
from overtone.heads.mask_heads import POOLED as MASK_POOLED
from overtone.heads.mask_heads import MaskHead, mask_loss, mask_targets
from overtone.heads.mask_pasting import paste_masks
from overtone.heads.roi_align_levels import roi_features, rois_of
from overtone.heads.rpn import STRIDES

Target = dict[str, Tensor]
Size = tuple[int, int]


@dataclass(frozen=True)
class RoiSettings:
    """Numbers of regions and detections; the defaults are the published ones.

    Attributes:
        sampled: Regions of an image that each stage is trained on.
        positive_fraction: Share of them that may be positive.
        score: Detections have a higher score.
        nms: IoU above which the lower of two detections of one class goes.
        detections: At most so many an image.
    """

    sampled: int = 512
    positive_fraction: float = 0.25
    score: float = 0.05
    nms: float = 0.5
    detections: int = 100


@dataclass(frozen=True)
class Detections:
    """What was found in one image, by descending score.

    Attributes:
        boxes: (N, 4) in pixels of the original image.
        scores: (N,) in (0, 1].
        labels: (N,) classes from 0.
        mask_probabilities: (N, 28, 28) over each box; None without mask heads.
        image_size: Height and width of the original image.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    mask_probabilities: Tensor | None
    image_size: Size

    def masks(self, threshold: float = 0.5) -> Tensor:
        """The masks at the size of the image, (N, height, width) bool; see `paste_masks`."""
        if self.mask_probabilities is None:
            raise ValueError("the detector has no mask heads")
        return paste_masks(self.mask_probabilities, self.boxes, self.image_size, threshold)

    def by_class(self) -> "Detections":
        """The same, by ascending class and within a class by descending score, as the published code lists them."""
        order = self.labels.sort(stable=True).indices
        masks = None if self.mask_probabilities is None else self.mask_probabilities[order]
        return Detections(self.boxes[order], self.scores[order], self.labels[order], masks, self.image_size)


@dataclass(frozen=True)
class SampledRegions:
    """The regions one stage is trained on: of each image the positives, then the negatives, in their order.

    Attributes:
        rois: (N, 5) image, x1, y1, x2, y2.
        labels: (N,), the number of classes for the background.
        positive: Indices of the positives, (P,).
        matched: Ground truth of each positive, (P,), counted over the images of the batch.
        is_truth: Whether a region is a ground-truth box itself, (N,).
        counts: Regions of each image.
    """

    rois: Tensor
    labels: Tensor
    positive: Tensor
    matched: Tensor
    is_truth: Tensor
    counts: list[int]


@dataclass(frozen=True)
class StageTraining:
    """One stage of a training step.

    Attributes:
        regions: What it was trained on.
        logits: (N, K + 1).
        box_targets: (P, 4), see `BoxHead.box_targets`.
        mask_targets: (P, 28, 28); None without mask heads.
        losses: `loss_cls`, `loss_bbox` and, with mask heads, `loss_mask`, weighted.
    """

    regions: SampledRegions
    logits: Tensor
    box_targets: Tensor
    mask_targets: Tensor | None
    losses: dict[str, Tensor]


class RoiHeads(nn.Module):
    """One or several stages of a box head and a mask head.

    Args:
        channels: Channels of the pyramid.
        num_classes: Classes without the background.
        stages: Settings of each stage.
        masks: Whether there are mask heads.
        settings: Numbers of regions and detections.
    """

    def __init__(
        self,
        channels: int,
        num_classes: int,
        stages: Sequence[BoxHeadSettings],
        masks: bool = True,
        settings: RoiSettings | None = None,
    ) -> None:
        super().__init__()
        self.settings = settings or RoiSettings()
        self.num_classes = num_classes
        self.stages = tuple(stages)
        self.box_heads = nn.ModuleList(BoxHead(channels, num_classes, stage) for stage in stages)
        self.mask_heads = nn.ModuleList(MaskHead(channels, num_classes) for _ in stages if masks)

    def box_features(self, pyramid: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Features (N, C, 7, 7) of regions (N, 5), from the four finest levels."""
        return roi_features(pyramid[:4], STRIDES[:4], rois, BOX_POOLED)

    def mask_features(self, pyramid: Sequence[Tensor], rois: Tensor) -> Tensor:
        """Features (N, C, 14, 14) of regions (N, 5), from the four finest levels."""
        return roi_features(pyramid[:4], STRIDES[:4], rois, MASK_POOLED)

    # Training

    def train_stages(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        image_sizes: Sequence[Size],
        targets: Sequence[Target],
        padded: Size,
    ) -> list[StageTraining]:
        """Every stage on its samples of the boxes that the stage before has refined.

        Args:
            pyramid: Levels (B, C, H_i, W_i).
            proposals: Boxes (N_i, 4) of each image.
            image_sizes: Height and width of each image before padding.
            targets: `boxes` (G, 4), `labels` (G,) and, with mask heads, `masks` (G, h, w) of each image.
            padded: Height and width of the padded images.
        """
        limits = limits_of(image_sizes, proposals[0])
        trained = []
        for number, head in enumerate(self.box_heads):
            assert isinstance(head, BoxHead)
            regions = self.sample(head, proposals, targets)
            logits, deltas = head(self.box_features(pyramid, regions.rois))
            positive = regions.rois[regions.positive]
            truth = torch.cat([target["boxes"] for target in targets])[regions.matched].to(positive)
            box_targets = head.box_targets(truth, positive)
            loss_cls, loss_bbox = head.losses(logits, deltas, regions.labels, positive, box_targets)
            losses, bitmaps = {"loss_cls": loss_cls, "loss_bbox": loss_bbox}, None
            if self.mask_heads:
                bitmaps = mask_targets([x["masks"] for x in targets], regions.matched, positive, padded)
                mask_head = self.mask_heads[number]
                assert isinstance(mask_head, MaskHead)
                masks = mask_head.of_class(self.mask_features(pyramid, positive), regions.labels[regions.positive])
                losses["loss_mask"] = head.settings.weight * mask_loss(masks, bitmaps)
            trained.append(StageTraining(regions, logits, box_targets, bitmaps, losses))
            if number + 1 < len(self.box_heads):
                proposals = self._refined(head, regions, logits, deltas, limits)
        return trained

    @torch.no_grad()
    def sample(self, head: BoxHead, proposals: Sequence[Tensor], targets: Sequence[Target]) -> SampledRegions:
        """Assign the proposals of each image, put its ground truth in front, and sample."""
        boxes, labels, matches, truths, is_positive = [], [], [], [], []
        first = 0
        for candidates, target in zip(proposals, targets, strict=True):
            truth = target["boxes"].to(candidates)
            own = torch.arange(len(truth), device=truth.device)
            matched = torch.cat((own, head.settings.assigner(truth, candidates)))
            candidates = torch.cat((truth, candidates))
            positive, negative = sample(matched, self.settings.sampled, self.settings.positive_fraction)
            index = torch.cat((positive, negative))
            boxes.append(candidates[index])
            background = torch.full_like(negative, self.num_classes)
            labels.append(torch.cat((target["labels"][matched[positive]], background)))
            matches.append(matched[positive] + first)
            truths.append(index < len(truth))
            is_positive.append(torch.arange(len(index), device=index.device) < len(positive))
            first += len(truth)
        positive = torch.cat(is_positive).nonzero()[:, 0]
        counts = [len(x) for x in boxes]
        return SampledRegions(
            rois_of(boxes), torch.cat(labels), positive, torch.cat(matches), torch.cat(truths), counts
        )

    @torch.no_grad()
    def _refined(
        self, head: BoxHead, regions: SampledRegions, logits: Tensor, deltas: Tensor, limits: Tensor
    ) -> list[Tensor]:
        """The regions but the ground truths, moved: positives by their label's deltas, negatives by the likeliest's."""
        foreground = regions.labels < self.num_classes
        classes = torch.where(foreground, regions.labels, head.best_foreground(logits))
        moved = head.refine(regions.rois, classes, deltas, limits)[:, 1:]
        parts = zip(moved.split(regions.counts), regions.is_truth.split(regions.counts), strict=True)
        return [boxes[~is_truth] for boxes, is_truth in parts]

    # Detection

    def detect(
        self,
        pyramid: Sequence[Tensor],
        proposals: Sequence[Tensor],
        image_sizes: Sequence[Size],
        scale_factors: Sequence[tuple[float, float]],
        original_sizes: Sequence[Size],
    ) -> list[Detections]:
        """Classes by the mean logits of the stages, boxes by the last one, masks by the mean of all mask heads.

        Args:
            pyramid: Levels (B, C, H_i, W_i).
            proposals: Boxes (N_i, 4) of each image.
            image_sizes: Height and width of each image before padding.
            scale_factors: Width and height of each image over those of the original.
            original_sizes: Height and width of the originals.
        """
        limits = limits_of(image_sizes, proposals[0])
        scales = limits.new_tensor([[x, y, x, y] for x, y in scale_factors])
        scores, boxes, rois = self.scores_and_boxes(pyramid, rois_of(proposals), limits)
        images = rois[:, 0].long()
        boxes = boxes / scales[images][:, None]
        region, label = (scores > self.settings.score).nonzero().unbind(1)
        boxes, scores, images = boxes[region, label], scores[region, label], images[region]
        kept = nms_in_groups(boxes, scores, images * self.num_classes + label, self.settings.nms)
        best, counts = best_of_each_image(images[kept], len(image_sizes), self.settings.detections)
        kept = kept[best]
        boxes, scores, label, images = boxes[kept], scores[kept], label[kept], images[kept]
        parts = [x.split(counts) for x in (boxes, scores, label)]
        masks: list[Tensor | None] = [None] * len(counts)
        if self.mask_heads:
            rois = torch.cat((images[:, None].to(boxes), boxes * scales[images]), dim=1)
            masks = list(self.mask_probabilities(pyramid, rois, label).split(counts))
        return [Detections(*found) for found in zip(*parts, masks, original_sizes, strict=True)]

    def scores_and_boxes(
        self, pyramid: Sequence[Tensor], rois: Tensor, limits: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Scores (N, K), boxes (N, K, 4) clipped to the image, and the regions of the last stage."""
        all_logits = []
        for number, head in enumerate(self.box_heads):
            assert isinstance(head, BoxHead)
            logits, deltas = head(self.box_features(pyramid, rois))
            all_logits.append(logits)
            if number + 1 < len(self.box_heads):
                rois = head.refine(rois, head.best_foreground(logits), deltas, limits)
                continue
            boxes = clip_boxes(head.coder.decode(deltas, rois[:, 1:]), limits[rois[:, 0].long()][:, None])
            scores = torch.stack(all_logits).mean(0).softmax(1)[:, : self.num_classes]
            return scores, boxes, rois
        raise AssertionError("no stage")

    def mask_probabilities(self, pyramid: Sequence[Tensor], rois: Tensor, labels: Tensor) -> Tensor:
        """Masks (N, 28, 28) of regions (N, 5) of one class each, the mean of all mask heads."""
        features = self.mask_features(pyramid, rois)
        heads = [head for head in self.mask_heads if isinstance(head, MaskHead)]
        return torch.stack([head.of_class(features, labels).sigmoid() for head in heads]).mean(0)
