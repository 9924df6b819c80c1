"""Every command of docs/training.md parses, and every option and file in it exists."""

import re
import shlex
from pathlib import Path

import pytest

from overtone.cli import main
from overtone.engine import folder as files

DOCUMENT = (Path(__file__).parents[2] / "docs" / "training.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.replace("\\\n", " ").splitlines()]
    found = []
    for line in lines:
        words = shlex.split(line)
        if words[0] == "torchrun":
            words = words[words.index("-m") + 1 :]
        if words[0] == "overtone":
            found.append(words[1:])
    return found


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command(words, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    reached = []
    monkeypatch.setattr("overtone.cli._function", lambda verb: lambda *chosen: reached.append(chosen) or 0)
    assert main(words) == 0, capfd.readouterr().err
    assert len(reached) == ("--help" not in words)


def test_options_of_a_recipe(monkeypatch, capfd):
    """The last table's options, all at once."""
    monkeypatch.setattr("overtone.cli._function", lambda verb: lambda *chosen: 0)
    cells = re.findall(r"^\| (`--.*?) \|", DOCUMENT, flags=re.M)
    words = [word for cell in cells for option in re.findall(r"`(.*?)`", cell) for word in option.split()]
    assert len(cells) == 20
    assert main(["train", "scratch", "--data.root", "photos", *words]) == 0, capfd.readouterr().err


def test_options_in_the_text(capfd):
    main(["train", "scratch", "--help"])
    main(["launch", "slurm", "--help"])
    known = capfd.readouterr().out
    text = re.sub(r"^```.*?^```", "", DOCUMENT, flags=re.M | re.S)
    named = set(re.findall(r"`(--[a-z][a-z.-]+)", text)) - {"--requeue", "--max-restarts", "--json"}
    missing = {name for name in named if name not in known.replace("--run.tensorboard, ", "")}
    assert not missing and len(named) > 15


def test_files_of_the_run_folder():
    table = set(re.findall(r"`([a-z_]+(?:(?:\.[a-z]+)+|/))`", DOCUMENT))
    of_the_code = {value for name, value in vars(files).items() if name.isupper() and isinstance(value, str)}
    of_the_code -= {files.SUFFIX, files.LOCK, files._DAMAGED}
    assert of_the_code >= {files.SAMPLES, files.REPORT, files.OLD_SPLIT, files.OLD_REPORT}
    assert {name.rstrip("/") for name in table} >= of_the_code
