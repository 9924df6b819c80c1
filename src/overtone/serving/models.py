"""A network that is served: from the bytes of an image to a prediction, in the steps that run in different threads."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from overtone.architectures import sizes
from overtone.data.decoding import BadImage, opened_header
from overtone.data.pipeline import NO_DRAW, ImagePipeline
from overtone.deployment.running import Computation, fastest_form, in_runtime, name_of_runtime
from overtone.deployment.runtimes.runtime import INPUT
from overtone.engine.inference import Computing, Inference, ready
from overtone.errors import OvertoneError
from overtone.serving.errors import Refused
from overtone.zoo import LoadedModel, names_of

_ODD = re.compile(r"[^A-Za-z0-9._-]+")
_ANSWER_BYTES = 2 << 30  # that the outputs for one image may take, where their size is that of the image
_INPUT_BYTES = 64 << 20


@dataclass(frozen=True)
class Sample:
    """A decoded image, ready to be joined with others.

    Attributes:
        values: what the task's pipeline makes of it.
        size: width and height of the file's image, pixels.
    """

    values: Any
    size: tuple[int, int]


class Served:
    """A network behind a name.

    Args:
        name: in addresses: letters, digits, dots, dashes and underscores.
        loaded: the network as it was loaded; kept for explanations, which need it as it was trained.
        inference: the network as it computes.
        runtime: what computes, in words.
    """

    def __init__(self, name: str, loaded: LoadedModel, inference: Inference, runtime: str) -> None:
        self.name, self.loaded, self.inference, self.runtime = name, loaded, inference, runtime
        self.task = inference.task
        self._pipeline = inference.task.pipeline(train=False, transform=inference.transform)
        self._forward = inference.placement.forward(inference.model)
        self.largest_batch: int | None = inference.largest_batch(self._pipeline)
        self.takes_one = self.largest_batch == 1 or len(self.task.outputs()) > 1
        per_pixel = getattr(self.task, "answer_bytes_per_pixel", 0)
        self.max_pixels: int | None = _ANSWER_BYTES // per_pixel if per_pixel else None
        self.most_input_bytes = _INPUT_BYTES
        self.has_masks = per_pixel > 0
        self.input = self._input()
        self.outputs = self._warmed_up()

    def sample(self, content: bytes, max_pixels: int) -> Sample:
        """Decode an image and bring it to the network's size.

        Raises:
            Refused: it is empty, damaged, no image, or too large.
        """
        if not content:
            raise Refused(400, "the image is empty; send the bytes of a file")
        most = min(max_pixels, self.max_pixels or max_pixels)
        try:
            with opened_header(content) as header:
                size = header.size
            if size[0] * size[1] > most:
                raise Refused(413, f"the image has {size[0]}x{size[1]} pixels; {self.name} takes at most {most}")
            return Sample(self._pipeline.transform(self._pipeline.decode({"image": content}), NO_DRAW), size)
        except BadImage as error:
            raise Refused(400, f"the image cannot be read: {error.reason}") from error

    def predict(self, samples: Sequence[Sample], top_k: Sequence[int]) -> list[Any]:
        """Pass images through the network together; gives the task's prediction for each, of so many answers."""
        batch = self._pipeline.collate([one.values for one in samples], torch.arange(len(samples)), ())
        with torch.inference_mode():
            outputs = self.task.predict(self._forward, self.inference.placement.inputs(batch.inputs))
            by_count = {count: self.task.predictions(outputs, count) for count in set(top_k)}
        return [by_count[count][at] for at, count in enumerate(top_k)]

    def infer(self, inputs: Tensor) -> dict[str, Tensor]:
        """The outputs for tensors as the network takes them, on the CPU, by their names in an export."""
        with torch.inference_mode():
            outputs = self.task.predict(self._forward, self.inference.placement.inputs(inputs))
        names = [spec.name for spec in self.task.outputs()]
        if isinstance(outputs, Tensor):
            return {names[0]: outputs.cpu()}
        return {name: torch.cat([getattr(one, name) for one in outputs]).cpu() for name in names}

    def infer_together(self, inputs: Sequence[Tensor]) -> list[dict[str, Tensor]]:
        """`infer` of tensors of one shape but for their first dimension, as one batch where that is possible."""
        if self.takes_one or len(inputs) == 1:
            return [self.infer(one) for one in inputs]
        found = self.infer(torch.cat(list(inputs)))
        parts = {name: output.split([len(one) for one in inputs]) for name, output in found.items()}
        return [{name: part[at] for name, part in parts.items()} for at in range(len(inputs))]

    def _input(self) -> tuple[str, torch.dtype, tuple[int, ...]]:
        """Name, type and shape of the network's input; -1 where any number goes."""
        kind, size = getattr(self.inference.model, "kind", "normalised"), self.inference.preprocess.size
        count = 1 if self.takes_one else -1
        if kind == "normalised":
            side = size if isinstance(self._pipeline, ImagePipeline) else -1
            return INPUT, torch.float32, (count, 3, side, side)
        side = -1 if kind == "image" else size
        return INPUT, torch.uint8, (count, side, side, 3)

    def _warmed_up(self) -> list[tuple[str, torch.dtype, tuple[int, ...]]]:
        """Name, type and shape of each output, found by running the network once."""
        _, dtype, shape = self.input
        size = self.inference.preprocess.size
        example = [1, *(size if side == -1 else side for side in shape[1:])]
        found = self.infer(torch.zeros(example, dtype=dtype))
        is_open = not isinstance(self._pipeline, ImagePipeline)
        described = []
        for name, output in found.items():
            inner = tuple(-1 if is_open and at > 0 else side for at, side in enumerate(output.shape[1:]))
            first = -1 if len(found) > 1 else shape[0]
            described.append((name, output.dtype, (first, *inner)))
        return described

    def describe(self) -> dict[str, Any]:
        """What clients may see of it: never where it came from."""
        size, row = sizes().get(self.loaded.architecture), self.loaded.published
        return {
            "name": self.name,
            "task": self.task.name,
            "architecture": self.loaded.architecture,
            "runtime": self.runtime,
            "labels": list(self.task.labels),
            "size": self.inference.preprocess.size,
            "max_pixels": self.max_pixels,
            "trained": self.loaded.trained,
            "parameters": sum(p.numel() for p in self.loaded.model.parameters()) or (size and size.parameters),
            "multiply_adds": size.multiply_adds if size and size.resolution == self.inference.preprocess.size else None,
            "published": None if row is None else {"name": row.full_name, "top1": row.top1, "top5": row.top5},
        }


def serve_model(name: str, loaded: LoadedModel, wanted: Computation) -> Served:
    """Put a loaded network into the runtime that it is served from; in PyTorch into its fastest exact form.

    Raises:
        OvertoneError: as `deployment.running.in_runtime`.
    """
    running, left = in_runtime(loaded, wanted)
    computing = Computing(
        device=left.device, precision=left.precision or "auto", threads=wanted.threads, size=wanted.size
    )

    form = fastest_form if wanted.runtime == "torch" else None
    inference = ready(running, names_of(loaded), computing, form=form)
    return Served(name, loaded, inference, name_of_runtime(loaded, wanted))


def unique_names(specs: Sequence[str]) -> list[str]:
    """A name for each model, from the last part of what it was given as."""
    names: list[str] = []
    for spec in specs:
        plain = _ODD.sub("-", spec.rstrip("/").rpartition("/")[2]).strip("-.") or "model"
        name, number = plain, 1
        while name in names:
            number += 1
            name = f"{plain}-{number}"
        names.append(name)
    return names


def model_named(models: dict[str, Served], name: str | None) -> Served:
    """A model by its name; the first one where no name is given.

    Raises:
        Refused: there is none of that name.
    """
    if name is None:
        return next(iter(models.values()))
    if name not in models:
        raise Refused(404, f"there is no model {name[:80]!r}; there are {', '.join(models)}")
    return models[name]


def check_models(models: Sequence[Served]) -> dict[str, Served]:
    """Models by name.

    Raises:
        OvertoneError: none, or two of one name.
    """
    found = {model.name: model for model in models}
    if not found or len(found) != len(models):
        raise OvertoneError("give at least one model, and each one a name of its own")
    return found
