"""`overtone export`: a network written for a runtime and verified there."""

from pathlib import Path

from overtone import options
from overtone.config import to_dict
from overtone.deployment import triton
from overtone.deployment.artifact import ABOUT, SCRIPT, About
from overtone.deployment.export import Request, check_request
from overtone.deployment.origin import export_loaded
from overtone.errors import OvertoneError
from overtone.verbs.console import note, print_json, print_line, print_table, warn
from overtone.verbs.exporting import network_of
from overtone.verbs.tune import tune

_FEW = 100  # images to calibrate with


def export(chosen: options.Export) -> int:
    """Export and report how far the outputs are from the network's.

    Raises:
        OvertoneError: no such model, a runtime that is not there, or outputs that do not agree.
    """
    if chosen.to == "auto":
        return tune(_tuning(chosen))
    repository = chosen.to == "triton"
    request = Request(
        runtime=triton.backend_for(chosen.precision) if repository else chosen.to,
        precision=chosen.precision,
        dynamic_batch=chosen.dynamic_batch,
        dynamic_size=chosen.dynamic,
        with_preprocessing=chosen.with_preprocessing,
        image_folder=chosen.calibration,
    )
    check_request(request)  # before the network is loaded
    network, size, overwrite = network_of(chosen), chosen.size, chosen.overwrite
    script_does: str | None = None
    if repository:
        folder, about = triton.export_repository(network, request, chosen.out, size=size, overwrite=overwrite)
    else:
        done = export_loaded(network, request, chosen.out, size=size, overwrite=overwrite)
        folder, about, script_does = done.folder, done.about, done.script_does
    if about.calibrated and about.calibrated < _FEW:
        warn(f"int8 took its ranges from {about.calibrated} images; several hundred are more reliable")
    if chosen.json:
        print_json({"folder": str(folder), **to_dict(about)})
    else:
        show(folder, about, script_does)
    return 0


def show(out: Path, about: About, script_does: str | None) -> None:
    """Report what was written, how it compares, and what its `run.py` does, if it has one."""
    parity = about.parity
    finds = "detections" in parity
    print_table(
        ("export", "size", "images", "largest difference", "rms", "same detections" if finds else "same decisions"),
        [
            (
                out,
                f"{about.bytes / 1e6:.1f} MB",
                f"{parity['images']} {parity['pictures']}",
                f"{parity['largest']:.1e}",
                f"{parity['rms']:.1e}",
                f"{100 * parity['same_decisions']:.1f} %",
            )
        ],
    )
    relative = "differences are relative to the logits' scale"
    if finds:
        relative = (
            f"{parity['detections']} detections; the difference of boxes is relative to the {about.preprocess.size} "
            "pixels of the input, rms is of scores"
        )
        if parity["from_score"] is None:
            warn("no object in these images reaches a score of 0.3; give images like those to come, --calibration DIR")
    script = f", {SCRIPT} {script_does}" if script_does is not None and (out / SCRIPT).is_file() else ""
    print_line(f"{relative}; {ABOUT} has all figures{script}")
    note(f"{out}: written")


def _tuning(chosen: options.Export) -> options.Tune:
    """`--to auto` as `overtone tune` takes it.

    Raises:
        OvertoneError: an option without effect in a comparison of runtimes.
    """
    if chosen.dynamic_batch or chosen.dynamic or chosen.with_preprocessing:
        raise OvertoneError(
            "--to auto measures single normalised images of one size; choose a runtime with --to for other inputs"
        )
    if chosen.precision != "float32":
        raise OvertoneError("--to auto tries every precision; overtone tune --precisions restricts them")
    return options.Tune(
        model=chosen.model,
        calibration=chosen.calibration,
        size=chosen.size,
        out=chosen.out,
        overwrite=chosen.overwrite,
        weights_dir=chosen.weights_dir,
        architecture=chosen.architecture,
        ema=chosen.ema,
        threads=chosen.threads,
        json=chosen.json,
    )
