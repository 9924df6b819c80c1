"""A file of results, one of each network on each processor."""

import json
from pathlib import Path

from naive import NAMES


def keep(path: Path, about: dict, result: dict) -> None:
    """Write a result into a file, in the place of an earlier one of that network on such a processor.

    Args:
        path: the file; it need not be there.
        about: the machine, as `overtone.verbs.benchmark_report.machine` describes it.
        result: what was found; `model` is the network.
    """
    found = {**result, "machine": about}
    earlier = json.loads(path.read_text(encoding="utf-8")) if path.is_file() else []
    kept = [one for one in earlier if _place(one) != _place(found)]
    path.write_text(json.dumps(sorted([*kept, found], key=_place), indent=1) + "\n", encoding="utf-8")


def _place(result: dict) -> tuple[str, int]:
    return result["machine"]["processor"], NAMES.index(result["model"])
