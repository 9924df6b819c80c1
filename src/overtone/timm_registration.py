"""Registers our architectures with timm right after timm is imported, without importing it first.

Importing timm imports PyTorch, which takes seconds; `import overtone` and `overtone --help` must not. timm has no entry
points for other packages, so a finder waits for its import: it finds the module where the others find it, and has
`overtone.models` imported when the module has been executed. Standard library only.
"""

import importlib
import sys
from collections.abc import Sequence
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType


def register_with_timm() -> None:
    """Register the architectures now if timm is imported, otherwise as soon as it is."""
    if sys.modules.get("timm") is not None:  # None: somebody has forbidden its import
        _register()
    elif not any(isinstance(finder, _AfterTimm) for finder in sys.meta_path):
        sys.meta_path.insert(0, _AfterTimm())


def _register() -> None:
    importlib.import_module("overtone.models")
    importlib.import_module("overtone.models._cfg").load_pretrained_with(_load_pretrained)


def _load_pretrained(model: object, location: str) -> None:
    """Load published weights into a network that timm has built; the zoo is imported when weights are asked for."""
    importlib.import_module("overtone.zoo").load_pretrained(model, location)


class _AfterTimm(MetaPathFinder):
    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> ModuleSpec | None:
        if fullname != "timm":
            return None
        others = (finder for finder in list(sys.meta_path) if not isinstance(finder, _AfterTimm))
        found = (finder.find_spec(fullname, path, target) for finder in others if hasattr(finder, "find_spec"))
        spec = next((spec for spec in found if spec is not None), None)
        if spec is not None and spec.loader is not None:
            execute = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                execute(module)
                if self in sys.meta_path:  # once is enough; another thread may have been here
                    sys.meta_path.remove(self)
                _register()

            spec.loader.exec_module = exec_module  # of this one loader object, which the specification owns
        return spec
