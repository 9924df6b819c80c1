"""Work done beside the training: one piece after the other, in a thread of its own."""

import threading
from collections.abc import Callable
from types import TracebackType


class Background:
    """Runs one function at a time in a thread while the caller goes on.

    What goes wrong in the thread comes out of the next `submit`, `check` or `close`, in the caller's own thread. As a
    context it closes at the end, but does not wait where someone insists on leaving at once (`KeyboardInterrupt` and
    other exceptions that are no `Exception`).
    """

    def __init__(self) -> None:
        self._thread: threading.Thread | None = None
        self._error: BaseException | None = None

    @property
    def is_busy(self) -> bool:
        """Whether the last function submitted is still running."""
        return self._thread is not None and self._thread.is_alive()

    def submit(self, work: Callable[[], object]) -> None:
        """Run `work` in the thread, after waiting for what was submitted before.

        Raises:
            Exception: what went wrong in that.
        """
        self.close()
        # a daemon, so that leaving at once is possible; a file half written has no final name
        self._thread = threading.Thread(target=self._run, args=(work,), name="checkpoint", daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise what went wrong, if the work is done; does not wait."""
        if not self.is_busy:
            self.close()

    def close(self) -> None:
        """Wait for what was submitted.

        Raises:
            Exception: what went wrong in it.
        """
        thread, self._thread = self._thread, None
        if thread is not None:
            thread.join()
        error, self._error = self._error, None
        if error is not None:
            raise error

    def __enter__(self) -> "Background":
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Close; an error that is on its way already is not replaced by one of the thread."""
        if error is None:
            self.close()
        elif isinstance(error, Exception) and self._thread is not None:
            self._thread.join()

    def _run(self, work: Callable[[], object]) -> None:
        try:
            work()
        except BaseException as error:
            self._error = error
