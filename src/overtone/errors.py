"""The one style of error that a user sees, a single line that says what, where, why and what to do; and a stop."""

import difflib
import errno
import os
import re
from collections.abc import Iterable

# C0 and C1 controls, marks and overrides of the writing direction, line separators, halves of surrogate pairs (bytes
# of a file name that are no UTF-8). Joiners stay: names in several scripts need them.
_CONTROLS = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_LONGEST = 400  # characters of a path in a message
_REMEDIES = {
    errno.ENOSPC: "free some space, or choose another disk (TMPDIR is where temporary files go)",
    errno.EDQUOT: "free some space, or choose another disk (TMPDIR is where temporary files go)",
    errno.EACCES: "change its permissions, or choose another path",
    errno.EPERM: "change its permissions, or choose another path",
    errno.EROFS: "choose a path that can be written",
    errno.ENAMETOOLONG: "choose a shorter path",
    errno.EMFILE: "raise the limit of open files (ulimit -n), or use fewer processes",
}


def printable(text: object, *, lines: bool = False) -> str:
    r"""A text that a terminal shows as it is, on one line: every control character as an escape such as `\x1b`.

    Names of files, labels and what a server answers come from others, and a terminal obeys what they hold.

    Args:
        text: the text.
        lines: keep line breaks, for a text of several lines that are ours.
    """
    parts = str(text).split("\n") if lines else [str(text)]
    return "\n".join(_CONTROLS.sub(_escaped, part) for part in parts)


def _escaped(found: re.Match[str]) -> str:
    character = found[0]
    if "\udc80" <= character <= "\udcff":  # a byte that is no UTF-8, as Python keeps it
        return f"\\x{ord(character) - 0xDC00:02x}"
    return character.encode("unicode_escape").decode()


def some(names: Iterable[str], limit: int = 8) -> str:
    """The first names in sorted order, and how many there are beyond."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def did_you_mean(word: str, known: Iterable[str], otherwise: str) -> str:
    """The end of a message about an unknown word: those of the known ones that are close to it, else `otherwise`."""
    close = difflib.get_close_matches(word, list(known), n=3)
    return f"did you mean {' or '.join(close)}?" if close else otherwise


class OvertoneError(Exception):
    """Something that the user can correct; the command line prints the message as one line and exits with code 2.

    The message names the file or the value, the reason and what to do. Anything that is not an `OvertoneError`
    is a defect of ours and keeps its traceback. As text it holds no control characters, whatever a name in it holds.
    """

    def __str__(self) -> str:
        return printable(super().__str__())


class ReportedElsewhere(OvertoneError):
    """What another process of the same command reports: this one ends with the same exit code and prints nothing."""


def system_refusal(error: OSError) -> str:
    """What to say of an error of the operating system that nothing nearer to it has explained.

    Returns:
        The path, the reason, and what to look at.
    """
    reason = error.strerror or str(error) or type(error).__name__
    paths = [name for name in (error.filename, error.filename2) if name is not None]
    where = " and ".join(_shortened(os.fsdecode(path) if isinstance(path, bytes) else str(path)) for path in paths)
    remedy = _REMEDIES.get(error.errno or 0, "check the path, its permissions and the disk")
    return f"{where}: {reason}; {remedy}" if where else f"the system refused: {reason}; {remedy}"


def _shortened(path: str) -> str:
    return path if len(path) <= _LONGEST else f"{path[: _LONGEST // 2]} … {path[-_LONGEST // 2 :]}"


class Preempted(BaseException):
    """A scheduler's signal has ended a training; the same command resumes it. The exit code is 75 (EX_TEMPFAIL).

    Like `KeyboardInterrupt` it is nothing that went wrong, so `except Exception` lets it pass.
    """
