"""`overtone report`: a run, or the explorer of many networks, as one HTML file."""

from collections import Counter
from pathlib import Path

from overtone import options
from overtone.checkpoint import write_text
from overtone.engine import folder as files
from overtone.errors import OvertoneError
from overtone.reports.calibrating import calibrate
from overtone.reports.explorer import points
from overtone.reports.run_report import write_run_report
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
    is_explorer = chosen.subject == EXPLORER
    folder = Path(chosen.subject)
    if not is_explorer and not folder.is_dir():
        raise OvertoneError(f"there is no run folder {chosen.subject!r} to report on; give one, or {EXPLORER}")
    out = chosen.out or (Path(f"{EXPLORER}.html") if is_explorer else folder / files.HTML)
    if out.exists() and not chosen.overwrite:
        raise OvertoneError(f"{out} exists; give another --out, or --overwrite to replace it")
    for place in (*([] if chosen.runs is None else [chosen.runs]), *chosen.benchmarks):
        if not place.exists():
            raise OvertoneError(f"{place} does not exist; give a folder of runs, or one of overtone benchmark --out")
    return _explorer(chosen, out) if is_explorer else _run(chosen, folder, out)


def _explorer(chosen: options.Report, out: Path) -> int:
    found = points(chosen.runs, chosen.benchmarks)
    write_text(out, explorer_html(found))
    kinds = Counter(point.kind for point in found)
    note(f"{out}: {kinds['published']} published networks, {kinds['run']} runs")
    return 0


def _run(chosen: options.Report, folder: Path, out: Path) -> int:
    data = chosen.data.as_data() if chosen.data.is_given else None
    if chosen.calibrate:
        note(calibrate(folder, data, chosen.device))
    for line in write_run_report(folder, out, data=data, device=chosen.device, benchmarks=chosen.benchmarks):
        note(line)
    note(f"{out} written")
    return 0
