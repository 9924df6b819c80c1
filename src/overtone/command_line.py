"""From words to a dataclass of options, with one clear line when they do not fit.

tyro does the parsing and the help; this module adds what it cannot know: which option was meant by one that does not
exist, constructor arguments such as `--model.args levels=2`, and errors of one line instead of boxes.
"""

import ast
import contextlib
import dataclasses
import difflib
import io
import re
import typing
from collections.abc import Iterator, Mapping, Sequence
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
    """The `options` that `words` ask for.

    Args:
        options: a dataclass; nested ones give options such as `--data.root`.
        words: the command line after the verb.
        prog: the command in the help.
        description: what the help says above the options.
        default: where the values that are not given come from; default: the dataclass's own.
        flag_pairs: `--flag` and `--no-flag` for every yes or no; without it, `--flag` alone (all are off by default).

    Raises:
        OvertoneError: an option that does not exist, a value that does not fit, something required that is missing.
        SystemExit: the help was asked for and has been printed.
    """
    _refuse_unknown(words, _option_names(options, flag_pairs), prog)
    settings = () if flag_pairs else (tyro.conf.FlagCreatePairsOff,)
    given: dict[str, Any] = {} if default is None else {"default": default}
    boxes = io.StringIO()
    try:
        with _REGISTRY, contextlib.redirect_stderr(boxes):
            chosen, left = tyro.cli(  # pyright: ignore[reportCallIssue] - `given` hides the default's type
                options,
                args=list(words),
                prog=prog,
                description=description,
                config=settings,
                return_unknown_args=True,
                **given,
            )
    except SystemExit as stop:
        if stop.code in (0, None):
            raise
        raise OvertoneError(f"{_message_in(boxes.getvalue())}; {prog} --help shows what it takes") from None
    if left:
        raise OvertoneError(
            f"{prog} does not know what to do with {' '.join(left)!r}; {prog} --help shows what it takes"
        )
    return chosen


def _option_names(options: Any, flag_pairs: bool, prefix: str = "") -> Iterator[str]:
    """Every option that a dataclass gives."""
    hints = typing.get_type_hints(options)
    for name in (field.name for field in dataclasses.fields(options)):
        hint = hints[name]
        if dataclasses.is_dataclass(hint):
            yield from _option_names(hint, flag_pairs, f"{prefix}{name}.")
            continue
        yield f"--{prefix}{name}".replace("_", "-")
        if hint is bool and flag_pairs:
            yield f"--{prefix}no-{name}".replace("_", "-")


def _refuse_unknown(words: Sequence[str], known: Iterator[str], prog: str) -> None:
    names = sorted(known)
    for word in words:
        option = word.partition("=")[0].replace("_", "-")
        if not word.startswith("--") or option in names or option in ("--", "--help"):
            continue
        # The last part alone may have been meant: --lr for --optim.lr.
        close = [name for name in names if name.rpartition(".")[2] == option.lstrip("-")]
        close += [name for name in difflib.get_close_matches(option, names, n=2) if name not in close]
        hint = f"did you mean {' or '.join(close[:3])}?" if close else f"{prog} --help lists the options"
        raise OvertoneError(f"{prog} has no option {word.partition('=')[0]}; {hint}")


def _message_in(boxes: str) -> str:
    """What tyro's box says, in one line, without the help text around it."""
    rows = [row.strip("│|").rstrip() for row in boxes.splitlines()]
    if "Required options" in boxes:
        missing = [row.strip() for row in rows if re.match(r" {5}\S", row)]
        missing = [row.replace(" PATH", " DIR") for row in missing if "--help" not in row]
        if missing:
            return f"missing: {', '.join(missing)}"
    said = []
    for row in rows:
        if re.match(r"^\s*[─-]{4,}", row):
            break
        if not row.startswith(("╭", "╰", "+")):
            said.append(row.strip())
    return " ".join(" ".join(said).split()).rstrip(".") or "the options do not fit"


@_REGISTRY.primitive_rule
def _constructor_arguments(kind: PrimitiveTypeInfo) -> PrimitiveConstructorSpec[Any] | None:
    """`--model.args levels=2 pool=avg`: any number of NAME=VALUE, replacing what the recipe has."""
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
    """A number, a tuple, true, false or none as what it is; everything else as text."""
    named = {"true": True, "false": False, "none": None}
    if text.lower() in named:
        return named[text.lower()]
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
