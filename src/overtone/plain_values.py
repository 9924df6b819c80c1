"""Dataclasses of settings as plain JSON values, and back: what recipes, checkpoints and exports store."""

import dataclasses
import types
import typing
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Literal, TypeVar

from overtone.errors import OvertoneError

T = TypeVar("T")


def to_dict(record: Any) -> Any:
    """Convert a dataclass to plain JSON values: dictionaries, lists, strings, numbers."""
    if dataclasses.is_dataclass(record) and not isinstance(record, type):
        return {f.name: to_dict(getattr(record, f.name)) for f in dataclasses.fields(record)}
    if isinstance(record, Mapping):
        return {str(key): to_dict(value) for key, value in record.items()}
    if isinstance(record, (list, tuple)):
        return [to_dict(value) for value in record]
    return str(record) if isinstance(record, Path) else record


def from_dict(cls: type[T], values: Any, **ready: Any) -> T:
    """Build the dataclass `cls` from what `to_dict` returned, with the fields in `ready` as they are.

    Raises:
        OvertoneError: no mapping, a key that `cls` does not have, or a value of the wrong kind or out of its range.
    """
    if not isinstance(values, Mapping):
        raise OvertoneError(f"{cls.__name__} is {_shortened(values)}; it must be a mapping of names to values")
    hints = typing.get_type_hints(cls)
    names = {field.name: field for field in dataclasses.fields(cls)}  # pyright: ignore[reportArgumentType]
    unknown = sorted(str(key) for key in set(values) - names.keys())
    if unknown:
        raise OvertoneError(
            f"{cls.__name__} has no field {', '.join(unknown)}; it was written by another version of overtone"
        )
    absent = [name for name, field in names.items() if name not in (*values, *ready) and _is_required(field)]
    if absent:
        raise OvertoneError(f"{cls.__name__} lacks {', '.join(absent)}; the file is incomplete")
    plain = {name: _from_plain(hints[name], value, f"{cls.__name__}.{name}") for name, value in values.items()}
    return cls(**plain | ready)


def _is_required(field: dataclasses.Field[Any]) -> bool:
    return field.default is field.default_factory is dataclasses.MISSING


def _shortened(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _from_plain(hint: Any, value: Any, where: str) -> Any:
    origin, args = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        words = [word for arg in args if typing.get_origin(arg) is Literal for word in typing.get_args(arg)]
        if value in words or (value is None and types.NoneType in args):
            return value
        return _from_plain(next(a for a in args if a is not types.NoneType), value, where)
    if dataclasses.is_dataclass(hint) and isinstance(hint, type):
        return from_dict(hint, value)
    if origin is tuple:
        return _tuple_from_plain(args, value, where)
    if origin is Literal:
        if value not in args:
            raise OvertoneError(f"{where} is {_shortened(value)}; it must be one of {', '.join(map(str, args))}")
        return value
    if hint is Any:
        return value
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return value if abs(value) > 2**1023 else float(value)
    if hint is Path and isinstance(value, str):
        return Path(value)
    kind: Any = origin or hint
    if not isinstance(value, kind) or (isinstance(value, bool) and kind is not bool):
        raise OvertoneError(f"{where} is {_shortened(value)}; it must be of type {kind.__name__}")
    return value


def _tuple_from_plain(args: tuple[Any, ...], value: Any, where: str) -> tuple[Any, ...]:
    if not isinstance(value, (list, tuple)):
        raise OvertoneError(f"{where} is {_shortened(value)}; it must be a list")
    kinds = args[:1] * len(value) if len(args) == 2 and args[1] is Ellipsis else args
    if len(kinds) != len(value):
        raise OvertoneError(f"{where} is {_shortened(value)}; it must have {len(kinds)} values")
    return tuple(_from_plain(kind, item, where) for kind, item in zip(kinds, value, strict=True))
