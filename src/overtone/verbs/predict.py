"""`overtone predict`: the most probable classes of pictures."""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from overtone import options
from overtone.data.sources import ImageList, find_images
from overtone.errors import OvertoneError
from overtone.verbs.console import note, print_json, print_table, progress, warn
from overtone.verbs.inference import Inference, introduce, loaded_for, ready
from overtone.verbs.running import in_runtime
from overtone.zoo.class_names import names_of, supposed_classes


@dataclass(frozen=True)
class Prediction:
    """What the network says about one image.

    Attributes:
        image: the file.
        best: (index, name, probability in 0..1) of the most probable classes, best first.
    """

    image: str
    best: tuple[tuple[int, str, float], ...]


def predict(chosen: options.Predict) -> int:
    """Predict and print; 1 if images could not be read, which does not stop the others.

    Raises:
        OvertoneError: no images given, no such model, or a folder without images.
    """
    if not chosen.images:
        raise OvertoneError("no images are given; add image files or a folder after the model")
    if chosen.top_k < 1:
        raise OvertoneError(f"top_k is {chosen.top_k}; it must be at least 1")
    paths = tuple(find_images(chosen.images))
    loaded = loaded_for(chosen)
    names, supposed = names_of(loaded), supposed_classes(loaded)
    introduce(loaded)
    if supposed is not None:
        note(f"weights: {supposed}")
    inference = ready(*in_runtime(loaded, chosen))
    images = ImageList(names, paths, (0,) * len(paths))
    bad: list[tuple[str, str]] = []
    with progress("predicting", len(paths)) as done:
        predictions = []
        for found in _batches(inference, images, chosen.top_k, bad):
            predictions += found
            done(len(predictions) + len(bad))
    if chosen.json:
        print_json(
            {
                "model": loaded.source,
                "images": [_as_dict(prediction) for prediction in predictions],
                "bad": [{"image": image, "reason": reason} for image, reason in bad],
            }
        )
    else:
        _print(predictions)
    for image, reason in bad:
        warn(f"{image} could not be read: {reason}")
    if bad:
        note(f"{len(bad)} of {len(paths)} images could not be read (exit code 1)")
    return 1 if bad else 0


def _batches(
    inference: Inference, images: ImageList, top_k: int, bad: list[tuple[str, str]]
) -> Iterator[list[Prediction]]:
    """Predictions batch by batch; images that cannot be read are appended to `bad` with the reason."""
    for batch in inference.loader(images):
        bad += [(str(images.paths[position]), reason) for position, reason in batch.bad]
        if not len(batch.images):
            continue
        with torch.inference_mode(), inference.placement.autocast():
            outputs = inference.model(inference.placement.images(batch.images))
        best = outputs.float().softmax(dim=1).topk(min(top_k, len(images.classes)), dim=1)
        rows = zip(batch.ids.tolist(), best.indices.tolist(), best.values.tolist(), strict=True)
        yield [
            Prediction(
                image=str(images.paths[position]),
                best=tuple((i, images.classes[i], p) for i, p in zip(indices, probabilities, strict=True)),
            )
            for position, indices, probabilities in rows
        ]


def _as_dict(prediction: Prediction) -> dict[str, object]:
    best = [{"class": name, "index": index, "probability": p} for index, name, p in prediction.best]
    return {"image": prediction.image, "predictions": best}


def _print(predictions: list[Prediction]) -> None:
    rows = [
        (prediction.image if rank == 0 else None, name, f"{100 * probability:.2f} %")
        for prediction in predictions
        for rank, (_, name, probability) in enumerate(prediction.best)
    ]
    if rows:
        print_table(("image", "class", "probability"), rows, left=2)
