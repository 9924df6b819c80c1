"""Runs a function in several processes that have joined each other over gloo on this machine."""

import multiprocessing
import os
import socket
import traceback
from collections.abc import Callable
from typing import Any

import torch

from overtone.config import Run
from overtone.engine.distributed import joined

# clean processes that have everything imported already: a fork of this one would have its threads' locks
_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(["overtone.engine.training"])


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def run_ranks(
    function: Callable[..., Any], size: int, *args: Any, timeout: float = 60.0, join: bool = True
) -> list[Any]:
    """`function(world, *args)` on each of `size` processes; what they returned, an exception as itself.

    Args:
        function: at the top level of a module, so that the processes find it.
        timeout: of the run, seconds, in `Run.timeout`.
        join: False: only the environment is as torchrun makes it, and `function(rank, *args)` is called.
    """
    results = _CONTEXT.Queue()
    port = free_port()
    processes = [
        _CONTEXT.Process(target=_rank, args=(function, rank, size, port, timeout if join else None, results, args))
        for rank in range(size)
    ]
    for process in processes:
        process.start()
    answers = dict(results.get(timeout=120) for _ in processes)
    for process in processes:
        process.join(timeout=30)
    return [answers[rank] for rank in range(size)]


def _rank(function: Any, rank: int, size: int, port: int, timeout: float | None, results: Any, args: Any) -> None:
    torch.set_num_threads(1)
    os.environ.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(port), RANK=str(rank), WORLD_SIZE=str(size))
    try:
        if timeout is None:
            results.put((rank, function(rank, *args)))
            return
        with joined(Run(device="cpu", timeout=timeout)) as world:
            results.put((rank, function(world, *args)))
    except BaseException as error:
        traceback.print_exc()
        results.put((rank, error))
