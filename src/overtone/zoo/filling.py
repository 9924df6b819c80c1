"""Networks built from checked arguments and filled with a state dict."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import nn

from overtone.checkpoint import Manifest
from overtone.config import Model, Preprocess
from overtone.errors import OvertoneError
from overtone.models._families import is_ours
from overtone.models.arguments import COMMON
from overtone.models.building import build, preprocess_of
from overtone.published import PublishedRow
from overtone.tasks import task_named
from overtone.zoo.loading import allocated, load_state
from overtone.zoo.proof import Proof
from overtone.zoo.reading import State

_SPARE_VALUES = 1 << 26  # a network may have as many more values than the file that it is loaded from


@dataclass(frozen=True)
class LoadedModel:
    """A network ready to evaluate: on the CPU, float32, eval mode.

    Attributes:
        model: the network.
        architecture: its name; `model_args` are the constructor's arguments beside the number of classes.
        labels: names in the order of the outputs, or None where the weights do not have them.
        preprocess: what its input must have gone through.
        manifest: of the checkpoint, or None for a bare architecture.
        source: display string of what was loaded; never parsed.
        task: what the network does, a name in `overtone.tasks`.
        path: the file that the weights were read from, or None.
        tag: the pretrained tag that the weights were asked for by, such as `dli14_in1k`, or None.
        trained: whether it has weights from a training rather than random ones.
        notes: what had to be assumed or adapted, in sentences for a log.
        layout: of the file; see `State`.
        published: the published row whose weights these are; `proof` is what was compared.
    """

    model: nn.Module
    architecture: str
    labels: tuple[str, ...] | None
    preprocess: Preprocess
    source: str
    model_args: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None
    trained: bool = True
    notes: tuple[str, ...] = ()
    layout: str | None = None
    published: PublishedRow | None = None
    proof: Proof | None = None
    task: str = "classification"
    path: Path | None = None
    tag: str | None = None


@dataclass(frozen=True)
class Wish:
    """What the caller of `load_model` asks for beyond the name."""

    num_classes: int | None
    in_chans: int | None
    ema: bool
    strict: bool
    allow_nonfinite: bool

    def arguments(self, num_classes: int | None, in_chans: int | None = None) -> dict[str, int]:
        """Arguments of the constructor, with what the file says where nothing was asked for."""
        chosen = {"num_classes": num_classes if self.num_classes is None else self.num_classes}
        chosen["in_chans"] = in_chans if self.in_chans is None else self.in_chans
        return {key: value for key, value in chosen.items() if value is not None}


@dataclass(frozen=True)
class Net:
    """What a network is built from: arguments that have been checked, and the preprocessing in timm's terms."""

    name: str
    arguments: Mapping[str, Any]
    pretrained_cfg: Mapping[str, Any] = field(default_factory=dict)
    manifest: Manifest | None = None

    def build(self) -> nn.Module:
        """The network, initialised; the only place where what a checkpoint holds is built."""
        if self.manifest is not None and self.manifest.task != "classification":
            return self._build_by_task(self.manifest)
        overlay = {"pretrained_cfg_overlay": dict(self.pretrained_cfg)} if self.pretrained_cfg else {}
        return build(self.name, **self.arguments, **overlay)

    def _build_by_task(self, manifest: Manifest) -> nn.Module:
        if self.arguments.get("in_chans", 3) != 3:
            raise OvertoneError(
                f"a network for {manifest.task} cannot be adapted to other channels; leave in_chans out"
            )
        count = int(self.arguments["num_classes"])
        labels = manifest.labels if count == len(manifest.labels) else tuple(map(str, range(count)))
        args = {name: value for name, value in self.arguments.items() if name not in COMMON}
        return task_named(manifest.task).build(Model(name=self.name, head=manifest.head, args=args), labels)

    @property
    def is_structured_by_file(self) -> bool:
        """Whether a file has chosen more than the number of labels and channels of a known architecture."""
        return bool(self.pretrained_cfg) or bool(self.arguments.keys() - COMMON.keys())


def filled(net: Net, state: State, source: str, wish: Wish, notes: tuple[str, ...]) -> LoadedModel:
    """A network with a state dict in it; without its initialisation where that is ours to leave out."""
    empty = is_ours(net.name) and wish.strict
    model = _without_memory(net, state, source, wish) if empty or net.is_structured_by_file else None
    model = allocated(model) if empty and model is not None else net.build()
    notes += load_state(
        model,
        state.entries,
        source,
        new_head=wish.num_classes is not None,
        strict=wish.strict,
        uninitialised=empty,
        allow_nonfinite=wish.allow_nonfinite,
    )
    return LoadedModel(
        model=model.eval(),
        architecture=net.name.partition(".")[0],
        model_args=without_classes(net.arguments),
        labels=None,
        preprocess=preprocess_of(model),
        source=source,
        notes=notes,
        layout=state.layout,
    )


def _without_memory(net: Net, state: State, source: str, wish: Wish) -> nn.Module | None:
    """The network on the meta device, after its size has been compared with the file's; None if it cannot be there.

    Raises:
        OvertoneError: it would take far more memory than the file holds.
    """
    try:
        with torch.device("meta"):
            model = net.build()
    except (RuntimeError, NotImplementedError):  # one of timm's that computes with numbers while it is built
        return None
    size, held = (sum(value.numel() for value in each.values()) for each in (model.state_dict(), state.entries))
    if net.is_structured_by_file and size > 2 * held + _SPARE_VALUES + (wish.num_classes or 0) * 8192:
        raise OvertoneError(
            f"{source} asks for a network of {size:,} values and holds {held:,}; it is damaged or not what it says"
        )
    return model


def without_classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    """The constructor's arguments as `LoadedModel.model_args` has them."""
    return {key: value for key, value in arguments.items() if key != "num_classes"}
