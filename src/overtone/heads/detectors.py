"""Detectors by head and backbone: ours as published, and torchvision's light ones."""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any, NamedTuple

import timm
from torch import nn

from overtone.errors import OvertoneError, did_you_mean
from overtone.heads.light_detectors import LIGHT_HEADS, LightDetector, build_light_detector
from overtone.heads.mask_rcnn import DETECTORS, DetectorSpec, MaskRcnn
from overtone.heads.roi_heads import RoiSettings
from overtone.heads.rpn import RpnSettings

CASCADE = "cascade_mask_rcnn"
DETECTOR_HEADS = (*LIGHT_HEADS, CASCADE)
_ALIASES = {"fasterrcnn": "faster_rcnn", "maskrcnn": "mask_rcnn", "ssd": "ssdlite", "cascade": CASCADE}
_LOWEST_SCORE = 0.05  # COCO's protocol wants low scores too; FCOS would begin at 0.2
_SCORES = {"faster_rcnn": "box_score_thresh", "mask_rcnn": "box_score_thresh"}


class DetectorName(NamedTuple):
    """What the name of a detector stands for.

    Attributes:
        head: one of `DETECTOR_HEADS`; None of a published detector, which `spec` describes.
        backbone: a timm architecture.
        spec: of a published detector.
    """

    head: str | None
    backbone: str
    spec: DetectorSpec | None = None


def is_detector(name: str) -> bool:
    """Whether a name is of a published detector, or a head followed by a backbone, such as `fcos_hbonet_x100`."""
    if timm.is_model(name):
        return False
    return name in DETECTORS or any(_backbone_after(head, name) for head in (*DETECTOR_HEADS, *_ALIASES))


def parse_detector(name: str, head: str | None = None) -> DetectorName:
    """Head and backbone of a detector.

    Args:
        name: the backbone where a head is given; else one of `DETECTORS`, or `<head>_<backbone>`.
        head: one of `DETECTOR_HEADS`, with or without underscores.

    Raises:
        OvertoneError: no such head or detector.
    """
    if head is not None:
        known = _ALIASES.get(head, head)
        if known not in DETECTOR_HEADS:
            raise OvertoneError(f"there is no detection head {head!r}: choose one of {', '.join(DETECTOR_HEADS)}")
        return DetectorName(known, name)
    if name in DETECTORS:
        return DetectorName(None, DETECTORS[name].backbone, DETECTORS[name])
    for prefix in sorted((*DETECTOR_HEADS, *_ALIASES), key=len, reverse=True):
        backbone = _backbone_after(prefix, name)
        if backbone:
            return DetectorName(_ALIASES.get(prefix, prefix), backbone)
    hint = did_you_mean(name, DETECTORS, f"give a --model.head: {', '.join(DETECTOR_HEADS)}")
    raise OvertoneError(f"{name!r} is no detector; {hint}")


def create_detector(
    name: str,
    num_classes: int,
    *,
    head: str | None = None,
    pretrained: bool = False,
    backbone_args: Mapping[str, Any] | None = None,
    head_args: Mapping[str, Any] | None = None,
) -> MaskRcnn | LightDetector:
    """A detector by its name, or by its backbone's and a head.

    Args:
        name: see `parse_detector`.
        num_classes: classes without the background.
        head: see `parse_detector`.
        pretrained: load the published weights of the backbone.
        backbone_args: of the backbone's constructor, such as `drop_path_rate`.
        head_args: of ours `neck`, `masks`, and the fields of `RpnSettings` and `RoiSettings` under `rpn` and `roi`; of
            the light ones what torchvision's constructor takes.

    Raises:
        OvertoneError: no such detector, or arguments that it does not take.
    """
    parsed = parse_detector(name, head)
    given, arguments = dict(backbone_args or {}), dict(head_args or {})
    try:
        if parsed.spec is None and parsed.head != CASCADE:
            assert parsed.head is not None
            arguments = {_SCORES.get(parsed.head, "score_thresh"): _LOWEST_SCORE} | arguments
            if parsed.head == "ssdlite" and "score_thresh" not in (head_args or {}):
                arguments.pop("score_thresh")  # its own is lower
            return build_light_detector(
                parsed.backbone,
                parsed.head,
                num_classes,
                pretrained_backbone=pretrained,
                backbone_args=given,
                **arguments,
            )
        settings = {"rpn": RpnSettings, "roi": RoiSettings}
        parts = {key: make(**arguments.pop(key)) for key, make in settings.items() if key in arguments}
        spec = parsed.spec or DetectorSpec(CASCADE, parsed.backbone)
        spec = replace(spec, num_classes=num_classes, backbone_args=spec.backbone_args | given, **arguments)
        return MaskRcnn(spec, pretrained_backbone=pretrained, **parts)
    except TypeError as error:
        spelled = ", ".join(f"{key}={value!r}" for key, value in (given | arguments).items())
        raise OvertoneError(f"{name} cannot be built with {spelled}: {error}") from error


def has_masks(model: nn.Module) -> bool:
    """Whether a detector has mask heads."""
    if isinstance(model, MaskRcnn):
        return model.spec.masks
    detector = getattr(model, "detector", None)
    return getattr(getattr(detector, "roi_heads", None), "mask_head", None) is not None


def learns_masks(name: str, head: str | None, head_args: Mapping[str, Any]) -> bool:
    """Whether the detector of a name has mask heads, without building it."""
    parsed = parse_detector(name, head)
    if parsed.spec is not None:
        return bool(head_args.get("masks", parsed.spec.masks))
    return parsed.head == "mask_rcnn" or (parsed.head == CASCADE and bool(head_args.get("masks", True)))


def _backbone_after(head: str, name: str) -> str | None:
    backbone = name.removeprefix(f"{head}_")
    return backbone if backbone != name and timm.is_model(backbone) else None
