"""A detector started from trained weights: a classifier's, or another detector's."""

from collections.abc import Mapping

from torch import Tensor

from overtone.errors import OvertoneError
from overtone.heads.detector_files import published_key, state_from_published
from overtone.heads.light_detectors import LightDetector
from overtone.heads.mask_rcnn import MaskRcnn


def start_detector(model: MaskRcnn | LightDetector, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Load a state dict into a detector that is to be trained.

    Of a detector all is taken but for what is of other classes or another head, which stays new. Of a classifier the
    backbone is; layers beyond the last map that is used are left out.

    Args:
        model: takes the tensors in place.
        state: under our keys, the published ones, or a classifier's.
        source: what is loaded, for messages.

    Returns:
        What was adapted.

    Raises:
        OvertoneError: the weights are of another backbone.
    """
    own = model.state_dict()
    state = _ours(model, state)
    if not any(key in own for key in state):
        return _start_backbone(model, own, state, source)
    fitting = {key: value for key, value in state.items() if key in own and own[key].shape == value.shape}
    prefix = _prefix(own)
    inside = [key for key in own if key.startswith(prefix)]
    if any(key not in fitting for key in inside):
        raise OvertoneError(f"{source} is of a detector with another backbone; start from one of the same architecture")
    model.load_state_dict(fitting, strict=False)
    new = sorted(own.keys() - fitting.keys())
    if not new:
        return ()
    shown = f"{', '.join(new[:4])}{' …' if new[4:] else ''}"
    return (f"{len(new)} of {len(own)} tensors are new: {shown}",)


def _ours(model: MaskRcnn | LightDetector, state: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
    """A published state dict under our keys; any other as it is."""
    if not isinstance(model, MaskRcnn) or not any(key.startswith(("rpn_head.", "roi_head.")) for key in state):
        return state
    try:
        return state_from_published(state, model)
    except OvertoneError:  # of other classes
        by_published = {published_key(key, model): key for key in model.state_dict()}
        return {by_published[key]: value for key, value in state.items() if key in by_published}


def _start_backbone(
    model: MaskRcnn | LightDetector, own: Mapping[str, Tensor], state: Mapping[str, Tensor], source: str
) -> tuple[str, ...]:
    prefix = _prefix(own)
    inside = [key for key in own if key.startswith(prefix)]
    found = {}
    for key in inside:
        name = key.removeprefix(prefix).removeprefix("model.")
        value = state.get(name, state.get(key.removeprefix(prefix)))
        if value is not None and value.shape == own[key].shape:
            found[key] = value
    missing = [key for key in inside if key not in found]
    if missing:
        raise OvertoneError(
            f"{source} lacks {len(missing)} of the backbone's {len(inside)} tensors, such as "
            f"{missing[0].removeprefix(prefix)}; start from weights of the same architecture"
        )
    model.load_state_dict(found, strict=False)
    return ("the backbone is that of a classifier; the head is new",)


def _prefix(own: Mapping[str, Tensor]) -> str:
    """What the keys of the timm network in a detector begin with."""
    return next(p for p in ("backbone.net.", "detector.backbone.maps.net.") if any(key.startswith(p) for key in own))
