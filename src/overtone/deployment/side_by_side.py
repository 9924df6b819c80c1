"""Outputs of a network and of its export for the same images."""

import functools
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn
from torch.utils._pytree import tree_leaves

from overtone.config import Preprocess
from overtone.deployment.artifact import GOLDEN, GOLDEN_IMAGE, About
from overtone.deployment.inputs import InputKind, as_batch, input_transform
from overtone.deployment.runtimes.runtime import Predictor
from overtone.tasks.task import Form


def input_of(kind: InputKind, preprocess: Preprocess, form: Form | None = None) -> Callable[[Image.Image], Tensor]:
    """From an RGB image to a batch of one, as the network takes it."""
    return functools.partial(as_batch, input_transform(kind, preprocess)) if form is None else form.inputs


def outputs_of(
    predictor: Predictor, taken: Callable[[Image.Image], Tensor], images: Sequence[Image.Image]
) -> list[np.ndarray]:
    """Each output of an export, (B, …), image by image."""
    runs = [predictor.outputs(taken(image).numpy()) for image in images]
    return [np.concatenate(parts) for parts in zip(*runs, strict=True)]


def reference_of(
    model: nn.Module, taken: Callable[[Image.Image], Tensor], images: Sequence[Image.Image]
) -> list[np.ndarray]:
    """Each output of the network itself, (B, …), image by image."""
    with torch.inference_mode():
        runs = [tree_leaves(model(taken(image))) for image in images]
    return [torch.cat(parts).numpy() for parts in zip(*runs, strict=True)]


def write_golden(
    model: nn.Module,
    folder: Path,
    about: About,
    predictor: Predictor,
    images: list[Image.Image],
    form: Form | None,
) -> None:
    """Inputs and first outputs for generated images: a user's own are not copied."""
    taken = input_of(about.input.kind, about.preprocess, form)
    inputs = [taken(image).numpy()[0] for image in images]
    kept = [image for image, values in zip(images, inputs, strict=True) if values.shape == inputs[0].shape]
    np.savez(
        folder / GOLDEN,
        inputs=np.stack([values for values in inputs if values.shape == inputs[0].shape]),
        outputs=outputs_of(predictor, taken, kept)[0],
        reference=reference_of(model, input_of("normalised", about.preprocess, form), kept)[0],
    )
    images[0].save(folder / GOLDEN_IMAGE)
