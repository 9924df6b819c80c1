"""What evaluation and prediction share: a loaded network put where it computes, and fed from a source."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from torch import nn

from overtone.config import Data, Preprocess, Run
from overtone.data.loader import Loader
from overtone.data.pipeline import ImagePipeline, Pipeline
from overtone.data.shared_memory import fitting_workers
from overtone.data.sources import Source
from overtone.engine.distributed import World
from overtone.engine.placement import Placement, place
from overtone.machine import usable_cores
from overtone.ranges import Checked, Count, Pixels, PositiveInt
from overtone.tasks import recipe_from_dict
from overtone.tasks.task import Task
from overtone.zoo import LoadedModel, task_of

Form = Callable[..., nn.Module]
"""From a network, `size` in pixels and `any_size` to one that computes the same faster: `deployment.running`'s."""
_FEW_SAMPLES = 256
_MOST_WORKERS = 8


@dataclass(frozen=True)
class Computing(Checked, section="run"):
    """Where and with what a network computes.

    Attributes:
        device: `auto`, `cpu`, `cuda`, `cuda:1` or `mps`.
        precision: `auto`, `float32` or `bfloat16`.
        threads: threads of arithmetic on the CPU; None: PyTorch's.
        batch_size: samples in a batch.
        workers: processes that read samples; None: by the number of cores and samples.
        size: side of the input, pixels; None: the network's own.
    """

    device: str = "auto"
    precision: Any = "auto"
    threads: PositiveInt | None = None
    batch_size: PositiveInt = 64
    workers: Count | None = None
    size: Pixels | None = None


@dataclass(frozen=True)
class Inference:
    """A network on its device, with its task and the preprocessing that it is fed through.

    Attributes:
        model: the network, in the form that computes.
        loaded: the network as it was loaded, where `model` is another form of it.
    """

    model: nn.Module
    task: Task
    placement: Placement
    preprocess: Preprocess
    computing: Computing
    transform: Any = None
    loaded: nn.Module | None = None

    def loader(self, source: Source, warn: Callable[[str], object], world: World | None = None) -> Loader:
        """Batches of a source in its order; of several processes each has its part."""
        world = world or World()
        pipeline = self.task.pipeline(train=False, transform=self.transform)
        batch_size = min(self.computing.batch_size, self.largest_batch(pipeline) or self.computing.batch_size)
        workers = _workers(self.computing.workers, math.ceil(len(source) / world.size), world)
        return Loader(
            source,
            pipeline,
            batch_size=batch_size,
            workers=fitting_workers(workers, batch_size, self.preprocess.size, warn, sharers=world.local_size),
            pin_memory=self.placement.device.type == "cuda",
            rank=world.rank,
            num_ranks=world.size,
        )

    def largest_batch(self, pipeline: Pipeline) -> int | None:
        """Samples that the network takes at once; None: any number."""
        is_any_size = getattr(self.model, "kind", "normalised") == "image"  # images of any size make no batch
        return 1 if is_any_size else getattr(pipeline, "largest_batch", None)


def ready(
    loaded: LoadedModel,
    labels: tuple[str, ...],
    computing: Computing,
    changes: Mapping[str, Any] | None = None,
    form: Form | None = None,
) -> Inference:
    """Put a network where `computing` says, with the task that it was trained for.

    Args:
        loaded: the network.
        labels: names of its outputs.
        computing: where and with what.
        changes: settings of the task that are others than those of the recipe.
        form: gives the form of the network that computes; None: as it was trained.

    Raises:
        OvertoneError: a device that is not there, or that has no such precision; no such setting.
    """
    placement = place(Run(device=computing.device, precision=computing.precision, threads=computing.threads))
    preprocess = loaded.preprocess
    if computing.size is not None:
        preprocess = dataclasses.replace(preprocess, size=computing.size)
    task = task_of(loaded, labels, preprocess, changes)
    transform, network = getattr(loaded.model, "transform", None), loaded.model.eval()
    if form is None:
        return Inference(placement.model(network), task, placement, preprocess, computing, transform)
    takes_one_size = isinstance(task.pipeline(train=False, transform=transform), ImagePipeline)
    model = placement.model(form(network, preprocess.size, any_size=not takes_one_size))
    return Inference(model, task, placement, preprocess, computing, transform, network)


def trained_on(loaded: LoadedModel) -> Data | None:
    """The data that a network was trained on here where part of it was held out by a seed; None elsewhere.

    Checkpoints of format 1 do not say whether it was; then it is supposed, to be safe.
    """
    manifest = loaded.manifest
    if manifest is None or manifest.recipe is None or "data" not in manifest.recipe:
        return None
    if not manifest.split.get("seeded", True):
        return None
    return recipe_from_dict({"data": manifest.recipe["data"]}).data


def _workers(asked: int | None, num_samples: int, world: World) -> int:
    if asked is not None:
        return asked
    if num_samples <= _FEW_SAMPLES:
        return 0  # read sooner than a process has started
    return min(max(usable_cores() // world.local_size, 1), _MOST_WORKERS)
