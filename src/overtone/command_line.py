"""From words to a dataclass of options, with an error of one line where they do not fit.

tyro parses and prints the help. This module turns its boxed errors into one line and adds constructor arguments such
as `--model.args levels=2`.
"""

import ast
import contextlib
import io
import re
import typing
from collections.abc import Mapping, Sequence
from typing import Any, TypeVar

import tyro
from tyro.constructors import ConstructorRegistry, PrimitiveConstructorSpec, PrimitiveTypeInfo

from overtone.errors import OvertoneError

T = TypeVar("T")
_REGISTRY = ConstructorRegistry()


def parse(
    options: type[T],
    words: Sequence[str],
    *,
    prog: str,
    description: str,
    default: T | None = None,
    flag_pairs: bool = False,
) -> T:
    """Parse `words` into an instance of `options`.

    Args:
        options: a dataclass; nested ones give options such as `--data.root`.
        words: the command line after the verb.
        prog: the command in the help.
        description: the help above the options.
        default: source of the values that are not given; default: the defaults of the dataclass.
        flag_pairs: `--flag` and `--no-flag` for every boolean; otherwise `--flag` alone (all are off by default).

    Raises:
        OvertoneError: an unknown option, a value that does not fit, or something required that is missing.
        SystemExit: the help was requested and has been printed.
    """
    settings = () if flag_pairs else (tyro.conf.FlagCreatePairsOff,)
    given: dict[str, Any] = {} if default is None else {"default": default}
    box = io.StringIO()
    try:
        with _REGISTRY, contextlib.redirect_stderr(box):
            return tyro.cli(  # pyright: ignore[reportCallIssue] - `given` hides the default's type
                options, args=list(words), prog=prog, description=description, config=settings, **given
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise OvertoneError(_message_in(box.getvalue(), prog)) from None


def _message_in(box: str, prog: str) -> str:
    """Rewrite tyro's box as one line.

    Its first part, up to a rule, is the error; a part "Perhaps you meant" lists options, each at the start of a line.
    """
    rows = [re.sub(r"^[│|+] ?|[│|+]$", "", row).rstrip() for row in box.splitlines() if row[:1] not in "╭╰"]
    parts = re.split(r"\n *[─-]{4,}\n", "\n".join(rows))
    error = " ".join(parts[0].split()).rstrip(".")
    see = f"{prog} --help shows its options"
    if error.startswith("Missing from"):
        missing = [row.strip() for row in rows if re.match(r" {4}\S", row) and "--help" not in row]
        return f"missing: {', '.join(missing).replace(' PATH', ' DIR')}; {see}"
    unknown = re.match(r"Unrecognized options: ([^ ]+)", error)
    if unknown is None:
        return f"{error or 'the options do not fit'}; {see}"
    word = unknown[1].rstrip(",")
    if not word.startswith("--"):
        return f"{prog} does not take {word!r}; {see}"
    close = re.findall(r"^ {4}(--\S+)", "\n".join(parts[1:]), flags=re.M)
    # The last part alone may have been meant: --lr for --optim.lr.
    exact = [name for name in close if name.rpartition(".")[2] == word.lstrip("-").replace("_", "-")]
    hint = f"did you mean {' or '.join((exact or close)[:3])}?" if close else see
    return f"{prog} has no option {word}; {hint}"


@_REGISTRY.primitive_rule
def _constructor_arguments(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """Parse `--model.args levels=2 pool=avg`: any number of NAME=VALUE, replacing those of the recipe."""
    if typing.get_origin(kind.type) is not Mapping:
        return None
    return PrimitiveConstructorSpec(
        nargs="*",
        metavar="NAME=VALUE …",
        instance_from_str=_mapping_of,
        is_instance=lambda value: isinstance(value, Mapping),
        str_from_instance=lambda value: [f"{name}={item}" for name, item in value.items()],
    )


def _mapping_of(words: list[str]) -> dict[str, Any]:
    pairs = {}
    for word in words:
        name, equals, value = word.partition("=")
        if not equals or not name.isidentifier():
            raise ValueError(f"{word!r} is not NAME=VALUE")
        pairs[name] = _literal(value)
    return pairs


def _literal(text: str) -> Any:
    """Parse a number, a tuple, true, false or none; everything else stays text."""
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError, MemoryError, RecursionError):
        return text
