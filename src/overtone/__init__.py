"""Overtone: MobileNetV2, HBONet, Harmonic Networks and HorNet on today's PyTorch, on top of timm.

Importing this package is cheap: PyTorch is loaded when something needs it. From then on `timm.create_model` knows the
architectures too, whichever of the two packages was imported first.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

from overtone.timm_registration import register_with_timm

if TYPE_CHECKING:
    from overtone.api import evaluate, load, train
    from overtone.deployment.rewrites.deploy import deploy
    from overtone.recipes import load_recipe
    from overtone.registry import create_model, list_models

__version__ = "0.1.0"
__all__ = ["__version__", "create_model", "deploy", "evaluate", "list_models", "load", "load_recipe", "train"]

_HOMES = {
    "create_model": "overtone.registry",
    "deploy": "overtone.deployment.rewrites.deploy",
    "evaluate": "overtone.api",
    "load": "overtone.api",
    "train": "overtone.api",
    "list_models": "overtone.registry",
    "load_recipe": "overtone.recipes",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module 'overtone' has no attribute {name!r}")
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # asked for once
    return value


def __dir__() -> list[str]:
    return sorted(set(globals()) | set(__all__))


register_with_timm()
