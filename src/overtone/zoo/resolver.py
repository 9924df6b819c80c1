"""From a name or a path to a network with its weights: the one resolver that every verb uses."""

import dataclasses
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from overtone.checkpoint import BEST, LAST, Manifest
from overtone.config import Model, Preprocess
from overtone.errors import OvertoneError
from overtone.heads import is_segmenter
from overtone.heads.detectors import is_detector
from overtone.models._families import family_of_model, head_rows_of, is_ours
from overtone.models.arguments import COMMON, checked_model_args
from overtone.models.building import build, check_known, preprocess_of
from overtone.published import PublishedDense, PublishedRow, find
from overtone.tasks import task_named
from overtone.zoo import dense
from overtone.zoo.download import Progress
from overtone.zoo.fetch import Located, fetch_published
from overtone.zoo.hub import PREFIX as HUB_PREFIX
from overtone.zoo.hub import hub_model, hub_state_dict
from overtone.zoo.inference import infer_architecture, inferred_of
from overtone.zoo.loading import allocated, load_state
from overtone.zoo.proof import WEIGHTS_SUFFIXES, Folders, Proof, identify, verify
from overtone.zoo.reading import HUB_LAYOUT, State, read_state

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
class _Wish:
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


def load_model(
    spec: str,
    *,
    architecture: str | None = None,
    num_classes: int | None = None,
    in_chans: int | None = None,
    ema: bool = False,
    weights_dir: Folders = None,
    strict: bool = True,
    allow_nonfinite: bool = False,
    progress: Progress | None = None,
) -> LoadedModel:
    """The network that `spec` names.

    Args:
        spec: an architecture (random weights), `architecture.tag` (published weights), a file of weights of any layout,
            a run folder (its best checkpoint), or `hf-hub:owner/name`.
        architecture: the architecture of a file of bare weights that cannot be inferred from its shapes.
        num_classes: outputs, where they are not to be those of the weights: the classifier is then new (or reduced,
            where its classes are among those of the weights); 0 leaves it out.
        in_chans: channels of the image, where they are not to be those of the weights: the first layer is adapted.
        ema: from a training checkpoint, the moving average of the weights.
        weights_dir: folders that may have published files, beside the cache and OVERTONE_WEIGHTS_DIR.
        strict: False loads what fits of a file that does not fit, and reports in `notes` what does not.
        allow_nonfinite: load weights with NaN or infinite values too, with a warning, rather than refuse them.
        progress: called with the bytes of a download; None: a bar on stderr if it is a terminal.

    Raises:
        OvertoneError: nothing by that name; weights that cannot be fetched, read or verified, that do not fit, or that
            are not finite; a file that asks for constructor arguments which no file may choose.
    """
    wish = _Wish(num_classes, in_chans, ema, strict, allow_nonfinite)
    if spec.startswith(HUB_PREFIX):
        return _from_hub(spec, wish)
    path = checkpoint_path(spec)
    if path is not None:
        return _from_path(spec, path, architecture, wish)
    row = find(spec)
    if row is not None:
        return _from_published(fetch_published(row, weights_dir, progress=progress), wish)
    if is_segmenter(spec.partition(".")[0]) or is_detector(spec.partition(".")[0]):
        return LoadedModel(**dense.untrained(spec, wish.num_classes))
    tagged = "." in spec
    arguments = wish.arguments(None)
    model = build(spec, pretrained=tagged, **arguments)
    return LoadedModel(
        model=model.eval(),
        architecture=spec.partition(".")[0],
        model_args=_without_classes(arguments),
        labels=None,
        preprocess=preprocess_of(model),
        source=spec if tagged else f"{spec} with random weights",
        trained=tagged,
        tag=spec.partition(".")[2] or None,
    )


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The tensors of a file of weights of any layout, by their published names (or ours), on the CPU.

    Nothing in the file can run.

    Raises:
        OvertoneError: no such file, damaged, or a pickle that asks for more than tensors.
    """
    return read_state(path).entries


def checkpoint_path(spec: str) -> Path | None:
    """The file that a path names: itself, or the best (else the last) checkpoint of a run folder; None for no path.

    Raises:
        OvertoneError: a path to nothing, or a folder without checkpoints.
    """
    path = Path(spec)
    if path.is_file():
        return path
    if path.is_dir():
        for name in (BEST, LAST):
            if (path / name).is_file():
                return path / name
        raise OvertoneError(f"{path} is a folder without {BEST} or {LAST}; give the folder of a run that has saved one")
    if len(path.parts) > 1 or path.suffix in WEIGHTS_SUFFIXES:
        raise OvertoneError(f"{spec} is not there; give the path of a checkpoint file or of a run folder")
    return None


def read_checkpoint_of(spec: str, path: Path, *, ema: bool) -> tuple[Path, State]:
    """The state dict of a file; of a run folder whose best checkpoint is damaged, the last one, with a warning.

    Args:
        spec: what was asked for, the file or its run folder.
        path: what `checkpoint_path` gave for it.
        ema: see `load_model`.

    Raises:
        OvertoneError: neither can be read.
    """
    other = path.with_name(LAST)
    try:
        return path, read_state(path, ema=ema)
    except OvertoneError as error:
        if not Path(spec).is_dir() or path.name != BEST or not other.is_file():
            raise
        warning = f"{error}; {other} is used instead"
        state = read_state(other, ema=ema)
    warnings.warn(warning, stacklevel=4)
    return other, state


# --- one function per kind of spec


def _from_path(spec: str, path: Path, architecture: str | None, wish: _Wish) -> LoadedModel:
    path, state = read_checkpoint_of(spec, path, ema=wish.ema)
    if state.manifest is not None:
        if architecture not in (None, state.manifest.architecture):
            raise OvertoneError(
                f"{path} holds a {state.manifest.architecture}, not a {architecture}; leave the name out"
            )
        return _from_manifest(path, state.manifest, state, wish)
    fields = dense.from_published_layout(path, state)
    if fields is not None:
        _check_dense(path, len(fields["labels"]), wish)
        return LoadedModel(**fields)
    row = identify(path)
    if row is not None and architecture in (None, row.architecture):
        return _from_published(Located(path, verify(path, row), str(path.parent), row), wish, state)
    notes: tuple[str, ...] = ()
    if architecture is None:
        inferred = inferred_of(path, state)
        name, args = inferred.architecture, checked_model_args(inferred.architecture, inferred.args, str(path))
        assumed = (inferred.assumed,) if inferred.assumed else ()
        notes = (*assumed, "its preprocessing is assumed to be the architecture's own: such a file does not record it")
    else:
        inferred = infer_architecture(state.shapes)
        name, found = architecture, {} if inferred is None else inferred.args
        args = {key: found[key] for key in ("num_classes", "in_chans") if key in found}
    arguments = args | wish.arguments(args.get("num_classes"), args.get("in_chans"))
    net = _Net(name, arguments)
    return dataclasses.replace(_filled(net, state, str(path), wish, notes), path=path)


def _from_published(located: Located, wish: _Wish, state: State | None = None) -> LoadedModel:
    row, path = located.row, located.path
    state = read_state(path, ema=wish.ema) if state is None else state
    if isinstance(row, PublishedDense):
        return _from_published_dense(located, row, wish, state)
    notes: tuple[str, ...] = ()
    inferred = infer_architecture(state.shapes)
    has_head = inferred is None or inferred.args["num_classes"] > 0
    arguments = wish.arguments(row.num_classes if has_head else 0)
    if not has_head and wish.num_classes is None:
        notes = ("this copy of the weights has no classifier; the network gives features",)
    loaded = _filled(_Net(row.full_name, arguments), state, row.full_name, wish, notes)
    return dataclasses.replace(
        loaded,
        architecture=row.architecture,
        source=f"{row.full_name} ({path}; {located.proof})",
        published=row,
        proof=located.proof,
        path=path,
        tag=row.tag,
    )


def _from_published_dense(located: Located, row: PublishedDense, wish: _Wish, state: State) -> LoadedModel:
    path = located.path
    if state.manifest is not None:
        loaded = _from_manifest(path, state.manifest, state, wish)
    else:
        fields = dense.from_published_layout(path, state)
        if fields is None:
            raise OvertoneError(
                f"{path} holds no {row.name}; remove it, or put the file of {row.full_name} in its place"
            )
        _check_dense(path, len(fields["labels"]), wish)
        loaded = LoadedModel(**fields)
    if loaded.architecture != row.name:
        raise OvertoneError(
            f"{path} holds a {loaded.architecture}, not the {row.name} of {row.full_name}; put its file in its place"
        )
    return dataclasses.replace(
        loaded,
        source=f"{row.full_name} ({path}; {located.proof})",
        published=row,
        proof=located.proof,
        notes=(*loaded.notes, *row.doubts),
        tag=row.tag,
    )


def _from_manifest(path: Path, manifest: Manifest, state: State, wish: _Wish) -> LoadedModel:
    if dense.is_dense(manifest):
        _check_dense(path, len(manifest.labels), wish)
        return LoadedModel(**dense.from_manifest(path, manifest, state, strict=wish.strict))
    name = manifest.architecture
    check_known(name)
    chosen = checked_model_args(name, manifest.model_args, str(path))
    net = _Net(name, chosen | wish.arguments(len(manifest.labels)), manifest=manifest)
    loaded = _filled(net, state, str(path), wish, ())
    labels: tuple[str, ...] | None = manifest.labels
    if wish.num_classes not in (None, len(labels)):
        rows = head_rows_of(len(labels), wish.num_classes, family_of_model(loaded.model))
        labels = None if rows is None else tuple(labels[row] for row in rows)
    return dataclasses.replace(
        loaded,
        labels=labels,
        preprocess=manifest.preprocess,
        manifest=manifest,
        task=manifest.task,
        path=path,
        published=None if manifest.published is None else find(manifest.published),
    )


def _check_dense(path: Path, num_classes: int, wish: _Wish) -> None:
    if wish.num_classes not in (None, num_classes) or wish.in_chans not in (None, 3):
        raise OvertoneError(f"{path} is of a dense network, whose classes and channels stay as they are; train anew")


def _from_hub(spec: str, wish: _Wish) -> LoadedModel:
    if wish.ema:
        raise OvertoneError(f"{spec} has no moving average of the weights; load it without ema")
    hub = hub_model(spec)
    num_classes = hub.pretrained_cfg.get("num_classes")
    state = State(HUB_LAYOUT, hub_state_dict(spec))
    net = _Net(hub.architecture, hub.model_args | wish.arguments(num_classes), hub.pretrained_cfg)
    loaded = _filled(net, state, spec, wish, ())
    return dataclasses.replace(loaded, labels=hub.classes if wish.num_classes in (None, num_classes) else None)


# --- building and filling


@dataclass(frozen=True)
class _Net:
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


def _filled(net: _Net, state: State, source: str, wish: _Wish, notes: tuple[str, ...]) -> LoadedModel:
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
        model_args=_without_classes(net.arguments),
        labels=None,
        preprocess=preprocess_of(model),
        source=source,
        notes=notes,
        layout=state.layout,
    )


def _without_memory(net: _Net, state: State, source: str, wish: _Wish) -> nn.Module | None:
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


def _without_classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != "num_classes"}
