"""`overtone tune`: the fastest runtime and precision of this machine that is still right, written as an export."""

import dataclasses
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch

from overtone import options
from overtone.deployment.export import check_folder, move
from overtone.deployment.tuning import Candidate, candidates, export_all, measure_all
from overtone.errors import OvertoneError
from overtone.verbs.console import note, print_json, print_line, print_table
from overtone.verbs.evaluate import accuracy
from overtone.verbs.exporting import default_folder, prepared


def tune(chosen: options.Tune) -> int:
    """Try, print the table, and write the winner.

    Raises:
        OvertoneError: no such model, nothing that runs and agrees here, or a folder that is in use.
    """
    if chosen.rounds < 1:
        raise OvertoneError(f"rounds is {chosen.rounds}; it must be at least 1")
    if chosen.out is not None:
        check_folder(chosen.out, chosen.overwrite)
    loaded, origin = prepared(chosen)
    tried = candidates(chosen.runtimes, chosen.precisions, chosen.calibration)
    place = Path(".") if chosen.out is None else chosen.out.parent
    place.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".tune-", dir=place) as scratch:
        tried = export_all(
            loaded.model, origin, tried, chosen.calibration, Path(scratch), lambda what: note(f"exporting: {what}")
        )
        tried = _accurate(chosen, measure_all(tried, chosen.rounds))
        kept = [candidate for candidate in tried if candidate.reason is None]
        if not kept:
            _show(chosen, tried, None)
            raise OvertoneError("no runtime of this machine runs it and agrees with it; the table says why")
        best = min(kept, key=lambda candidate: candidate.milliseconds or float("inf"))
        out = chosen.out or default_folder(loaded, best.runtime, best.precision)
        check_folder(out, chosen.overwrite)
        assert best.folder is not None
        out.parent.mkdir(parents=True, exist_ok=True)
        move(best.folder, out)
    _show(chosen, tried, out)
    return 0


def _accurate(chosen: options.Tune, tried: list[Candidate]) -> list[Candidate]:
    """With the accuracy of each on labelled images, where they were given, and a reason where too much is lost."""
    if chosen.data.root is None:
        return tried
    root, split = chosen.data.root, chosen.data.split
    settings = options.Device(size=chosen.size, threads=chosen.threads, device="cpu", precision="float32")
    own = accuracy(chosen.model, root, split, settings, chosen)
    note(f"top-1 of the network in PyTorch: {own:.2f} %")
    measured = []
    for candidate in tried:
        if candidate.reason is None:
            top1 = accuracy(str(candidate.folder), root, split, settings, chosen)
            lost = own - top1
            reason = None if lost <= chosen.max_loss else f"loses {lost:.2f} percentage points of top-1"
            candidate = dataclasses.replace(candidate, top1=top1, reason=reason)
        measured.append(candidate)
    return measured


def _show(chosen: options.Tune, tried: Sequence[Candidate], out: Path | None) -> None:
    if chosen.json:
        print_json(
            {
                "out": None if out is None else str(out),
                "threads": torch.get_num_threads(),
                "candidates": [_as_dict(candidate) for candidate in tried],
            }
        )
        return
    ordered = sorted(tried, key=lambda candidate: candidate.milliseconds or float("inf"))
    print_table(
        ("runtime", "precision", "ms", "±", "same top-1", "top-1", "left out because"),
        [
            (
                candidate.runtime,
                candidate.precision,
                None if candidate.milliseconds is None else f"{candidate.milliseconds:.2f}",
                None if candidate.spread is None else f"{candidate.spread:.2f}",
                None if candidate.about is None else f"{100 * candidate.about.parity['same_top1']:.1f} %",
                None if candidate.top1 is None else f"{candidate.top1:.2f} %",
                candidate.reason,
            )
            for candidate in ordered
        ],
        left=2,
    )
    if out is not None:
        print_line(f"one image at a time on {torch.get_num_threads()} threads; the fastest is in {out}")


def _as_dict(candidate: Candidate) -> dict[str, Any]:
    return {
        "runtime": candidate.runtime,
        "precision": candidate.precision,
        "milliseconds": candidate.milliseconds,
        "spread": candidate.spread,
        "top1": candidate.top1,
        "parity": None if candidate.about is None else dict(candidate.about.parity),
        "reason": candidate.reason,
    }
