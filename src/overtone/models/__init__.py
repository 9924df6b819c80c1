"""The four families, registered with timm when this package is imported.

Every module here without a leading underscore is a family (or a measure) and is found by itself: a new family is
one new file. `from overtone.models import hbonet, mobilenetv2` gives constructors as in the published READMEs, and
every architecture is a function here too.
"""

import importlib
import pkgutil
import sys
from types import ModuleType
from typing import TYPE_CHECKING

import timm

if TYPE_CHECKING:  # what the loop below finds, for editors and type checkers
    from overtone.models.harm_resnet import harm_resnet as harm_resnet
    from overtone.models.harm_se_resnext import harm_se_resnext101 as harm_se_resnext101
    from overtone.models.harm_vgg import harm_vgg as harm_vgg
    from overtone.models.harm_wrn import harm_wrn as harm_wrn
    from overtone.models.hbonet import hbonet as hbonet
    from overtone.models.hornet import HorNet as HorNet
    from overtone.models.mobilenetv2 import mobilenetv2 as mobilenetv2

_FAMILIES = tuple(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))

for _family in _FAMILIES:
    _module = importlib.import_module(f"{__name__}.{_family}")
    globals().update({name: getattr(_module, name) for name in getattr(_module, "__all__", ())})


def list_architectures(pattern: str = "") -> list[str]:
    """Names of the architectures of overtone that match a shell pattern (all of them without one), sorted naturally."""
    return [name for family in _FAMILIES for name in timm.list_models(pattern, module=family)]


def families() -> list[ModuleType]:
    """The modules of the families: `architecture_of` and, where there are such, `foreign_layout` and `head_rows`."""
    modules = (sys.modules[f"{__name__}.{family}"] for family in _FAMILIES)
    return [module for module in modules if hasattr(module, "architecture_of")]
