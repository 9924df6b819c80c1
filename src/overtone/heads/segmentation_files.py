"""The published layout of segmentation checkpoints: which network a file is of, read and written strictly.

Our names of modules are the published ones, so a state dict is the same in both; a file has it under `state_dict`
beside `meta`, and keys may carry `module.`.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

from torch import Tensor

from overtone.errors import OvertoneError
from overtone.heads.building import PUBLISHED_SEGMENTERS, parse_segmenter
from overtone.heads.segmenter import Segmenter
from overtone.models._cfg import unwrap_state_dict
from overtone.models._hornet_files import infer_arguments
from overtone.models.hornet import VARIANTS

_HORNET = {"depths": (2, 3, 18, 2), "orders": (2, 3, 4, 5), "spatial_filter": "7x7"}


class InferredSegmenter(NamedTuple):
    """What the keys and shapes of a state dict say about its segmentation network.

    Attributes:
        name: Of `PUBLISHED_SEGMENTERS`, or another `<head>_<backbone>` that `create_segmenter` builds the same from;
            None where the backbone needs other arguments than its name's.
        backbone, head, num_classes, backbone_args, head_args, auxiliary: Arguments of `build_segmenter`.
    """

    name: str | None
    backbone: str
    head: str
    num_classes: int
    backbone_args: dict[str, Any]
    head_args: dict[str, Any]
    auxiliary: bool

    @property
    def arguments(self) -> dict[str, Any]:
        """What `build_segmenter` takes by name."""
        return {"backbone_name": self.backbone} | {
            key: value for key, value in self._asdict().items() if key not in ("name", "backbone")
        }


def infer_segmenter(shapes: Mapping[str, tuple[int, ...]]) -> InferredSegmenter | None:
    """The UPerNet with HorNet that a state dict of these shapes belongs to; None where it is another network.

    Args:
        shapes: By published key, out of any wrapper (see `segmentation_state`).
    """
    try:
        backbone = _infer_backbone(shapes)
        head = _infer_head(shapes)
    except (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError):
        return None  # known keys with shapes that no such network has: a foreign or an altered file
    if backbone is None or head is None:
        return None
    architecture, backbone_args = backbone
    num_classes, head_args = head
    auxiliary = "auxiliary_head.conv_seg.weight" in shapes
    found = InferredSegmenter(None, architecture, "upernet", num_classes, backbone_args, head_args, auxiliary)
    return found._replace(name=_name_of(found))


def _infer_backbone(shapes: Mapping[str, tuple[int, ...]]) -> tuple[str, dict[str, Any]] | None:
    inside = {key.removeprefix("backbone."): shape for key, shape in shapes.items() if key.startswith("backbone.")}
    args = infer_arguments(inside)
    if args is None or "norm0.weight" not in inside:
        return None
    in_chans = inside["downsample_layers.0.0.weight"][1]
    common = {} if in_chans == 3 else {"in_chans": in_chans}
    kind = args["spatial_filter"]
    for name, variant in VARIANTS.items():
        # The size of stored filters is an argument: a name says only at which size the classifier was published.
        without_size = {key: value for key, value in (_HORNET | variant).items() if key != "filter_size"}
        if name.endswith(f"_{kind}") and without_size == {key: args[key] for key in args if key != "filter_size"}:
            return name, ({"filter_size": args["filter_size"]} if kind == "gf" else {}) | common
    return "hornet_tiny_7x7", args | common


def _infer_head(shapes: Mapping[str, tuple[int, ...]]) -> tuple[int, dict[str, Any]] | None:
    """Number of classes, and arguments of `UPerHead` that are not its defaults."""
    if not {"decode_head.conv_seg.weight", "decode_head.psp_modules.0.1.conv.weight"} <= shapes.keys():
        return None
    num_classes, channels = shapes["decode_head.conv_seg.weight"][:2]
    fusions = {
        "conv.weight": "conv",
        "dwconv.weight": "gn7x7",
        "dwconv.complex_weight": "gngf",
    }
    fusion = next((name for key, name in fusions.items() if f"decode_head.fpn_bottleneck.{key}" in shapes), None)
    if fusion is None:
        return None
    args = ({} if channels == 512 else {"channels": channels}) | ({} if fusion == "conv" else {"fusion": fusion})
    return num_classes, args


def _name_of(found: InferredSegmenter) -> str | None:
    head = "upernet" if "fusion" not in found.head_args else f"upernet_{found.head_args['fusion']}"
    name = f"{head}_{found.backbone}"
    parsed = parse_segmenter(name)
    return name if (parsed.backbone_args, parsed.head_args) == (found.backbone_args, found.head_args) else None


def segmentation_state(values: Mapping[str, Any]) -> dict[str, Tensor]:
    """The state dict in a checkpoint of the published layout, out of `state_dict` and without `module.`.

    Raises:
        OvertoneError: it holds no tensors by name.
    """
    try:
        return unwrap_state_dict(values)
    except ValueError:
        held = ", ".join(map(str, list(values)[:8])) or "nothing"
        raise OvertoneError(f"a segmentation checkpoint holds tensors by name, this one {held}") from None


def load_published_segmenter(network: Segmenter, values: Mapping[str, Any]) -> None:
    """Load a checkpoint of the published layout, every key and shape of which has to fit.

    Args:
        network: Of `build_segmenter`; `infer_segmenter` says of which arguments.
        values: As read: `{'meta': …, 'state_dict': …}` or the state dict itself.

    Raises:
        OvertoneError: keys are missing, unknown, or have other shapes.
    """
    state, own = segmentation_state(values), network.state_dict()
    missing, unknown = own.keys() - state, state.keys() - own
    other = {key for key in own.keys() & state if own[key].shape != state[key].shape}
    if missing or unknown or other:
        names = ", ".join(sorted(missing | unknown | other)[:4])
        raise OvertoneError(
            f"the checkpoint is of another segmentation network: {len(missing)} tensors are missing, {len(unknown)} "
            f"unknown and {len(other)} of other shapes ({names}, …); build the one that infer_segmenter names"
        )
    network.load_state_dict(state, strict=True)


def published_checkpoint(network: Segmenter, meta: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """A UPerNet with HorNet in the published layout: `{'meta': …, 'state_dict': …}`, keys in the published order.

    Args:
        network: The network.
        meta: What to write beside the weights: `CLASSES`, `PALETTE`, …

    Raises:
        OvertoneError: the network has another head or backbone, for which there is no published layout.
    """
    state = dict(network.state_dict())
    if infer_segmenter({key: tuple(value.shape) for key, value in state.items()}) is None:
        raise OvertoneError(
            f"there is a published layout for UPerNet with HorNet ({PUBLISHED_SEGMENTERS[0]}, …), not for "
            f"{type(network.decode_head).__name__} on {type(network.backbone).__name__}; write an overtone checkpoint"
        )
    return {"meta": dict(meta or {}), "state_dict": state}
