"""What `export` and `tune` share: the network that is to be written, and what will be said of it."""

import dataclasses
from pathlib import Path

import torch

from overtone import options
from overtone.deployment.artifact import is_export, sha256
from overtone.deployment.export import Origin
from overtone.errors import OvertoneError
from overtone.verbs.console import warn
from overtone.verbs.loading import introduce, loaded_for
from overtone.zoo import LoadedModel, classes_of, names_of, num_outputs

_EXPORTS = Path("exports")


def prepared(chosen: options.Export | options.Tune) -> tuple[LoadedModel, Origin]:
    """The network, and what `model.json` will say of it.

    Raises:
        OvertoneError: no such model, one without a classifier, or a number of threads or pixels below 1.
    """
    if chosen.size is not None and chosen.size < 1:
        raise OvertoneError(f"size is {chosen.size}; it must be at least 1 pixel")
    if chosen.threads is not None:
        if chosen.threads < 1:
            raise OvertoneError(f"threads is {chosen.threads}; it must be at least 1")
        torch.set_num_threads(chosen.threads)
    if is_export(Path(chosen.model)):
        raise OvertoneError(f"{chosen.model} is an export already; give the network that it was made from")
    loaded = loaded_for(chosen)
    num_outputs(loaded)
    introduce(loaded)
    if not loaded.trained:
        warn(f"{loaded.architecture} has random weights: what is exported knows nothing")
    return loaded, origin_of(loaded, chosen.size)


def origin_of(loaded: LoadedModel, size: int | None) -> Origin:
    """What `model.json` says of a network, at a size of input if that is not to be its own."""
    classes = classes_of(loaded) if loaded.trained else None
    preprocess = loaded.preprocess
    if size is not None:
        preprocess = dataclasses.replace(preprocess, size=size)
    data = None
    if loaded.manifest is not None and loaded.manifest.recipe is not None:
        kept = loaded.manifest.recipe.get("data", {}).items()
        data = {key: value for key, value in kept if key not in ("root", "preprocess")} or None
    return Origin(
        architecture=loaded.architecture,
        preprocess=preprocess,
        source=loaded.source,
        classes=classes,
        labels=None if classes is None else names_of(loaded),
        proof=_proof(loaded),
        published=None if loaded.published is None else loaded.published.full_name,
        trained=loaded.trained,
        data=data,
    )


def _proof(loaded: LoadedModel) -> str | None:
    """What was compared with a published hash, or the file's own hash."""
    if loaded.proof is not None:
        return str(loaded.proof)
    path = Path(loaded.source)
    return f"sha256 {sha256(path)}" if path.is_file() else None


def default_folder(loaded: LoadedModel, form: str) -> Path:
    """Where an export goes if nothing is said."""
    name = loaded.architecture if loaded.published is None else loaded.published.full_name
    return _EXPORTS / f"{name}-{form}"
