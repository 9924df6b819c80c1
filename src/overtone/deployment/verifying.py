"""An export run beside its network: how far apart their outputs are on the same images, and those kept with it."""

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch import nn
from torch.utils._pytree import tree_leaves

from overtone.config import to_dict
from overtone.deployment.artifact import GOLDEN, GOLDEN_IMAGE, About
from overtone.deployment.inputs import InputKind, as_batch
from overtone.deployment.parity import bound_of, compare, refuse
from overtone.deployment.runtimes import runtime_named
from overtone.deployment.runtimes.runtime import Predictor, in_one_line
from overtone.tasks.export_forms import GraphForm
from overtone.tasks.task import OutputSpec

_MOST_VALUES, _FEWEST = 1 << 25, 4  # of outputs that are compared, 256 MB in float64, and of images
Transforms = Callable[[InputKind], Callable[[Any], Any]]
"""For a kind of input, from Pillow's image to it, without the batch dimension."""


def verified(
    model: nn.Module,
    specs: Sequence[OutputSpec],
    transforms: Transforms,
    about: About,
    predictor: Predictor,
    images: Sequence[Image.Image],
    kind: str,
) -> dict[str, Any]:
    """How far the outputs are from the network's: the first one's agreement, and `more` by name for the others.

    Args:
        model: the network.
        specs: its outputs.
        transforms: see `Transforms`.
        about: of the export.
        predictor: it.
        images: to check with; fewer, but four at least, where outputs are large maps.
        kind: of images, `given` or `generated`.

    Raises:
        OvertoneError: the runtime cannot run the network here, or an output does not agree.
    """
    title, found = runtime_named(about.runtime).title, dict[str, dict[str, Any]]()
    if about.input.kind == "normalised" and about.input.shape[2] is None:
        images = _of_several_sizes(images)
    first = reference(model, transforms, images[:1])
    images = images[: max(_MOST_VALUES // sum(output[0].size for output in first), _FEWEST)]
    with in_one_line(f"{title} cannot run this network in {about.precision} on this machine"):
        outputs = _outputs(predictor, transforms, about, images)
    references = reference(model, transforms, images)
    bound = bound_of(about.precision, about.input.kind)
    for spec, expected, output in zip(specs, references, outputs, strict=True):
        agreement = compare(_joined(expected), _joined(output), bound, kind, spec, len(images))
        agreement.check(f"the {title} form in {about.precision}")
        found[spec.name] = to_dict(agreement)
    main, *others = found.items()
    return main[1] | ({"more": dict(others)} if others else {})


def verified_answers(
    model: nn.Module,
    form: GraphForm,
    about: About,
    predictor: Predictor,
    images: Sequence[Image.Image],
    kind: str,
) -> dict[str, Any]:
    """How far an export's answers are from the network's, where another graph than the network is exported.

    Args:
        model: the network.
        form: of the export.
        about: of the export.
        predictor: it.
        images: to check with.
        kind: of images, `given` or `generated`.

    Raises:
        OvertoneError: the runtime cannot run the graph here, or the answers do not agree.
    """
    title = runtime_named(about.runtime).title
    inputs = [as_batch(form.inputs, image) for image in images]
    with in_one_line(f"{title} cannot run this network in {about.precision} on this machine"), torch.inference_mode():
        answers = [form.answer(predictor.outputs, one) for one in inputs]
        record, failures = form.compare([model(one) for one in inputs], answers, about.precision)
    is_exact = about.precision == "float32"
    refuse(f"the {title} form in {about.precision}", failures, f"{len(inputs)} {kind}", is_exact=is_exact)
    return {"images": len(inputs), "pictures": kind, **record}


def reference(model: nn.Module, transforms: Transforms, images: Sequence[Image.Image]) -> list[list[np.ndarray]]:
    """Each output of the network itself, (1, …) for every image."""
    transform = transforms("normalised")
    with torch.inference_mode():
        runs = [tree_leaves(model(as_batch(transform, image))) for image in images]
    return [[part.numpy() for part in parts] for parts in zip(*runs, strict=True)]


def write_golden(
    model: nn.Module,
    transforms: Transforms,
    folder: Path,
    about: About,
    predictor: Predictor,
    images: Sequence[Image.Image],
) -> None:
    """Inputs and first outputs for generated images: a user's own are not copied."""
    transform = transforms(about.input.kind)
    inputs = [as_batch(transform, image).numpy()[0] for image in images]
    kept = [image for image, values in zip(images, inputs, strict=True) if values.shape == inputs[0].shape]
    np.savez(
        folder / GOLDEN,
        inputs=np.stack([values for values in inputs if values.shape == inputs[0].shape]),
        outputs=np.concatenate(_outputs(predictor, transforms, about, kept)[0]),
        reference=np.concatenate(reference(model, transforms, kept)[0]),
    )
    images[0].save(folder / GOLDEN_IMAGE)


def _outputs(
    predictor: Predictor, transforms: Transforms, about: About, images: Sequence[Image.Image]
) -> list[list[np.ndarray]]:
    """Each output of an export, (1, …) for every image."""
    transform = transforms(about.input.kind)
    runs = [predictor.outputs(as_batch(transform, image).numpy()) for image in images]
    return [list(parts) for parts in zip(*runs, strict=True)]


def _joined(parts: Sequence[np.ndarray]) -> np.ndarray:
    """Outputs (1, K, …) as (B, K, …), or as (1, K, N) where their sizes differ: N positions of all of them."""
    if len({part.shape for part in parts}) == 1:
        return np.concatenate(parts)
    return np.concatenate([part.reshape(*part.shape[:2], -1) for part in parts], axis=2)


def _of_several_sizes(images: Sequence[Image.Image]) -> list[Image.Image]:
    """The images cut to different sizes: a graph may hold what is right for one size only."""
    cut = ((i, image.width, image.height) for i, image in enumerate(images))
    sizes = [(width - width * (i % 4) // 11, height - height * (i % 3) // 7) for i, width, height in cut]
    return [image.crop((0, 0, *size)) for image, size in zip(images, sizes, strict=True)]
