"""What a network says of images without labels."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch

from overtone.data.sources import Source
from overtone.engine.inference import Inference


@dataclass(frozen=True)
class Predicted:
    """A prediction and the image that it is of.

    Attributes:
        position: in the source.
        image: display name.
        prediction: the task's; see `tasks.task.Prediction`.
    """

    position: int
    image: str
    prediction: Any


def predict(
    inference: Inference,
    source: Source,
    top_k: int | None,
    bad: list[tuple[str, str]],
    warn: Callable[[str], object],
    *,
    threshold: float | None = None,
) -> Iterator[list[Predicted]]:
    """Predictions batch by batch, in the source's order.

    Args:
        inference: the network.
        source: the images.
        top_k: most answers for an image; None: the task's usual number.
        bad: gets name and reason of each image that could not be read.
        warn: called with a line when fewer processes read than was wanted.
        threshold: lowest score of an answer; None: the task's own.
    """
    forward = inference.placement.forward(inference.model)
    loader = inference.loader(source, warn)
    try:
        for batch in loader:
            bad += [(source.name(position), reason) for position, reason in batch.bad]
            if not batch.num_samples:
                continue
            with torch.inference_mode():
                outputs = inference.task.predict(forward, inference.placement.inputs(batch.inputs))
            found = inference.task.predictions(outputs, top_k, threshold)
            yield [
                Predicted(position, source.name(position), prediction)
                for position, prediction in zip(batch.ids.tolist(), found, strict=True)
            ]
    finally:
        loader.close()
