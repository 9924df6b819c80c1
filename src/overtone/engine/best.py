"""The best network that a run folder holds, and its report."""

from pathlib import Path

from overtone.checkpoint import read_checkpoint, read_manifest
from overtone.engine import folder as files
from overtone.engine.state import State
from overtone.engine.summary import read_report
from overtone.errors import OvertoneError
from overtone.tasks.task import Report, Task


def restored_report(folder: Path, task: type[Task], state: State) -> tuple[Report | None, str | None]:
    """The best epoch's report, and what was lost: a damaged network or report is set aside."""
    try:
        if state.best_epoch:
            read_checkpoint(folder / files.BEST)
        report = read_report(folder, task)
        if report is None and state.best_score is not None:
            raise OvertoneError(f"{folder / files.REPORT} is gone")
        return report, None
    except OvertoneError as error:
        for name in (files.BEST, files.REPORT):
            if (folder / name).is_file():
                files.set_aside(folder / name)
        return None, f"{error}; it is set aside, and the next epoch counts as the best so far"


def kept_epoch(folder: Path) -> int | None:
    """The epoch that the best checkpoint is of; None where there is none."""
    path = folder / files.BEST
    return read_manifest(path).metrics.get("epoch") if path.is_file() else None
