"""Output of a verb: results to standard output, everything else to standard error."""

import json
import re
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table
from rich.text import Text

from overtone.errors import printable

_NUMBERS = re.compile(r"\[([-+\d.eEnul,\s]*)\]")  # digits, signs and null between brackets
_UNSEEN = re.compile("[\x7f-\x9f\u061c\u200e\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")
_WIDE = 10_000  # a pipe has no width: nothing is cut


def print_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, left: int = 1) -> None:
    """Print a table on standard output.

    Args:
        columns: the headings.
        rows: one sequence of cells per row; None is an empty cell.
        left: how many columns are text, which is set flush left; the others are figures.
    """
    table = Table(box=None, pad_edge=False, padding=(0, 2, 0, 0), header_style="bold")
    for index, column in enumerate(columns):
        justify = "left" if index < left else "right"
        table.add_column(column, justify=justify, no_wrap=index > 0, overflow="fold")
    for row in rows:
        table.add_row(*(Text("" if cell is None else printable(cell)) for cell in row))
    _stdout().print(table)


def print_tables(tables: Iterable[Any]) -> None:
    """Print the tables of a report (`tasks.task.Table`), each under its title."""
    for number, table in enumerate(tables):
        if number:
            print_line()
        if table.title:
            print_line(table.title)
        print_table(table.columns, table.rows, left=table.num_text)


def print_line(text: str = "") -> None:
    """Print a line on standard output."""
    _stdout().print(printable(text, lines=True), markup=False, highlight=False, soft_wrap=True)


def print_json(value: Any) -> None:
    """Print a value as JSON on standard output."""
    sys.stdout.write(as_json(value))


def as_json(value: Any) -> str:
    """A value as readable JSON: a list of numbers stays on one line, characters that a terminal obeys are escaped."""
    text = json.dumps(value, indent=2, ensure_ascii=False)
    text = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", text)  # JSON itself escapes those below a blank
    return _NUMBERS.sub(lambda found: f"[{' '.join(found[1].split())}]", text) + "\n"


def note(text: str) -> None:
    """Print a remark on standard error."""
    sys.stderr.write(f"{printable(text)}\n")


def warn(text: str) -> None:
    """Print a warning on standard error."""
    sys.stderr.write(f"overtone: warning: {printable(text)}\n")


@contextmanager
def progress(what: str, total: int) -> Iterator[Callable[[int], None]]:
    """Show progress on a terminal; elsewhere print nothing.

    Yields:
        A function to call with the number of items done so far.
    """
    if not sys.stderr.isatty():
        yield lambda done: None
        return
    columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=total)
        yield lambda done: bar.update(task, completed=done)


def _stdout() -> Console:
    return Console(width=None if sys.stdout.isatty() else _WIDE)
