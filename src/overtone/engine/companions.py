"""Further processes on this machine that train together with this one, where no launcher has started any."""

import multiprocessing
import os
import socket
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

from overtone.errors import OvertoneError, Preempted, ReportedElsewhere


def started_by_launcher(environment: Mapping[str, str]) -> bool:
    """Whether torchrun or another launcher has given this process a rank."""
    return "RANK" in environment and "WORLD_SIZE" in environment


@contextmanager
def companions(count: int, function: Callable[..., object], args: Sequence[Any]) -> Iterator[None]:
    """Make this process the first of `count`, each of which finds the others through its environment.

    Args:
        count: processes in all, with this one.
        function: what the others run; at the top level of a module.
        args: its arguments, which can be sent to another process.
    """
    port = _free_port()
    places = [_place(rank, count, port) for rank in range(count)]
    # clean processes: a fork of this one would have its threads' locks; no daemons, which could not start readers
    context = multiprocessing.get_context("spawn")
    others = [context.Process(target=_accompany, args=(place, function, tuple(args))) for place in places[1:]]
    before = dict(os.environ)
    try:
        for process in others:
            process.start()
        os.environ.update(places[0])
        yield
        for process in others:
            process.join()
    finally:
        for process in others:
            if process.is_alive():
                process.terminate()
        for name in places[0]:
            os.environ.pop(name, None)
        os.environ.update({name: before[name] for name in places[0] if name in before})


def _place(rank: int, count: int, port: int) -> dict[str, str]:
    return {
        "RANK": str(rank),
        "WORLD_SIZE": str(count),
        "LOCAL_RANK": str(rank),
        "LOCAL_WORLD_SIZE": str(count),
        "MASTER_ADDR": "127.0.0.1",
        "MASTER_PORT": str(port),
    }


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _accompany(place: Mapping[str, str], function: Callable[..., object], args: Sequence[Any]) -> None:
    os.environ.update(place)
    try:
        function(*args)
    except (KeyboardInterrupt, Preempted):
        sys.exit(1)
    except ReportedElsewhere:
        sys.exit(2)
    except OvertoneError as error:
        sys.stderr.write(f"overtone: rank {place['RANK']}: {error}\n")
        sys.exit(2)
