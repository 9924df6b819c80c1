"""A segmentation network started from trained weights: a classifier's, or another segmentation network's."""

from collections.abc import Mapping

from torch import Tensor

from overtone.errors import OvertoneError
from overtone.heads.backbones import HorNetMaps, TimmMaps, load_backbone_weights
from overtone.heads.segmenter import Segmenter


def start_segmenter(model: Segmenter, state: Mapping[str, Tensor], source: str) -> tuple[str, ...]:
    """Load a state dict into a network that is to be trained.

    Of a segmentation network all is taken but for classifiers of other classes, which stay new, as do heads of another
    kind. Of a classifier the backbone is.

    Args:
        model: takes the tensors in place.
        state: under published keys or the model's.
        source: what is loaded, for messages.

    Returns:
        What was adapted.

    Raises:
        OvertoneError: the weights are of another backbone.
    """
    backbone = model.backbone
    assert isinstance(backbone, HorNetMaps | TimmMaps)
    if not any(key.startswith("backbone.") for key in state):
        _load(backbone, state, source)
        return ("the backbone is that of a classifier; the head is new",)
    _load(backbone, {key.removeprefix("backbone."): state[key] for key in state if key.startswith("backbone.")}, source)
    own = {key: value for key, value in model.state_dict().items() if not key.startswith("backbone.")}
    fitting = {key: state[key] for key in own if key in state and state[key].shape == own[key].shape}
    model.load_state_dict(fitting, strict=False)
    new = sorted(own.keys() - fitting.keys())
    if not new:
        return ()
    return (f"{len(new)} of the heads' {len(own)} tensors are new: {', '.join(new[:4])}{' …' if new[4:] else ''}",)


def _load(backbone: HorNetMaps | TimmMaps, state: Mapping[str, Tensor], source: str) -> None:
    if isinstance(backbone, TimmMaps):
        state = {key.removeprefix("model."): value for key, value in state.items()}
    try:
        load_backbone_weights(backbone, state)
    except OvertoneError as error:
        raise OvertoneError(f"{source}: {error}") from error
    if isinstance(backbone, HorNetMaps):
        norms = {key: state[key] for key in backbone.state_dict() if key.startswith("norm") and key in state}
        backbone.load_state_dict(norms, strict=False)
