"""`overtone tune`: the fastest runtime and precision of this machine that still agrees, written as an export."""

import dataclasses
import os
from collections import defaultdict
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from overtone import options
from overtone.deployment.artifact import FILES
from overtone.deployment.export import check_folder, takes_any_size
from overtone.deployment.images import given_images
from overtone.deployment.origin import default_folder, origin_for
from overtone.deployment.sizes import check_size
from overtone.deployment.tuning import Candidate, candidates, export_all, measure_all
from overtone.errors import OvertoneError
from overtone.replacing import replacing_folder
from overtone.tasks import task_named
from overtone.verbs.console import note, print_json, print_line, print_table
from overtone.verbs.evaluate import report_of
from overtone.verbs.exporting import network_of


def tune(chosen: options.Tune) -> int:
    """Try, print the table, and write the winner.

    Raises:
        OvertoneError: no such model, nothing that runs and agrees here, or a folder that is in use.
    """
    if chosen.out is not None:
        check_folder(chosen.out, chosen.overwrite)  # before it takes its time
    calibration = _calibration(chosen)
    loaded = network_of(chosen)
    origin = origin_for(loaded, chosen.size)
    check_size(loaded.model, origin.architecture, origin.preprocess)
    of_any_size = origin_for(loaded, chosen.size, any_size=True)
    out = chosen.out or default_folder(loaded, "auto")
    check_folder(out, chosen.overwrite)
    if calibration != chosen.calibration:
        note(f"images for int8 and for the check: {calibration} (choose others with --calibration)")
    # Of some tasks the score is a setting: a report then has its name, and the class has none.
    score_name = getattr(task_named(loaded.task).report_type, "score_name", "score")
    tried = candidates(chosen.runtimes, chosen.precisions, calibration)
    try:
        with replacing_folder(out, FILES) as new:
            tried = export_all(
                loaded.model,
                origin,
                of_any_size if takes_any_size(loaded.model, of_any_size) else None,
                tried,
                calibration,
                new.parent,
                lambda what: note(f"exporting: {what}"),
            )
            tried = _agreeing(chosen, tried)
            note(f"measuring: {sum(one.reason is None for one in tried)} in turns, {chosen.rounds} rounds")
            tried, score_name = _accurate(chosen, measure_all(tried, chosen.rounds), score_name)
            kept = [candidate for candidate in tried if candidate.reason is None]
            if not kept:
                _show(chosen, tried, None, score_name)
                raise OvertoneError("no runtime of this machine runs it and agrees with it; the reasons are above")
            best = min(kept, key=lambda candidate: candidate.milliseconds or float("inf"))
            assert best.folder is not None
            os.replace(best.folder, new)
    except OSError as error:
        raise OvertoneError(f"{out} could not be written: {error.strerror or error}; choose another --out") from error
    _show(chosen, tried, out, score_name)
    return 0


def _calibration(chosen: options.Tune) -> Path | None:
    """The folder of images for int8 and the check: the one that was given, or that of the labelled images.

    Raises:
        OvertoneError: no such folder, or no images in it.
    """
    folder, data = chosen.calibration, chosen.data
    images = data.root or (None if data.table is None else data.table.parent)
    if folder is None and images is not None:
        folder = images / "train" if (images / "train").is_dir() else images
    if folder is not None:
        given_images(folder, 1)
    return folder


def _agreeing(chosen: options.Tune, tried: list[Candidate]) -> list[Candidate]:
    """Without labelled images, the best class has to be the network's own for enough of the others."""
    if chosen.data.is_given:
        return tried
    kept = []
    for candidate in tried:
        if candidate.reason is None and candidate.about is not None:
            equal = 100 * candidate.about.parity["agreement"]
            if equal < chosen.min_agreement:
                reason = f"decisions are equal for {equal:.1f} %, below {chosen.min_agreement:g} %"
                candidate = dataclasses.replace(candidate, reason=reason)
        kept.append(candidate)
    return kept


def _accurate(chosen: options.Tune, tried: list[Candidate], score_name: str) -> tuple[list[Candidate], str]:
    """With the score of each on labelled images, where they were given, and a reason where too much is lost.

    Returns:
        The candidates, and the name of the score: `score_name` without labelled images.
    """
    if not chosen.data.is_given:
        return tried, score_name
    settings = options.Device(size=chosen.size, threads=chosen.threads, device="cpu", precision="float32")
    own = report_of(chosen.model, settings, chosen)
    name = own.score_name
    note(f"{name} of the network in PyTorch: {own.score:.2f} %")
    measured = []
    for candidate in tried:
        if candidate.reason is None:
            score = report_of(str(candidate.folder), settings, chosen).score
            lost = own.score - score
            reason = None if lost <= chosen.max_loss else f"loses {lost:.2f} percentage points of {name}"
            candidate = dataclasses.replace(candidate, score=score, reason=reason)
        measured.append(candidate)
    return measured, name


def _show(chosen: options.Tune, tried: Sequence[Candidate], out: Path | None, score_name: str) -> None:
    if chosen.json:
        print_json(
            {
                "out": None if out is None else str(out),
                "threads": torch.get_num_threads(),
                "score_name": score_name,
                "candidates": [_as_dict(candidate) for candidate in tried],
            }
        )
        return
    print_table(
        ("runtime", "precision", "ms", "±", "same decisions", score_name, "size", ""),
        [
            (
                one.runtime,
                one.precision,
                f"{one.milliseconds:.2f}",
                f"{one.spread:.2f}",
                f"{100 * one.about.parity['same_decisions']:.1f} %",
                None if one.score is None else f"{one.score:.2f} %",
                f"{one.about.bytes / 1e6:.1f} MB",
                None if one.reason is None else "left out",
            )
            for one in sorted(tried, key=lambda candidate: candidate.milliseconds or 0)
            if one.milliseconds is not None and one.about is not None
        ],
        left=2,
    )
    reasons = defaultdict(list)
    for one in tried:
        if one.reason is not None:
            reasons[one.reason].append(f"{one.runtime} {one.precision}")
    for reason, left_out in reasons.items():
        print_line(f"left out: {', '.join(left_out)}: {reason}")
    if out is not None:
        print_line(
            f"one image at a time on {torch.get_num_threads()} threads, median and distance between the quartiles; "
            f"the fastest is in {out}"
        )


def _as_dict(candidate: Candidate) -> dict[str, Any]:
    return {
        "runtime": candidate.runtime,
        "precision": candidate.precision,
        "milliseconds": candidate.milliseconds,
        "spread": candidate.spread,
        "score": candidate.score,
        "parity": None if candidate.about is None else dict(candidate.about.parity),
        "reason": candidate.reason,
    }
