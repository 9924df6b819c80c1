"""What a recipe for fine-tuning takes over from the weights that it starts from."""

import dataclasses
from typing import Any

import torch

from overtone import zoo
from overtone.config import Model, Preprocess, Recipe
from overtone.errors import OvertoneError
from overtone.published import find
from overtone.zoo.hub import PREFIX, hub_model


def fitted_to_weights(recipe: Recipe) -> Recipe:
    """The recipe with the network and the preprocessing that its starting weights were trained with.

    A checkpoint of ours, a published tag or file and a repository of the Hugging Face Hub say both. Bare tensors say
    the network by their keys and shapes, and the preprocessing is the architecture's own; those of a network that is
    not ours say nothing, and it is that of `model.name`.

    Raises:
        OvertoneError: no such file, folder, tag or architecture, or a damaged file.
    """
    model = recipe.model
    fitted, preprocess = (model, _preprocess_of(model.name)) if model.weights is None else _start(model, model.weights)
    return dataclasses.replace(recipe, model=fitted, data=dataclasses.replace(recipe.data, preprocess=preprocess))


def _start(model: Model, weights: str) -> tuple[Model, Preprocess]:
    """The network and the preprocessing of weights of any kind that the zoo reads."""
    if weights.startswith(PREFIX):
        hub = hub_model(weights)
        args = {key: value for key, value in hub.model_args.items() if key not in ("num_classes", "in_chans")}
        preprocess = _preprocess_of(hub.architecture, pretrained_cfg=hub.pretrained_cfg)
        return dataclasses.replace(model, name=hub.architecture, args=args), preprocess
    row, path = find(weights), zoo.checkpoint_path(weights)
    if path is not None:
        found = zoo.describe(path)
        if found.manifest is not None:
            name, args = found.manifest.architecture, found.manifest.model_args
            return dataclasses.replace(model, name=name, args=args), found.manifest.preprocess
        row = found.published
        if row is None:
            name, args = (found.architecture, found.model_args) if found.architecture else (model.name, model.args)
            return dataclasses.replace(model, name=name, args=args), _preprocess_of(name)
    if row is None:
        raise OvertoneError(zoo.no_weights(weights))
    return dataclasses.replace(model, name=row.architecture, args={}), _preprocess_of(row.full_name)


def _preprocess_of(name: str, **arguments: Any) -> Preprocess:
    with torch.device("meta"):
        return zoo.preprocess_of(zoo.build(name, **arguments))
