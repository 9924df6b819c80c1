"""An export of what the zoo has loaded, and what `model.json` repeats of it."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from overtone.deployment.artifact import About
from overtone.deployment.export import Origin, Request, check_request, export
from overtone.deployment.trust import sha256
from overtone.errors import OvertoneError
from overtone.tasks.export_forms import ExportForm
from overtone.zoo import LoadedModel, classes_of, names_of, num_outputs, task_of

_EXPORTS = Path("exports")


@dataclass(frozen=True)
class Exported:
    """An export that has been written.

    Attributes:
        folder: where.
        about: what its `model.json` holds; `about.parity` is how far its outputs are from the network's.
        script_does: what its `run.py` does, after its name; None where it has none.
    """

    folder: Path
    about: About
    script_does: str | None = None


def export_loaded(
    loaded: LoadedModel,
    request: Request,
    out: Path | None = None,
    *,
    size: int | None = None,
    overwrite: bool = False,
) -> Exported:
    """Export a loaded network into a folder; see `deployment.export.export`.

    Args:
        loaded: the network.
        request: the form of the export.
        out: the folder; None: `default_folder`.
        size: pixels, side of the input; None: the network's own.
        overwrite: replace an earlier export.

    Raises:
        OvertoneError: as `export` and `origin_for`.
    """
    check_request(request)
    origin = origin_for(loaded, size, any_size=request.dynamic_size)
    out = out or default_folder(loaded, f"{request.runtime}-{request.precision}")
    about = export(loaded.model, origin, request, out, overwrite=overwrite)
    return Exported(out, about, origin.script_does if origin.script else None)


def origin_for(loaded: LoadedModel, size: int | None, *, any_size: bool = False) -> Origin:
    """The origin of an export with the labels that the weights have, if any.

    Raises:
        OvertoneError: a network without a classifier, or a size below 1.
    """
    if size is not None and size < 1:
        raise OvertoneError(f"size is {size}; it must be at least 1 pixel")
    num_outputs(loaded)
    classes = classes_of(loaded) if loaded.trained else None
    return origin_of(loaded, size, classes, None if classes is None else names_of(loaded), any_size=any_size)


def origin_of(
    loaded: LoadedModel,
    size: int | None,
    classes: Sequence[str] | None,
    labels: Sequence[str] | None,
    *,
    any_size: bool = False,
) -> Origin:
    """The origin of an export.

    Args:
        loaded: the network.
        size: pixels, side of the input; None: the network's own.
        classes: names of its outputs, as of class folders; None where the weights have none.
        labels: the same to display.
        any_size: any height and width go, where the task has a form for that.
    """
    preprocess = loaded.preprocess
    if size is not None:
        preprocess = dataclasses.replace(preprocess, size=size)
    data = None
    if loaded.manifest is not None and loaded.manifest.recipe is not None:
        kept = loaded.manifest.recipe.get("data", {}).items()
        data = {key: value for key, value in kept if key not in ("root", "preprocess")} or None
    shown = labels or loaded.labels or [str(index) for index in range(getattr(loaded.model, "num_classes", 0))]
    task = task_of(loaded, shown, loaded.preprocess)
    form = task.export_form(loaded.model, size, any_size=any_size)
    if isinstance(form, ExportForm):
        preprocess = dataclasses.replace(preprocess, size=form.size)
    elif form is not None:
        preprocess = form.preprocess
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
        script_does=task.script_does,
        form=form,
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
