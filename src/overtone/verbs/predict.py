"""`overtone predict`: what a network says of images."""

from overtone import options
from overtone.data.sources import ImageList, find_images
from overtone.engine.inference import ready
from overtone.engine.prediction import Predicted
from overtone.engine.prediction import predict as predictions_of
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.verbs.console import note, print_json, print_table, progress, warn
from overtone.verbs.loading import computing, introduce, loaded_for
from overtone.verbs.running import in_runtime
from overtone.zoo import names_of, supposed_classes


def predict(chosen: options.Predict) -> int:
    """Predict and print; 1 if images could not be read, which does not stop the others.

    Raises:
        OvertoneError: no images given, no such model, or a folder without images.
    """
    if not chosen.images:
        raise OvertoneError("no images are given; add image files or a folder after the model")
    paths = find_images(chosen.images)
    loaded = loaded_for(chosen)
    names, supposed = names_of(loaded), supposed_classes(loaded)
    introduce(loaded)
    if supposed is not None:
        note(f"weights: {supposed}")
    running, settings = in_runtime(loaded, chosen)
    inference = ready(running, names, computing(settings))
    bad: list[tuple[str, str]] = []
    found: list[Predicted] = []
    with progress("predicting", len(paths)) as done:
        for part in predictions_of(inference, ImageList(names, paths, [0] * len(paths)), chosen.top_k, bad, warn):
            found += part
            done(len(found) + len(bad))
    if chosen.json:
        print_json(
            {
                "model": loaded.source,
                "images": [{"image": one.image, **one.prediction.to_dict()} for one in found],
                "bad": [{"image": image, "reason": reason} for image, reason in bad],
            }
        )
    else:
        _print(found, ("image", *task_named(loaded.task).prediction_columns))
    for image, reason in bad:
        warn(f"{image} could not be read: {reason}")
    if bad:
        note(f"{len(bad)} of {len(paths)} images could not be read (exit code 1)")
    return 1 if bad else 0


def _print(found: list[Predicted], columns: tuple[str, ...]) -> None:
    rows = [(one.image if rank == 0 else None, *row) for one in found for rank, row in enumerate(one.prediction.rows())]
    if rows:
        print_table(columns, rows, left=2)
