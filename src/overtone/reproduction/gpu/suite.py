"""Everything that only a GPU can show, in ten minutes on one device; on a CPU a dry run of the same code.

Each part has a process and seconds of its own, and each of its cases stands alone: one that fails, or a part that
crashes or takes too long, is a row with an `error`, and the rest still runs.
"""

import math
import multiprocessing
import os
import signal
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from overtone.deployment.quiet import quiet_process
from overtone.deployment.timing.lane import reason_of
from overtone.reproduction.gpu.decoding import decoding
from overtone.reproduction.gpu.filters import filters
from overtone.reproduction.gpu.inference import inference
from overtone.reproduction.gpu.place import Cases, Place, Row, Skipped
from overtone.reproduction.gpu.resuming import resuming
from overtone.reproduction.gpu.sync_bn import sync_bn
from overtone.reproduction.gpu.training import bfloat16_steps, training

SECONDS = 570.0
"""Of the whole suite; with the start and end of processes that is below ten minutes."""


@dataclass(frozen=True)
class Part:
    """Some cases.

    Attributes:
        name: of the part.
        cases: makes them; a function of a module, so that another process finds it.
        seconds: that all of them may take on a GPU; what they leave is the last part's.
    """

    name: str
    cases: Callable[[Place], Cases]
    seconds: float


PARTS = (
    Part("steps", bfloat16_steps, 75),
    Part("sync_bn", sync_bn, 45),
    Part("resume", resuming, 60),
    Part("decoding", decoding, 60),
    Part("filters", filters, 60),
    Part("inference", inference, 150),
    Part("training", training, SECONDS),
)


def run_suite(
    place: Place, parts: Sequence[Part] = PARTS, *, seconds: float = SECONDS, say: Callable[[str], object] = print
) -> list[Row]:
    """Run the parts one after the other.

    Args:
        place: where.
        parts: what.
        seconds: that all of it may take.
        say: called with a line of progress for each part.

    Returns:
        Rows with `part` and `case`, and figures, or an `error`, or `skipped`: what the case would need.
    """
    ends, rows = time.monotonic() + seconds, []
    for number, part in enumerate(parts, 1):
        started = time.monotonic()
        budget = min(math.inf if place.is_dry else part.seconds, max(ends - started, 1.0))
        say(f"part {number} of {len(parts)}: {part.name}, at most {budget:.0f} s")
        found = _run(part, place, budget)
        failed = sum("error" in row for row in found)
        say(f"  {len(found)} rows, {failed} with an error, {time.monotonic() - started:.1f} s")
        rows += found
    return rows


def failures(rows: Sequence[Row]) -> list[Row]:
    """The rows that failed: with an error, or a check that was not passed."""
    return [row for row in rows if "error" in row or row.get("passed") is False]


def _run(part: Part, place: Place, seconds: float) -> list[Row]:
    """The rows of a part, from its own process."""
    methods = multiprocessing.get_all_start_methods()
    context: Any = multiprocessing.get_context("forkserver" if "forkserver" in methods else "spawn")
    if "forkserver" in methods:
        context.set_forkserver_preload([__name__])
    pipe, far_end = context.Pipe(duplex=False)
    process = context.Process(target=_serve, args=(far_end, part.cases, place, torch.get_num_threads()))
    process.start()
    far_end.close()
    ends = time.monotonic() + seconds
    rows: list[Row] = []
    waiting: list[str] | None = [""]
    error = f"stopped after {seconds:.0f} s, which is all that it may take"
    try:
        while waiting and pipe.poll(max(ends - time.monotonic(), 0.0)):
            waiting, found = pipe.recv()
            rows += [{"part": part.name, **row} for row in found]
        if not waiting:
            process.join(10)
    except EOFError:
        process.join(10)
        error = f"its process ended with code {process.exitcode}"
    finally:
        _end(process)
        pipe.close()
    if waiting:
        rows.append({"part": part.name, "case": ", ".join(waiting), "error": error})
    return rows


def _end(process: Any) -> None:
    """End a process that still runs, with those that it has started."""
    if process.is_alive():
        try:
            os.killpg(process.pid, signal.SIGKILL)
        except (AttributeError, ProcessLookupError):  # Windows, or it has no group of its own yet
            process.kill()
        process.join()


def _serve(pipe: Connection, cases_of: Callable[[Place], Cases], place: Place, threads: int) -> None:
    """Send, time and again, the names of the cases that are still to come and the rows of the one just done."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):
        os.setpgid(0, 0)
    torch.set_num_threads(threads)
    with quiet_process():
        try:
            cases = cases_of(place)
        except Exception as error:  # reported as a row
            pipe.send(([], [{"case": "", "error": reason_of(error)}]))
            return
        waiting = list(cases)
        pipe.send((waiting, []))
        for name, run in cases.items():
            try:
                rows = list(run())
            except Skipped as reason:
                rows = [{"skipped": str(reason)}]
            except Exception as error:  # reported as a row
                rows = [{"error": reason_of(error)}]
            place.tidy()
            waiting = waiting[1:]
            pipe.send((waiting, [{"case": name, **row} for row in rows]))
