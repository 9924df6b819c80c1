"""torchvision's detectors over any timm backbone: Faster R-CNN, Mask R-CNN, RetinaNet, FCOS, SSDLite.

The detectors are torchvision's own classes with their own defaults. Only the backbone's maps come from timm, and images
are taken as the data pipeline made them: torchvision's resizing and normalisation are off.
"""

from collections import OrderedDict
from collections.abc import Callable, Sequence
from functools import partial
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection import FCOS, FasterRCNN, MaskRCNN, RetinaNet
from torchvision.models.detection.anchor_utils import DefaultBoxGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.ssd import SSD
from torchvision.models.detection.ssdlite import SSDLiteHead, _extra_block, _normal_init
from torchvision.models.detection.transform import GeneralizedRCNNTransform
from torchvision.ops import FeaturePyramidNetwork
from torchvision.ops.feature_pyramid_network import ExtraFPNBlock, LastLevelMaxPool, LastLevelP6P7

from overtone.errors import OvertoneError
from overtone.heads.backbone_maps import BackboneMaps
from overtone.heads.roi_heads import Detections, Size, Target

_WIDTH = 256
_BOX_SIDE = 7  # of what the box head takes from the maps
_SSD_EXTRA_WIDTHS = (512, 256, 256, 128)  # of torchvision's SSDLite
_SSD_STRIDES, _SSD_SCALES = (16, 32), (0.2, 0.95)  # of the maps, and of the boxes as shares of the image
_SSD_NORM = partial(nn.BatchNorm2d, eps=0.001, momentum=0.03)
_SSD_THRESHOLDS = {"score_thresh": 0.001, "nms_thresh": 0.55, "detections_per_img": 300, "topk_candidates": 300}


class PyramidBackbone(nn.Module):
    """Maps of a timm network and a feature pyramid over them, under the names that torchvision expects."""

    def __init__(self, maps: BackboneMaps, extra: ExtraFPNBlock, width: int = _WIDTH) -> None:
        super().__init__()
        self.maps = maps
        self.out_channels = width
        self.fpn = FeaturePyramidNetwork(maps.channels, width, extra)

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to levels (B, width, H_i, W_i) by name."""
        return self.fpn(OrderedDict((str(i), x) for i, x in enumerate(self.maps(images))))


class SsdBackbone(nn.Module):
    """Maps of a timm network, of strides 16 and 32 by default, and SSDLite's four extra blocks after the last."""

    def __init__(self, maps: BackboneMaps) -> None:
        super().__init__()
        self.maps = maps
        widths = (maps.channels[-1], *_SSD_EXTRA_WIDTHS)
        self.extra = nn.ModuleList(_extra_block(a, b, _SSD_NORM) for a, b in pairwise(widths))
        _normal_init(self.extra)
        self.channels = [*maps.channels, *_SSD_EXTRA_WIDTHS]

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """Images (B, 3, H, W) to the maps, the finest first, by name."""
        maps = self.maps(images)
        for block in self.extra:
            maps.append(block(maps[-1]))
        return OrderedDict((str(i), x) for i, x in enumerate(maps))


class UnchangedImages(GeneralizedRCNNTransform):
    """torchvision's batching of images, without its normalisation, resizing and pasting of masks."""

    def __init__(self, size_divisible: int) -> None:
        super().__init__(1, 1, [0.0], [1.0], size_divisible)

    def normalize(self, image: Tensor) -> Tensor:
        """The image as it is."""
        return image

    def resize(self, image: Tensor, target: Target | None = None) -> tuple[Tensor, Target | None]:
        """The image and its target as they are."""
        return image, target

    def postprocess(
        self, result: list[Target], image_shapes: Sequence[Size], original_image_sizes: Sequence[Size]
    ) -> list[Target]:
        """The detections as they are."""
        return result


class LightDetector(nn.Module):
    """A detector of torchvision with the interface of `MaskRcnn`: labels from 0, detections in the original's pixels.

    Args:
        detector: torchvision's.
        first_label: Number that torchvision's detector gives to the first class: 1 where it keeps 0 for the background.
        size_divisible: What the sides of the batch are padded to.
    """

    def __init__(self, detector: nn.Module, first_label: int, size_divisible: int) -> None:
        super().__init__()
        self.detector = detector
        self.detector.transform = UnchangedImages(size_divisible)
        self.first_label = first_label

    def get_classifier(self) -> nn.Module:
        """All but the backbone that gives the maps."""
        backbone: nn.Module = self.detector.backbone  # type: ignore[assignment]
        parts = [part for name, part in self.detector.named_children() if name != "backbone"]
        return nn.ModuleList([*(part for name, part in backbone.named_children() if name != "maps"), *parts])

    def forward(
        self,
        images: Tensor,
        image_sizes: Sequence[Size] | None = None,
        targets: Sequence[Target] | None = None,
        scale_factors: Sequence[tuple[float, float]] | None = None,
        original_sizes: Sequence[Size] | None = None,
    ) -> dict[str, Tensor] | list[Detections]:
        """Losses by name in training mode, detections in evaluation mode; see `MaskRcnn.forward`.

        Raises:
            ValueError: Training without targets.
        """
        image_sizes = [(images.shape[-2], images.shape[-1])] * len(images) if image_sizes is None else image_sizes
        single = [image[:, :h, :w] for image, (h, w) in zip(images, image_sizes, strict=True)]
        if self.training:
            if targets is None:
                raise ValueError("a detector in training mode needs targets")
            return self.detector(single, [self._shifted(target) for target in targets])
        scale_factors = [(1.0, 1.0)] * len(images) if scale_factors is None else scale_factors
        original_sizes = image_sizes if original_sizes is None else original_sizes
        found = zip(self.detector(single), scale_factors, original_sizes, strict=True)
        return [self._detections(result, scale, size) for result, scale, size in found]

    def _shifted(self, target: Target) -> Target:
        shifted = target | {"labels": target["labels"] + self.first_label}
        if "masks" in shifted:
            shifted["masks"] = shifted["masks"].to(torch.uint8)
        return shifted

    def _detections(self, result: Target, scale: tuple[float, float], size: Size) -> Detections:
        boxes = result["boxes"] / result["boxes"].new_tensor([*scale, *scale])
        masks = result["masks"][:, 0] if "masks" in result else None
        return Detections(boxes, result["scores"], result["labels"] - self.first_label, masks, size)


def _two_stage(
    maps: dict[str, Any], num_classes: int, options: dict[str, Any], *, masks: bool = False
) -> LightDetector:
    """Faster or Mask R-CNN; at the usual width the heads are those that torchvision makes itself."""
    width = options.pop("width", _WIDTH)
    backbone = PyramidBackbone(BackboneMaps(strides=(4, 8, 16, 32), **maps), LastLevelMaxPool(), width)
    hidden = 4 * width
    options |= {"box_head": TwoMLPHead(width * _BOX_SIDE**2, hidden)}
    options |= {"box_predictor": FastRCNNPredictor(hidden, num_classes + 1)}
    if masks:
        options |= {"mask_head": MaskRCNNHeads(width, (width,) * 4, 1)}
        options |= {"mask_predictor": MaskRCNNPredictor(width, width, num_classes + 1)}
    return LightDetector((MaskRCNN if masks else FasterRCNN)(backbone, **options), 1, 32)


def _retinanet(maps: dict[str, Any], num_classes: int, options: dict[str, Any]) -> LightDetector:
    width = options.pop("width", _WIDTH)
    backbone = PyramidBackbone(BackboneMaps(strides=(8, 16, 32), **maps), LastLevelP6P7(width, width), width)
    return LightDetector(RetinaNet(backbone, num_classes, **options), 0, 32)


def _fcos(maps: dict[str, Any], num_classes: int, options: dict[str, Any]) -> LightDetector:
    width = options.pop("width", _WIDTH)
    backbone = PyramidBackbone(BackboneMaps(strides=(8, 16, 32), **maps), LastLevelP6P7(width, width), width)
    return LightDetector(FCOS(backbone, num_classes, **options), 0, 32)


def _ssdlite(maps: dict[str, Any], num_classes: int, options: dict[str, Any]) -> LightDetector:
    strides = tuple(options.pop("strides", _SSD_STRIDES))
    smallest, largest = options.pop("scales", _SSD_SCALES)
    backbone = SsdBackbone(BackboneMaps(strides=strides, **maps))
    boxes = DefaultBoxGenerator([[2, 3] for _ in backbone.channels], min_ratio=smallest, max_ratio=largest)
    head = SSDLiteHead(backbone.channels, boxes.num_anchors_per_location(), num_classes + 1, _SSD_NORM)
    # The size only matters for the resizing that is off.
    ssd = SSD(backbone, boxes, (320, 320), num_classes + 1, head=head, **(_SSD_THRESHOLDS | options))
    return LightDetector(ssd, 1, 1)


LIGHT_HEADS: dict[str, Callable[[dict[str, Any], int, dict[str, Any]], LightDetector]] = {
    "faster_rcnn": _two_stage,
    "mask_rcnn": partial(_two_stage, masks=True),
    "retinanet": _retinanet,
    "fcos": _fcos,
    "ssdlite": _ssdlite,
}


def build_light_detector(
    backbone: str,
    head: str,
    num_classes: int,
    *,
    pretrained_backbone: bool = False,
    backbone_args: dict[str, Any] | None = None,
    **options: Any,
) -> LightDetector:
    """Build a detector of torchvision over a timm network.

    Args:
        backbone: A timm architecture with maps of the strides that the head needs.
        head: One of `LIGHT_HEADS`. SSDLite's last maps are single pixels up to 512-pixel images: its batch norm then
            needs batches of at least two images in training.
        num_classes: Classes without the background.
        pretrained_backbone: Load the weights that timm or this package knows for the backbone.
        backbone_args: Further arguments of the backbone's constructor.
        options: Arguments of torchvision's constructor, such as `box_score_thresh` or `detections_per_img`. Beside
            these, all but SSDLite take `width`, the channels of the pyramid and of the heads over it (a multiple of 32;
            256 by default), and SSDLite takes `strides` of the backbone's maps, and `scales`, the smallest and the
            largest of its boxes as shares of the image: for small objects (8, 16, 32) and less than 0.2.

    Raises:
        OvertoneError: No such head, or a backbone without the maps that it needs.
    """
    if head not in LIGHT_HEADS:
        raise OvertoneError(f"there is no detection head {head!r}: choose one of {', '.join(LIGHT_HEADS)}")
    maps = {"name": backbone, "pretrained": pretrained_backbone, **(backbone_args or {})}
    return LIGHT_HEADS[head](maps, num_classes, options)
