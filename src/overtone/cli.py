"""The command `overtone`: maps words to a verb's options, and exceptions to exit codes.

Exit codes: 0 success; 1 some images could not be read, or a defect of Overtone; 2 an error that the user can correct,
reported in one line; 75 a training was stopped by SIGTERM or SIGUSR1, and the same command resumes it; 130 stopped by
Ctrl-C; 141 the reader of the output has gone.

A verb's module is imported when the verb is called: `--help` needs no PyTorch.
"""

import functools
import importlib
import io
import os
import sys
import textwrap
import traceback
import warnings
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any

from overtone import __version__
from overtone.config import Recipe, Run
from overtone.errors import OvertoneError, Preempted, ReportedElsewhere, did_you_mean, printable
from overtone.failures import correctable
from overtone.recipes import check_start, list_recipes, load_recipe, needs_weights, recipe_document
from overtone.verb_table import GROUPS, VERBS, Verb


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code.

    Args:
        argv: the words after `overtone`; default: those of this process.
    """
    words = list(sys.argv[1:] if argv is None else argv)
    debug = "--debug" in words
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):  # a terminal whose encoding lacks a character shows its escape
            stream.reconfigure(errors="backslashreplace")
    try:
        with warnings.catch_warnings():
            warnings.showwarning = functools.partial(_show_warning, debug=debug)
            code = run([word for word in words if word != "--debug"])
        sys.stdout.flush()
        return code
    except KeyboardInterrupt:
        return _report("stopped", 130, debug)
    except Preempted as stop:
        return _report(f"stopped by {stop}; the same command resumes it", 75, debug)
    except BrokenPipeError:
        # The reader (`| head`) has gone; what is still in the buffer has nowhere to go at exit either.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 141
    except ReportedElsewhere as error:
        return _report(str(error), 2, debug) if debug else 2
    except Exception as error:
        message = str(error) if isinstance(error, OvertoneError) else correctable(error)
        if message is not None:
            return _report(message, 2, debug)
        return _report(f"internal error: {type(error).__name__}: {error}; run again with --debug", 1, debug)


def run(words: Sequence[str]) -> int:
    """Run one command and return its exit code; errors are raised."""
    if any("\0" in word for word in words):
        raise OvertoneError("an argument holds a NUL character, which no path and no value can have; remove it")
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_overview())
        return 0
    if words[0] == "--version":
        sys.stdout.write(f"overtone {__version__}\n")
        return 0
    name, rest = _verb_in(words)
    if name in GROUPS:
        sys.stdout.write(_group_overview(name))
        return 0
    try:
        special = {"train": _train, "tune-lr": _tune_lr, "launch slurm": _launch_slurm}
        return special[name](rest) if name in special else _call(name, rest)
    except SystemExit as stop:  # --help
        return stop.code if isinstance(stop.code, int) else 0


def _verb_in(words: Sequence[str]) -> tuple[str, list[str]]:
    """Split off the verb, which may be two words; a group alone where its help is requested."""
    name, rest = words[0], list(words[1:])
    if name not in GROUPS:
        if name not in VERBS:
            known = list(dict.fromkeys(verb.split()[0] for verb in VERBS))
            raise OvertoneError(f"there is no verb {name!r}; {did_you_mean(name, known, 'overtone --help lists them')}")
        return name, rest
    if not rest or rest[0] in ("-h", "--help"):
        return name, []
    whole = f"{name} {rest[0]}"
    if whole not in VERBS:
        kinds = [verb.partition(" ")[2] for verb in VERBS if verb.startswith(f"{name} ")]
        otherwise = f"overtone {name} has {', '.join(kinds)}"
        raise OvertoneError(f"there is no verb {whole!r}; {did_you_mean(rest[0], kinds, otherwise)}")
    return whole, rest[1:]


def _call(name: str, words: list[str]) -> int:
    chosen = _parse(name, words)
    return _function(VERBS[name].function)(chosen)


def _parse(name: str, words: list[str]) -> Any:
    from overtone import command_line, options

    verb = VERBS[name]
    return command_line.parse(
        getattr(options, verb.options),
        words,
        prog=f"overtone {name}",
        description=f"{verb.summary}\n\n{_block(verb.examples)}" + (f"\n\n{verb.notes}" if verb.notes else ""),
    )


def _launch_slurm(words: list[str]) -> int:
    """Parse both halves of the command line now, so that a mistake is found before the job waits in the queue."""
    if words[:1] == ["predict"]:
        own, predicted = _split_prediction(words[1:])
        chosen = _parse("launch slurm", ["predict", *own])
        return _function("overtone.verbs.launch:launch_prediction")(chosen, _parse("predict", predicted), predicted)
    own, trained = _split_training(words)
    chosen = _parse("launch slurm", own)
    if chosen.folder is not None:
        from overtone.options import TABLES

        option = "--data.table" if chosen.folder.suffix.lower() in TABLES else "--data.root"
        trained = [*trained, option, str(chosen.folder)]
    training = _parse_training(chosen.recipe, trained, load_recipe(chosen.recipe))
    check_start(chosen.recipe, training)
    _check_data(training)
    return _function(VERBS["launch slurm"].function)(chosen, training, trained)


def _split_training(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split into the launch's own words and those of the training: options with a dot in their name, and values."""
    own: list[str] = []
    trained: list[str] = []
    kind = own
    for word in words:
        if word.startswith("--") or word == "-h":
            kind = trained if "." in word.partition("=")[0] else own
        kind.append(word)
    return own, trained


def _split_prediction(words: Sequence[str]) -> tuple[list[str], list[str]]:
    """Split into the launch's own options, with their values, and the words of the prediction."""
    from overtone.options import LaunchSlurm

    names = {f"--{field.name}".replace("_", "-") for field in fields(LaunchSlurm)}
    own: list[str] = []
    predicted: list[str] = []
    kind = predicted
    for word in words:
        if word.startswith("-"):
            kind = own if word.partition("=")[0] in names | {"-h", "--help"} else predicted
        kind.append(word)
    return own, predicted


def _tune_lr(words: list[str]) -> int:
    verb = VERBS["tune-lr"]
    if words and words[0] not in ("-h", "--help"):
        return _train(words, verb)
    usage = "usage: overtone tune-lr [RECIPE] DIR|TABLE [OPTIONS]"
    sys.stdout.write(f"{usage}\n\n{verb.summary}\n\n{_block(verb.examples)}\n\n{textwrap.fill(verb.notes, 100)}\n")
    return 0


def _train(words: list[str], verb: Verb = VERBS["train"]) -> int:
    if not words or words[0] in ("-h", "--help"):
        sys.stdout.write(_train_overview())
        return 0
    name, words = _recipe_in(["--run.resume" if word == "--resume" else word for word in words])
    training = _parse_training(name, words, load_recipe(name))
    _check_data(training)
    if needs_weights(name):
        check_start(name, training)
        # Values not given on the command line come from the weights: a network that fits them, and its preprocessing.
        from overtone.zoo.starting import fitted_to_weights

        training = _parse_training(name, words, fitted_to_weights(training))
    recipe = Recipe(**{field.name: getattr(training, field.name) for field in fields(Recipe)})
    _function(verb.function)(recipe, training.run, name)
    return 0


def _recipe_in(words: list[str]) -> tuple[str, list[str]]:
    """Return the recipe's name and the other words; without a name: `finetune` where there are weights, or `scratch`.

    Raises:
        OvertoneError: the first word is neither a recipe nor a folder.
    """
    first, recipes = words[0], list_recipes()
    if first in recipes:
        return first, words[1:]
    if first.startswith("-") or "/" in first or os.sep in first or Path(first).exists():
        weights = any(word.partition("=")[0] == "--model.weights" for word in words)
        return "finetune" if weights else "scratch", words
    hint = did_you_mean(first, recipes, "overtone train --help lists the recipes")
    raise OvertoneError(f"there is no recipe {first!r} and no folder of that name; {hint}")


def _check_data(training: Any) -> None:
    if training.data.root is None and training.data.table is None:
        raise OvertoneError(
            "no images are given; add a folder of class folders or a table of labels: DIR, --data.root DIR or "
            "--data.table FILE"
        )


def _parse_training(name: str, words: list[str], recipe: Any) -> Any:
    from overtone import command_line
    from overtone.options import Training

    values = {field.name: getattr(recipe, field.name) for field in fields(Recipe)}
    default = Training(**values, run=getattr(recipe, "run", Run()))
    start = " --model.weights hbonet_x100.dli14_in1k" if needs_weights(name) else ""
    examples = (f"overtone train {name} photos{start} --train.epochs 5 --run.out runs/a",)
    summary, _, lines = recipe_document(name).partition("\n")
    # Lines that begin with a blank are kept as they are; others would be filled up to one paragraph.
    description = f"{summary}\n{textwrap.indent(lines.strip(), '  ')}\n\n{_block(examples)}"
    return command_line.parse(
        Training, words, prog=f"overtone train {name}", description=description, default=default, flag_pairs=True
    )


def _function(place: str) -> Callable[..., Any]:
    module, _, function = place.partition(":")
    return getattr(importlib.import_module(module), function)


def _group_overview(group: str) -> str:
    verbs = {name: verb for name, verb in VERBS.items() if name.startswith(f"{group} ")}
    examples = _block(tuple(verb.examples[0] for verb in verbs.values()))
    return f"usage: overtone {group} VERB [OPTIONS]\n\nverbs:\n{_listed(verbs)}\n\n{examples}\n"


def _listed(verbs: Mapping[str, Verb]) -> str:
    width = max(map(len, verbs)) + 2
    return "\n".join(f"  {name:<{width}}{verb.summary}" for name, verb in verbs.items())


def _overview() -> str:
    verbs = _listed(VERBS)
    examples = _block(tuple(verb.examples[0] for verb in VERBS.values()))
    return (
        "usage: overtone VERB [OPTIONS]\n\n"
        "MobileNetV2, HBONet, Harmonic Networks and HorNet: train, evaluate and use them on your own images.\n\n"
        f"verbs:\n{verbs}\n\n{examples}\n\n"
        "options:\n  VERB --help   options and examples of a verb\n  --version     version of overtone\n"
        "  --debug       show where an error comes from\n"
    )


def _train_overview() -> str:
    recipes = list_recipes()
    width = max(map(len, recipes)) + 2
    lines = "\n".join(f"  {name:<{width}}{summary}" for name, summary in recipes.items())
    verb = VERBS["train"]
    return (
        f"usage: overtone train [RECIPE] DIR|TABLE [OPTIONS]\n\n{verb.summary}\n\nrecipes:\n{lines}\n\n"
        f"{_block(verb.examples)}\n\n"
        "Every value of a recipe is an option: overtone train RECIPE --help shows them all.\n"
        "Without RECIPE: finetune if --model.weights is given, otherwise scratch.\n"
        "The same command with the same --run.out resumes a run that was stopped; --resume requires one.\n"
        "SIGTERM and SIGUSR1 save and stop a training within 30 s, with exit code 75; Ctrl-C does too, with 130.\n"
    )


def _block(examples: Sequence[str]) -> str:
    return "examples:\n" + "\n".join(f"  {example}" for example in examples)


def _show_warning(
    message: Warning | str,
    category: type[Warning],
    filename: str,
    lineno: int,
    file: Any = None,
    line: str | None = None,
    *,
    debug: bool,
) -> None:
    """Print a warning in one line; its category if it is about code, its origin with --debug."""
    kind = "" if issubclass(category, UserWarning) else f"{category.__name__}: "
    where = f" ({filename}:{lineno})" if debug else ""
    sys.stderr.write(f"overtone: warning: {kind}{printable(' '.join(str(message).split()))}{where}\n")


def _report(message: str, code: int, debug: bool) -> int:
    if debug:
        traceback.print_exc()
    sys.stderr.write(f"overtone: error: {printable(' '.join(message.split()))}\n")
    return code
