"""Every command of docs/deploying.md is understood, and what it says of the bounds and the runtimes holds."""

import re
import shlex
from pathlib import Path

from overtone.deployment.parity import bound_of
from overtone.deployment.runtimes import RUNTIMES

DOCUMENT = (Path(__file__).parents[2] / "docs" / "deploying.md").read_text(encoding="utf-8")


def test_every_command_is_understood(overtone, monkeypatch):
    reached = []
    monkeypatch.setattr("overtone.cli._function", lambda verb: lambda *chosen: reached.append(chosen) or 0)
    commands = re.findall(r"^\$ overtone (.*)$", DOCUMENT, flags=re.M)
    assert len(commands) >= 8
    for command in commands:
        outcome = overtone(*shlex.split(command))
        assert outcome.code == 0, f"{command}\n{outcome.err}"
    assert len(reached) == len(commands)


def test_the_table_of_precisions_is_that_of_the_runtimes():
    rows = re.findall(r"^\| `(\w+)`[^|]*\|[^|]*\|([^|]*)\|([^|]*)\|([^|]*)\|$", DOCUMENT, flags=re.M)
    assert {row[0] for row in rows} == set(RUNTIMES)
    for name, *cells in rows:
        for precision, cell in zip(("float32", "bfloat16", "int8"), cells, strict=True):
            assert (precision in RUNTIMES[name].precisions) == (not cell.strip().startswith("no")), (name, precision)


def test_the_table_of_bounds_is_that_of_the_check():
    rows = re.findall(r"^\| ([^|]+) \| ([\de.-]*) ?\| ([\d.]*) ?\| ([^|]+) \|$", DOCUMENT, flags=re.M)
    kinds = {"float32": ("float32", "normalised"), "float32 with the resize in the graph": ("float32", "image")}
    stated = {row[0]: row[1:] for row in rows}
    assert len(stated) == 4
    for name, (largest, rms, agreement) in stated.items():
        bound = bound_of(*kinds.get(name, (name.split(",")[0], "normalised")))
        assert bound.largest == (float(largest) if largest else None)
        assert bound.rms == (float(rms) if rms else None)
        assert bound.agreement == (1 if agreement == "all images" else float(agreement.rstrip(" %")) / 100)
