"""How far a long scan is, on standard error."""

import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from overtone.errors import printable

FIRST = 2.0
"""Seconds after which a scan says how far it is."""
_RENEWED, _REPEATED = 0.5, 30.0  # seconds between lines on a terminal, and elsewhere


@contextmanager
def counted(what: str) -> Iterator[Callable[[int], None]]:
    """Show a renewed line on a terminal, elsewhere a line every 30 seconds; nothing of a scan that is soon over.

    Args:
        what: such as `scanning photos: files`.

    Yields:
        A function to call with the number of things that have been added; by any thread.
    """
    is_terminal, lock = sys.stderr.isatty(), threading.Lock()
    done, shown, due = 0, False, time.monotonic() + FIRST

    def add(number: int) -> None:
        nonlocal done, shown, due
        with lock:
            done += number
            now = time.monotonic()
            if now >= due:
                shown, due = True, now + (_RENEWED if is_terminal else _REPEATED)
                line = f"{printable(what)}: {done:,} so far"
                sys.stderr.write(f"\r{line}" if is_terminal else f"{line}\n")
                sys.stderr.flush()

    try:
        yield add
    finally:
        if shown and is_terminal:
            sys.stderr.write("\r\x1b[K")
