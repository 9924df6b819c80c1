"""A state dict into a net: adapted where that was asked for, otherwise strictly, every difference named."""

import sys
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from overtone.errors import OvertoneError
from overtone.zoo.adapting import adapt_head, adapt_in_chans, classifier_names

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
) -> tuple[str, ...]:
    """Load a state dict under published keys or the model's own.

    Args:
        model: takes it in place.
        state: tensors of any floating type; they are copied.
        source: what is loaded, for messages.
        new_head: a classifier of other classes is allowed: it is reduced, left out or made new.
        strict: False loads what fits and says what does not.
        uninitialised: nothing of the model may stay as it is (it was built without numbers).

    Returns:
        What was done beyond copying, for people.

    Raises:
        OvertoneError: missing, unexpected or mis-shaped keys, each by name.
    """
    notes: list[str | None] = []
    state, note = adapt_in_chans(_in_the_familys_way(state, model), model)
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


def built_without_numbers(build: Callable[[], nn.Module]) -> nn.Module:
    """A net of ours in memory of its own that nothing has been written into: it must be loaded whole.

    The initialisation of a large net takes longer than to read it.
    """
    with torch.device("meta"):
        model = build()
    model = model.to_empty(device="cpu")
    for buffer in model.buffers():
        if not buffer.is_floating_point():
            buffer.zero_()  # counters of batches, which older files do not have
    return model


def _named(model: nn.Module) -> str:
    return (getattr(model, "pretrained_cfg", None) or {}).get("architecture") or type(model).__name__


def _in_the_familys_way(state: Mapping[str, Tensor], model: nn.Module) -> dict[str, Tensor]:
    """As the family's `checkpoint_filter_fn` has it, such as global filters resized to those of the net."""
    family = sys.modules[type(model).__module__]
    is_ours = type(model).__module__.startswith("overtone.models.")
    adapted = (
        family.checkpoint_filter_fn(dict(state), model)
        if is_ours and hasattr(family, "checkpoint_filter_fn")
        else state
    )
    return dict(adapted)


def _accepted(model: nn.Module) -> list[dict[str, Tensor]]:
    """The state dicts that the net takes: its own and, in our families, the published one."""
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
    return [f"{len(keys)} {what}: {_some(keys)}" for what, keys in parts if keys]


def _fitting(model: nn.Module, state: Mapping[str, Tensor]) -> dict[str, Any]:
    accepted = _accepted(model)
    return {
        key: value
        for key, value in state.items()
        if any(key in own and own[key].shape == value.shape for own in accepted) and value.is_floating_point()
    }


def _some(keys: list[str]) -> str:
    more = len(keys) - _MOST_NAMED
    return ", ".join(keys[:_MOST_NAMED]) + (f" and {more} more" if more > 0 else "")
