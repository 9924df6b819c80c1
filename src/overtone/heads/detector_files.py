"""Detectors in the published layout: keys of the state dict, both ways, and which detector a state dict belongs to.

The published files hold `{'meta': …, 'state_dict': …}` with keys that start with `backbone.`, `neck.`, `rpn_head.` and
`roi_head.`; the box and mask heads of a cascade are numbered, those of Mask R-CNN are not.
"""

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from overtone.errors import OvertoneError
from overtone.heads.mask_rcnn import DetectorSpec, MaskRcnn
from overtone.models import hornet
from overtone.models._cfg import unwrap_state_dict

# Ours (a regular expression) to published. What matches none keeps its name.
_RENAMED = (
    (r"^backbone\.net\.model\.", "backbone."),
    (r"^backbone\.norms\.(\d)\.", r"backbone.norm\1."),
    (r"^neck\.pyramid\.inner_blocks\.(\d)\.0\.", r"neck.lateral_convs.\1.conv."),
    (r"^neck\.pyramid\.layer_blocks\.(\d)\.0\.", r"neck.fpn_convs.\1.conv."),
    (r"^neck\.pyramid\.layer_blocks\.", "neck.fpn_convs."),
    (r"^rpn\.head\.conv\.0\.0\.", "rpn_head.rpn_conv."),
    (r"^rpn\.head\.cls_logits\.", "rpn_head.rpn_cls."),
    (r"^rpn\.head\.bbox_pred\.", "rpn_head.rpn_reg."),
    (r"^roi\.box_heads\.", "roi_head.bbox_head."),
    (r"^roi\.mask_heads\.", "roi_head.mask_head."),
    (r"(bbox_head\.\d)\.cls\.", r"\1.fc_cls."),
    (r"(bbox_head\.\d)\.reg\.", r"\1.fc_reg."),
    (r"(bbox_head\.\d)\.features\.(\d)\.0\.", r"\1.shared_convs.\2.conv."),
    (r"(bbox_head\.\d)\.features\.(\d)\.1\.", r"\1.shared_convs.\2.bn."),
    (r"(mask_head\.\d)\.convs\.(\d)\.0\.", r"\1.convs.\2.conv."),
    (r"(mask_head\.\d)\.predictor\.conv5_mask\.", r"\1.upsample."),
    (r"(mask_head\.\d)\.predictor\.mask_fcn_logits\.", r"\1.conv_logits."),
)


def published_key(key: str, detector: MaskRcnn) -> str:
    """The published name of an entry of the detector's state dict."""
    for ours, published in _RENAMED:
        key = re.sub(ours, published, key)
    convs = detector.roi.stages[0].convs
    # After the convolutions one module flattens, then linear layers and ReLUs take turns.
    linear = re.fullmatch(r"(roi_head\.bbox_head\.\d)\.features\.(\d+)\.(\w+)", key)
    if linear:
        key = f"{linear[1]}.shared_fcs.{(int(linear[2]) - convs - 1) // 2}.{linear[3]}"
    return key if len(detector.roi.stages) > 1 else re.sub(r"(bbox_head|mask_head)\.0\.", r"\1.", key)


def published_state_dict(detector: MaskRcnn) -> dict[str, Tensor]:
    """The detector's state dict under its published keys, in the published order."""
    return {published_key(key, detector): value for key, value in detector.state_dict().items()}


def state_from_published(state: Mapping[str, Any], detector: MaskRcnn) -> dict[str, Tensor]:
    """A published file or state dict under our keys, complete and without anything else.

    Args:
        state: As read; wrappers (`state_dict`, `model`) and prefixes (`module.`) are taken off.
        detector: The detector it is for.

    Raises:
        OvertoneError: An entry is missing, of another shape, or belongs to no part of the detector.
    """
    entries = unwrap_state_dict(state)
    own = {published_key(key, detector): (key, value) for key, value in detector.state_dict().items()}
    missing = [key for key in own if key not in entries]
    foreign = [key for key in entries if key not in own]
    other = [key for key, (_, value) in own.items() if key in entries and entries[key].shape != value.shape]
    if missing or foreign or other:
        kind, key = next(
            (kind, keys[0])
            for kind, keys in (("lacks", missing), ("has another shape of", other), ("also has", foreign))
            if keys
        )
        what = f"{detector.spec.head} on {detector.spec.backbone} with {detector.spec.num_classes} classes"
        counts = f"{len(missing)} missing, {len(other)} of another shape, {len(foreign)} too many"
        raise OvertoneError(f"the state dict {kind} {key} ({counts}) of {what}: build the detector that it belongs to")
    return {key: entries[published] for published, (key, _) in own.items()}


def load_published(detector: MaskRcnn, state: Mapping[str, Any]) -> None:
    """Load a published file or state dict strictly; see `state_from_published`."""
    detector.load_state_dict(state_from_published(state, detector), strict=True)


def infer_detector(shapes: Mapping[str, tuple[int, ...]]) -> DetectorSpec | None:
    """The detector on HorNet that a published state dict of these shapes belongs to; None where it is another net.

    Args:
        shapes: Shapes by published key, without wrappers or prefixes.
    """
    inside = {key.removeprefix("backbone."): shape for key, shape in shapes.items() if key.startswith("backbone.")}
    backbone = hornet.architecture_of(inside)
    cascade = "roi_head.bbox_head.0.fc_cls.weight" in shapes
    logits = shapes.get("roi_head.bbox_head.0.fc_cls.weight", shapes.get("roi_head.bbox_head.fc_cls.weight"))
    if backbone is None or logits is None or "rpn_head.rpn_cls.weight" not in shapes:
        return None
    neck = "fpn"
    if "neck.fpn_convs.0.proj_in.weight" in shapes:
        neck = "horfpn_gf" if "neck.fpn_convs.0.dwconv.complex_weight" in shapes else "horfpn_7x7"
    arguments = {key: value for key, value in backbone.args.items() if key != "num_classes"}
    return DetectorSpec(
        head="cascade_mask_rcnn" if cascade else "mask_rcnn",
        backbone=backbone.architecture,
        neck=neck,
        num_classes=logits[0] - 1,
        masks=any(key.startswith("roi_head.mask_head.") for key in shapes),
        backbone_args=arguments,
    )
