"""The no-op log of ranks > 0."""

from collections.abc import Sequence
from types import TracebackType

from overtone.engine.log import Log, Row
from overtone.engine.state import Snapshot


class SilentLog(Log):
    """A log that keeps the rows and neither writes nor shows anything."""

    def __init__(self, rows: Sequence[Row]) -> None:
        self.rows = list(rows)

    def __enter__(self) -> "SilentLog":
        """Nothing to start."""
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Nothing to close."""

    def say(self, text: str) -> None:
        """Not said."""

    def training(self, now: Snapshot) -> None:
        """Not shown."""

    def validating(self, done: int, total: int, what: str = "validation") -> None:
        """Not shown."""

    def epoch(self, row: Row) -> None:
        """Kept in `rows` alone."""
        self.rows.append(row)
