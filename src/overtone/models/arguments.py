"""Which constructor arguments a file, a recipe or the command line may choose, and within which limits.

A checkpoint, a run folder, an export and a repository of the Hugging Face Hub name the arguments that their network is
built with. None of them is trusted: an argument passes only if the family of the network declares it (`ARGUMENTS` in
the family's file) and the value is within the declared range. For timm's own networks it must be a plain value for a
parameter of the constructor. Nothing that fetches, opens or calls something ever passes.
"""

import inspect
import math
import re
from collections.abc import Callable, Mapping
from functools import lru_cache
from typing import Any, NamedTuple

import timm
import torch

from overtone.errors import OvertoneError
from overtone.models._families import family_of

MODEL_ARGS = "--model.args"
MAX_CLASSES, MAX_CHANNELS = 1 << 20, 1024


class Rule(NamedTuple):
    """What an argument may be.

    Attributes:
        wanted: the accepted values in words, such as "a number from 0.01 to 8".
        accepts: whether a plain value (no list, but a tuple) is one of them.
    """

    wanted: str
    accepts: Callable[[Any], bool]


def number(low: float, high: float) -> Rule:
    """A finite number, `low` and `high` included."""
    return Rule(f"a number from {low:g} to {high:g}", lambda value: _is_number(value) and low <= value <= high)


def whole(low: int, high: int, *, step: int = 1) -> Rule:
    """A whole number, `low` and `high` included, `step` apart from `low` on."""
    steps = "" if step == 1 else f" in steps of {step}"
    return Rule(
        f"a whole number from {low} to {high}{steps}",
        lambda value: _is_whole(value) and low <= value <= high and (value - low) % step == 0,
    )


def flag() -> Rule:
    """True or false."""
    return Rule("true or false", lambda value: isinstance(value, bool))


def choice(*values: str | int | None) -> Rule:
    """One of a few values."""
    return Rule(
        f"one of {', '.join('none' if value is None else str(value) or repr('') for value in values)}",
        lambda value: any(type(value) is type(known) and value == known for known in values),
    )


def several(item: Rule, shortest: int, longest: int) -> Rule:
    """A list of values that each follow a rule."""
    count = str(shortest) if shortest == longest else f"{shortest} to {longest}"
    return Rule(
        f"{count} values, each {item.wanted}",
        lambda value: isinstance(value, tuple) and shortest <= len(value) <= longest and all(map(item.accepts, value)),
    )


def either(*rules: Rule) -> Rule:
    """Whatever one of the rules accepts."""
    return Rule(" or ".join(rule.wanted for rule in rules), lambda value: any(rule.accepts(value) for rule in rules))


NONE = Rule("none", lambda value: value is None)
RATE = Rule("a number in [0, 1)", lambda value: _is_number(value) and 0 <= value < 1)

# Of every network, ours or timm's; a file may choose them, and on the command line they have options of their own.
COMMON: Mapping[str, Rule] = {
    "num_classes": whole(0, MAX_CLASSES),
    "in_chans": whole(1, MAX_CHANNELS),
    "drop_rate": RATE,
    "drop_path_rate": RATE,
}
_INSTEAD = {
    "num_classes": "the classes of the data set it (a list of them: --data.root, --data.table)",
    "in_chans": "images reach the network as RGB, so it stays 3",
    "features_only": "a network without its head has nothing to train; in Python: "
    "overtone.create_model(name, features_only=True)",
    "pretrained": "name the weights as --model.name architecture.tag or as --model.weights",
    "checkpoint_path": "name the file as --model.weights",
    "drop_rate": "use --model.drop-rate",
    "drop_path_rate": "use --model.drop-path-rate",
}


def checked_model_args(architecture: str, args: Any, where: str) -> dict[str, Any]:
    """The constructor arguments that someone else has chosen, after every one has passed.

    Args:
        architecture: a name that timm knows, ours or its own, with or without a tag.
        args: names and plain values.
        where: the file, or `MODEL_ARGS` for the option and for recipes, where arguments that have an option of their
            own (or none at all: `num_classes`, `in_chans`) are refused too.

    Returns:
        The arguments, lists as tuples.

    Raises:
        OvertoneError: `args` is no mapping, an argument that may not be chosen, or a value out of range; in one line
            with what to do.
    """
    if not isinstance(args, Mapping) or not all(isinstance(name, str) for name in args):
        raise OvertoneError(f"{where}: the arguments of {architecture} are no names with values; {_remedy(where)}")
    rules, checked = dict(COMMON) if where != MODEL_ARGS else {}, {}
    family = family_of(architecture)
    if args.keys() - COMMON.keys():
        rules |= dict(getattr(family, "ARGUMENTS", {})) if family is not None else _timm_rules(architecture)
        if where == MODEL_ARGS:
            rules = {name: rule for name, rule in rules.items() if name not in COMMON}
    for name, value in args.items():
        value = _tuples(value)
        rule = rules.get(name)
        if rule is None:
            raise OvertoneError(_not_allowed(architecture, name, rules, where))
        if not rule.accepts(value):
            shown = repr(value) if len(repr(value)) < 80 else f"{repr(value)[:80]}…"
            raise OvertoneError(f"{where}: {name} of {architecture} is {shown}; it must be {rule.wanted}")
        checked[name] = value
    return checked


def _not_allowed(architecture: str, name: str, rules: Mapping[str, Rule], where: str) -> str:
    name = name[:80]
    if where == MODEL_ARGS and name in _INSTEAD:
        return f"{where} {name} cannot be chosen for {architecture}: {_INSTEAD[name]}"
    known = ", ".join(sorted(rules)) or "none"
    return f"{where}: {architecture} takes no argument {name!r} that can be chosen; those are: {known}"


def _remedy(where: str) -> str:
    return "give NAME=VALUE" if where == MODEL_ARGS else "use another copy of the file"


# --- timm's own networks

# Parameters that fetch, open or call something, or are not about the structure of the network.
_NEVER = re.compile(
    r"pretrained.*|checkpoint_path|cache_dir|features_only|out_indices|device|dtype|.*_(cfg|url|file|dir)"
)
_DEPTHS = re.compile(r"depths?|layers|.*_(depths?|layers|blocks)|num_(blocks|stages)")
_WORD = re.compile(r"[A-Za-z][A-Za-z0-9_]{0,63}|")


def _timm_rules(architecture: str) -> dict[str, Rule]:
    return {
        name: _PLAIN_DEPTHS if _DEPTHS.fullmatch(name) else _PLAIN
        for name in _parameters(architecture.partition(".")[0])
        if not _NEVER.fullmatch(name) and name not in COMMON
    }


@lru_cache(maxsize=64)
def _parameters(architecture: str) -> tuple[str, ...]:
    """The named parameters of the entry point and of the constructor of one of timm's networks."""
    try:
        with torch.device("meta"):
            model = timm.create_model(architecture)
    except (RuntimeError, NotImplementedError):  # computes with numbers while it is built
        model = timm.create_model(architecture)
    named = [inspect.signature(timm.model_entrypoint(architecture)), inspect.signature(type(model).__init__)]
    variadic = inspect.Parameter.VAR_KEYWORD, inspect.Parameter.VAR_POSITIONAL
    found = [p.name for signature in named for p in signature.parameters.values() if p.kind not in variadic]
    return tuple(dict.fromkeys(name for name in found if name != "self"))


def _is_plain(value: Any) -> bool:
    if isinstance(value, str):  # a name of a layer, an activation or a pool: no path and no address
        return _WORD.fullmatch(value) is not None
    return value is None or isinstance(value, bool) or (_is_number(value) and abs(value) <= 8192)


def _is_small(value: Any) -> bool:
    return value is None or (_is_whole(value) and 0 <= value <= 256)


_SCALAR = Rule("a plain word, true, false, none or a number up to 8192", _is_plain)
_PLAIN = either(_SCALAR, several(_SCALAR, 0, 16))
_SMALL = Rule("a whole number from 0 to 256 or none", _is_small)
_PLAIN_DEPTHS = either(_SMALL, several(_SMALL, 1, 16))


def _is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: Any) -> bool:
    return _is_whole(value) or (isinstance(value, float) and math.isfinite(value))


def _tuples(value: Any) -> Any:
    """Lists as tuples, two levels deep; JSON knows lists only."""
    if isinstance(value, (list, tuple)):
        return tuple(tuple(item) if isinstance(item, list) else item for item in value[:4096])
    return value
