"""What a recipe for fine-tuning takes over from the weights that it starts from."""

import dataclasses
from typing import Any

import torch

from overtone import zoo
from overtone.config import Model, Preprocess, Recipe
from overtone.errors import OvertoneError
from overtone.heads import is_segmenter
from overtone.heads.detectors import is_detector
from overtone.published import find
from overtone.zoo.hub import PREFIX, hub_model

_HEAD_ARGS = "head_args"


def fitted_to_weights(recipe: Recipe) -> Recipe:
    """The recipe with the network and the preprocessing that its starting weights were trained with.

    A checkpoint of ours, a published tag or file and a repository of the Hugging Face Hub say both. Bare tensors say
    the network by their keys and shapes, and the preprocessing is the architecture's own; those of a network that is
    not ours say nothing, and it is that of `model.name`.

    Raises:
        OvertoneError: no such file, folder, tag or architecture, or a damaged file.
    """
    model = recipe.model
    fitted, preprocess = _alone(model) if model.weights is None else _start(model, model.weights)
    if model.head is not None:
        fitted, preprocess = _under_head(recipe, fitted, preprocess)
    return dataclasses.replace(recipe, model=fitted, data=dataclasses.replace(recipe.data, preprocess=preprocess))


def _under_head(recipe: Recipe, fitted: Model, preprocess: Preprocess) -> tuple[Model, Preprocess]:
    """Network and preprocessing of a dense recipe: all of a dense checkpoint's, of a classifier's the backbone's part.

    A classifier says the architecture and what its images are normalised by; head and sizes are the recipe's.
    """
    if fitted.head is not None or is_detector(fitted.name) or is_segmenter(fitted.name):
        return fitted, preprocess
    args = {key: value for key, value in recipe.model.args.items() if key == _HEAD_ARGS}
    fitted = dataclasses.replace(fitted, head=recipe.model.head, args={**fitted.args, **args})
    own = recipe.data.preprocess
    return fitted, dataclasses.replace(own, mean=preprocess.mean, std=preprocess.std)


def _start(model: Model, weights: str) -> tuple[Model, Preprocess]:
    """The network and the preprocessing of weights of any kind that the zoo reads."""
    if weights.startswith(PREFIX):
        hub = hub_model(weights)
        args = {key: value for key, value in hub.model_args.items() if key not in ("num_classes", "in_chans")}
        preprocess = _preprocess_of(hub.architecture, pretrained_cfg=hub.pretrained_cfg)
        return dataclasses.replace(model, name=hub.architecture, head=None, args=args), preprocess
    row, path = find(weights), zoo.checkpoint_path(weights)
    if path is not None:
        found = zoo.describe(path)
        if found.manifest is not None:
            name, args = found.manifest.architecture, found.manifest.model_args
            start = dataclasses.replace(model, name=name, head=found.manifest.head, args=args)
            return start, found.manifest.preprocess
        row = found.published
        if row is None:
            name, args = (found.architecture, found.model_args) if found.architecture else (model.name, model.args)
            return dataclasses.replace(model, name=name, head=None, args=args), _preprocess_of(name)
    if row is None:
        raise OvertoneError(zoo.no_weights(weights))
    return dataclasses.replace(model, name=row.architecture, head=None, args={}), _preprocess_of(row.full_name)


def _alone(model: Model) -> tuple[Model, Preprocess]:
    """A network whose name says its weights, such as resnet18.a1_in1k."""
    return dataclasses.replace(model, head=None), _preprocess_of(model.name)


def _preprocess_of(name: str, **arguments: Any) -> Preprocess:
    with torch.device("meta"):
        return zoo.preprocess_of(zoo.build(name, **arguments))
