"""Whether a run may be gone on with: not finished, the same recipe, the same classes, the same images held out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from overtone.checkpoint import Manifest, read_manifest
from overtone.config import Recipe, Run, from_dict, to_dict
from overtone.engine import folder as files
from overtone.errors import OvertoneError

# where the images and the first weights lie may change between the parts of a run
_MAY_DIFFER = ("data.root", "model.weights", "data.max_bad_fraction", "train.processes")


def check_begun(folder: Path, recipe: Recipe, run: Run) -> None:
    """Refuse early, by what is quickly read, to go on with a run of another recipe or one that is finished.

    Args:
        folder: the run folder.
        recipe: the recipe that is asked for now.
        run: `max_steps` may have ended the run.

    Raises:
        OvertoneError: the folder holds a run of another recipe, a finished one, or none at all.
    """
    checkpoints, path = files.checkpoints(folder), folder / files.RECIPE
    if path.is_file():
        try:
            then = json.loads(path.read_text(encoding="utf-8"))["recipe"]
        except (ValueError, KeyError, TypeError) as error:
            raise OvertoneError(
                f"{path} is not the record of a run; give another --run.out, or --run.overwrite to replace it"
            ) from error
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


def _was_cut_short(folder: Path) -> bool:
    """Whether the run did not come to its very end, which may have been only the curves: it comes to it once more."""
    try:
        return json.loads((folder / files.STATUS).read_text(encoding="utf-8"))["status"] != "finished"
    except (OSError, ValueError, KeyError, TypeError):  # nothing is said, or by another version
        return False


def is_over(progress: Mapping[str, Any], recipe: Recipe, max_steps: int | None) -> bool:
    """Whether nothing is left to train: all epochs, the last step, or no patience any more."""
    epoch, best, patience = progress.get("epoch", 0), progress.get("best_epoch", 0), recipe.train.patience
    impatient = patience is not None and best > 0 and epoch - best >= patience
    at_the_end = max_steps is not None and progress.get("step", 0) >= max_steps
    return epoch >= recipe.train.epochs or impatient or at_the_end


def check_resumable(folder: Path, checkpoint: Manifest, given: Manifest, val: Sequence[str]) -> None:
    """Refuse to go on with a run by another recipe or on other images than it began with.

    Args:
        folder: the run folder.
        checkpoint: the manifest of its last checkpoint.
        given: the manifest that the run would write now.
        val: the validation images now, relative to the data's folder.

    Raises:
        OvertoneError: the classes, the recipe or the seeded split differ; the message shows how.
    """
    if checkpoint.labels != given.labels:
        raise OvertoneError(
            f"the classes of {folder} and of the data differ: {_class_difference(checkpoint.labels, given.labels)}; "
            "resume with the data that the run began with"
        )
    _check_recipe(folder, checkpoint.recipe or {}, given.recipe or {})
    split = folder / files.SPLIT
    if split.is_file():
        missing = set(json.loads(split.read_text(encoding="utf-8"))["val"]) ^ set(val)
        if missing:
            raise OvertoneError(
                f"the images held out are not those of {split}: {len(missing)} differ, such as {min(missing)}; "
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
    try:
        return to_dict(from_dict(Recipe, recipe))
    except OvertoneError:  # by another version of overtone; the comparison shows how it differs
        return recipe


def _class_difference(then: Sequence[str], now: Sequence[str]) -> str:
    gone, new = sorted(set(then) - set(now)), sorted(set(now) - set(then))
    if not gone and not new:
        return "their order"
    parts = (f"{what} {', '.join(names[:8])}" for what, names in (("gone:", gone), ("new:", new)) if names)
    return "; ".join(parts)


def _differences(then: Mapping[str, Any], now: Mapping[str, Any], prefix: str = "") -> Iterator[str]:
    for key in sorted({*then, *now}):
        name, old, new = f"{prefix}{key}", then.get(key), now.get(key)
        if isinstance(old, Mapping) and isinstance(new, Mapping):
            yield from _differences(old, new, f"{name}.")
        elif old != new and name not in _MAY_DIFFER:
            yield f"{name} was {old} and is {new}"
