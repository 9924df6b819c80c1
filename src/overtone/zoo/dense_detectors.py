"""Detectors from bare files in the published layout, and by name; see `zoo.dense`."""

from pathlib import Path
from typing import Any

from overtone.checkpoint import Manifest
from overtone.config import Preprocess, to_dict
from overtone.heads.detector_files import infer_detector, load_published
from overtone.heads.detectors import create_detector
from overtone.heads.mask_rcnn import DETECTORS, DetectorSpec, MaskRcnn
from overtone.recipes import list_recipes, load_recipe
from overtone.tasks.detection.coco_classes import COCO_CLASSES
from overtone.zoo.reading import State

DETECTION = "detection"


def detector_from_published_layout(path: Path, state: State) -> dict[str, Any] | None:
    """Of a bare file of a detector with HorNet, inferred from its keys and shapes; None where it is another network.

    A published network with 80 classes is evaluated by the protocol of its recipe.

    Raises:
        OvertoneError: the tensors do not fit.
    """
    spec = infer_detector(state.shapes)
    if spec is None:
        return None
    network = MaskRcnn(spec)
    load_published(network, state.entries)
    name, is_coco = _name_of(spec), spec.num_classes == len(COCO_CLASSES)
    labels = _labels(spec.num_classes)
    manifest = _published_manifest(name, labels) if is_coco else None
    return {
        "model": network.eval(),
        "architecture": name,
        "model_args": dict(spec.backbone_args),
        "labels": labels,
        "preprocess": Preprocess() if manifest is None else manifest.preprocess,
        "manifest": manifest,
        "source": str(path),
        "notes": ("its 80 classes are supposed to be those of COCO",) if is_coco else (),
        "layout": state.layout,
        "task": DETECTION,
        "path": path,
    }


def untrained_detector(name: str, num_classes: int | None) -> dict[str, Any]:
    """Of a name such as `fcos_hbonet_x100`, with random weights and the classes of COCO or so many others.

    Raises:
        OvertoneError: no such head or backbone.
    """
    labels = _labels(len(COCO_CLASSES) if num_classes is None else num_classes)
    return {
        "model": create_detector(name, len(labels)).eval(),
        "architecture": name,
        "labels": labels,
        "preprocess": Preprocess(),
        "source": f"{name} with random weights",
        "task": DETECTION,
        "trained": False,
    }


def _labels(count: int) -> tuple[str, ...]:
    return COCO_CLASSES if count == len(COCO_CLASSES) else tuple(f"class {index}" for index in range(count))


def _name_of(spec: DetectorSpec) -> str:
    """The published name of a detector; of another one its head and backbone."""
    for name, published in DETECTORS.items():
        stored = spec.backbone.removesuffix("_img384"), published.backbone.removesuffix("_img384")
        if (published.head, published.neck, stored[1]) == (spec.head, spec.neck, stored[0]):
            return name
    return f"{spec.head}_{spec.backbone}"


def _published_manifest(name: str, labels: tuple[str, ...]) -> Manifest | None:
    """What a checkpoint of ours would say of a published network: its recipe, and that nothing was held out."""
    if f"{name}_coco" not in list_recipes():
        return None
    recipe = load_recipe(f"{name}_coco")
    return Manifest(
        architecture=name,
        labels=labels,
        preprocess=recipe.data.preprocess,
        recipe=to_dict(recipe),
        task=DETECTION,
        split={"seeded": False},
    )
