"""What a training starts from: its network with the weights that a recipe names."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import timm
import torch
from torch import nn

from overtone import config
from overtone.config import Preprocess, Recipe
from overtone.errors import OvertoneError
from overtone.heads import Segmenter, is_segmenter
from overtone.heads.detector_starting import start_detector
from overtone.heads.detectors import is_detector
from overtone.heads.light_detectors import LightDetector
from overtone.heads.mask_rcnn import MaskRcnn
from overtone.heads.starting import start_segmenter
from overtone.models import is_ours
from overtone.models._cfg import PUBLISHED_PREFIX
from overtone.models.arguments import COMMON, checked_model_args
from overtone.models.building import build, classifier_of, preprocess_of
from overtone.published import PublishedDense, find
from overtone.tasks.task import Task
from overtone.zoo.dense import is_dense, preprocess_of_row
from overtone.zoo.fetch import fetch_published
from overtone.zoo.hub import PREFIX as HUB_PREFIX
from overtone.zoo.hub import hub_model, hub_state_dict
from overtone.zoo.inference import describe
from overtone.zoo.loading import load_state
from overtone.zoo.proof import Folders
from overtone.zoo.resolver import checkpoint_path, read_checkpoint_of

_HEAD_ARGS = "head_args"


def build_for_training(
    task: type[Task], settings: config.Model, labels: Sequence[str], say: Callable[[str], object] | None = None
) -> nn.Module:
    """The network that a recipe trains: built by its task, started from `weights` if it names some, frozen if asked.

    A start from weights is strict but for the head, which stays new when its number of outputs differs.

    Args:
        task: builds the network.
        settings: the recipe's.
        labels: names of the outputs.
        say: called with a line for each thing that was adapted.

    Raises:
        OvertoneError: see `models.building.build` and `load_weights`.
    """
    model = task.build(settings, labels, pretrained="." in settings.name)
    if settings.weights is not None:
        for adapted in load_weights(model, settings.weights):
            if say is not None:
                say(adapted)
    if settings.freeze:
        for parameter in model.parameters():
            parameter.requires_grad_(False)
        for parameter in classifier_of(model).parameters():
            parameter.requires_grad_(True)
    return model


def load_weights(model: nn.Module, spec: str, *, weights_dir: Folders = None, new_head: bool = True) -> tuple[str, ...]:
    """Load a checkpoint, a run's best checkpoint or published weights into `model`.

    Args:
        model: takes them in place.
        spec: a file of any layout, a run folder, `architecture.tag`, or `hf-hub:owner/name`.
        weights_dir: see `load_model`.
        new_head: the classifier may be of other labels than the weights; it then stays as it is.

    Returns:
        What was adapted, in sentences for a log.

    Raises:
        OvertoneError: no such file or tag, or keys or shapes that do not fit, other than those of the classifier.
    """
    if spec.startswith(HUB_PREFIX):
        return load_state(model, hub_state_dict(spec), spec, new_head=new_head)
    row, path = find(spec), checkpoint_path(spec)
    if path is None and row is None:
        raise OvertoneError(no_weights(spec))
    if path is None and row is not None:
        path = fetch_published(row, weights_dir).path
    assert path is not None
    path, state = read_checkpoint_of(spec, path, ema=False)
    if isinstance(model, Segmenter):
        return start_segmenter(model, state.entries, str(path))
    if isinstance(model, (MaskRcnn, LightDetector)):
        return start_detector(model, state.entries, str(path))
    return load_state(model, state.entries, str(path), new_head=new_head)


def no_weights(spec: str) -> str:
    """The message for a name that a training should start from and that has no weights."""
    hint = "give one as --model.weights (overtone weights list names the published ones)"
    if "." in spec and timm.is_model(spec) and not is_ours(spec):
        hint = f"weights of timm's come with the name: --model.name {spec}"
    return f"{spec} is neither a checkpoint file nor a run folder nor published weights; {hint}"


def load_pretrained(model: nn.Module, location: str) -> None:
    """Load `published:architecture.tag` or a file into a network that timm built; what it calls for a tag of ours.

    Raises:
        OvertoneError: see `load_weights`.
    """
    spec = location.removeprefix(PUBLISHED_PREFIX)
    row = find(spec)
    # With the classes of the row, a classifier is expected in the file: some copies have none.
    load_weights(model, spec, new_head=row is None or getattr(model, "num_classes", None) != row.num_classes)


def fitted_to_weights(recipe: Recipe) -> Recipe:
    """The recipe with the network and the preprocessing that its starting weights were trained with.

    A checkpoint of ours, a published tag or file and a repository of the Hugging Face Hub have both. Of bare
    tensors the network is inferred from their keys and shapes, and the preprocessing is the architecture's own; where
    the network is not one of ours, it is that of `model.name`.

    Raises:
        OvertoneError: no such file, folder, tag or architecture, or a damaged file.
    """
    model = recipe.model
    fitted, preprocess = _alone(model) if model.weights is None else _start(model, model.weights)
    if model.head is not None:
        fitted, preprocess = _under_head(recipe, fitted, preprocess)
    return dataclasses.replace(recipe, model=fitted, data=dataclasses.replace(recipe.data, preprocess=preprocess))


def _under_head(recipe: Recipe, fitted: config.Model, preprocess: Preprocess) -> tuple[config.Model, Preprocess]:
    """Network and preprocessing of a dense recipe: all of a dense checkpoint's, of a classifier's the backbone's part.

    A classifier has the architecture and the values that its images are normalised by; head and sizes are the recipe's.
    """
    if fitted.head is not None or is_detector(fitted.name) or is_segmenter(fitted.name):
        return fitted, preprocess
    args = {key: value for key, value in recipe.model.args.items() if key == _HEAD_ARGS}
    fitted = dataclasses.replace(fitted, head=recipe.model.head, args={**fitted.args, **args})
    own = recipe.data.preprocess
    return fitted, dataclasses.replace(own, mean=preprocess.mean, std=preprocess.std)


def _alone(model: config.Model) -> tuple[config.Model, Preprocess]:
    """A network whose weights come with its name, such as resnet18.a1_in1k."""
    return dataclasses.replace(model, head=None), _preprocess_of(model.name)


def _start(model: config.Model, weights: str) -> tuple[config.Model, Preprocess]:
    """The network and the preprocessing of weights of any kind that the zoo reads."""
    if weights.startswith(HUB_PREFIX):
        hub = hub_model(weights)
        args = _without_options(hub.model_args)
        preprocess = _preprocess_of(hub.architecture, pretrained_cfg_overlay=hub.pretrained_cfg)
        return dataclasses.replace(model, name=hub.architecture, head=None, args=args), preprocess
    row, path = find(weights), checkpoint_path(weights)
    if path is not None:
        found = describe(path)
        if found.manifest is not None:
            name, args = found.manifest.architecture, dict(found.manifest.model_args)
            if not is_dense(found.manifest):  # the task of a dense network checks its arguments when it builds it
                args = _without_options(checked_model_args(name, args, str(path)))
            start = dataclasses.replace(model, name=name, head=found.manifest.head, args=args)
            return start, found.manifest.preprocess
        row = found.published
        if row is None:
            name, args = model.name, model.args
            if found.architecture:
                name, args = found.architecture, checked_model_args(found.architecture, found.model_args, str(path))
            return dataclasses.replace(model, name=name, head=None, args=args), _preprocess_of(name)
    if row is None:
        raise OvertoneError(no_weights(weights))
    preprocess = preprocess_of_row(row) if isinstance(row, PublishedDense) else _preprocess_of(row.full_name)
    return dataclasses.replace(model, name=row.architecture, head=None, args={}), preprocess


def _without_options(args: dict[str, Any]) -> dict[str, Any]:
    """Without the arguments that follow from the data or have an option of their own."""
    return {key: value for key, value in args.items() if key not in COMMON}


def _preprocess_of(name: str, **arguments: Any) -> Preprocess:
    with torch.device("meta"):
        return preprocess_of(build(name, **arguments))
