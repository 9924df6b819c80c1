"""Segmentation networks by head and backbone, and the published ones by name."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import timm
from torch import nn

from overtone.errors import OvertoneError, did_you_mean
from overtone.heads.backbones import build_backbone
from overtone.heads.light import FCN, LRASPP, DeepLabV3
from overtone.heads.segmenter import Segmenter
from overtone.heads.upernet import AuxiliaryHead, UPerHead

# Each is called with the channels of the maps, their strides, the number of classes, and its own arguments by name.
HEADS: dict[str, Callable[..., nn.Module]] = {
    "upernet": UPerHead,
    "lraspp": LRASPP,
    "fcn": FCN,
    "deeplabv3": DeepLabV3,
}
# Parts of a name that stand for a head with arguments; longer ones first, so that they are found first.
_HEAD_NAMES: dict[str, tuple[str, dict[str, Any]]] = {
    "upernet_gn7x7": ("upernet", {"fusion": "gn7x7"}),
    "upernet_gngf": ("upernet", {"fusion": "gngf"}),
    **{name: (name, {}) for name in HEADS},
}
_WITH_AUXILIARY = ("upernet",)
NUM_CLASSES = 150  # ADE20K, of all published networks
# Every published UPerNet stores global filters for images of this size, whatever its backbone was trained at.
FILTER_SIZE = 384

PUBLISHED_SEGMENTERS: tuple[str, ...] = (
    *(f"upernet_hornet_{size}_{kind}" for size in ("tiny", "small", "base", "large") for kind in ("7x7", "gf")),
    "upernet_gn7x7_hornet_small_7x7",
    "upernet_gngf_hornet_small_7x7",
)

_MOST_VALUES, _LARGEST = 16, 4096  # of an option of a head


class SegmenterName(NamedTuple):
    """What the name of a segmentation network stands for.

    Attributes:
        head: A key of `HEADS`; built with `head_args`.
        backbone: An architecture, or `architecture.tag`; built with `backbone_args`.
    """

    head: str
    backbone: str
    head_args: dict[str, Any]
    backbone_args: dict[str, Any]


def is_segmenter(name: str) -> bool:
    """Whether a name is a head followed by a backbone, such as `lraspp_hbonet_x100`."""
    return not timm.is_model(name) and any(
        name.startswith(f"{head}_") and timm.is_model(name[len(head) + 1 :]) for head in _HEAD_NAMES
    )


def parse_segmenter(name: str) -> SegmenterName:
    """Head and backbone of a name `<head>_<backbone>`.

    The heads are those of `HEADS` and, for the published `horfpn` configurations, `upernet_gn7x7` and `upernet_gngf`.

    Raises:
        OvertoneError: no such head, or no such backbone.
    """
    for part, (head, head_args) in _HEAD_NAMES.items():
        backbone = name.removeprefix(f"{part}_")
        if backbone == name or not timm.is_model(backbone):
            continue
        has_filters = head == "upernet" and backbone.startswith("hornet_") and backbone.partition(".")[0][-3:] == "_gf"
        return SegmenterName(head, backbone, dict(head_args), {"filter_size": FILTER_SIZE} if has_filters else {})
    hint = did_you_mean(name, PUBLISHED_SEGMENTERS, f"the heads are {', '.join(_HEAD_NAMES)}")
    raise OvertoneError(f"{name!r} is not a head and a backbone joined by '_', such as lraspp_hbonet_x100; {hint}")


def create_segmenter(
    name: str,
    num_classes: int = NUM_CLASSES,
    *,
    backbone_args: Mapping[str, Any] | None = None,
    head_args: Mapping[str, Any] | None = None,
    **options: Any,
) -> Segmenter:
    """A segmentation network by its name.

    Args:
        name: Of `PUBLISHED_SEGMENTERS`, or any `<head>_<backbone>`.
        num_classes: Classes.
        backbone_args: See `build_segmenter`; they add to those of the name and go before them.
        head_args: In the same way.
        **options: `auxiliary`, `size_divisor` and `pretrained` of `build_segmenter`.

    Raises:
        OvertoneError: no such head or backbone, or arguments that they do not take.
    """
    parsed = parse_segmenter(name)
    return build_segmenter(
        parsed.backbone,
        parsed.head,
        num_classes,
        backbone_args=parsed.backbone_args | dict(backbone_args or {}),
        head_args=parsed.head_args | dict(head_args or {}),
        **options,
    )


def build_segmenter(
    backbone_name: str,
    head: str,
    num_classes: int,
    backbone_args: Mapping[str, Any] | None = None,
    head_args: Mapping[str, Any] | None = None,
    pretrained: bool = False,
    *,
    auxiliary: bool | None = None,
    size_divisor: int | None = None,
) -> Segmenter:
    """A segmentation network of any head on any backbone.

    Args:
        backbone_name: An architecture of ours or of timm's, or `architecture.tag`.
        head: A key of `HEADS`.
        num_classes: Classes.
        backbone_args: Of the backbone's constructor; see `build_backbone`, also for which have an `output_stride`.
        head_args: Of the head's constructor.
        pretrained: Load the published weights of the backbone.
        auxiliary: Add the auxiliary head on the last map but one; None: with UPerNet only, as published.
        size_divisor: For backbones that take only images whose sides it divides; see `TimmMaps`.

    Returns:
        The network, in training mode.

    Raises:
        OvertoneError: no such head or backbone, or arguments that they do not take.
    """
    if head not in HEADS:
        raise OvertoneError(f"there is no segmentation head {head!r}: choose one of {', '.join(HEADS)}")
    if num_classes < 1:
        raise OvertoneError(f"a segmentation network has 1 class or more, not {num_classes}")
    backbone = build_backbone(backbone_name, pretrained=pretrained, size_divisor=size_divisor, arguments=backbone_args)
    given = dict(head_args or {})
    try:
        decode_head = HEADS[head](backbone.channels, backbone.reductions, num_classes, **given)
    except TypeError as error:
        spelled = ", ".join(f"{key}={value!r}" for key, value in given.items())
        raise OvertoneError(f"the head {head} cannot be built with {spelled}: {error}") from error
    auxiliary_map = max(len(backbone.channels) - 2, 0)
    auxiliary_head = None
    if head in _WITH_AUXILIARY if auxiliary is None else auxiliary:
        auxiliary_head = AuxiliaryHead(backbone.channels[auxiliary_map], num_classes)
    return Segmenter(backbone, decode_head, auxiliary_head, auxiliary_map)


def checked_head_options(options: Mapping[str, Any]) -> dict[str, Any]:
    """`auxiliary`, `size_divisor` and `head_args` that a file or the command line has chosen, after they have passed.

    Raises:
        OvertoneError: values that are not plain, or numbers that no head has.
    """

    def is_plain(value: Any) -> bool:
        if isinstance(value, Mapping):
            return is_plain(tuple(value.values()))
        if isinstance(value, (list, tuple)):
            return len(value) <= _MOST_VALUES and all(map(is_plain, value))
        is_number = isinstance(value, (int, float)) and 0 <= value <= _LARGEST
        return value is None or is_number or (isinstance(value, str) and value.isidentifier())

    for name, value in options.items():
        if not is_plain(value):
            raise OvertoneError(f"--model.args {name} is {value!r}; it must hold plain values from 0 to {_LARGEST}")
    return dict(options)
