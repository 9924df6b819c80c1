"""Networks with dense heads from checkpoints of ours, bare files in the published layout, and names.

Each function gives the attributes of a `zoo.LoadedModel` by name.
"""

from pathlib import Path
from typing import Any

from overtone import config
from overtone.checkpoint import Manifest
from overtone.config import Preprocess, to_dict
from overtone.data.sources.mask_layouts import ade20k_classes
from overtone.errors import OvertoneError
from overtone.heads import PUBLISHED_SEGMENTERS, build_segmenter, create_segmenter, is_segmenter
from overtone.heads.detectors import is_detector
from overtone.heads.segmentation_files import InferredSegmenter, infer_segmenter, load_published_segmenter
from overtone.published import DENSE, PublishedDense
from overtone.recipes import list_recipes, load_recipe
from overtone.tasks import task_named
from overtone.zoo.dense_detectors import detector_from_published_layout, untrained_detector
from overtone.zoo.loading import load_state
from overtone.zoo.reading import State

SEGMENTATION = "segmentation"
_DATA = {"segmentation": "ade20k", "detection": "coco"}


def is_dense(manifest: Manifest) -> bool:
    """Whether a checkpoint of ours is of a network with a dense head."""
    return manifest.head is not None or is_segmenter(manifest.architecture) or is_detector(manifest.architecture)


def from_manifest(path: Path, manifest: Manifest, state: State, *, strict: bool) -> dict[str, Any]:
    """Of a checkpoint of ours, whose task builds the network.

    Raises:
        OvertoneError: the tensors do not fit.
    """
    settings = config.Model(name=manifest.architecture, head=manifest.head, args=manifest.model_args)
    model = task_named(manifest.task).build(settings, manifest.labels)
    notes = load_state(model, state.entries, str(path), strict=strict)
    return {
        "model": model.eval(),
        "architecture": manifest.architecture,
        "model_args": manifest.model_args,
        "labels": manifest.labels,
        "preprocess": manifest.preprocess,
        "manifest": manifest,
        "source": str(path),
        "notes": notes,
        "layout": state.layout,
        "task": manifest.task,
        "path": path,
    }


def from_published_layout(path: Path, state: State) -> dict[str, Any] | None:
    """Of a bare file of a UPerNet or a detector with HorNet, inferred from keys and shapes; None of another network.

    A published network with 150 classes is evaluated by the protocol of its recipe.

    Raises:
        OvertoneError: the tensors do not fit.
    """
    inferred = infer_segmenter(state.shapes)
    if inferred is None:
        return detector_from_published_layout(path, state)
    network = build_segmenter(**inferred.arguments)
    load_published_segmenter(network, state.entries)
    labels = ade20k_classes().labels if inferred.num_classes == len(ade20k_classes().labels) else None
    notes = () if labels is None else ("its 150 classes are supposed to be those of ADE20K",)
    manifest = None if labels is None else _published_manifest(inferred, labels)
    return {
        "model": network.eval(),
        "architecture": inferred.name or inferred.backbone,
        "model_args": {**inferred.backbone_args, "head_args": inferred.head_args, "auxiliary": inferred.auxiliary},
        "labels": labels or tuple(f"class {index}" for index in range(inferred.num_classes)),
        "preprocess": Preprocess() if manifest is None else manifest.preprocess,
        "manifest": manifest,
        "source": str(path),
        "notes": notes,
        "layout": state.layout,
        "task": SEGMENTATION,
        "path": path,
    }


def untrained(name: str, num_classes: int | None) -> dict[str, Any]:
    """Of a name such as `upernet_hornet_tiny_7x7`, with random weights and the classes of ADE20K or so many others.

    Raises:
        OvertoneError: no such head or backbone; or a tag of weights that are not at hand by name.
    """
    architecture, _, tag = name.partition(".")
    if tag:
        known = [row.full_name for row in DENSE if row.name == architecture and row.urls]
        hint = f"its published weights are {known[0]}" if known else "give the path of a file"
        raise OvertoneError(f"{name}: there are no such weights of {architecture}; {hint}")
    if is_detector(architecture):
        return untrained_detector(name, num_classes)
    classes = ade20k_classes().labels
    count = len(classes) if num_classes is None else num_classes
    return {
        "model": create_segmenter(name, count).eval(),
        "architecture": name,
        "labels": classes if count == len(classes) else tuple(f"class {index}" for index in range(count)),
        "preprocess": Preprocess(),
        "source": f"{name} with random weights",
        "task": SEGMENTATION,
        "trained": False,
    }


def preprocess_of_row(row: PublishedDense) -> Preprocess:
    """The preprocessing of a published network: its recipe's, where it has one."""
    name = f"{row.name}_{_DATA[row.task]}"
    return load_recipe(name).data.preprocess if name in list_recipes() else Preprocess()


def _published_manifest(inferred: InferredSegmenter, labels: tuple[str, ...]) -> Manifest | None:
    """What a checkpoint of ours would say of a published network: its recipe, and that nothing was held out."""
    name = f"{inferred.name}_ade20k"
    if inferred.name not in PUBLISHED_SEGMENTERS or name not in list_recipes():
        return None
    recipe = load_recipe(name)
    return Manifest(
        architecture=str(inferred.name),
        labels=labels,
        preprocess=recipe.data.preprocess,
        recipe=to_dict(recipe),
        task=SEGMENTATION,
        split={"seeded": False},
    )
