"""A state dict into a network, strictly and with every difference named, and out of one in its published layout.

What was asked for is adapted on the way: the first layer to images of other channels, the classifier to other labels.
"""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from overtone.checkpoint import write_with
from overtone.errors import OvertoneError, some
from overtone.layers.input_channels import spread_channels
from overtone.models._families import family_of_model, head_rows_of
from overtone.published import PublishedRow

_MOST_NAMED = 12
_OPTIONAL = ("num_batches_tracked", "dct")  # older files have no counters; the banks of DCT filters are constants


def load_state(
    model: nn.Module,
    state: Mapping[str, Tensor],
    source: str,
    *,
    new_head: bool = False,
    strict: bool = True,
    uninitialised: bool = False,
    allow_nonfinite: bool = False,
) -> tuple[str, ...]:
    """Load a state dict under published keys or the model's own.

    Args:
        model: takes it in place.
        state: tensors of any floating type; they are copied.
        source: what is loaded, for messages.
        new_head: a classifier of other labels is allowed: it is reduced, left out or made new.
        strict: False loads what fits and reports what does not.
        uninitialised: the memory of the model holds no values yet, so everything in it must be loaded or made.
        allow_nonfinite: load NaN and infinities too.

    Returns:
        What was adapted, in sentences for a log.

    Raises:
        OvertoneError: missing, unexpected or mis-shaped keys, each by name; NaN or infinities that are not
            allowed.
    """
    notes: list[str | None] = []
    state, note = adapt_in_chans(_filtered_by_family(state, model), model)
    notes.append(note)
    if new_head:
        state, note = adapt_head(state, model, uninitialised=uninitialised)
        notes.append(note)
    differences = _differences(model, state)
    if differences and strict:
        hint = ""
        if not new_head and all(any(name in d for name in classifier_names(model)) for d in differences):
            hint = "; give num_classes for a new classifier"
        raise OvertoneError(f"{source} does not fit {_named(model)}: {'; '.join(differences)}{hint}")
    bad = nonfinite(state)
    if bad and not allow_nonfinite:
        raise OvertoneError(
            f"{source} holds NaN or infinite values in {some(bad, _MOST_NAMED)}, so its outputs mean nothing; "
            "use another file"
        )
    if bad:
        notes.append(f"NaN or infinite values in {some(bad, _MOST_NAMED)}")
    try:
        if differences:
            state = _fitting(model, state)
        model.load_state_dict(state, strict=not differences)
    except RuntimeError as error:
        lines = [line.strip() for line in str(error).splitlines()[1:]]
        raise OvertoneError(f"{source} does not fit {_named(model)}: {' '.join(lines)[:2000]}") from error
    if differences:
        notes.append(f"what does not fit was left as it was: {'; '.join(differences)}")
    return tuple(note for note in notes if note)


def nonfinite(state: Mapping[str, Tensor]) -> list[str]:
    """The keys of the tensors that hold NaN or infinities."""
    floating = {key: value for key, value in state.items() if value.is_floating_point() or value.is_complex()}
    # A sum is finite in nearly every sound tensor and takes a fraction of the time of a look at each value.
    suspects = [key for key, value in floating.items() if not value.sum().isfinite()]
    return [key for key in suspects if not floating[key].isfinite().all()]


def allocated(model: nn.Module) -> nn.Module:
    """A network of ours that was built on the meta device, in memory that nothing has been written to.

    It must then be loaded whole. The initialisation of a large network takes longer than to read it.
    """
    model = model.to_empty(device="cpu")
    for buffer in model.buffers():
        if not buffer.is_floating_point():
            buffer.zero_()  # counters of batches, which files of before 2018 lack
    return model


def _named(model: nn.Module) -> str:
    return (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__


def _filtered_by_family(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """The state dict through the family's `checkpoint_filter_fn`, which resizes global filters, for example."""
    adapt = getattr(family_of_model(model), "checkpoint_filter_fn", None)
    return dict(state if adapt is None else adapt(dict(state), model))


def _accepted(model: nn.Module) -> list[dict[str, Tensor]]:
    """The state dicts that the network accepts: its own and, in our families, the published one."""
    published = getattr(model, "published_state_dict", None)
    return [dict(model.state_dict())] + ([] if published is None else [published()])


def _differences(model: nn.Module, state: Mapping[str, Tensor]) -> list[str]:
    accepted = _accepted(model)
    nearest = max(accepted, key=lambda expected: len(expected.keys() & state.keys()))
    missing = [key for key in nearest if key not in state and key.rpartition(".")[2] not in _OPTIONAL]
    unexpected = [key for key in state if not any(key in expected for expected in accepted)]
    wrong = []
    for key, value in state.items():
        expected = [own[key] for own in accepted if key in own]
        shapes = [tuple(own.shape) for own in expected]
        if expected and tuple(value.shape) not in shapes:
            wrong.append(f"{key} {tuple(value.shape)} instead of {shapes[-1]}")
        elif expected and expected[0].is_floating_point() and not value.is_floating_point():
            wrong.append(f"{key} as {str(value.dtype).removeprefix('torch.')}")
    parts = (("missing", missing), ("unexpected", unexpected), ("of another shape or type", wrong))
    return [f"{len(keys)} {what}: {some(keys, _MOST_NAMED)}" for what, keys in parts if keys]


def _fitting(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any]:
    accepted = _accepted(model)
    return {
        key: value
        for key, value in state.items()
        if any(key in own and own[key].shape == value.shape for own in accepted) and value.is_floating_point()
    }


# --- adapting


def adapt_in_chans(state: Mapping[str, Tensor], model: nn.Module) -> tuple[dict[str, Tensor], str | None]:
    """The weights of the first layer for the channels that `model` takes; timm's convention.

    One channel: the sum over the channels, which is exact for a grey image in place of a coloured one. More: the
    channels repeated in turn and scaled so that their sum stays. A layer whose weight is stored otherwise than
    (out, in, ...) has a method `adapt_input_channels(entries)`, which gives its entries of a state dict for its own
    number of channels, and that number before; None where there is nothing to do.

    Returns:
        The state dict, and what was done, or None.
    """
    state, owner = dict(state), next(iter(model.named_parameters()))[0].rpartition(".")[0]
    layer = model.get_submodule(owner)
    wanted = getattr(layer, "in_channels", None)
    if wanted is None or getattr(layer, "groups", 1) != 1:
        return state, None
    adapt = getattr(layer, "adapt_input_channels", None)
    if adapt is None:
        key = next((key for key in (f"{owner}.weight", owner) if key in state), None)
        if key is None or state[key].ndim < 3 or state[key].shape[1] in (0, wanted):
            return state, None
        given, state[key] = state[key].shape[1], spread_channels(state[key], wanted)
    else:
        adapted = adapt({key.removeprefix(f"{owner}."): state[key] for key in state if key.startswith(f"{owner}.")})
        if adapted is None:
            return state, None
        entries, given = adapted
        state = {key: value for key, value in state.items() if not key.startswith(f"{owner}.")}
        state |= {f"{owner}.{name}": value for name, value in entries.items()}
    return state, f"the first layer takes {wanted} channels, adapted from {given}"


def adapt_head(
    state: Mapping[str, Tensor], model: nn.Module, *, uninitialised: bool = False
) -> tuple[dict[str, Tensor], str | None]:
    """The classifier for the labels that `model` has.

    Left out of the state dict where the model has none; the rows of the same labels where the family knows them
    (ImageNet-1K of ImageNet-22K); otherwise the model keeps its own.

    Args:
        state: under published keys or the model's.
        model: takes the state dict.
        uninitialised: the memory of the model holds no values yet, so that a new classifier has to be made.

    Returns:
        The state dict, and what was done, or None.
    """
    state = dict(state)
    notes, family = list[str](), family_of_model(model)
    for name in classifier_names(model):
        keys, layer = (f"{name}.weight", f"{name}.bias"), model.get_submodule(name)
        given = state[keys[0]].shape[0] if keys[0] in state else 0
        wanted = getattr(layer, "out_features", 0)
        if given == wanted:
            continue
        rows = head_rows_of(given, wanted, family) if family is not None else None
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


def classifier_names(model: nn.Module) -> tuple[str, ...]:
    """The names of the layers that `reset_classifier` replaces."""
    names = (getattr(model, "pretrained_cfg", None) or {}).get("classifier") or ()
    return (names,) if isinstance(names, str) else tuple(names)


# --- writing

PublishedLayout = Literal["bare", "module", "model", "state_dict"]


def published_layout(row: PublishedRow) -> PublishedLayout:
    """The layout that the file of a published row has."""
    layout = row.layout or ""
    if layout.startswith("{'model'"):
        return "model"
    return "module" if "module." in layout else "bare"


def write_published(
    path: Path, model: nn.Module, layout: PublishedLayout = "bare", extra: Mapping[str, Any] | None = None
) -> None:
    """Write the weights of one of our networks with the published keys, shapes and order, as `torch.save` does.

    Args:
        path: the file; it appears whole or not at all.
        model: the network.
        layout: `bare`; `module`: every key with that prefix; `model` and `state_dict`: in a dictionary under that key,
            the keys of the latter prefixed `module.` as the original training scripts write them.
        extra: plain values beside the weights, such as `epoch`; only where the layout is a dictionary.

    Raises:
        OvertoneError: the file cannot be written.
    """
    state: dict[str, Tensor] = model.published_state_dict()  # type: ignore[operator]  # every network of ours has it
    prefix = "module." if layout in ("module", "state_dict") else ""
    entries = OrderedDict(
        (prefix + key, value.detach().to("cpu", copy=True).contiguous()) for key, value in state.items()
    )
    values = {layout: entries, **(extra or {})} if layout in ("model", "state_dict") else entries
    write_with(path, lambda temporary: torch.save(values, temporary))
