"""Makes our architectures known to timm without importing timm: they are registered right after somebody imports it.

Importing timm imports PyTorch, which takes seconds; `import overtone` must not. So when timm is not there yet, a finder
waits at the front of `sys.meta_path` for its import, lets it happen as it would have, and imports `overtone.models`
when it is done. Standard library only.
"""

import importlib
import sys
import threading
from collections.abc import Sequence
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_timm() -> None:
    """Register the architectures now if timm is imported, otherwise as soon as it is."""
    if sys.modules.get("timm") is not None:  # None: somebody has forbidden its import
        _register()
    elif not any(isinstance(finder, _TimmFinder) for finder in sys.meta_path):
        sys.meta_path.insert(0, _TimmFinder())


def _register() -> None:
    importlib.import_module("overtone.models")
    importlib.import_module("overtone.models._cfg").load_pretrained_with(_load_pretrained)


def _load_pretrained(model: object, location: str) -> None:
    """Published weights into a net that timm has built; the zoo is imported when somebody asks for weights."""
    importlib.import_module("overtone.zoo").load_pretrained(model, location)


class _TimmFinder(MetaPathFinder):
    """Finds timm where everybody else finds it, with a loader that registers us afterwards."""

    def __init__(self) -> None:
        self._asking = threading.local()

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm" or getattr(self._asking, "others", False):
            return None
        self._asking.others = True  # a finder of the same kind as this one may ask everybody again
        try:
            spec = self._spec_of_others(fullname, path, target)
        finally:
            self._asking.others = False
        if spec is not None and spec.loader is not None:
            spec.loader = _RegisteringLoader(spec.loader, self)
        return spec

    def _spec_of_others(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None
    ) -> ModuleSpec | None:
        for finder in list(sys.meta_path):
            if finder is not self and hasattr(finder, "find_spec"):
                spec = finder.find_spec(fullname, path, target)
                if spec is not None:
                    return spec
        return None


class _RegisteringLoader(Loader):
    """Does what timm's own loader does, gives the module that loader back, then registers our architectures."""

    def __init__(self, loader: Loader, finder: _TimmFinder) -> None:
        self._loader = loader
        self._finder = finder

    def __getattr__(self, name: str) -> object:
        # Who only asks where timm is (importlib.util.find_spec, pkgutil, inspect) sees timm's own loader.
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._loader, name)

    def create_module(self, spec: ModuleSpec) -> ModuleType | None:
        return self._loader.create_module(spec)

    def exec_module(self, module: ModuleType) -> None:
        module.__loader__ = self._loader
        if module.__spec__ is not None:
            module.__spec__.loader = self._loader
        self._loader.exec_module(module)
        if self._finder in sys.meta_path:  # once is enough; another thread may have been here
            sys.meta_path.remove(self._finder)
        _register()
