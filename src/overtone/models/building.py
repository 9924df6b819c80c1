"""Networks by name, ours or timm's, and what they say about their input and their classifier."""

from collections.abc import Mapping
from typing import Any

import timm
from timm.data.config import resolve_model_data_config
from torch import nn

from overtone import config
from overtone.config import Preprocess
from overtone.errors import OvertoneError, did_you_mean
from overtone.models._families import is_ours
from overtone.models.arguments import MODEL_ARGS, checked_model_args
from overtone.published import Published, find, rows_of


def build(name: str, **arguments: Any) -> nn.Module:
    """A network by its name, ours or timm's.

    With `pretrained=True` the weights of ours are fetched and verified by the zoo, those of timm's by timm.

    Raises:
        OvertoneError: no such architecture (with the names closest to it), no such tag, no weights under it, arguments
            that it does not take, or weights that cannot be had.
    """
    check_known(name)
    if is_ours(name):
        _check_tag(name, wants_weights=bool(arguments.get("pretrained")))
    wants_weights = bool(arguments.get("pretrained"))
    try:
        return timm.create_model(name, **arguments)
    except OvertoneError:
        raise
    except (TypeError, ValueError, AssertionError, LookupError, ArithmeticError, RuntimeError) as error:
        if not wants_weights and arguments.keys() - {"pretrained"}:
            raise OvertoneError(f"{name} cannot be built with {_spelled(arguments)}: {error}") from error
        if not wants_weights:
            raise
        raise OvertoneError(f"the weights of {name} could not be fetched: {error}") from error


def check_known(name: str) -> None:
    """Raise OvertoneError, with the closest names, where no architecture has that name, ours or timm's own."""
    if not timm.is_model(name):
        known = timm.list_models()  # ours are registered there
        hint = did_you_mean(name.partition(".")[0], known, "`overtone models` lists them")
        raise OvertoneError(f"{name[:200]!r} is neither a model nor a checkpoint file nor a run folder; {hint}")


def build_classifier(model: config.Model, num_classes: int, *, pretrained: bool = False) -> nn.Module:
    """The network of a recipe's `model`, with an output for each class.

    Raises:
        OvertoneError: see `build` and `checked_model_args`.
    """
    check_known(model.name)
    arguments = checked_model_args(model.name, model.args, MODEL_ARGS)
    if model.drop_rate:
        arguments["drop_rate"] = model.drop_rate
    if model.drop_path_rate:
        arguments["drop_path_rate"] = model.drop_path_rate
    return build(model.name, pretrained=pretrained, num_classes=num_classes, **arguments)


def published_row(name: str) -> Published | None:
    """The published row that a name stands for, of an architecture the first one with weights; None without one."""
    row = find(name)
    return row if isinstance(row, Published) else next((row for row in rows_of(name) if row.urls), None)


def preprocess_of(model: nn.Module) -> Preprocess:
    """What timm's `pretrained_cfg` of a network says about its input, as our record."""
    cfg = resolve_model_data_config(model)
    return Preprocess(
        size=int(cfg["input_size"][-1]),
        resize="squash" if cfg["crop_mode"] == "squash" else "shorter",
        crop_fraction=float(cfg["crop_pct"]),
        interpolation=cfg["interpolation"] if cfg["interpolation"] != "random" else "bicubic",
        mean=tuple(cfg["mean"]),
        std=tuple(cfg["std"]),
    )


def classifier_of(model: nn.Module) -> nn.Module:
    """The last layer(s), which `reset_classifier` replaces.

    Raises:
        OvertoneError: the network has none (`num_classes=0`).
    """
    classifier = model.get_classifier()  # type: ignore[operator]  # timm's contract
    if isinstance(classifier, nn.Identity):
        raise OvertoneError("the model has no classifier to train; it was built with num_classes=0")
    return nn.ModuleList(classifier) if isinstance(classifier, (tuple, list)) else classifier


def _check_tag(name: str, *, wants_weights: bool) -> None:
    architecture, _, tag = name.partition(".")
    rows = rows_of(architecture)
    if tag and find(name) is None:
        tags = ", ".join(row.full_name for row in rows) or "none was published for it"
        raise OvertoneError(f"{architecture} has no weights called {tag!r}; there are: {tags}")
    row = published_row(name)
    if wants_weights and (row is None or not row.urls):
        raise OvertoneError(
            f"{name} was published without weights; train it, or choose another (`overtone weights list`)"
        )


def _spelled(arguments: Mapping[str, Any]) -> str:
    return ", ".join(f"{name}={value!r}" for name, value in arguments.items())
