"""The task of a loaded network."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from overtone.config import Data, Model, Preprocess, Recipe
from overtone.tasks import recipe_from_dict, task_named
from overtone.tasks.task import Setup, Task
from overtone.zoo.resolver import LoadedModel


def task_of(loaded: LoadedModel, labels: Sequence[str], preprocess: Preprocess) -> Task:
    """The task that a network was trained for, to evaluate or predict with.

    Args:
        loaded: the network.
        labels: names of its outputs.
        preprocess: from an image to its input.
    """
    settings = {} if loaded.manifest is None else loaded.manifest.settings
    return task_named(loaded.task)(Setup(tuple(labels), recipe_of(loaded, preprocess), settings))


def recipe_of(loaded: LoadedModel, preprocess: Preprocess) -> Recipe:
    """The recipe that a network was trained by here, else one of its task, with some preprocessing."""
    recorded: Mapping[str, Any] | None = None if loaded.manifest is None else loaded.manifest.recipe
    if recorded is not None and {"task", "model"} <= set(recorded):
        recipe = recipe_from_dict(recorded)
        # what only a training needs, such as a teacher, is left out
        return Recipe(
            task=recipe.task,
            settings=recipe.settings,
            model=recipe.model,
            data=dataclasses.replace(recipe.data, preprocess=preprocess),
        )
    return Recipe(task=loaded.task, model=Model(name=loaded.architecture), data=Data(preprocess=preprocess))
