"""The families, registered with timm when this package is imported.

Every module here that has `architecture_of` is a family and is found by itself: a new family is one new file. A family
defined elsewhere calls `register_family`. The constructors that a family lists in `__all__`, which are those of the
published READMEs, and its architectures are functions of this package too.
"""

import importlib
import pkgutil
from typing import TYPE_CHECKING, Any

from overtone.models._families import families as families
from overtone.models._families import family_of as family_of
from overtone.models._families import is_ours as is_ours
from overtone.models._families import list_architectures as list_architectures
from overtone.models._families import register_families_of
from overtone.models._families import register_family as register_family

if TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        """What the loop below finds: the constructors and architectures of every family."""


_MODULES = tuple(info.name for info in pkgutil.iter_modules(__path__) if not info.name.startswith("_"))

for _name in _MODULES:
    _module = importlib.import_module(f"{__name__}.{_name}")
    globals().update({name: getattr(_module, name) for name in getattr(_module, "__all__", ())})
register_families_of(__name__, _MODULES)
