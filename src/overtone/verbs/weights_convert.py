"""`overtone weights convert`: published weights to one safetensors file that says what it is, and back."""

import dataclasses
from importlib.metadata import version
from pathlib import Path

from overtone import __version__, options, zoo
from overtone.checkpoint import SUFFIX, Manifest, write_checkpoint
from overtone.errors import OvertoneError
from overtone.verbs.console import note, print_line
from overtone.zoo.loading import PublishedLayout


def convert_weights(chosen: options.WeightsConvert) -> int:
    """Read weights of any layout strictly, and write them in the one that was asked for.

    Raises:
        OvertoneError: weights that cannot be read or do not fit, a file that is there already, or a network of timm's,
            which has no published layout here.
    """
    _check_out(chosen)
    loaded = zoo.load_model(
        chosen.model, architecture=chosen.architecture, ema=chosen.ema, weights_dir=chosen.weights_dir
    )
    if not loaded.trained:
        raise OvertoneError(f"{chosen.model} has random weights, so there is nothing to convert; name weights")
    if chosen.to == "safetensors":
        manifest = manifest_of(loaded)
        write_checkpoint(chosen.out, manifest, loaded.model.state_dict())
        _say(loaded, chosen.out, f"{manifest.architecture}, {len(manifest.labels)} classes")
        return 0
    if not hasattr(loaded.model, "published_state_dict"):
        raise OvertoneError(
            f"{loaded.architecture} is not one of overtone's families, so no layout was published for it"
        )
    layout = _layout(loaded, chosen)
    zoo.write_published(chosen.out, loaded.model, layout=layout)
    _say(loaded, chosen.out, f"published keys, layout {layout!r}")
    return 0


def manifest_of(loaded: zoo.LoadedModel) -> Manifest:
    """The manifest of a converted file: network, labels, preprocessing, where the weights are from."""
    if loaded.manifest is not None:  # a checkpoint already, perhaps with a training's state beside the weights
        return dataclasses.replace(loaded.manifest, progress={})
    count = int(getattr(loaded.model, "num_classes", 0))  # 0: a backbone
    classes = (zoo.classes_of(loaded) if count else None) or tuple(f"class {index}" for index in range(count))
    return Manifest(
        architecture=loaded.architecture,
        labels=classes,
        preprocess=loaded.preprocess,
        model_args=loaded.model_args,
        versions={"overtone": __version__, "torch": version("torch"), "timm": version("timm")},
        source=_source(loaded),
        published=None if loaded.published is None else loaded.published.full_name,
    )


def _source(loaded: zoo.LoadedModel) -> str:
    """Where the weights are from, without the folders of this machine."""
    row = loaded.published
    if row is None:
        return loaded.source if loaded.path is None else loaded.path.name
    parts = [f"published as {row.full_name} under {row.license}", *row.urls[:1]]
    return "; ".join(parts + ([] if loaded.proof is None else [str(loaded.proof)]))


def _layout(loaded: zoo.LoadedModel, chosen: options.WeightsConvert) -> PublishedLayout:
    if chosen.layout != "auto":
        return chosen.layout
    row = loaded.published
    return "bare" if row is None else zoo.published_layout(row)


def _check_out(chosen: options.WeightsConvert) -> None:
    out = chosen.out
    suffixes = (SUFFIX,) if chosen.to == "safetensors" else (".pth", ".pt", ".tar")
    if out.suffix not in suffixes:
        raise OvertoneError(f"--out {out} should end in {' or '.join(suffixes)} for --to {chosen.to}")
    if out.exists() and not chosen.overwrite:
        raise OvertoneError(f"{out} exists already; choose another --out or add --overwrite")
    if out.exists() and Path(chosen.model).exists() and out.samefile(chosen.model):
        raise OvertoneError(f"{out} is the file to convert; choose another --out")


def _say(loaded: zoo.LoadedModel, out: Path, what: str) -> None:
    for line in (*loaded.notes, zoo.supposed_classes(loaded)):
        if line is not None:
            note(f"weights: {line}")
    print_line(f"{out}: {what}; from {loaded.source}")
