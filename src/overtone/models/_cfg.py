"""What every family file needs for timm: configurations from the published rows, published files unwrapped."""

from collections.abc import Iterable, Mapping
from typing import Any

from timm.models import generate_default_cfgs
from torch import Tensor

from overtone.published import IMAGENET_MEAN, IMAGENET_STD, Published, rows_of


def default_cfgs_of(architectures: Iterable[str], *, first_conv: str, classifier: str, **common: Any) -> Any:
    """Configurations as timm wants them for `architectures`: one per published row, or one without weights.

    Args:
        architectures: our names.
        first_conv: name of the first convolution, which timm adapts when `in_chans` is not 3.
        classifier: name of the linear classifier.
        common: further entries of every configuration (`input_size`, `num_classes`, `pool_size`, `mean`, …).

    Returns:
        What timm expects in a module's `default_cfgs`; the first row of an architecture is its default tag.
    """
    base = {
        "num_classes": 1000,
        "input_size": (3, 224, 224),
        "pool_size": None,
        "crop_pct": 0.875,
        "crop_mode": "center",
        "interpolation": "bilinear",
        "mean": IMAGENET_MEAN,
        "std": IMAGENET_STD,
        "first_conv": first_conv,
        "classifier": classifier,
    } | common
    cfgs: dict[str, Any] = {}
    for architecture in architectures:
        rows = rows_of(architecture)
        if not rows:
            cfgs[architecture] = dict(base)
        for row in rows:
            cfgs[row.full_name] = base | _cfg_of(row)
    return generate_default_cfgs(cfgs)


def _cfg_of(row: Published) -> dict[str, Any]:
    return {
        "url": row.urls[0] if row.urls else "",
        "num_classes": row.num_classes,
        "input_size": (3, row.resolution, row.resolution),
        "crop_pct": row.crop_fraction,
        "crop_mode": "squash" if row.resize == "squash" else "center",
        "interpolation": row.interpolation,
        "license": row.license,
    }


def unwrap_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a published file, out of its wrappers.

    Takes off `{'state_dict': …}` and `{'model': …}` and the `module.` that data-parallel training puts before every key.
    """
    for wrapper in ("state_dict", "model"):
        inner = state_dict.get(wrapper)
        if isinstance(inner, Mapping):
            state_dict = inner
    return {key.removeprefix("module."): value for key, value in state_dict.items()}
