"""Ctrl-C and a scheduler's signals as a request: the training stops between two steps, where its state is whole."""

import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from overtone.errors import Preempted

# what a scheduler sends before it takes the machine away; Windows has no SIGUSR1
_PREEMPTIONS = tuple(getattr(signal, name) for name in ("SIGTERM", "SIGUSR1") if hasattr(signal, name))
# torchrun and Slurm pass a signal on to processes that have had it already, as part of the group
_SAME_SECONDS = 1.0


class WaitEnded(BaseException):
    """The wait for a batch was cut short by a request to stop."""


class StopRequest:
    """Whether someone has asked the training to stop, and by which signal.

    Attributes:
        signal: the number of the signal; None before there was any.
    """

    def __init__(self) -> None:
        self.signal: int | None = None
        self._patient, self._is_waiting, self._since = False, False, 0.0

    @property
    def is_set(self) -> bool:
        """Whether to stop."""
        return self.signal is not None

    def set(self, number: int = signal.SIGTERM) -> None:
        """Ask to stop, as the signal `number` does."""
        self.signal, self._since = number, time.monotonic()

    def exception(self) -> BaseException:
        """What to leave with when all is saved: `KeyboardInterrupt` after Ctrl-C, else `Preempted`."""
        return _exception(self.signal)

    @contextmanager
    def handled(self) -> Iterator[None]:
        """Within the block SIGINT, SIGTERM and SIGUSR1 come here, and what was there before comes back after it.

        Outside of `patient` they raise `exception()` at once: there is nothing to save.
        """
        if threading.current_thread() is not threading.main_thread():  # only the main thread may handle signals
            yield
            return
        before = {number: signal.signal(number, self._handle) for number in (signal.SIGINT, *_PREEMPTIONS)}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, signal.SIG_DFL if handler is None else handler)

    @contextmanager
    def patient(self) -> Iterator[None]:
        """Within the block a first signal only sets the request; another one, a second later or more, raises."""
        self._patient = True
        try:
            yield
        finally:
            self._patient = False

    @contextmanager
    def waiting(self) -> Iterator[None]:
        """Within the block a request ends the wait at once: whoever is waited for may never answer.

        Raises:
            WaitEnded: there is a request to stop, from before or from within the block.
        """
        self._is_waiting = True
        try:
            if self.is_set:
                raise WaitEnded
            yield
        finally:
            self._is_waiting = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self._patient:
            if self.signal is None:
                self.set(number)
                if self._is_waiting:
                    self._is_waiting = False
                    raise WaitEnded
                return
            if time.monotonic() - self._since < _SAME_SECONDS:
                return
        raise _exception(number)


def _exception(number: int | None) -> BaseException:
    if number is None or number == signal.SIGINT:
        return KeyboardInterrupt()
    return Preempted(signal.Signals(number).name)
