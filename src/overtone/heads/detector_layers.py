"""Layers of HorNet's detectors in the order in which their learning rate decays, as published."""

_BLOCKS_OF_A_LAYER = 2
_LAST_OF_THE_THIRD = 11
_LAST = 12
_DOWNSAMPLING = (0, 2, 3, _LAST)
_STAGES = {0: 1, 1: 2, 3: _LAST}


def layer_of(key: str) -> int | None:
    """The layer, 0 to 12, of a parameter by its published key; None for what is not of the backbone's stages.

    Downsampling i is in layer 0, 2, 3 or 12; the blocks of stages 1, 2 and 4 are in 1, 2 and 12, and block b of stage 3
    is in min(3 + b // 2, 11). The norms of the maps are in none.
    """
    part, *rest = key.removeprefix("backbone.").split(".")
    if not key.startswith("backbone.") or part not in ("downsample_layers", "stages"):
        return None
    number = int(rest[0])
    if part == "downsample_layers":
        return _DOWNSAMPLING[number]
    if number == 2:
        return min(3 + int(rest[1]) // _BLOCKS_OF_A_LAYER, _LAST_OF_THE_THIRD)
    return _STAGES[number]
