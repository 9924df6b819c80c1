"""Cascade Mask R-CNN (arXiv:1906.09756) and Mask R-CNN (arXiv:1703.06870) over any timm backbone, as with HorNet.

Eight published detectors on COCO are `cascade_mask_rcnn_hornet_{tiny,small,base,large}_{7x7,gf}`; the ablation of necks
has `mask_rcnn_hornet_small_7x7` (FPN) and `mask_rcnn_horfpn_{7x7,gf}_hornet_small_7x7`. Mask R-CNN is a cascade of one
stage, with its own box head, losses and limits.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import torch
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.heads.backbone_maps import BackboneMaps
from overtone.heads.box_heads import CASCADE, SINGLE
from overtone.heads.detector_layers import layer_of
from overtone.heads.fpn import Neck
from overtone.heads.roi_heads import Detections, RoiHeads, RoiSettings, Size, Target
from overtone.heads.rpn import RegionProposals, RpnSettings
from overtone.models import HorNet

HEADS = ("cascade_mask_rcnn", "mask_rcnn")
_MASK_RCNN_RPN = RpnSettings(train_proposals=1000, inside_only=False, beta=0.0)


@dataclass(frozen=True)
class DetectorSpec:
    """What a detector is built from.

    Attributes:
        head: `cascade_mask_rcnn` or `mask_rcnn`.
        backbone: A timm architecture with maps of strides 4, 8, 16, 32.
        neck: `fpn`, `horfpn_7x7` or `horfpn_gf`.
        num_classes: Classes without the background.
        masks: Whether there are mask heads.
        backbone_args: Further arguments of the backbone's constructor.
    """

    head: str
    backbone: str
    neck: str = "fpn"
    num_classes: int = 80
    masks: bool = True
    backbone_args: dict[str, Any] = field(default_factory=dict)


def _published() -> dict[str, DetectorSpec]:
    specs = {
        f"cascade_mask_rcnn_hornet_{size}_{kind}": DetectorSpec("cascade_mask_rcnn", f"hornet_{size}_{kind}")
        for size in ("tiny", "small", "base", "large")
        for kind in ("7x7", "gf")
    }
    # Its filters are stored for images of 384 pixels, those of the others for 224.
    specs["cascade_mask_rcnn_hornet_large_gf"] = DetectorSpec("cascade_mask_rcnn", "hornet_large_gf_img384")
    specs["mask_rcnn_hornet_small_7x7"] = DetectorSpec("mask_rcnn", "hornet_small_7x7")
    for kind in ("7x7", "gf"):
        spec = DetectorSpec("mask_rcnn", "hornet_small_7x7", neck=f"horfpn_{kind}")
        specs[f"mask_rcnn_horfpn_{kind}_hornet_small_7x7"] = spec
    return specs


DETECTORS = _published()


class MaskRcnn(nn.Module):
    """A detector of boxes and masks.

    Args:
        spec: What it is built from.
        pretrained_backbone: Load the published ImageNet weights of the backbone.
        rpn: What surrounds the proposals; None: as published for the head.
        roi: Numbers of regions and detections.

    Raises:
        OvertoneError: No such head or neck, or a backbone without the maps that the pyramid needs.
    """

    def __init__(
        self,
        spec: DetectorSpec,
        *,
        pretrained_backbone: bool = False,
        rpn: RpnSettings | None = None,
        roi: RoiSettings | None = None,
    ) -> None:
        super().__init__()
        if spec.head not in HEADS:
            raise OvertoneError(f"there is no detection head {spec.head!r}: choose one of {', '.join(HEADS)}")
        cascade = spec.head == "cascade_mask_rcnn"
        self.spec = spec
        self.backbone = BackboneMaps(spec.backbone, pretrained=pretrained_backbone, **spec.backbone_args)
        self.neck = Neck(spec.neck, self.backbone.channels)
        width = self.neck.out_channels
        self.rpn = RegionProposals(width, rpn or (RpnSettings() if cascade else _MASK_RCNN_RPN))
        self.roi = RoiHeads(width, spec.num_classes, CASCADE if cascade else SINGLE, spec.masks, roi)

    def get_classifier(self) -> nn.Module:
        """All but the backbone."""
        return nn.ModuleList([self.neck, self.rpn, self.roi])

    def stage_of(self, name: str) -> int | None:
        """The layer that a parameter's learning rate goes by, 0 to 12; None for all but the backbone's stages.

        Raises:
            OvertoneError: the backbone is no HorNet, whose layers alone are known.
        """
        if not name.startswith("backbone.net."):
            return None
        if not isinstance(getattr(self.backbone.net, "model", None), HorNet):
            raise OvertoneError(f"the layers of {self.spec.backbone} are not known; use optim.layer_groups block")
        return layer_of("backbone." + name.removeprefix("backbone.net.model."))

    def pyramid(self, images: Tensor) -> list[Tensor]:
        """Images (B, 3, H, W) to the five levels of the pyramid."""
        return self.neck(self.backbone(images))

    def forward(
        self,
        images: Tensor,
        image_sizes: Sequence[Size] | None = None,
        targets: Sequence[Target] | None = None,
        scale_factors: Sequence[tuple[float, float]] | None = None,
        original_sizes: Sequence[Size] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses in training mode, detections in evaluation mode.

        Args:
            images: Normalised images (B, 3, H, W), padded with 0 at the right and at the bottom.
            image_sizes: Height and width of each image before padding; None: no padding.
            targets: In training, for each image `boxes` (G, 4) in its pixels (x1, y1, x2, y2), `labels` (G,) int64 from
                0 and, with mask heads, `masks` (G, h, w); G may be 0.
            scale_factors: In evaluation, width and height of each image over those of its original; None: 1.
            original_sizes: In evaluation, height and width of the originals; None: of the images.

        Returns:
            In training the losses by name, weighted: their sum is the total. In evaluation what was found in each
            image, in pixels of the original.

        Raises:
            ValueError: Training without targets.
        """
        padded = (images.shape[-2], images.shape[-1])
        image_sizes = [padded] * len(images) if image_sizes is None else image_sizes
        pyramid = self.pyramid(images)
        logits, deltas = self.rpn(pyramid)
        proposals = [boxes for boxes, _ in self.rpn.proposals(logits, deltas, image_sizes)]
        if not self.training:
            scale_factors = [(1.0, 1.0)] * len(images) if scale_factors is None else scale_factors
            return self.roi.detect(pyramid, proposals, image_sizes, scale_factors, original_sizes or image_sizes)
        if targets is None:
            raise ValueError("a detector in training mode needs targets")
        loss_cls, loss_bbox = self.rpn.losses(logits, deltas, image_sizes, [x["boxes"] for x in targets])
        losses = {"loss_rpn_cls": loss_cls.sum(), "loss_rpn_bbox": loss_bbox.sum()}
        for number, stage in enumerate(self.roi.train_stages(pyramid, proposals, image_sizes, targets, padded)):
            prefix = f"s{number}." if len(self.roi.box_heads) > 1 else ""
            losses |= {prefix + name: loss for name, loss in stage.losses.items()}
        return losses


def build_detector(name: str, *, pretrained_backbone: bool = False, **changes: Any) -> MaskRcnn:
    """Build a published detector, or its like with other classes.

    Args:
        name: One of `DETECTORS`.
        pretrained_backbone: Load the published ImageNet weights of the backbone.
        changes: Fields of `DetectorSpec` to replace, such as `num_classes`.

    Raises:
        OvertoneError: No such name.
    """
    if name not in DETECTORS:
        raise OvertoneError(f"there is no detector {name!r}: choose one of {', '.join(DETECTORS)}")
    return MaskRcnn(replace(DETECTORS[name], **changes), pretrained_backbone=pretrained_backbone)


def total_loss(losses: dict[str, Tensor]) -> Tensor:
    """The sum of the losses of a training step."""
    return torch.stack(list(losses.values())).sum()
