"""Whether a run may be gone on with: the same recipe, the same classes, the same images held out."""

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from overtone.checkpoint import Manifest
from overtone.engine import folder as files
from overtone.errors import OvertoneError

# where the images and the first weights lie may change between the parts of a run
_MAY_DIFFER = ("data.root", "model.weights", "data.max_bad_fraction")


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
    if checkpoint.classes != given.classes:
        raise OvertoneError(
            f"the classes of {folder} and of the data differ: {_class_difference(checkpoint.classes, given.classes)}; "
            "resume with the data that the run began with"
        )
    changed = list(_differences(checkpoint.recipe or {}, given.recipe or {}))
    if changed:
        raise OvertoneError(
            f"the recipe is not that of {folder}: {', '.join(changed)}; give the same options, or start another run"
        )
    split = folder / files.SPLIT
    if split.is_file():
        missing = set(json.loads(split.read_text(encoding="utf-8"))["val"]) ^ set(val)
        if missing:
            raise OvertoneError(
                f"the images held out are not those of {split}: {len(missing)} differ, such as {min(missing)}; "
                "resume with the images that the run began with"
            )


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
