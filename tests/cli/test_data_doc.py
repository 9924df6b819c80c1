"""Every command of docs/data.md parses, and the columns that it names are those that a table is read by."""

import re
import shlex
from pathlib import Path

import pytest

from overtone.cli import main
from overtone.data.sources import table

DOCUMENT = (Path(__file__).parents[2] / "docs" / "data.md").read_text(encoding="utf-8")


def commands() -> list[list[str]]:
    blocks = re.findall(r"^```sh\n(.*?)^```", DOCUMENT, flags=re.M | re.S)
    lines = [line for block in blocks for line in block.splitlines()]
    cells = [
        cell for row in re.findall(r"^\|[^|]*\|(.*)\|$", DOCUMENT, flags=re.M) for cell in re.findall("`(.*?)`", row)
    ]
    return [shlex.split(line)[1:] for line in (*lines, *cells) if line.startswith("overtone ")]


@pytest.mark.parametrize("words", commands(), ids=" ".join)
def test_command(words, monkeypatch, tmp_path, capfd):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos").mkdir()
    (tmp_path / "labels.csv").touch()
    reached = []
    monkeypatch.setattr("overtone.cli._function", lambda verb: lambda *chosen: reached.append(chosen) or 0)
    assert main(words) == 0, capfd.readouterr().err
    if words[0] in ("train", "evaluate"):
        data = reached[0][0].data
        given = (str(data.root), str(data.table))
        named = ("photos", "labels.csv", "imagenet/val", "folder", "shards", "hf-dataset:owner/name")
        expected = {word for word in words if word in named or "shards" in word}
        assert {value.replace(":/", "://").replace(":///", "://") for value in set(given) - {"None"}} == expected


def test_commands_are_found():
    assert len(commands()) >= 12


def test_the_columns_are_those_of_the_code():
    rows = [
        row.split("|")[2] for row in re.findall(r"^\| (?:image|one label|several labels|split) \|.*$", DOCUMENT, re.M)
    ]
    named = [tuple(name for name in re.findall("`(.*?)`", cell) if not name.startswith("--")) for cell in rows]
    assert [names for names in named if names] == [table._IMAGE, table.LABEL_NAMES, table._LABELS, table._SPLIT]
