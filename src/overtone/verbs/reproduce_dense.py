"""`overtone reproduce` of detection and segmentation networks on COCO and ADE20K."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from overtone import options
from overtone.checkpoint import write_text
from overtone.engine.inference import Computing
from overtone.errors import OvertoneError, some
from overtone.published import PublishedDense
from overtone.reproduction.dense_accuracy import DenseMeasurement, dense_measurements
from overtone.reproduction.weights import Loading
from overtone.verbs.console import as_json, note, print_json, print_table, progress, warn

_FILE = "dense.json"
_DEFAULT_OUT = Path("reproduced")


def reproduce_dense(rows: Sequence[PublishedDense], chosen: options.Reproduce, root: Path) -> int:
    """Measure the networks whose weights are at hand; 1 if a figure differs or an image could not be read.

    Raises:
        OvertoneError: rows of both tasks, which no one folder of images serves, no weights, or no images.
    """
    if len({row.task for row in rows}) > 1:
        raise OvertoneError(
            f"{root} is either COCO or ADE20K; choose the detectors with --only 'cascade*' or the segmenters with "
            "--only 'upernet*'"
        )
    loading = Loading(chosen.weights_dir, chosen.fetch)
    at_hand = [row for row in rows if row.urls and loading.locate(row) is not None]
    if not at_hand:
        raise OvertoneError(
            f"no weights of {some([row.full_name for row in rows if row.urls])} are at hand; name their folder with "
            "--weights-dir, or add --fetch"
        )
    run = chosen.run
    computing = Computing(run.device, run.precision, run.threads, run.batch_size, run.workers)
    out, found = chosen.out or _DEFAULT_OUT, list[DenseMeasurement]()
    for row in at_hand:
        for one in dense_measurements(row, root, computing, chosen.weights_dir, progress=progress, warn=warn):
            found.append(one)
            write_text(out / _FILE, as_json([_as_dict(each) for each in found]))
    if chosen.json:
        print_json([_as_dict(one) for one in found])
    else:
        print_table(
            ("published row", "figure", "images", "measured", "published", "verdict"),
            [(o.model, o.figure, o.images, f"{o.measured:.2f}", o.published, o.verdict) for o in found],
            left=2,
        )
    note(f"{out / _FILE} written")
    return 1 if any(one.unreadable or one.verdict != "agrees" for one in found) else 0


def _as_dict(one: DenseMeasurement) -> dict[str, object]:
    return {**dataclasses.asdict(one), "verdict": one.verdict}
