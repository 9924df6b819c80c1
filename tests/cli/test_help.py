"""Help answers at once (it needs neither PyTorch nor timm) and shows how to use a verb."""

import json
import subprocess
import sys

import pytest

from overtone import __version__
from overtone.cli import VERBS
from overtone.recipes import list_recipes

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
