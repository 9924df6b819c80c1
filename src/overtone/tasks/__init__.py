"""What a network learns: one package per task, found by its name.

`tasks/<name>/task.py` has a class `TASK` that follows the protocol of `tasks.task`, and `tasks/<name>/settings.py`,
where there is one, a `SETTINGS` class derived from `config.TaskSettings`. A task from elsewhere is made known by
`register`.
"""

import importlib
import importlib.util
import pkgutil
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, TypeVar

from overtone.config import Recipe, TaskSettings, from_dict
from overtone.errors import OvertoneError

if TYPE_CHECKING:  # recipes read settings from here, and listing them must not import PyTorch
    from overtone.tasks.task import Task

T = TypeVar("T", bound="type[Any]")
_REGISTERED: "dict[str, type[Task]]" = {}


def register(task: T) -> T:
    """Make a task known under its `name`; usable as a decorator."""
    _REGISTERED[task.name] = task
    return task


def task_names() -> list[str]:
    """Names of all tasks."""
    found = (info.name for info in pkgutil.iter_modules(__path__) if info.ispkg)
    return sorted({*found, *_REGISTERED})


def task_named(name: str) -> "type[Task]":
    """The class of a task.

    Raises:
        OvertoneError: no task of that name.
    """
    if name in _REGISTERED:
        return _REGISTERED[name]
    if name not in task_names():
        raise OvertoneError(f"task is {name!r}; it must be one of {', '.join(task_names())}")
    return importlib.import_module(f"{__name__}.{name}.task").TASK


def settings_type(name: str) -> type[TaskSettings]:
    """The class of a task's settings; `TaskSettings` itself for one that has none."""
    if name in _REGISTERED:
        return getattr(_REGISTERED[name], "settings_type", TaskSettings)
    if name not in task_names():
        raise OvertoneError(f"task is {name!r}; it must be one of {', '.join(task_names())}")
    module = f"{__name__}.{name}.settings"
    return importlib.import_module(module).SETTINGS if importlib.util.find_spec(module) is not None else TaskSettings


def recipe_from_dict(values: Mapping[str, Any]) -> Recipe:
    """The recipe that `config.to_dict` gave as plain values, with the settings of its task.

    Raises:
        OvertoneError: an unknown task or field, or a value of the wrong kind.
    """
    plain = dict(values)
    settings = plain.pop("settings", {})
    if not isinstance(settings, Mapping):
        raise OvertoneError(f"Recipe.settings is {settings!r}; it must be a table of settings")
    kind = settings_type(str(plain.get("task", Recipe.task)))
    return from_dict(Recipe, plain, settings=from_dict(kind, settings))
