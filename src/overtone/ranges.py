"""Numbers with ranges: the types of every setting and option, and the one check of values.

A dataclass that derives from `Checked` annotates each number with one of the types below (`lr: NonNegative`). Its
values are checked when an instance is made, wherever it is made: the command line, Python, a checkpoint, a recipe.
NaN and infinities are in no range. A number without a range is a mistake in the class and raises `TypeError`, so that
no field can be added without one. Standard library only.
"""

import functools
import math
import numbers
import types
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Literal

from overtone.errors import OvertoneError

_LARGEST = 2**31 - 1  # of integers without a bound of their own: what counts of images, steps and cores fit into


@dataclass(frozen=True)
class Range:
    """The values that a number may take: finite, and within the bounds that are given."""

    at_least: float | None = None
    above: float | None = None
    at_most: float | None = None
    below: float | None = None

    def holds(self, value: float) -> bool:
        """Whether a finite value is within the bounds."""
        return (
            (self.at_least is None or value >= self.at_least)
            and (self.above is None or value > self.above)
            and (self.at_most is None or value <= self.at_most)
            and (self.below is None or value < self.below)
        )

    def __str__(self) -> str:
        """The rule as in "it must be …"."""
        lower = self.at_least if self.above is None else self.above
        upper = self.at_most if self.below is None else self.below
        if lower is not None and upper is not None:
            opening, closing = "[" if self.above is None else "(", "]" if self.below is None else ")"
            return f"in {opening}{_bound(lower)}, {_bound(upper)}{closing}"
        if self.at_least is not None:
            return "0 or more" if self.at_least == 0 else f"at least {_bound(self.at_least)}"
        if self.above is not None:
            return f"above {_bound(self.above)}"
        return "finite" if upper is None else f"{'at most' if self.below is None else 'below'} {_bound(upper)}"


Finite = Annotated[float, Range()]
NonNegative = Annotated[float, Range(at_least=0)]
Positive = Annotated[float, Range(above=0)]
Fraction = Annotated[float, Range(at_least=0, at_most=1)]
PositiveFraction = Annotated[float, Range(above=0, at_most=1)]
FractionBelowOne = Annotated[float, Range(at_least=0, below=1)]
InnerFraction = Annotated[float, Range(above=0, below=1)]
Percent = Annotated[float, Range(at_least=0, at_most=100)]
Seconds = Annotated[float, Range(above=0, at_most=366 * 24 * 3600)]
Minutes = Annotated[float, Range(above=0, at_most=366 * 24 * 60)]
Count = Annotated[int, Range(at_least=0)]
PositiveInt = Annotated[int, Range(at_least=1)]
Pixels = Annotated[int, Range(at_least=1, at_most=16_384)]
if TYPE_CHECKING:  # all that reads a size comes after it has been chosen
    AutoPixels = Pixels
else:
    AutoPixels = Pixels | Literal["auto"]
MaskIndex = Annotated[int, Range(at_least=0, at_most=65_535)]
Seed = Annotated[int, Range(at_least=0, at_most=2**63 - 1)]


class Checked:
    """Base of dataclasses whose values are checked when an instance is made.

    A subclass with a `__post_init__` of its own calls this one first. `section` stands before the names of the fields
    in messages: `class Optim(Checked, section="optim")`.
    """

    section: ClassVar[str] = ""

    def __init_subclass__(cls, section: str | None = None, **rest: Any) -> None:
        super().__init_subclass__(**rest)
        if section is not None:
            cls.section = section

    def __post_init__(self) -> None:
        """Refuse a number out of its range, and a word that is none of those to choose from.

        Raises:
            OvertoneError: names the field, its value and the rule.
            TypeError: a field holds a number for which the class gives no range.
        """
        prefix = f"{self.section}." if self.section else ""
        for name, hint in _fields_to_check(type(self)):
            _check(hint, getattr(self, name), f"{prefix}{name}")


def numbers_without_range(cls: type) -> list[str]:
    """Fields of a dataclass that hold a number, directly or within tuples and unions, for which no range is given."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return [name for name in cls.__dataclass_fields__ if _lacks_range(hints[name])]  # pyright: ignore


def require(holds: bool, name: str, value: Any, rule: str) -> None:
    """Refuse a value that breaks a rule about more than one field.

    Raises:
        OvertoneError: `holds` is false.
    """
    if not holds:
        raise OvertoneError(f"{name} is {value}; it must be {rule}")


@functools.cache
def _fields_to_check(cls: type) -> tuple[tuple[str, Any], ...]:
    missing = numbers_without_range(cls)
    if missing:
        raise TypeError(f"{cls.__name__} gives no range for {', '.join(missing)}; take a type of overtone.ranges")
    hints = typing.get_type_hints(cls, include_extras=True)
    fields = ((name, hints[name]) for name in cls.__dataclass_fields__)  # pyright: ignore
    return tuple((name, hint) for name, hint in fields if _is_checked(hint))


def _parts(hint: Any) -> Iterator[Any]:
    """The types that a union, a tuple or a list is made of."""
    if typing.get_origin(hint) in (typing.Union, types.UnionType, tuple, list):
        yield from (part for part in typing.get_args(hint) if part is not Ellipsis)


def _range_of(hint: Any) -> Range | None:
    if typing.get_origin(hint) is not Annotated:
        return None
    return next((extra for extra in hint.__metadata__ if isinstance(extra, Range)), None)


def _lacks_range(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        return _range_of(hint) is None and _lacks_range(hint.__origin__)
    return hint in (int, float) or any(_lacks_range(part) for part in _parts(hint))


def _is_checked(hint: Any) -> bool:
    if typing.get_origin(hint) is Annotated:
        return _range_of(hint) is not None or _is_checked(hint.__origin__)
    return typing.get_origin(hint) is Literal or any(_is_checked(part) for part in _parts(hint))


def _check(hint: Any, value: Any, name: str) -> None:
    origin = typing.get_origin(hint)
    if origin is Annotated:
        rule = _range_of(hint)
        if rule is None:
            _check(hint.__origin__, value, name)
        else:
            _check_number(value, hint.__origin__, rule, name)
    elif origin is Literal:
        choices = typing.get_args(hint)
        require(value in choices, name, repr(value), f"one of {', '.join(map(str, choices))}")
    elif origin in (typing.Union, types.UnionType):
        kinds = [part for part in _parts(hint) if part is not types.NoneType]
        is_none = value is None and len(kinds) < len(typing.get_args(hint))
        if not is_none and not any(_fits(kind, value) for kind in kinds[1:]):
            _check(kinds[0], value, name)
    elif origin in (tuple, list):
        parts = typing.get_args(hint)
        if not isinstance(value, (tuple, list)):
            raise OvertoneError(f"{name} is {value!r}; it must be a sequence")
        kinds = parts[:1] * len(value) if Ellipsis in parts or origin is list else parts
        require(len(value) == len(kinds), name, value, f"{len(kinds)} values")
        for kind, item in zip(kinds, value, strict=True):
            _check(kind, item, name)


def _fits(hint: Any, value: Any) -> bool:
    try:
        _check(hint, value, "")
    except OvertoneError:
        return False
    return isinstance(value, hint) if isinstance(hint, type) else True


def _check_number(value: Any, kind: type, rule: Range, name: str) -> None:
    wanted = numbers.Integral if kind is int else numbers.Real
    if isinstance(value, bool) or not isinstance(value, wanted):
        raise OvertoneError(f"{name} is {value!r}; it must be {'a whole number' if kind is int else 'a number'}")
    require(_is_finite(value, kind), name, value, f"finite, {rule}" if str(rule) != "finite" else "finite")
    require(rule.holds(value), name, value, str(rule))  # pyright: ignore[reportArgumentType] - it is a number
    if kind is int and rule.at_most is None and rule.below is None:
        require(value <= _LARGEST, name, value, f"at most {_LARGEST}")


def _is_finite(value: Any, kind: type) -> bool:
    try:
        return math.isfinite(value)
    except OverflowError:  # an integer beyond all floats
        return kind is int


def _bound(value: float) -> str:
    return str(value) if isinstance(value, int) else f"{value:g}"
