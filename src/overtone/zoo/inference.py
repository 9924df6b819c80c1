"""Which network a file is of, inferred from its keys and shapes alone."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from overtone.checkpoint import Manifest
from overtone.errors import OvertoneError
from overtone.models import families
from overtone.models._cfg import Inferred
from overtone.published import Published
from overtone.zoo.proof import Proof, identify, verify
from overtone.zoo.reading import State, inspect_state


def infer_architecture(shapes: Mapping[str, tuple[int, ...]]) -> Inferred | None:
    """The network that a state dict of these shapes belongs to, asked of every family; None where it is of none.

    Args:
        shapes: by published key or ours.
    """
    for family in families():
        try:
            found = family.architecture_of(shapes)
        except (IndexError, KeyError, ValueError, TypeError, ZeroDivisionError):
            continue  # known keys with shapes that no network of the family has: a foreign or an altered file
        if found is not None:
            return found
    return None


def inferred_of(path: Path, state: State) -> Inferred:
    """`infer_architecture` for a file.

    Raises:
        OvertoneError: it is of no known network.
    """
    found = infer_architecture(state.shapes)
    if found is None:
        keys = ", ".join(list(state.entries)[:4])
        raise OvertoneError(
            f"{path} is of no network that is known here by its keys ({keys}, …); name its architecture to load it"
        )
    return found


@dataclass(frozen=True)
class Description:
    """What a file of weights is, inferred without reading a tensor or building a network.

    Attributes:
        path: the file, of `size` bytes.
        format: `safetensors`, `torch zip` or `torch legacy`.
        layout: see `State`.
        architecture: a registered name, None if it is of no known network; built with `model_args`.
        num_classes: outputs of the classifier, 0 without one, None if unknown; in_chans: channels of the image.
        num_tensors: in the state dict; num_parameters: numbers in them, buffers included.
        dtypes: how many tensors of each type.
        extra: plain values beside the weights, such as `epoch`.
        has_ema: whether there is a moving average of the weights.
        published: the published file that it is, by its hash; `proof` says which hash.
        manifest: of a checkpoint of overtone.
        notes: what had to be assumed, in sentences for a log.
    """

    path: Path
    size: int
    format: str
    layout: str
    architecture: str | None
    model_args: dict[str, Any]
    num_classes: int | None
    in_chans: int | None
    num_tensors: int
    num_parameters: int
    dtypes: dict[str, int]
    extra: dict[str, Any] = field(default_factory=dict)
    has_ema: bool = False
    published: Published | None = None
    proof: Proof | None = None
    manifest: Manifest | None = None
    notes: tuple[str, ...] = ()


def describe(path: Path) -> Description:
    """What a file of weights is.

    Raises:
        OvertoneError: no such file, damaged, no file of weights, or refused.
    """
    state, contents = inspect_state(path)
    row = None if state.manifest is not None else identify(path)
    inferred = infer_architecture(state.shapes)
    architecture, args, notes = None, {}, ()
    if inferred is not None:
        architecture, args = inferred.architecture, dict(inferred.args)
        notes = (inferred.assumed,) if inferred.assumed and row is None and state.manifest is None else ()
    num_classes, in_chans = args.pop("num_classes", None), args.pop("in_chans", None if inferred is None else 3)
    if state.manifest is not None:
        architecture, args = state.manifest.architecture, dict(state.manifest.model_args)
        num_classes = len(state.manifest.labels)
    elif row is not None:
        architecture, args = row.architecture, {}
    dtypes: dict[str, int] = {}
    for entry in state.entries.values():
        name = str(entry.dtype).removeprefix("torch.")
        dtypes[name] = dtypes.get(name, 0) + 1
    return Description(
        path=path,
        size=contents.size,
        format=contents.format,
        layout=state.layout,
        architecture=architecture,
        model_args=args,
        num_classes=num_classes,
        in_chans=in_chans,
        num_tensors=len(state.entries),
        num_parameters=sum(entry.nbytes // entry.dtype.itemsize for entry in state.entries.values()),
        dtypes=dtypes,
        extra=state.extra,
        has_ema=state.has_ema,
        published=row,
        proof=None if row is None else verify(path, row),
        manifest=state.manifest,
        notes=notes,
    )
