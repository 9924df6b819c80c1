"""Runtimes and precisions of this machine side by side: how fast each is, and whether it is still right."""

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from torch import nn

from overtone.deployment.artifact import GOLDEN, About
from overtone.deployment.export import Origin, Request, check_request, export, open_export
from overtone.deployment.runtimes import Predictor
from overtone.deployment.targets import RUNTIMES
from overtone.errors import OvertoneError

_WARM_UP, _CALLS = 3, 5


@dataclass(frozen=True)
class Candidate:
    """A runtime in a precision.

    Attributes:
        folder: its export; None where there is none.
        about: what its `model.json` says.
        milliseconds: median latency of one image; `spread` is the distance between the quartiles.
        reason: why it is left out.
        top1: percent on labelled images, where they were given.
    """

    runtime: str
    precision: str
    folder: Path | None = None
    about: About | None = None
    milliseconds: float | None = None
    spread: float | None = None
    top1: float | None = None
    reason: str | None = None


def candidates(runtimes: Sequence[str], precisions: Sequence[str], pictures: Path | None) -> list[Candidate]:
    """What can be tried here, and why the rest of what was named cannot.

    Args:
        runtimes: names; none: all.
        precisions: names; none: all.
        pictures: folder to calibrate int8 with; without one it is not tried.
    """
    found = []
    for name in runtimes or RUNTIMES:
        for precision in precisions or RUNTIMES[name].precisions:
            reason = None
            try:
                check_request(Request(name, precision, pictures=pictures))
            except OvertoneError as error:
                reason = str(error)
            found.append(Candidate(name, precision, reason=reason))
    return found


def export_all(
    model: nn.Module,
    origin: Origin,
    tried: Sequence[Candidate],
    pictures: Path | None,
    folder: Path,
    tell: Callable[[str], object],
) -> list[Candidate]:
    """Export every candidate into a folder of its own; one that does not agree, or cannot be written, says why."""
    made = []
    for candidate in tried:
        if candidate.reason is None:
            tell(f"{candidate.runtime}, {candidate.precision}")
            out = folder / f"{candidate.runtime}-{candidate.precision}"
            request = Request(candidate.runtime, candidate.precision, pictures=pictures)
            try:
                candidate = replace(candidate, about=export(model, origin, request, out), folder=out)
            except OvertoneError as error:
                candidate = replace(candidate, reason=str(error))
        made.append(candidate)
    return made


def measure_all(tried: Sequence[Candidate], rounds: int) -> list[Candidate]:
    """The latency of one image: all take turns in every round, so that what disturbs one disturbs the others too."""
    times: dict[int, list[float]] = {}
    ready: dict[int, tuple[Predictor, np.ndarray]] = {}
    for index, candidate in enumerate(tried):
        if candidate.folder is not None and candidate.reason is None:
            predictor, _ = open_export(candidate.folder)
            with np.load(candidate.folder / GOLDEN) as golden:
                image = golden["inputs"][:1]
            for _ in range(_WARM_UP):
                predictor.predict(image)
            ready[index], times[index] = (predictor, image), []
    for _ in range(rounds):
        for index, (predictor, image) in ready.items():
            for _ in range(_CALLS):
                started = time.perf_counter()
                predictor.predict(image)
                times[index].append(1000 * (time.perf_counter() - started))
    return [
        candidate
        if index not in times
        else replace(candidate, milliseconds=statistics.median(times[index]), spread=_spread(times[index]))
        for index, candidate in enumerate(tried)
    ]


def _spread(values: list[float]) -> float:
    first, _, third = statistics.quantiles(values, n=4)
    return third - first
