"""What a recipe for fine-tuning takes over from the weights that it starts from."""

import dataclasses
from pathlib import Path

import torch

from overtone import zoo
from overtone.checkpoint import Manifest, has_manifest, read_manifest
from overtone.config import Preprocess, Recipe
from overtone.errors import OvertoneError


def fitted_to_weights(recipe: Recipe) -> Recipe:
    """The recipe with the network and the preprocessing that its starting weights were trained with.

    A checkpoint of ours says both; a tag (`resnet18.a1_in1k`) says the preprocessing; bare tensors say nothing.

    Raises:
        OvertoneError: no such file, folder or architecture, or a damaged file.
    """
    model, preprocess = recipe.model, recipe.data.preprocess
    manifest = None if model.weights is None else _manifest_of(Path(model.weights))
    if manifest is not None:
        model = dataclasses.replace(model, name=manifest.architecture, args=manifest.model_args)
        preprocess = manifest.preprocess
    elif model.weights is None:
        preprocess = _preprocess_of(model.name)
    return dataclasses.replace(recipe, model=model, data=dataclasses.replace(recipe.data, preprocess=preprocess))


def _manifest_of(path: Path) -> Manifest | None:
    candidates = [path / zoo.BEST, path / zoo.LAST] if path.is_dir() else [path]
    found = next((candidate for candidate in candidates if candidate.is_file()), None)
    if found is None:
        raise OvertoneError(f"{path} is neither a checkpoint file nor a run folder; give one as --model.weights")
    return read_manifest(found) if has_manifest(found) else None


def _preprocess_of(name: str) -> Preprocess:
    with torch.device("meta"):
        return zoo.preprocess_of(zoo.build(name))
