"""`overtone predict`: what a network says of images."""

from pathlib import Path
from typing import Any

from overtone import options
from overtone.config import Run
from overtone.data.sources import ImageList, Source, find_images
from overtone.data.sources.image_tables import unlabelled_tables
from overtone.data.sources.shard_list import is_shards
from overtone.data.sources.shards import unlabelled_shards
from overtone.engine.distributed import WEEK, World, joined
from overtone.engine.first_scan import scanned_first
from overtone.engine.interrupt import StopRequest
from overtone.engine.prediction import predict as predictions_of
from overtone.engine.prediction_parts import Wanted, write_parts
from overtone.errors import OvertoneError
from overtone.tasks import task_named
from overtone.verbs.console import note, print_json, print_table, progress, warn
from overtone.verbs.loading import introduce, loaded_for
from overtone.verbs.running import inference_in_runtime
from overtone.zoo import names_of, supposed_classes


def predict(chosen: options.Predict) -> int:
    """Predict and print; 1 if images could not be read, which does not stop the others.

    Raises:
        OvertoneError: no images given, no such model, or a folder without images.
    """
    if not chosen.images:
        raise OvertoneError("no images are given; add image files or a folder after the model")
    if chosen.parts is not None:
        # a share may take hours longer than another, so nobody is given up for that
        with StopRequest().handled(), joined(Run(device=chosen.run.device, timeout=WEEK)) as world:
            return _to_parts(chosen, chosen.parts, world)
    if chosen.features:
        raise OvertoneError("features are written as Parquet parts; add --parts DIR")
    loaded = loaded_for(chosen)
    names, supposed = names_of(loaded), supposed_classes(loaded)
    introduce(loaded)
    if supposed is not None:
        note(f"weights: {supposed}")
    if chosen.out is not None and chosen.out.exists() and any(chosen.out.iterdir()):
        raise OvertoneError(f"{chosen.out} is not empty; give a new folder as --out")
    source = _source(chosen, names)
    inference = inference_in_runtime(loaded, names, chosen, len(source))
    bad: list[tuple[str, str]] = []
    found: list[tuple[str, dict[str, Any], list[tuple[Any, ...]]]] = []
    stems = stems_of([Path(source.name(position)) for position in range(len(source))]) if chosen.out is not None else []
    with progress("predicting", len(source)) as done:
        for part in predictions_of(inference, source, chosen.top_k, bad, warn, threshold=chosen.threshold):
            for one in part:  # kept as words: a prediction may hold a map of every pixel
                found.append((one.image, one.prediction.to_dict(), list(one.prediction.rows())))
                if chosen.out is not None:
                    image = source.read(one.position).get("image", b"")
                    one.prediction.write(image, chosen.out, stems[one.position])
            done(len(found) + len(bad))
    if chosen.json:
        print_json(
            {
                "model": loaded.source,
                "images": [{"image": image, **values} for image, values, _ in found],
                "bad": [{"image": image, "reason": reason} for image, reason in bad],
            }
        )
    else:
        _print(found, ("image", *task_named(loaded.task).prediction_columns))
    if chosen.out is not None:
        written = len(list(chosen.out.iterdir())) if chosen.out.exists() else 0
        note(f"{chosen.out}: {written} files written" + ("" if written else f"; {loaded.task} writes none"))
    for image, reason in bad:
        warn(f"{image} could not be read: {reason}")
    if bad:
        note(f"{len(bad)} of {len(source)} images could not be read (exit code 1)")
    return 1 if bad else 0


def _source(chosen: options.Predict, labels: tuple[str, ...]) -> Source:
    """The images, in files, in shards or in Parquet files."""
    if len(chosen.images) == 1 and is_shards(chosen.images[0]):
        return unlabelled_shards(chosen.images[0])
    if len(chosen.images) == 1 and (tables := unlabelled_tables(chosen.images[0])) is not None:
        return tables
    paths = find_images(chosen.images)
    return ImageList(labels, paths, [0] * len(paths))


def _to_parts(chosen: options.Predict, folder: Path, world: World) -> int:
    """Write this process's share of the predictions; the first process reports those of all."""
    loaded = loaded_for(chosen)
    names = names_of(loaded)
    if world.is_first:
        introduce(loaded)
    source = scanned_first(world, lambda: _source(chosen, names))
    inference = inference_in_runtime(loaded, names, chosen, len(source))
    wanted = Wanted(chosen.top_k, chosen.threshold, chosen.features, chosen.features_dtype, chosen.part_size)
    alarm = warn if world.is_first else str
    with progress("predicting", -(-len(source) // world.size)) as done:
        written = write_parts(
            inference, source, folder, wanted, model=loaded.source, warn=alarm, progress=done, world=world
        )
    everywhere = [written] if world.is_alone else world.gather(written)
    bad = [one for share in everywhere for one in share.bad]
    if world.is_first:
        for image, reason in bad:
            warn(f"{image} could not be read: {reason}")
        parts, kept = (sum(getattr(share, name) for share in everywhere) for name in ("parts", "kept"))
        earlier = f"; {kept} were there" if kept else ""
        note(f"{folder}: {parts} parts written, {sum(share.images for share in everywhere):,} images{earlier}")
    return 1 if bad else 0


def stems_of(paths: list[Path]) -> list[str]:
    """A name without suffix for each image; of several with the same one the later get a number."""
    used: set[str] = set()
    stems = []
    for path in paths:
        stem, number = path.stem, 1
        while stem in used:
            number += 1
            stem = f"{path.stem}-{number}"
        used.add(stem)
        stems.append(stem)
    return stems


def _print(found: list[tuple[str, dict[str, Any], list[tuple[Any, ...]]]], columns: tuple[str, ...]) -> None:
    rows = [(image if rank == 0 else None, *row) for image, _, lines in found for rank, row in enumerate(lines)]
    if rows:
        print_table(columns, rows, left=2)
