"""The registered families: which module an architecture belongs to, and what that module says about it."""

import sys
from types import ModuleType

import timm
from torch import nn

from overtone.errors import OvertoneError

_FAMILIES: dict[str, ModuleType] = {}


def register_family(module: ModuleType) -> ModuleType:
    """Add a module as a family: its architectures are then listed, inferred, loaded strictly and checked as ours are.

    The modules of `overtone.models` are registered when that package is imported; a family defined elsewhere calls this
    once its entry points are registered with timm.

    Args:
        module: defines entry points under `timm.models.register_model` and

            * `architecture_of(shapes)`: the `Inferred` network of a state dict of these shapes, or None (required);
            * `ARGUMENTS`: rules by name for the constructor arguments that a file, a recipe or the command line may
              choose (see `overtone.models.arguments`); without it no argument of its own may be chosen;
            * `checkpoint_filter_fn(state, model)`: a published state dict as one that the model takes (optional);
            * `foreign_layout(state)`: its name and published entries, if others have published it too (optional);
            * `head_rows(given, wanted)`: which outputs of a larger classifier a smaller one keeps (optional).

    Returns:
        The module.

    Raises:
        OvertoneError: the module has no `architecture_of`, or registers no architecture.
    """
    if not callable(getattr(module, "architecture_of", None)):
        raise OvertoneError(f"{module.__name__} is not a family: it has no function architecture_of(shapes)")
    if not _entry_points(module, ""):
        raise OvertoneError(f"{module.__name__} is not a family: it registers no architecture with timm")
    _FAMILIES[module.__name__] = module
    return module


def families() -> list[ModuleType]:
    """The modules of all registered families, in the order of their registration."""
    return list(_FAMILIES.values())


def family_of(architecture: str) -> ModuleType | None:
    """The family of an architecture (a tag after a dot is ignored); None for timm's own and unknown names."""
    name = architecture.partition(".")[0]
    return _FAMILIES.get(timm.model_entrypoint(name).__module__) if timm.is_model(name) else None


def family_of_model(model: nn.Module) -> ModuleType | None:
    """The family whose file defines the class of a network; None where it is not one of ours."""
    return _FAMILIES.get(type(model).__module__)


def is_ours(architecture: str) -> bool:
    """Whether an architecture is of a registered family rather than timm's own."""
    return family_of(architecture) is not None


def list_architectures(pattern: str = "") -> list[str]:
    """Names of our architectures that match a shell pattern (all without one), by family and in natural order."""
    return [name for module in families() for name in _entry_points(module, pattern)]


def head_rows_of(given: int, wanted: int, family: ModuleType | None = None) -> list[int] | None:
    """Which of `given` outputs are the `wanted` ones, in their order, where a family knows; else None.

    Args:
        given: outputs of the classifier at hand.
        wanted: outputs of the smaller one.
        family: the one to ask; None: every family.
    """
    for module in families() if family is None else [family]:
        rows = getattr(module, "head_rows", lambda *_: None)(given, wanted)
        if rows is not None:
            return rows
    return None


def _entry_points(module: ModuleType, pattern: str) -> list[str]:
    name = module.__name__
    listed = timm.list_models(pattern, module=name.rpartition(".")[2])
    return [entry for entry in listed if timm.model_entrypoint(entry).__module__ == name]


def register_families_of(package: str, names: tuple[str, ...]) -> None:
    """Register those of a package's imported modules that are families."""
    for name in names:
        module = sys.modules[f"{package}.{name}"]
        if hasattr(module, "architecture_of"):
            register_family(module)
