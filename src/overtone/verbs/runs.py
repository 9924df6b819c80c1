"""`overtone runs`: the runs below a folder, their state and progress."""

from overtone.config import to_dict
from overtone.engine.log import duration
from overtone.errors import OvertoneError
from overtone.options import Runs
from overtone.reports.run_folders import overview, run_folders
from overtone.verbs.console import note, print_json, print_table


def runs(options: Runs) -> int:
    """Print the runs below a folder.

    Returns:
        The exit code, 0.

    Raises:
        OvertoneError: there is no such folder.
    """
    root = options.folder
    if not root.is_dir():
        raise OvertoneError(f"{root} is not a folder; give one with run folders in it: overtone runs DIR")
    found = [overview(folder, root) for folder in run_folders(root)]
    if options.json:
        print_json([to_dict(run) for run in found])
        return 0
    if not found:
        note(f"no runs in {root}")
        return 0
    print_table(
        ("run", "state", "recipe", "model", "score", "of epoch", "epochs", "time"),
        [
            (
                run.name,
                run.state,
                run.recipe,
                run.model,
                None if run.best_score is None else f"{run.best_score:.2f} {run.score_name}",
                run.best_epoch,
                f"{run.epoch}/{'?' if run.epochs is None else run.epochs}",
                duration(run.seconds),
            )
            for run in found
        ],
        left=4,
    )
    for run in found:
        if run.reason is not None and run.state in ("failed", "damaged"):
            note(f"{run.name}: {run.reason}")
    return 0
