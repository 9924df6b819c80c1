"""Networks of the Hugging Face Hub, through timm and huggingface_hub."""

from dataclasses import dataclass
from typing import Any

from huggingface_hub.errors import HfHubHTTPError
from timm.models import load_model_config_from_hf, load_state_dict_from_hf
from torch import Tensor

from overtone.errors import OvertoneError

PREFIX = "hf-hub:"


@dataclass(frozen=True)
class HubModel:
    """What a repository says about its network: the architecture, the constructor's arguments, timm's configuration."""

    architecture: str
    model_args: dict[str, Any]
    pretrained_cfg: dict[str, Any]

    @property
    def classes(self) -> tuple[str, ...] | None:
        """Names of the classes, where the repository has them."""
        names = self.pretrained_cfg.get("label_names")
        return tuple(map(str, names)) if names and len(names) == self.pretrained_cfg.get("num_classes") else None


def hub_model(spec: str) -> HubModel:
    """The configuration of `hf-hub:owner/name` or `hf-hub:owner/name@revision`.

    Raises:
        OvertoneError: no such repository, no connection, or a repository that timm did not write.
    """
    try:
        cfg, architecture, args = load_model_config_from_hf(spec.removeprefix(PREFIX))
    except (HfHubHTTPError, OSError, ValueError, RuntimeError, ImportError, KeyError) as error:
        raise _explained(spec, error) from error
    return HubModel(architecture, dict(args or {}), cfg)


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
        f"{spec} could not be had from the Hugging Face Hub: {reason}; check the name and the connection, "
        "or download the file and give its path"
    )
