"""Something timed in its own process, one of several that take turns.

In one process the runtimes' pools of threads disturb each other: those of one still spin when the next starts. With all
of them in one process, OpenVINO and ONNX Runtime took about twice as long on two cores as they do alone.
"""

import math
import multiprocessing
import os
import signal
import time
import warnings
from collections.abc import Callable, Mapping
from multiprocessing.connection import Connection
from types import TracebackType
from typing import Any

import torch

from overtone.deployment.quiet import quiet_process
from overtone.deployment.runtimes.runtime import first_line
from overtone.errors import OvertoneError
from overtone.machine import forget_peak, peak_bytes, resident_bytes

_WARM_UP = 3
_TURN_SECONDS = 0.05  # of timed calls in a turn, as long as none is longer
_MOST_CALLS = 5
_MEASURED_CALLS = 3  # of which the memory is measured
_SETTLING = 2  # calls of a turn before the clock runs: caches are its own then, and its threads awake

Make = Callable[..., Callable[[], object]]


class LaneError(RuntimeError):
    """What was to be timed could not be made, or failed."""


class Lane:
    """A process that makes something callable and times it whenever it is its turn.

    Args:
        make: returns what is timed; a function of a module, so that another process finds it.
        arguments: of `make`.
        prepare: called before; the memory that it takes (that of libraries, say) is not counted.

    Attributes:
        result: of the first call: an array, or None.

    Raises:
        LaneError: `make` or a call failed; the message is the error's first line.
    """

    def __init__(self, make: Make, *arguments: object, prepare: Callable[[], object] | None = None) -> None:
        context = _context()
        self._pipe, far_end = context.Pipe()
        work = (far_end, dict(os.environ), torch.get_num_threads(), make, arguments, prepare)
        self._process = context.Process(target=_serve, args=work, daemon=True)
        self._process.start()
        far_end.close()
        try:
            self.result = self._answer()
        except LaneError:
            self.close()
            raise

    def turn(self) -> list[float]:
        """Seconds of some calls in a row."""
        self._pipe.send("turn")
        return self._answer()

    def memory(self) -> float | None:
        """Megabytes at the highest point of a call beyond the process before it made what is timed; None if unknown."""
        self._pipe.send("memory")
        return self._answer()

    def close(self) -> None:
        """End the process."""
        self._pipe.close()
        self._process.terminate()
        self._process.join()

    def __enter__(self) -> "Lane":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _answer(self) -> Any:
        try:
            good, answer = self._pipe.recv()
        except EOFError:
            self._process.join()
            raise LaneError(f"its process ended with code {self._process.exitcode}") from None
        if not good:
            raise LaneError(answer)
        return answer


def _context() -> Any:
    """A context whose processes start with the libraries imported and without threads, where fork exists."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _serve(
    pipe: Connection,
    environment: Mapping[str, str],
    threads: int,
    make: Make,
    arguments: tuple[object, ...],
    prepare: Callable[[], object] | None,
) -> None:
    """Make it, then time it or measure its memory for each request, until the other side is gone."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    warnings.simplefilter("ignore")
    os.environ.update(environment)  # a fork server keeps that of its own start
    torch.set_num_threads(threads)
    try:
        with quiet_process():
            if prepare is not None:
                prepare()
            before = resident_bytes()
            call = make(*arguments)
            result = call()
            for _ in range(_WARM_UP):
                call()
            started = time.perf_counter()
            call()
            calls = min(_MOST_CALLS, max(1, int(_TURN_SECONDS / (time.perf_counter() - started))))
        pipe.send((True, _as_array(result)))
        while True:
            word = pipe.recv()
            pipe.send((True, _timed(call, calls) if word == "turn" else _peak(call, before)))
    except (EOFError, BrokenPipeError):
        return
    except Exception as error:  # reported by the caller
        pipe.send((False, reason_of(error)))


def reason_of(error: Exception) -> str:
    """The reason of a failure, in one line."""
    ours = isinstance(error, OvertoneError | LaneError)
    return str(error) if ours else f"{type(error).__name__}: {first_line(error)}"


def _peak(call: Callable[[], object], before: float) -> float | None:
    """Megabytes at the highest point of some calls beyond `before` bytes; None where the system does not say."""
    forget_peak()
    for _ in range(_MEASURED_CALLS):
        call()
    beyond = peak_bytes() - before
    return None if math.isnan(beyond) else max(0.0, beyond / 1e6)


def _timed(call: Callable[[], object], calls: int) -> list[float]:
    for _ in range(min(_SETTLING, calls)):
        call()
    seconds = []
    for _ in range(calls):
        started = time.perf_counter()
        call()
        seconds.append(time.perf_counter() - started)
    return seconds


def _as_array(result: object) -> object:
    if isinstance(result, torch.Tensor):
        return result.detach().float().numpy()
    return result if hasattr(result, "__array__") else None
