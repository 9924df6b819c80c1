"""`overtone report explorer`: the published rows and a user's runs, accuracy against cost, as one file."""

from collections import Counter
from pathlib import Path

from overtone import options
from overtone.checkpoint import write_text
from overtone.errors import OvertoneError
from overtone.reports.explorer import points
from overtone.serving.explorer_file import explorer_html
from overtone.verbs.console import note

EXPLORER = "explorer"


def report(chosen: options.Report) -> int:
    """Write the file.

    Returns:
        The exit code, 0.

    Raises:
        OvertoneError: the subject is not known, a folder is missing, or the file exists already.
    """
    if chosen.subject != EXPLORER:
        raise OvertoneError(f"there is no report on {chosen.subject!r}; give {EXPLORER}")
    out = chosen.out or Path(f"{EXPLORER}.html")
    if out.exists() and not chosen.overwrite:
        raise OvertoneError(f"{out} exists; give another --out, or --overwrite to replace it")
    for place in (*([] if chosen.runs is None else [chosen.runs]), *chosen.benchmarks):
        if not place.exists():
            raise OvertoneError(f"{place} does not exist; give a folder of runs, or one of overtone benchmark --out")
    found = points(chosen.runs, chosen.benchmarks)
    write_text(out, explorer_html(found))
    kinds = Counter(point.kind for point in found)
    note(f"{out}: {kinds['published']} published networks, {kinds['run']} runs")
    return 0
