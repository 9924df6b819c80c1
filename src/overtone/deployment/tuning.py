"""Runtimes and precisions of this machine side by side: how fast each is, and whether it still agrees."""

import contextlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

from overtone.deployment.artifact import GOLDEN, About
from overtone.deployment.export import Origin, Request, check_request, export
from overtone.deployment.running import loaded_export
from overtone.deployment.runtimes import RUNTIMES
from overtone.deployment.timing.lane import Lane, LaneError
from overtone.deployment.timing.race import race
from overtone.errors import OvertoneError

CHECKED = 64  # images for which outputs are compared


@dataclass(frozen=True)
class Candidate:
    """A runtime in a precision.

    Attributes:
        folder: its export; None where there is none.
        about: what its `model.json` says.
        milliseconds: median latency of one image; `spread` is the distance between the quartiles.
        reason: why it is left out.
        score: of the task's report on labelled images, where they were given.
    """

    runtime: str
    precision: str
    folder: Path | None = None
    about: About | None = None
    milliseconds: float | None = None
    spread: float | None = None
    score: float | None = None
    reason: str | None = None


def candidates(runtimes: Sequence[str], precisions: Sequence[str], image_folder: Path | None) -> list[Candidate]:
    """The candidates of this machine, with a reason for each that cannot be tried.

    Args:
        runtimes: names; none: all.
        precisions: names; none: all.
        image_folder: folder of images to calibrate int8 with; without one it is not tried.
    """
    found = []
    for name in runtimes or RUNTIMES:
        for precision in precisions or RUNTIMES[name].precisions:
            reason = None
            try:
                check_request(Request(name, precision, image_folder=image_folder))
            except OvertoneError as error:
                reason = str(error)
            found.append(Candidate(name, precision, reason=reason))
    return found


def export_all(
    model: nn.Module,
    origin: Origin,
    of_any_size: Origin | None,
    tried: Sequence[Candidate],
    image_folder: Path | None,
    folder: Path,
    report: Callable[[str], object],
) -> list[Candidate]:
    """Export every candidate into a folder of its own; one that does not agree, or cannot be written, gets a reason.

    With an origin `of_any_size`, runtimes that can take any size do: they then see images as the network does.
    """
    made = []
    for candidate in tried:
        if candidate.reason is None:
            report(f"{candidate.runtime}, {candidate.precision}")
            out = folder / f"{candidate.runtime}-{candidate.precision}"
            any_size = of_any_size is not None and RUNTIMES[candidate.runtime].takes_any_size
            request = Request(
                candidate.runtime,
                candidate.precision,
                image_folder=image_folder,
                checked=CHECKED,
                dynamic_size=any_size,
            )
            source = of_any_size if any_size and of_any_size is not None else origin
            try:
                candidate = replace(candidate, about=export(model, source, request, out), folder=out)
            except OvertoneError as error:
                candidate = replace(candidate, reason=str(error))
        made.append(candidate)
    return made


def measure_all(tried: Sequence[Candidate], rounds: int) -> list[Candidate]:
    """The latency of one image: each candidate has a process of its own, and all take turns in every round."""
    with contextlib.ExitStack() as open_lanes:
        measured, lanes = list(tried), {}
        for index, candidate in enumerate(tried):
            if candidate.folder is None or candidate.reason is not None:
                continue
            try:
                lanes[index] = open_lanes.enter_context(lane_of_export(candidate.folder))
            except LaneError as error:
                measured[index] = replace(candidate, reason=str(error))
        timings = race([lane.turn for lane in lanes.values()], rounds)
    for index, timing in zip(lanes, timings, strict=True):
        measured[index] = replace(measured[index], milliseconds=timing.median, spread=timing.spread)
    return measured


def lane_of_export(folder: Path) -> Lane:
    """An export in a process of its own, with one of its golden images.

    Raises:
        LaneError: it cannot be opened or run.
    """
    return Lane(_call_of, folder)


def _call_of(folder: Path) -> Callable[[], object]:
    module: Any = loaded_export(folder).model
    with np.load(folder / GOLDEN) as golden:
        image = golden["inputs"][:1]
    if module.form is not None:  # what its runtime leaves to be done counts, too
        return lambda: module(torch.from_numpy(image))
    return lambda: module.predictor.predict(image)
