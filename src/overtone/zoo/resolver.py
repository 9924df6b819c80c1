"""From a name or a path to a network with its weights: the one resolver that every verb uses."""

import dataclasses
import warnings
from pathlib import Path

from torch import Tensor

from overtone.checkpoint import BEST, LAST, Manifest
from overtone.errors import OvertoneError
from overtone.heads import is_segmenter
from overtone.heads.detectors import is_detector
from overtone.models._families import family_of_model, head_rows_of
from overtone.models.arguments import checked_model_args
from overtone.models.building import build, check_known, preprocess_of
from overtone.published import PublishedDense, find
from overtone.zoo import dense
from overtone.zoo.download import Progress
from overtone.zoo.fetch import Located, fetch_published
from overtone.zoo.filling import LoadedModel, Net, Wish, filled, without_classes
from overtone.zoo.hub import PREFIX as HUB_PREFIX
from overtone.zoo.hub import hub_model, hub_state_dict
from overtone.zoo.inference import infer_architecture, inferred_of
from overtone.zoo.proof import WEIGHTS_SUFFIXES, Folders, identify, verify
from overtone.zoo.reading import HUB_LAYOUT, State, read_state


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
    wish = Wish(num_classes, in_chans, ema, strict, allow_nonfinite)
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
        model_args=without_classes(arguments),
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


def _from_path(spec: str, path: Path, architecture: str | None, wish: Wish) -> LoadedModel:
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
    net = Net(name, arguments)
    return dataclasses.replace(filled(net, state, str(path), wish, notes), path=path)


def _from_published(located: Located, wish: Wish, state: State | None = None) -> LoadedModel:
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
    loaded = filled(Net(row.full_name, arguments), state, row.full_name, wish, notes)
    return dataclasses.replace(
        loaded,
        architecture=row.architecture,
        source=f"{row.full_name} ({path}; {located.proof})",
        published=row,
        proof=located.proof,
        path=path,
        tag=row.tag,
    )


def _from_published_dense(located: Located, row: PublishedDense, wish: Wish, state: State) -> LoadedModel:
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


def _from_manifest(path: Path, manifest: Manifest, state: State, wish: Wish) -> LoadedModel:
    if dense.is_dense(manifest):
        _check_dense(path, len(manifest.labels), wish)
        return LoadedModel(**dense.from_manifest(path, manifest, state, strict=wish.strict))
    name = manifest.architecture
    check_known(name)
    chosen = checked_model_args(name, manifest.model_args, str(path))
    net = Net(name, chosen | wish.arguments(len(manifest.labels)), manifest=manifest)
    loaded = filled(net, state, str(path), wish, ())
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


def _check_dense(path: Path, num_classes: int, wish: Wish) -> None:
    if wish.num_classes not in (None, num_classes) or wish.in_chans not in (None, 3):
        raise OvertoneError(f"{path} is of a dense network, whose classes and channels stay as they are; train anew")


def _from_hub(spec: str, wish: Wish) -> LoadedModel:
    if wish.ema:
        raise OvertoneError(f"{spec} has no moving average of the weights; load it without ema")
    hub = hub_model(spec)
    num_classes = hub.pretrained_cfg.get("num_classes")
    state = State(HUB_LAYOUT, hub_state_dict(spec))
    net = Net(hub.architecture, hub.model_args | wish.arguments(num_classes), hub.pretrained_cfg)
    loaded = filled(net, state, spec, wish, ())
    return dataclasses.replace(loaded, labels=hub.classes if wish.num_classes in (None, num_classes) else None)
