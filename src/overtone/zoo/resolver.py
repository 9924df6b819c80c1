"""From a name or a path to a network with its weights: the one resolver that every verb uses."""

import dataclasses
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import timm
from torch import Tensor, nn

from overtone import config
from overtone.checkpoint import SUFFIX, Manifest
from overtone.config import Preprocess
from overtone.errors import OvertoneError
from overtone.heads import Segmenter, is_segmenter
from overtone.heads.detector_starting import start_detector
from overtone.heads.detectors import is_detector
from overtone.heads.light_detectors import LightDetector
from overtone.heads.mask_rcnn import MaskRcnn
from overtone.heads.starting import start_segmenter
from overtone.models._cfg import PUBLISHED_PREFIX
from overtone.models.building import build, classifier_of, is_ours, preprocess_of
from overtone.published import Published, find
from overtone.tasks.task import Task
from overtone.zoo import dense
from overtone.zoo.adapting import head_rows_of
from overtone.zoo.cache import WEIGHTS_SUFFIXES, Folders
from overtone.zoo.download import Progress
from overtone.zoo.fetch import Located, fetch_published
from overtone.zoo.hub import PREFIX as HUB_PREFIX
from overtone.zoo.hub import hub_model, hub_state_dict
from overtone.zoo.inference import infer_architecture, inferred_of
from overtone.zoo.layouts import HUB_LAYOUT, State, read_state
from overtone.zoo.loading import built_without_numbers, load_state
from overtone.zoo.proof import Proof, identify, prove

BEST, LAST = f"best{SUFFIX}", f"last{SUFFIX}"


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
        notes: what had to be assumed or adapted, for people.
        layout: of the file; see `State`.
        published: the published row whose weights these are, proved by `proof`.
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
    published: Published | None = None
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
    progress: Progress | None = None,
) -> LoadedModel:
    """The network that `spec` names.

    Args:
        spec: an architecture (random weights), `architecture.tag` (published weights), a file of weights of any layout,
            a run folder (its best checkpoint), or `hf-hub:owner/name`.
        architecture: what a file of bare weights is of, where its shapes do not tell.
        num_classes: outputs, where they are not to be those of the weights: the classifier is then new (or reduced,
            where its classes are among those of the weights); 0 leaves it out.
        in_chans: channels of the image, where they are not to be those of the weights: the first layer is adapted.
        ema: from a training checkpoint, the moving average of the weights.
        weights_dir: folders that may have published files, beside the cache and OVERTONE_WEIGHTS_DIR.
        strict: False loads what fits of a file that does not fit, and says in `notes` what does not.
        progress: told the bytes of a download; None: a bar on stderr if it is a terminal.

    Raises:
        OvertoneError: nothing by that name, weights that cannot be had, read or proved, or that do not fit.
    """
    wish = _Wish(num_classes, in_chans, ema, strict)
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
    )


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
        new_head: the classifier may be of other classes than the weights; it then stays as it is.

    Returns:
        What was adapted, for people.

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
    path, state = _read(spec, path, ema=False)
    if isinstance(model, Segmenter):
        return start_segmenter(model, state.entries, str(path))
    if isinstance(model, (MaskRcnn, LightDetector)):
        return start_detector(model, state.entries, str(path))
    return load_state(model, state.entries, str(path), new_head=new_head)


def no_weights(spec: str) -> str:
    """What to say of a name that is to start a training and is of no weights."""
    hint = "give one as --model.weights (overtone weights list names the published ones)"
    if "." in spec and timm.is_model(spec) and not is_ours(spec):
        hint = f"weights of timm's come with the name: --model.name {spec}"
    return f"{spec} is neither a checkpoint file nor a run folder nor published weights; {hint}"


def load_pretrained(model: nn.Module, location: str) -> None:
    """What timm calls for a pretrained tag of ours: `published:architecture.tag` or a file into the net that it built.

    Raises:
        OvertoneError: see `load_weights`.
    """
    spec = location.removeprefix(PUBLISHED_PREFIX)
    row = find(spec)
    # With the classes of the row, a classifier is expected in the file: some copies have none.
    load_weights(model, spec, new_head=row is None or getattr(model, "num_classes", None) != row.num_classes)


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
        raise OvertoneError(f"{path} is a folder without {BEST} or {LAST}; give a run folder that has trained")
    if len(path.parts) > 1 or path.suffix in WEIGHTS_SUFFIXES:
        raise OvertoneError(f"{spec} is not there; give the path of a checkpoint file or of a run folder")
    return None


def _read(spec: str, path: Path, *, ema: bool) -> tuple[Path, State]:
    """The state dict of a file; of a run folder whose best checkpoint is damaged, the last one, with a warning."""
    other = path.with_name(LAST)
    try:
        return path, read_state(path, ema=ema)
    except OvertoneError as error:
        if not Path(spec).is_dir() or path.name != BEST or not other.is_file():
            raise
        warning = f"{error}; {other} is used in its place"
        state = read_state(other, ema=ema)
    warnings.warn(warning, stacklevel=4)
    return other, state


def _from_path(spec: str, path: Path, architecture: str | None, wish: _Wish) -> LoadedModel:
    path, state = _read(spec, path, ema=wish.ema)
    if state.manifest is not None:
        if architecture not in (None, state.manifest.architecture):
            raise OvertoneError(f"{path} is of {state.manifest.architecture}, as it says itself, not of {architecture}")
        return _from_manifest(path, state.manifest, state, wish)
    fields = dense.from_published_layout(path, state)
    if fields is not None:
        _check_dense(path, len(fields["labels"]), wish)
        return LoadedModel(**fields)
    row = identify(path)
    if row is not None and architecture in (None, row.architecture):
        return _from_published(Located(path, prove(path, row), str(path.parent), row), wish, state)
    notes: tuple[str, ...] = ()
    if architecture is None:
        inferred = inferred_of(path, state)
        name, args = inferred.architecture, inferred.args
        assumed = (inferred.assumed,) if inferred.assumed else ()
        notes = (*assumed, "its preprocessing is assumed to be the architecture's own: no file of this kind tells")
    else:
        inferred = infer_architecture(state.shapes)
        name, told = architecture, {} if inferred is None else inferred.args
        args = {key: told[key] for key in ("num_classes", "in_chans") if key in told}
    arguments = args | wish.arguments(args.get("num_classes"), args.get("in_chans"))
    return _filled(name, arguments, state, str(path), wish, notes)


def _from_published(located: Located, wish: _Wish, state: State | None = None) -> LoadedModel:
    row, path = located.row, located.path
    state = read_state(path, ema=wish.ema) if state is None else state
    notes: tuple[str, ...] = ()
    inferred = infer_architecture(state.shapes)
    has_head = inferred is None or inferred.args["num_classes"] > 0
    arguments = wish.arguments(row.num_classes if has_head else 0)
    if not has_head and wish.num_classes is None:
        notes = ("this copy of the weights has no classifier; the network gives features",)
    loaded = _filled(row.full_name, arguments, state, row.full_name, wish, notes)
    return dataclasses.replace(
        loaded,
        architecture=row.architecture,
        source=f"{row.full_name} ({path}; {located.proof})",
        published=row,
        proof=located.proof,
    )


def _from_manifest(path: Path, manifest: Manifest, state: State, wish: _Wish) -> LoadedModel:
    if dense.is_dense(manifest):
        _check_dense(path, len(manifest.labels), wish)
        return LoadedModel(**dense.from_manifest(path, manifest, state, strict=wish.strict))
    arguments = dict(manifest.model_args) | wish.arguments(len(manifest.labels))
    loaded = _filled(manifest.architecture, arguments, state, str(path), wish, ())
    classes: tuple[str, ...] | None = manifest.labels
    if wish.num_classes not in (None, len(classes)):
        rows = head_rows_of(loaded.model, len(classes), wish.num_classes)
        classes = None if rows is None else tuple(classes[row] for row in rows)
    return dataclasses.replace(
        loaded,
        labels=classes,
        preprocess=manifest.preprocess,
        manifest=manifest,
        task=manifest.task,
        path=path,
    )


def _check_dense(path: Path, num_classes: int, wish: _Wish) -> None:
    if wish.num_classes not in (None, num_classes) or wish.in_chans not in (None, 3):
        raise OvertoneError(f"{path} is of a dense network, whose classes and channels stay as they are; train anew")


def _from_hub(spec: str, wish: _Wish) -> LoadedModel:
    if wish.ema:
        raise OvertoneError(f"{spec} has no moving average of the weights; load it without ema")
    hub = hub_model(spec)
    num_classes = hub.pretrained_cfg.get("num_classes")
    arguments = hub.model_args | wish.arguments(num_classes)
    if not timm.is_model(hub.architecture):
        raise OvertoneError(f"{spec} is of the architecture {hub.architecture!r}, which is not known here; update timm")
    state = State(HUB_LAYOUT, hub_state_dict(spec))
    loaded = _filled(hub.architecture, arguments, state, spec, wish, (), hub.pretrained_cfg)
    return dataclasses.replace(loaded, labels=hub.classes if wish.num_classes in (None, num_classes) else None)


def _filled(
    name: str,
    arguments: dict[str, Any],
    state: State,
    source: str,
    wish: _Wish,
    notes: tuple[str, ...],
    pretrained_cfg: dict[str, Any] | None = None,
) -> LoadedModel:
    """A network with a state dict in it; without its initialisation where that is ours to leave out."""

    def make() -> nn.Module:
        return build(name, **arguments, **({} if pretrained_cfg is None else {"pretrained_cfg": pretrained_cfg}))

    empty = is_ours(name) and wish.strict
    model = built_without_numbers(make) if empty else make()
    notes += load_state(
        model,
        state.entries,
        source,
        new_head=wish.num_classes is not None,
        strict=wish.strict,
        uninitialised=empty,
    )
    return LoadedModel(
        model=model.eval(),
        architecture=name.partition(".")[0],
        model_args=_without_classes(arguments),
        labels=None,
        preprocess=preprocess_of(model),
        source=source,
        notes=notes,
        layout=state.layout,
    )


def _without_classes(arguments: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in arguments.items() if key != "num_classes"}
