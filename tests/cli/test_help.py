"""Help answers at once (it needs neither PyTorch nor timm) and shows how to use a verb."""

import contextlib
import io
import json
import re
import shlex
import subprocess
import sys

import pytest

from overtone import __version__
from overtone.cli import GROUPS, VERBS, main
from overtone.recipes import list_recipes, recipe_document

HELP = [["--help"], *([verb, "--help"] for verb in VERBS), ["train", "scratch", "--help"], ["--version"]]


def test_help_imports_no_torch():
    script = (
        "import sys, json\n"
        "from overtone.cli import main\n"
        "codes = [main(words) for words in json.loads(sys.argv[1])]\n"
        "heavy = sorted({'torch', 'timm', 'numpy', 'PIL', 'matplotlib'} & set(sys.modules))\n"
        "assert codes == [0] * len(codes), codes\n"
        "assert not heavy, heavy\n"
    )
    done = subprocess.run([sys.executable, "-c", script, json.dumps(HELP)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("verb", VERBS)
def test_help_has_every_example(overtone, verb):
    outcome = overtone(verb, "--help")
    assert outcome.code == 0
    for example in VERBS[verb].examples:
        assert f"  {example}\n" in outcome.out


def test_the_overview_names_every_verb(overtone):
    assert all(f"  {verb} " in overtone("--help").out for verb in VERBS)
    assert overtone().out == overtone("--help").out


def test_train_help_lists_every_recipe(overtone):
    out = overtone("train", "--help").out
    assert all(f"  {name} " in out for name in list_recipes())


def test_recipe_help_shows_the_recipes_values(overtone):
    out = " ".join(overtone("train", "hornet_tiny_7x7_in1k", "--help").out.replace("│", " ").split())
    assert "Published result: top-1 82.8 %" in out
    assert "--optim.lr FLOAT Highest learning rate, for the recipe's batch size. (default: 0.004)" in out
    assert "--train.batch-size INT" in out and "(default: 4096)" in out
    assert "--run.out" in out


def test_version(overtone):
    assert overtone("--version").out == f"overtone {__version__}\n"


def test_recipe_help_keeps_the_lines_of_its_document(overtone):
    lines = overtone("train", "hbonet_in1k", "--help").out.splitlines()
    document = recipe_document("hbonet_in1k").splitlines()
    at = lines.index(document[0])
    assert lines[at + 1 : at + len(document)] == [f"  {line}" for line in document[2:]] + [""]
    for label in ("Source: ", "Command: ", "Published result: ", "Ours: ", "Deviations: "):
        assert sum(line.startswith(f"  {label}") for line in lines) == 1, label


def printed_examples() -> list[str]:
    """Every example that some help prints."""
    helps = [[], *[[group] for group in sorted(GROUPS)], ["train"], *[name.split() for name in VERBS]]
    helps += [["train", name] for name in list_recipes()]
    found: dict[str, None] = {}
    for words in helps:
        with contextlib.redirect_stdout(io.StringIO()) as out:
            assert main([*words, "--help"]) == 0
        block = re.search(r"^examples:\n((?:  .*\n)+)", out.getvalue(), flags=re.M)
        assert block is not None, words
        found |= dict.fromkeys(line.strip() for line in block[1].splitlines())
    return list(found)


def test_every_example_of_every_help_parses(overtone, monkeypatch, tmp_path):
    """Each reaches its verb, with every word understood; nothing is built, read or written."""
    (tmp_path / "photos").mkdir()
    monkeypatch.chdir(tmp_path)
    reached = []
    monkeypatch.setattr("overtone.cli._function", lambda verb: lambda *chosen: reached.append((verb, chosen)) or 0)
    monkeypatch.setattr("overtone.zoo.starting.fitted_to_weights", lambda recipe: recipe)
    examples = printed_examples()
    assert {example for verb in VERBS.values() for example in verb.examples} <= set(examples)
    for example in examples:
        program, *words = shlex.split(example.partition(" > ")[0])
        known = len(reached)
        outcome = overtone(*words)
        assert (program, outcome.code) == ("overtone", 0), f"{example}\n{outcome.err}"
        assert len(reached) == known + ("--help" not in words), example
