"""The files of a form (multipart/form-data, RFC 7578) whose body is in memory; nothing goes to the disk."""

from typing import Any

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import MultipartParser, parse_options_header

_MOST_PARTS, _LONGEST_HEADER = 1000, 8192


class BadForm(ValueError):
    """A form that cannot be read; the message says why."""


def files_of(content_type: str, body: bytes) -> list[tuple[str, bytes]]:
    """Name and bytes of every file of a form; fields are left out.

    Raises:
        BadForm: it is damaged, or has too many parts.
    """
    boundary = parse_options_header(content_type)[1].get(b"boundary")
    if not boundary:
        raise BadForm("its Content-Type has no boundary")
    parts = _Parts()
    try:
        parser = MultipartParser(boundary, parts.callbacks())
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise BadForm("it is damaged") from error
    return parts.files


class _Parts:
    """What the parser finds, part by part."""

    def __init__(self) -> None:
        self.files: list[tuple[str, bytes]] = []
        self._count = 0
        self._begin()

    def callbacks(self) -> Any:
        """For the parser."""
        return {
            "on_part_begin": self._begin,
            "on_header_field": self._add_field,
            "on_header_value": self._add_value,
            "on_header_end": self._end_header,
            "on_part_data": self._add_data,
            "on_part_end": self._end,
        }

    def _begin(self) -> None:
        self._field, self._value, self._disposition = bytearray(), bytearray(), b""
        self._data: list[bytes] = []
        self._count += 1
        if self._count > _MOST_PARTS:
            raise BadForm(f"it has more than {_MOST_PARTS} parts")

    def _add_field(self, data: bytes, start: int, end: int) -> None:
        self._field += data[start:end]
        self._check()

    def _add_value(self, data: bytes, start: int, end: int) -> None:
        self._value += data[start:end]
        self._check()

    def _check(self) -> None:
        if len(self._field) + len(self._value) > _LONGEST_HEADER:
            raise BadForm("a header of it is too long")

    def _end_header(self) -> None:
        if self._field.lower() == b"content-disposition":
            self._disposition = bytes(self._value)
        self._field, self._value = bytearray(), bytearray()

    def _add_data(self, data: bytes, start: int, end: int) -> None:
        self._data.append(data[start:end])

    def _end(self) -> None:
        name = parse_options_header(self._disposition)[1].get(b"filename")
        if name is not None:
            self.files.append((name.decode("utf-8", "replace"), b"".join(self._data)))
