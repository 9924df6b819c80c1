"""The temperature of a run's best network, measured after the training and kept with it."""

import dataclasses
from pathlib import Path
from typing import Any

from overtone.checkpoint import read_checkpoint, write_checkpoint
from overtone.config import Data
from overtone.engine import folder as files
from overtone.engine.folder import claimed
from overtone.errors import OvertoneError
from overtone.reports.run_report import measured_run, recipe_of


def calibrate(folder: Path, data: Data | None = None, device: str = "auto") -> str:
    """Fit a temperature on the images that a run validated on, and write it into the run's best network.

    Args:
        folder: the run folder, of a classifier.
        data: where the images are now; None: where the recipe says.
        device: what measures the network.

    Returns:
        What was done, in a sentence.

    Raises:
        OvertoneError: no run of a classifier, images that are not at hand, or a run that is training now.
    """
    path = folder / files.BEST
    if not path.is_file():
        raise OvertoneError(f"{folder} has no {files.BEST} to calibrate; give the folder of a run that has trained")
    checkpoint = read_checkpoint(path)
    manifest = checkpoint.manifest
    if manifest.task != "classification":
        raise OvertoneError(f"{folder} is a run of {manifest.task}; a temperature is for a classification")
    missing: list[str] = []
    measured = measured_run(folder, data or recipe_of(folder).data, device, missing)
    if measured is None:
        raise OvertoneError(f"{folder} cannot be calibrated: {' '.join(missing)} Give its images as --data.root")
    report: Any = measured.found.report
    before = manifest.settings.get("temperature")
    settings = {**manifest.settings, "temperature": report.calibration.temperature}
    with claimed(folder):
        write_checkpoint(
            path, dataclasses.replace(manifest, settings=settings), checkpoint.weights, checkpoint.training
        )
    was = "" if before is None else f" in place of {before:.3f}"
    return f"{path}: temperature {report.calibration.temperature:.3f}{was}, from {report.num_used} images"
