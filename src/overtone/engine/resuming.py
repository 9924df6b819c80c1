"""Whether a run may be resumed: not finished, the same recipe, the same labels, the same samples."""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from overtone.checkpoint import Manifest, read_manifest
from overtone.config import AUTO, Recipe, Run, Train, to_dict
from overtone.engine import folder as files
from overtone.engine.automatic import strengthened
from overtone.engine.samples import Samples, check_samples
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json
from overtone.tasks import recipe_from_dict

_OLD_VALIDATE_ON = "test"  # before format 2 the test images were validated on where there were no others
# where the samples and the first weights lie may change between the parts of a run
_MAY_DIFFER = (
    "data.root",
    "data.table",
    "data.accept_changes",
    "model.weights",
    "data.max_bad_fraction",
    "train.processes",
)


def check_begun(folder: Path, recipe: Recipe, run: Run) -> None:
    """Refuse early, by what is quickly read, to resume a run of another recipe or one that is finished.

    Args:
        folder: the run folder.
        recipe: the recipe that is asked for now.
        run: `max_steps` may have ended the run.

    Raises:
        OvertoneError: the folder holds a run of another recipe, a finished one, or none at all.
    """
    checkpoints, then = files.checkpoints(folder), _recorded(folder)
    if then is not None:
        _check_recipe(folder, then, to_dict(recipe))
    if not checkpoints or not (folder / files.SUMMARY).is_file() or _was_cut_short(folder):
        return
    try:
        progress = read_manifest(checkpoints[0]).progress
    except OvertoneError:  # whoever reads it whole says what is wrong with it
        return
    if is_over(progress, recipe, run.max_steps):
        raise OvertoneError(
            f"the run in {folder} is finished ({progress['step']} steps); give another --run.out to start anew, "
            "or --run.overwrite to replace it"
        )


def as_begun(folder: Path, recipe: Recipe) -> Recipe:
    """The recipe with what the run has settled: what was auto, the epochs for its minutes, defaults that have changed.

    Raises:
        OvertoneError: the folder's record of the recipe cannot be read.
    """
    then = _recorded(folder)
    settled = {} if then is None else then.get("train", {})
    size = _settled_size(then or {})
    if recipe.data.preprocess.size == AUTO and size is not None:
        preprocess = dataclasses.replace(recipe.data.preprocess, size=size)
        recipe = dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, preprocess=preprocess))
    if recipe.train.freeze_bn == AUTO and then is not None:
        freeze_bn = settled.get("freeze_bn", Train.freeze_bn)  # an older version had none, which is the default
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, freeze_bn=freeze_bn))
    if recipe.train.minutes is not None and settled.get("minutes") == recipe.train.minutes:
        length = {name: settled[name] for name in ("epochs", "steps") if name in settled}
        recipe = dataclasses.replace(recipe, train=dataclasses.replace(recipe.train, **length))
    recipe = strengthened(recipe)
    if then is None or "validate_on" in then.get("data", {}):
        return recipe
    return dataclasses.replace(recipe, data=dataclasses.replace(recipe.data, validate_on=_OLD_VALIDATE_ON))


def _settled_size(then: Mapping[str, Any]) -> Any:
    preprocess = then.get("data", {}).get("preprocess")
    return preprocess.get("size") if isinstance(preprocess, Mapping) else None


def _recorded(folder: Path) -> Mapping[str, Any] | None:
    """The recipe that a run folder has on record; None where it has none."""
    path = folder / files.RECIPE
    if not path.is_file():
        return None
    try:
        then = parse_json(path.read_text(encoding="utf-8"))["recipe"]
        if not isinstance(then, dict) or not all(isinstance(then.get(key, {}), dict) for key in ("data", "train")):
            raise TypeError
    except (ValueError, KeyError, TypeError) as error:
        raise OvertoneError(
            f"{path} is not the record of a run; give another --run.out, or --run.overwrite to replace it"
        ) from error
    return then


def recorded_precision(folder: Path) -> str:
    """The precision that a run folder has on record; auto where it has none."""
    try:
        return parse_json((folder / files.RECIPE).read_text(encoding="utf-8"))["run"]["precision"]
    except (OSError, ValueError, KeyError, TypeError):
        return AUTO


def _was_cut_short(folder: Path) -> bool:
    """Whether the run did not come to its very end, which may have been only the curves: it comes to it once more."""
    try:
        return parse_json((folder / files.STATUS).read_text(encoding="utf-8"))["status"] != "finished"
    except (OSError, ValueError, KeyError, TypeError):  # nothing is said, or by another version
        return False


def is_over(progress: Mapping[str, Any], recipe: Recipe, max_steps: int | None) -> bool:
    """Whether nothing is left to train: all epochs, the last step, or no patience any more."""
    epoch, best, patience = progress.get("epoch", 0), progress.get("best_epoch", 0), recipe.train.patience
    impatient = patience is not None and best > 0 and epoch - best >= patience
    limits = [steps for steps in (max_steps, recipe.train.steps) if steps is not None]
    at_the_end = bool(limits) and progress.get("step", 0) >= min(limits)
    return (recipe.train.steps is None and epoch >= recipe.train.epochs) or impatient or at_the_end


def check_resumable(folder: Path, checkpoint: Manifest, given: Manifest, samples: Samples) -> list[str]:
    """Refuse to resume a run by another recipe or on other samples than it began with.

    Args:
        folder: the run folder.
        checkpoint: the manifest of its last checkpoint.
        given: the manifest that the run would write now.
        samples: those of now.

    Returns:
        What to report of changed samples that the recipe accepts.

    Raises:
        OvertoneError: the labels, the recipe or the samples differ; the message shows how.
    """
    if checkpoint.labels != given.labels:
        raise OvertoneError(
            f"the classes of {folder} and of the data differ: {_class_difference(checkpoint.labels, given.labels)}; "
            "resume with the data that the run began with"
        )
    _check_recipe(folder, checkpoint.recipe or {}, given.recipe or {})
    _check_old_split(folder, samples)
    accept = bool((given.recipe or {}).get("data", {}).get("accept_changes"))
    return check_samples(folder, checkpoint.split.get("digest"), samples, accept=accept)


def _check_old_split(folder: Path, samples: Samples) -> None:
    """Before format 2, a run wrote down the samples that a seed held out, and no others."""
    path = folder / files.OLD_SPLIT
    if not path.is_file():
        return
    try:
        then = set(parse_json(path.read_text(encoding="utf-8"))["val"])
    except (ValueError, KeyError, TypeError) as error:
        raise OvertoneError(f"{path} is damaged ({error}); put back a copy, or start a new run") from error
    differing = then ^ {name for part, name, _, _ in samples.lines if part == "val"}
    if differing:
        raise OvertoneError(
            f"the images held out are not those of {path}: {some(differing, limit=3)}; "
            "resume with the images that the run began with"
        )


def _check_recipe(folder: Path, then: Mapping[str, Any], now: Mapping[str, Any]) -> None:
    changed = list(_differences(_completed(then), now))
    if changed:
        epochs = any(change.startswith("train.epochs ") for change in changed)
        hint = f"; --model.weights {folder} starts a run from its weights" if epochs else ""
        raise OvertoneError(
            f"the recipe is not that of {folder}: {', '.join(changed)}; give the same options, another --run.out, "
            f"or --run.overwrite to replace the run{hint}"
        )


def _completed(recipe: Mapping[str, Any]) -> Mapping[str, Any]:
    """A recorded recipe with the defaults of the options that are younger than it."""
    data = {"validate_on": _OLD_VALIDATE_ON, **recipe.get("data", {})}
    try:
        return to_dict(recipe_from_dict({**recipe, "data": data}))
    except OvertoneError:  # by another version of overtone; the comparison shows how it differs
        return recipe


def _class_difference(then: Sequence[str], now: Sequence[str]) -> str:
    gone, new = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    if not gone and not new:
        return "their order"
    parts = (f"{what} {some(names)}" for what, names in (("gone:", gone), ("new:", new)) if names)
    return "; ".join(parts)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*then, *now}):
        name, old, new = f"{prefix}{key}", then.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{name}.")
        elif old != new and name not in _MAY_DIFFER:
            yield f"{name} was {old} and is {new}"
