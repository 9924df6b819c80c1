"""Arguments inferred from the shapes of a harmonic network's state dict, for `architecture_of`."""

from collections.abc import Mapping

from overtone.models.arguments import NONE, either, whole

LEVEL = either(whole(1, 16), NONE)  # keep the DCT filters with i + j < level
_LEVELS = {9: None, 8: 4, 6: 3, 3: 2, 1: 1}  # by the number of 3x3 DCT filters


def infer_level(shape: tuple[int, ...]) -> int | None:
    """The level of a 3x3 harmonic layer by the shape of its weight, ours or the published one; None: all filters."""
    return _LEVELS[shape[2]]


def infer_root_in_chans(shape: tuple[int, ...], harmonic: bool, num_filters: int) -> int:
    """Channels of the image by the shape of the first weight; the published harmonic one has filters for each."""
    return shape[1] // num_filters if harmonic and len(shape) == 4 else shape[1]


def infer_stages(shapes: Mapping[str, tuple[int, ...]], middle: str) -> tuple[tuple[int, ...], tuple[int | None, ...]]:
    """Blocks per stage and, where the layers called `middle` are harmonic, their level per stage."""
    blocks = {tuple(key.split(".")[:2]) for key in shapes if key.startswith("layer")}
    depths = tuple(sum(stage == f"layer{number}" for stage, _ in blocks) for number in range(1, 5))
    weights = [shapes.get(f"layer{number}.0.{middle}.weight", ()) for number in range(1, 5)]
    return depths, tuple(infer_level(w) if len(w) in (3, 5) else None for w in weights)
