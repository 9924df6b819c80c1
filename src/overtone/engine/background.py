"""Work done beside the training: one piece after the other, in a thread of its own."""

import threading
from collections.abc import Callable
from concurrent.futures import Future
from types import TracebackType


class Background:
    """Runs one function at a time in a thread while the caller continues.

    What goes wrong in the thread comes out of the next `submit`, `check` or `close`, in the caller's own thread. As a
    context it closes at the end, but does not wait where someone insists on leaving at once (`KeyboardInterrupt` and
    other exceptions that are no `Exception`). The thread is a daemon for that; the end of Python waits for those of a
    `ThreadPoolExecutor`.
    """

    def __init__(self) -> None:
        self._future: Future[None] | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the last function submitted is still running."""
        return self._future is not None and not self._future.done()

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work` in the thread, after waiting for what was submitted before.

        Raises:
            Exception: what went wrong in that.
        """
        self.close()
        self._future = Future()
        threading.Thread(target=_run, args=(work, self._future), name="checkpoint", daemon=True).start()

    def check(self) -> None:
        """Raise what went wrong, if the work is done; does not wait."""
        if not self.is_busy:
            self.close()

    def close(self) -> None:
        """Wait for what was submitted.

        Raises:
            Exception: what went wrong in it.
        """
        future, self._future = self._future, None
        if future is not None:
            future.result()

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an error that is on its way already is not replaced by one of the thread."""
        if error is None:
            self.close()
        elif isinstance(error, Exception) and self._future is not None:
            self._future.exception()  # waits


def _run(work: Callable[[], object], future: Future[None]) -> None:
    try:
        work()
    except BaseException as error:
        future.set_exception(error)
    else:
        future.set_result(None)
