"""What evaluation and prediction share: a loaded network put where it computes, and fed from image files."""

import dataclasses
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from torch import nn

from overtone import options, zoo
from overtone.config import Preprocess, Run
from overtone.data.loader import Loader
from overtone.data.shared_memory import fitting_workers
from overtone.data.sources import ImageList
from overtone.deployment.artifact import is_export
from overtone.deployment.inputs import input_transform
from overtone.deployment.running import loaded_export
from overtone.engine.placement import Placement, place
from overtone.errors import OvertoneError
from overtone.verbs.console import note, warn
from overtone.zoo import LoadedModel

_FEW_IMAGES = 256
_MOST_WORKERS = 8
_CHANNELS = 3


@dataclass(frozen=True)
class Inference:
    """A network on its device, with the preprocessing that it is fed through."""

    model: nn.Module
    placement: Placement
    preprocess: Preprocess
    settings: options.Device

    def loader(self, images: ImageList) -> Loader:
        """Batches of `images` in their order."""
        workers = _workers(self.settings.workers, len(images))
        kind: Any = getattr(self.model, "kind", "normalised")  # an export may have the preprocessing in its graph
        batch_size = 1 if kind == "picture" else self.settings.batch_size  # pictures of any size make no batch
        return Loader(
            images,
            input_transform(kind, self.preprocess),
            batch_size=batch_size,
            workers=fitting_workers(workers, batch_size, self.preprocess.size, warn),
            pin_memory=self.placement.device.type == "cuda",
        )


def loaded_for(
    chosen: options.Evaluate | options.Predict | options.Export | options.Tune, num_classes: int | None = None
) -> LoadedModel:
    """The network that was asked for, with a first layer for images of three channels, which is what files give.

    Raises:
        OvertoneError: as `zoo.load_model`.
    """
    if is_export(Path(chosen.model)):
        return loaded_export(Path(chosen.model))

    def load(in_chans: int | None) -> LoadedModel:
        return zoo.load_model(
            chosen.model,
            architecture=chosen.architecture,
            num_classes=num_classes,
            in_chans=in_chans,
            ema=chosen.ema,
            weights_dir=chosen.weights_dir,
        )

    loaded = load(None)
    return loaded if getattr(loaded.model, "in_chans", _CHANNELS) == _CHANNELS else load(_CHANNELS)


def introduce(loaded: LoadedModel) -> None:
    """Say which weights these are, what proves them, and what had to be assumed or adapted."""
    proof = loaded.proof
    # The first use of a file without a published hash has been said by a warning.
    if proof is not None and not (proof.kind == "first_use" and proof.expected is None):
        note(f"weights: {loaded.source}")
    for line in loaded.notes:
        note(f"weights: {line}")


def ready(loaded: LoadedModel, settings: options.Device) -> Inference:
    """Put a network where `settings` says.

    Raises:
        OvertoneError: a device that is not there, or a batch or a size that holds nothing.
    """
    if settings.batch_size < 1:
        raise OvertoneError(f"run.batch_size is {settings.batch_size}; it must be at least 1")
    if not loaded.trained:
        warn(f"{loaded.architecture} has random weights: what follows is chance; give a run folder or a checkpoint")
    run = Run(device=settings.device, precision=settings.precision, threads=settings.threads)
    placement = place(run)
    preprocess = loaded.preprocess
    if settings.size is not None:
        preprocess = dataclasses.replace(preprocess, size=settings.size)
    return Inference(placement.model(loaded.model.eval()), placement, preprocess, settings)


def _workers(asked: int | None, num_images: int) -> int:
    if asked is not None:
        return asked
    if num_images <= _FEW_IMAGES:
        return 0  # read sooner than a process has started
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return min(cores, _MOST_WORKERS)


def num_outputs(loaded: LoadedModel) -> int:
    """How many classes the network tells apart.

    Raises:
        OvertoneError: it has no classifier.
    """
    count = len(loaded.labels) if loaded.labels is not None else int(getattr(loaded.model, "num_classes", 0))
    if count < 1:
        raise OvertoneError(f"{loaded.source} has no classifier; give a network that tells classes apart")
    return count
