"""What `model.json` repeats of a loaded network."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from overtone.deployment.export import Origin
from overtone.deployment.trust import sha256
from overtone.zoo import LoadedModel, task_of

_EXPORTS = Path("exports")


def origin_of(
    loaded: LoadedModel, size: int | None, classes: Sequence[str] | None, labels: Sequence[str] | None
) -> Origin:
    """The origin of an export.

    Args:
        loaded: the network.
        size: pixels, side of the input; None: the network's own.
        classes: names of its outputs, as of class folders; None where the weights have none.
        labels: the same to display.
    """
    preprocess = loaded.preprocess
    if size is not None:
        preprocess = dataclasses.replace(preprocess, size=size)
    data = None
    if loaded.manifest is not None and loaded.manifest.recipe is not None:
        kept = loaded.manifest.recipe.get("data", {}).items()
        data = {key: value for key, value in kept if key not in ("root", "preprocess")} or None
    shown = labels if labels is not None else [str(index) for index in range(getattr(loaded.model, "num_classes", 0))]
    task = task_of(loaded, shown, preprocess)
    return Origin(
        architecture=loaded.architecture,
        preprocess=preprocess,
        source=loaded.source,
        classes=None if classes is None else tuple(classes),
        labels=None if labels is None else tuple(labels),
        proof=_proof(loaded),
        published=None if loaded.published is None else loaded.published.full_name,
        trained=loaded.trained,
        data=data,
        task=loaded.task,
        settings=task.settings,
        outputs=task.outputs(),
        script=task.script(),
    )


def _proof(loaded: LoadedModel) -> str | None:
    """The published hash that was compared, or the file's own."""
    if loaded.proof is not None:
        return str(loaded.proof)
    return None if loaded.path is None or not loaded.path.is_file() else f"sha256 {sha256(loaded.path)}"


def default_folder(loaded: LoadedModel, form: str) -> Path:
    """The folder of an export of this form, such as `onnx-float32`, where none is given."""
    name = loaded.architecture if loaded.published is None else loaded.published.full_name
    return _EXPORTS / f"{name}-{form}"
