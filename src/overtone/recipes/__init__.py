"""Training settings as documents: one recipe is one file with one literal `RECIPE`, found here by its name.

Every file `recipes/<family>/<name>.py` whose name does not begin with an underscore is a recipe; its docstring has
the source of the settings, the command, the published result and ours. Nothing here needs PyTorch.
"""

import importlib
import inspect
import pkgutil
from types import ModuleType

from overtone.config import Recipe
from overtone.errors import OvertoneError, did_you_mean


def list_recipes() -> dict[str, str]:
    """Return the recipes as {name: one line about it}, sorted by name."""
    return {name: recipe_document(name).partition("\n")[0] for name in sorted(_found())}


def load_recipe(name: str) -> Recipe:
    """Return the recipe of that name.

    Raises:
        OvertoneError: there is none; the message offers the names closest to it.
    """
    return _module(name).RECIPE


def recipe_document(name: str) -> str:
    """Return the docstring of the recipe's file: source, command, published result, ours, deviations.

    Raises:
        OvertoneError: there is no such recipe.
    """
    return inspect.cleandoc(_module(name).__doc__ or "")


def needs_weights(name: str) -> bool:
    """Return whether the recipe starts from trained weights."""
    return getattr(_module(name), "NEEDS_WEIGHTS", False)


def check_start(name: str, recipe: Recipe) -> None:
    """Make sure that a recipe for fine-tuning has weights to start from.

    Raises:
        OvertoneError: neither `model.weights` nor a tag in `model.name` names them.
    """
    if needs_weights(name) and recipe.model.weights is None and "." not in recipe.model.name:
        raise OvertoneError(
            f"recipe {name} starts from trained weights and none are given: add --model.weights with a run folder, a "
            "checkpoint file or published weights, such as hbonet_x100.dli14_in1k (overtone weights list), or "
            "--model.name with a tag of timm's, such as resnet18.a1_in1k (without any: recipe scratch)"
        )


def _found() -> dict[str, str]:
    """Map recipe names to the names of their modules."""
    return {
        recipe.name: f"{__name__}.{family.name}.{recipe.name}"
        for family in pkgutil.iter_modules(__path__)
        if family.ispkg
        for recipe in pkgutil.iter_modules([f"{path}/{family.name}" for path in __path__])
        if not recipe.name.startswith("_")
    }


def _module(name: str) -> ModuleType:
    found = _found()
    if name not in found:
        hint = did_you_mean(name, found, "overtone train --help lists them, in Python overtone.recipes.list_recipes()")
        raise OvertoneError(f"there is no recipe {name!r}; {hint}")
    return importlib.import_module(found[name])
