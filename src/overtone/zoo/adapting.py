"""Weights for images of other channels and for other classes than those that they were trained on."""

import sys
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from overtone.layers.dct_conv import HarmConv2d


def adapt_in_chans(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], str | None]:
    """The weights of the first layer for the channels that `model` takes; timm's convention.

    One channel: the sum over the channels, which is exact for a grey image in place of a coloured one. More: the
    channels repeated in turn and scaled so that their sum stays.

    Returns:
        The state dict, and what was done, or None.
    """
    state, owner = dict(state), next(iter(model.named_parameters()))[0].rpartition(".")[0]
    layer = model.get_submodule(owner)
    key = next((key for key in (f"{owner}.weight", f"{owner}.conv", owner) if key in state), None)
    wanted = getattr(layer, "in_channels", None)
    if key is None or wanted is None or getattr(layer, "groups", 1) != 1 or state[key].ndim < 3:
        return state, None
    weight = state[key]
    harmonic = isinstance(layer, HarmConv2d)
    per_channel = layer.num_filters if harmonic and weight.ndim == 4 else 1
    given, rest = divmod(weight.shape[1], per_channel)
    if given == wanted or rest or given == 0:
        return state, None
    done = f"the first layer takes {wanted} channels, adapted from {given}"
    if harmonic and layer.bn is not None:
        _adapt_harmonic(state, key, owner, layer, given)
        return state, done
    state[key] = _spread(weight, wanted)
    return state, done


def _spread(weight: Tensor, wanted: int) -> Tensor:
    """A weight (out, given, …) for `wanted` channels."""
    given = weight.shape[1]
    if wanted == 1:
        return weight.sum(1, keepdim=True)
    return weight[:, torch.arange(wanted) % given] * (given / wanted)


def _adapt_harmonic(state: dict[str, Tensor], key: str, owner: str, layer: HarmConv2d, given: int) -> None:
    """The same for a harmonic first layer, whose DCT responses (channel-major) are normalised each by itself.

    For one channel each response gets the mean of the channels' statistics, and the weights make up for the difference
    of the deviations exactly; that of the means goes into the bias, where the layer has one.
    """
    wanted, filters = layer.in_channels, layer.num_filters
    weight = state[key].reshape(-1, given, filters)
    names = {name: f"{owner}.bn.{name}" for name in ("running_mean", "running_var")}
    mean, var = (state[name].reshape(given, filters) for name in names.values())
    if wanted == 1:
        assert layer.bn is not None
        deviation = (var + layer.bn.eps).sqrt()  # type: ignore[operator]
        new_mean, new_var = mean.mean(0, keepdim=True), var.mean(0, keepdim=True)
        if f"{owner}.bias" in state:
            state[f"{owner}.bias"] = state[f"{owner}.bias"] + (weight * ((new_mean - mean) / deviation)).sum((1, 2))
        new = (weight * ((new_var + layer.bn.eps).sqrt() / deviation)).sum(1, keepdim=True)  # type: ignore[operator]
    else:
        turn = torch.arange(wanted) % given
        new_mean, new_var, new = mean[turn], var[turn], _spread(weight, wanted)
    state[key] = new.reshape(new.shape[0], -1, 1, 1) if state[key].ndim == 4 else new
    state[names["running_mean"]], state[names["running_var"]] = new_mean.flatten(), new_var.flatten()
    state.pop(f"{owner}.dct", None)  # of as many channels as there were; the layer knows its own


def adapt_head(
    state: Mapping[str, Tensor], model: nn.Module, *, uninitialised: bool = False
) -> tuple[dict[str, Tensor], str | None]:
    """The classifier for the classes that `model` has.

    Left out of the state dict where the model has none; the rows of the same classes where the family knows them
    (ImageNet-1K of ImageNet-22K); otherwise the model keeps its own.

    Args:
        state: under published keys or the model's.
        model: takes the state dict.
        uninitialised: the model's numbers are whatever lay in memory, so that a new classifier has to be made.

    Returns:
        The state dict, and what was done, or None.
    """
    state = dict(state)
    notes: list[str] = []
    for name in classifier_names(model):
        keys, layer = (f"{name}.weight", f"{name}.bias"), model.get_submodule(name)
        given = state[keys[0]].shape[0] if keys[0] in state else 0
        wanted = getattr(layer, "out_features", 0)
        if given == wanted:
            continue
        rows = head_rows_of(model, given, wanted)
        old = {key: state.pop(key) for key in keys if key in state}
        if rows is not None:
            state |= {key: value[rows] for key, value in old.items()}
            notes.append(f"its classifier of {given} classes is reduced to {wanted} of them")
        elif wanted:
            if uninitialised:
                model.reset_classifier(wanted)  # type: ignore[operator]  # timm's contract
            state |= {key: value for key, value in model.state_dict().items() if key in keys}
            notes.append(f"the classifier of {wanted} classes is new" + (f" (the file has {given})" if given else ""))
        else:
            notes.append(f"its classifier of {given} classes is left out")
    return state, "; ".join(notes) or None


def head_rows_of(model: nn.Module, given: int, wanted: int) -> list[int] | None:
    """Which of `given` outputs are the `wanted` ones, in their order, where the model's family knows; else None."""
    return getattr(sys.modules[type(model).__module__], "head_rows", lambda *_: None)(given, wanted)


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """The names of the layers that `reset_classifier` replaces."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)
