"""Where the members of a tar archive lie, from its headers alone (POSIX.1-1988 ustar, pax, and GNU's long names).

Python's `tarfile` gives the same for whole archives at a tenth of the speed, and takes an archive that is cut off
between two members for a whole one.
"""

from collections.abc import Callable, Iterator
from typing import NamedTuple

_BLOCK = 512
_MOST_HEADER = 1 << 20  # bytes of a long name or of pax records; real ones have hundreds


class Member(NamedTuple):
    """A file in an archive: its name, and where its bytes lie."""

    name: str
    offset: int
    size: int


class BrokenTar(Exception):
    """An archive that is cut off or damaged from some place on; all members before it have been given."""


def members(read: Callable[[int, int], bytes], size: int) -> Iterator[Member]:
    """The regular files of an archive in their order; the last may reach beyond the end of an archive that is cut off.

    Args:
        read: gives the bytes from an offset on, of some length.
        size: of the archive, bytes.

    Raises:
        BrokenTar: it is cut off or damaged.
    """
    at, name, length = 0, None, None
    while True:
        header = read(at, _BLOCK) if at < size else b""
        if len(header) < _BLOCK:
            raise BrokenTar("the archive is cut off")
        if header == bytes(_BLOCK):
            return
        _check(header, at)
        kind, declared = header[156:157], _number(header[124:136], at)
        offset = at + _BLOCK
        if kind in b"Lxg" and kind:
            if declared > _MOST_HEADER:
                raise BrokenTar(f"the header at byte {at} has no sensible length")
            content = read(offset, declared)
            if kind == b"L":
                name = _text(content)
            elif kind == b"x":
                name, length = _pax(content, name, length)
        else:
            actual = declared if length is None else length
            if kind in (b"0", b"\0", b"7"):
                yield Member(_name(header) if name is None else name, offset, actual)
            declared, name, length = actual, None, None
        at = offset + -(-declared // _BLOCK) * _BLOCK


def _check(header: bytes, at: int) -> None:
    """The sum of the header's bytes, its own field taken as blanks, must be what that field says."""
    total = sum(header) - sum(header[148:156]) + 8 * 32
    if total != _number(header[148:156], at):
        raise BrokenTar(f"the header at byte {at} is damaged")


def _number(field: bytes, at: int) -> int:
    """A number in octal digits, or GNU's of 8 GiB and more, in binary."""
    if field[0] == 0x80:
        return int.from_bytes(field[1:], "big")
    digits = field.strip(b" \0")
    try:
        return int(digits or b"0", 8)
    except ValueError:
        raise BrokenTar(f"the header at byte {at} is damaged") from None


def _name(header: bytes) -> str:
    prefix = _text(header[345:500]) if header[257:263] == b"ustar\0" else ""
    name = _text(header[:100])
    return f"{prefix}/{name}" if prefix else name


def _text(field: bytes) -> str:
    return field.split(b"\0", 1)[0].decode("utf-8", "surrogateescape")


def _pax(content: bytes, name: str | None, length: int | None) -> tuple[str | None, int | None]:
    """Name and size where pax records (`length key=value` and a line feed) give them."""
    while content:
        digits, _, _ = content.partition(b" ")
        if not digits.isdigit() or not 0 < int(digits) <= len(content):
            break
        record, content = content[len(digits) + 1 : int(digits) - 1], content[int(digits) :]
        key, _, value = record.partition(b"=")
        if key == b"path":
            name = value.decode("utf-8", "surrogateescape")
        elif key == b"size" and value.isdigit():
            length = int(value)
    return name, length
