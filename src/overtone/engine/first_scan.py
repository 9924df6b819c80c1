"""Opening data by several processes: one of each machine scans it, the others then read the index that it leaves."""

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor, wait
from typing import TypeVar

from overtone.engine.distributed import World
from overtone.errors import OvertoneError, ReportedElsewhere
from overtone.failures import correctable

T = TypeVar("T")
_PATIENCE = 1.0  # seconds between messages, so that no timeout of messages bounds a scan


def scanned_first(world: World, scan: Callable[[], T]) -> T:
    """What `scan` gives, on every process; the first one of each machine calls it before the others.

    Raises:
        OvertoneError: it failed on any of them: the first process raises the reason, and the others
            `ReportedElsewhere`.
    """
    if world.is_alone:
        return scan()
    result: Future[T] | None = None
    with ThreadPoolExecutor(1) as pool:
        for turn in (True, False):
            is_mine = (world.local_rank == 0) == turn
            own = pool.submit(scan) if is_mine else None
            result = own or result
            while not all(world.gather(own is None or bool(wait([own], _PATIENCE).done))):
                pass
            failures = [failure for failure in world.gather(_failure(own)) if failure]
            if failures:
                raise (OvertoneError if world.is_first else ReportedElsewhere)(failures[0])
    assert result is not None
    return result.result()


def _failure(result: Future | None) -> str:
    """What to say of a scan that failed; a defect is raised."""
    error = None if result is None else result.exception()
    if error is None:
        return ""
    said = str(error) if isinstance(error, OvertoneError) else correctable(error)
    if said is None:
        raise error
    return said
