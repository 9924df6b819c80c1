"""What every family file needs for timm: configurations from the published rows, published files unwrapped."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from timm.models import generate_default_cfgs
from torch import Tensor

from overtone.published import IMAGENET_MEAN, IMAGENET_STD, Published, rows_of

# A location with this before it is the full name of a published row rather than a path.
PUBLISHED_PREFIX = "published:"

_WRAPPERS = ("state_dict", "model", "params")
_EMA_WRAPPERS = ("model_ema", "state_dict_ema")
_KEY_PREFIXES = ("module.", "_orig_mod.")  # of data-parallel training, of torch.compile


class Inferred(NamedTuple):
    """The network that the keys and shapes of a state dict belong to.

    Attributes:
        architecture: a registered name.
        args: the constructor's arguments that differ from that architecture's own, and always `num_classes` (0: the
            file has no classifier).
        assumed: what no shape shows and was therefore taken as published, as a sentence; empty where there is nothing.
    """

    architecture: str
    args: dict[str, Any]
    assumed: str = ""


class PublishedWeights:
    """For the networks of a family: what timm calls to load the weights of a pretrained tag.

    timm itself would fetch the first address and verify nothing. The entries of `default_cfgs_of` therefore have
    `custom_load` and a `file` that is no possible path, which makes timm call this with it.
    """

    def load_pretrained(self, location: str) -> None:
        """Load `published:architecture.tag`, or a checkpoint file, strictly but for a classifier of other classes."""
        if _load_pretrained is None:
            raise RuntimeError("published weights are loaded by overtone: import overtone before building the net")
        _load_pretrained(self, location)


_load_pretrained: Callable[[Any, str], None] | None = None


def load_pretrained_with(loader: Callable[[Any, str], None]) -> None:
    """Set who fetches, verifies and loads published weights: the zoo, which is above the models in the imports."""
    global _load_pretrained
    _load_pretrained = loader


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
        **_source_of(row),
        "num_classes": row.num_classes,
        "input_size": (3, row.resolution, row.resolution),
        "crop_pct": row.crop_fraction,
        "crop_mode": "squash" if row.resize == "squash" else "center",
        "interpolation": row.interpolation,
        "license": row.license,
    }


def _source_of(row: Published) -> dict[str, Any]:
    if not row.urls:
        return {"url": ""}
    return {"url": row.urls[0], "file": PUBLISHED_PREFIX + row.full_name, "custom_load": True}


@dataclass(frozen=True)
class Unwrapped:
    """A checkpoint of whatever layout, taken apart.

    Attributes:
        layout: `bare`, or the wrapper's key (`model`, `state_dict`, `model_ema`, …), then `+module` where every key had
            that prefix.
        entries: the state dict: tensors, or whatever stands for them, under their keys.
        extra: what stood beside it, such as `epoch` and `arch`.
        has_ema: whether a moving average of the weights is there too.
    """

    layout: str
    entries: dict[str, Any]
    extra: dict[str, Any] = field(default_factory=dict)
    has_ema: bool = False


def unwrap(values: Mapping[str, Any], *, ema: bool = False) -> Unwrapped:
    """The state dict in a checkpoint of one of the layouts that the four systems have written.

    Args:
        values: as read; the leaves are tensors or anything with a `shape` and a `dtype`.
        ema: take the moving average of the weights instead, where there is one.

    Raises:
        KeyError: `ema`, and there is none.
        ValueError: no tensors in it.
    """
    averages = [key for key in _EMA_WRAPPERS if _holds_tensors(values.get(key))]
    if ema and not averages:
        raise KeyError("model_ema")
    wrapper = averages[0] if ema else next((key for key in _WRAPPERS if _holds_tensors(values.get(key))), None)
    inside = values if wrapper is None else values[wrapper]
    if not _holds_tensors(inside):
        raise ValueError("there are no tensors in it")
    entries = {str(key): value for key, value in inside.items() if _is_tensor(value)}
    beside = values.items() if wrapper is not None else [item for item in values.items() if not _is_tensor(item[1])]
    extra = {str(key): value for key, value in beside if not isinstance(value, Mapping)}
    layout = wrapper or "bare"
    for prefix in _KEY_PREFIXES:
        if all(key.startswith(prefix) for key in entries):
            entries = {key.removeprefix(prefix): value for key, value in entries.items()}
            layout += f"+{prefix.rstrip('.')}"
    return Unwrapped(layout, entries, extra, bool(averages))


def _is_tensor(value: Any) -> bool:
    return hasattr(value, "shape") and hasattr(value, "dtype")


def _holds_tensors(value: Any) -> bool:
    return isinstance(value, Mapping) and any(_is_tensor(entry) for entry in value.values())


def unwrap_state_dict(state_dict: Mapping[str, Any]) -> dict[str, Tensor]:
    """The tensors of a published file, out of its wrappers (see `unwrap`)."""
    return unwrap(state_dict).entries


def common_args(shapes: Mapping[str, tuple[int, ...]], classifier: str, in_chans: int) -> dict[str, Any]:
    """The arguments that every family's `architecture_of` gives: classes, and channels of the image where not 3."""
    classes = shapes.get(f"{classifier}.weight", (0,))[0]
    return {"num_classes": classes} | ({} if in_chans == 3 else {"in_chans": in_chans})
