"""The families, registered with timm when this package is imported.

Every module here that has `architecture_of` is a family and is found by itself: a new family is one new file. A family
defined elsewhere calls `register_family`. `from overtone.models import hbonet, mobilenetv2` gives constructors as in
the published READMEs, and every architecture is a function here too.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING

from overtone.models._families import families as families
from overtone.models._families import family_of as family_of
from overtone.models._families import is_ours as is_ours
from overtone.models._families import list_architectures as list_architectures
from overtone.models._families import register_families_of
from overtone.models._families import register_family as register_family

if TYPE_CHECKING:  # what the loop below finds, for editors and type checkers
    from overtone.models.harm_resnet import harm_resnet as harm_resnet
    from overtone.models.harm_se_resnext import harm_se_resnext101 as harm_se_resnext101
    from overtone.models.harm_vgg import harm_vgg as harm_vgg
    from overtone.models.harm_wrn import harm_wrn as harm_wrn
    from overtone.models.hbonet import hbonet as hbonet
    from overtone.models.hornet import HorNet as HorNet
    from overtone.models.mobilenetv2 import mobilenetv2 as mobilenetv2

_MODULES = tuple(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))

for _name in _MODULES:
    _module = importlib.import_module(f"{__name__}.{_name}")
    globals().update({name: getattr(_module, name) for name in getattr(_module, "__all__", ())})
register_families_of(__name__, _MODULES)
