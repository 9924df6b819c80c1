"""Weights in the layouts that the original code reads."""

from collections import OrderedDict
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal

import torch
from torch import Tensor, nn

from overtone.checkpoint import write_with
from overtone.published import Published

PublishedLayout = Literal["bare", "module", "model", "state_dict"]


def published_layout(row: Published) -> PublishedLayout:
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
        path: the file; it is there whole or not at all.
        model: the network.
        layout: `bare`; `module`: every key with that prefix; `model` and `state_dict`: in a dictionary under that key,
            the keys of the latter prefixed `module.` as the original training scripts write them.
        extra: plain values beside the weights, such as `epoch`; only where the layout is a dictionary.

    Raises:
        OvertoneError: the file cannot be written.
    """
    state: dict[str, Tensor] = model.published_state_dict()  # type: ignore[operator]  # every net of ours has it
    prefix = "module." if layout in ("module", "state_dict") else ""
    entries = OrderedDict(
        (prefix + key, value.detach().to("cpu", copy=True).contiguous()) for key, value in state.items()
    )
    values = {layout: entries, **(extra or {})} if layout in ("model", "state_dict") else entries
    write_with(path, lambda temporary: torch.save(values, temporary))
