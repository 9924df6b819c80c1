"""The task of a loaded network."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from overtone.config import Data, Model, Preprocess, Recipe, TaskSettings
from overtone.errors import OvertoneError
from overtone.tasks import recipe_from_dict, settings_type, task_named
from overtone.tasks.task import Setup, Task
from overtone.zoo.filling import LoadedModel


def task_of(
    loaded: LoadedModel, labels: Sequence[str], preprocess: Preprocess, changes: Mapping[str, Any] | None = None
) -> Task:
    """The task that a network was trained for, to evaluate or predict with.

    Args:
        loaded: the network.
        labels: names of its outputs.
        preprocess: from an image to its input.
        changes: settings of the recipe that are others here.

    Raises:
        OvertoneError: the task has no such setting.
    """
    settings = {} if loaded.manifest is None else loaded.manifest.settings
    recipe = recipe_of(loaded, preprocess)
    if changes:
        recipe = dataclasses.replace(recipe, settings=_changed(recipe, changes))
    return task_named(loaded.task)(Setup(tuple(labels), recipe, settings))


def _changed(recipe: Recipe, changes: Mapping[str, Any]) -> TaskSettings:
    kind = settings_type(recipe.task)
    unknown = sorted(changes.keys() - {field.name for field in dataclasses.fields(kind)})
    if unknown:
        raise OvertoneError(f"settings.{unknown[0]} is not for a {recipe.task}; leave it out")
    settings = recipe.settings if isinstance(recipe.settings, kind) else kind()
    return dataclasses.replace(settings, **changes)


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
