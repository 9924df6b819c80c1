"""Networks of the Hugging Face Hub, through timm and huggingface_hub."""

from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from timm.models import load_model_config_from_hf, load_state_dict_from_hf
from torch import Tensor

from overtone.errors import OvertoneError
from overtone.models.arguments import COMMON, MAX_CHANNELS, Rule, checked_model_args, choice, number, several, whole
from overtone.models.building import check_known

PREFIX = "hf-hub:"
# Of timm's configuration only the preprocessing and the labels are taken: the rest says where files are.
_CONFIGURATION: dict[str, Rule] = {
    "num_classes": COMMON["num_classes"],
    "input_size": several(whole(1, 8192), 3, 3),
    "crop_pct": number(0.01, 1),
    "crop_mode": choice("center", "squash", "border"),
    "interpolation": choice("bilinear", "bicubic", "nearest", "lanczos", "hamming", "box", "random"),
    "mean": several(number(-1000, 1000), 1, MAX_CHANNELS),
    "std": several(number(1e-6, 1000), 1, MAX_CHANNELS),
}


@dataclass(frozen=True)
class HubModel:
    """What a repository says about its network: the architecture, the constructor's arguments, the preprocessing.

    All of it has been checked: it was written by whoever owns the repository.
    """

    architecture: str
    model_args: dict[str, Any]
    pretrained_cfg: dict[str, Any]
    label_names: tuple[str, ...] | None = None

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where the repository has them."""
        names = self.label_names
        return names if names and len(names) == self.pretrained_cfg.get("num_classes") else None


def hub_model(spec: str) -> HubModel:
    """The configuration of `hf-hub:owner/name` or `hf-hub:owner/name@revision`.

    Raises:
        OvertoneError: no such repository, no connection, a repository that timm did not write, or one that asks for
            what no file may choose.
    """
    try:
        cfg, architecture, args = load_model_config_from_hf(spec.removeprefix(PREFIX))
    except (HfHubHTTPError, OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise _explained(spec, error) from error
    if not isinstance(architecture, str) or not isinstance(cfg, dict):
        raise OvertoneError(f"{spec} has no configuration of timm's; download its file and give the path")
    check_known(architecture)
    names = cfg.get("label_names")
    return HubModel(
        architecture,
        checked_model_args(architecture, args or {}, spec),
        _checked_configuration(spec, cfg),
        tuple(map(str, names)) if isinstance(names, (list, tuple)) else None,
    )


def _checked_configuration(spec: str, cfg: dict[str, Any]) -> dict[str, Any]:
    checked = {}
    for name, rule in _CONFIGURATION.items():
        value = cfg.get(name)
        value = tuple(value) if isinstance(value, list) else value
        if value is not None and not rule.accepts(value):
            raise OvertoneError(f"{spec}: {name} in its configuration is {value!r:.80}; it must be {rule.wanted}")
        if value is not None:
            checked[name] = value
    return checked


def hub_state_dict(spec: str) -> dict[str, Tensor]:
    """The weights in the repository: safetensors where it has them, else read with `weights_only=True`.

    Raises:
        OvertoneError: see `hub_model`.
    """
    try:
        return load_state_dict_from_hf(spec.removeprefix(PREFIX), weights_only=True)  # type: ignore[return-value]
    except (HfHubHTTPError, OSError, ValueError, RuntimeError, ImportError) as error:
        raise _explained(spec, error) from error


def _explained(spec: str, error: Exception) -> OvertoneError:
    reason = (str(error).strip().splitlines() or [type(error).__name__])[0][:300].rstrip(".")
    return OvertoneError(
        f"{spec} could not be fetched from the Hugging Face Hub: {reason}; check the name and the connection, "
        "or download the file and give its path"
    )
