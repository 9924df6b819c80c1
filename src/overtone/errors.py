"""The one style of error that a user sees, a single line that says what, where, why and what to do; and a stop."""

from collections.abc import Iterable


def some(names: Iterable[str], limit: int = 8) -> str:
    """The first names in sorted order, and how many there are beyond."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


class OvertoneError(Exception):
    """Something the user can mend; the command line prints the message as one line and exits with code 2.

    The message names the file or the value, the reason and what to do. Anything that is not an `OvertoneError`
    is a defect of ours and keeps its traceback.
    """


class Preempted(BaseException):
    """A scheduler's signal has ended a training; the same command goes on with it. The exit code is 75 (EX_TEMPFAIL).

    Like `KeyboardInterrupt` it is nothing that went wrong, so `except Exception` lets it pass.
    """
