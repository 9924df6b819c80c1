"""The body of a request, read within bounds of bytes, memory and time; and the files in it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass

from fastapi import Request
from starlette.requests import ClientDisconnect

from overtone.serving.errors import Refused, busy
from overtone.serving.forms import BadForm, files_of
from overtone.serving.limits import Limits

_RAW = ("", "application/octet-stream", "application/x-www-form-urlencoded")  # the last: what curl says of any body
_NAME = 200  # characters of a file's name that are repeated in an answer


@dataclass(frozen=True)
class Upload:
    """A file of a request: its name, which may be empty, and its bytes."""

    name: str
    content: bytes


class Memory:
    """The bytes of all bodies that are held now."""

    def __init__(self, most: int) -> None:
        self.most, self.held = most, 0

    def take(self, count: int) -> None:
        """Hold so many more.

        Raises:
            Refused: 503, they would be too many.
        """
        if self.held and self.held + count > self.most:
            raise busy("the uploads of other requests fill the memory; try again", 1)
        self.held += count


class Reader:
    """Reads bodies.

    Args:
        limits: the bounds.
    """

    def __init__(self, limits: Limits) -> None:
        self._limits, self.memory = limits, Memory(limits.max_memory)

    @contextlib.asynccontextmanager
    async def body(
        self, request: Request, coming: Callable[[], contextlib.AbstractContextManager[None]]
    ) -> AsyncIterator[bytes]:
        """The whole body, for as long as its memory is counted.

        Args:
            request: of which nothing has been read.
            coming: gives the block in which the body is read.

        Raises:
            Refused: too large (413, before it is read where its length is given), too slow (408), no room (503).
        """
        held = self._announced(request)
        self.memory.take(held)
        parts = list[bytes]()
        try:
            read = 0
            with coming():
                async for part in self._parts(request):
                    read += len(part)
                    self._check(read)
                    if read > held:
                        self.memory.take(read - held)
                        held = read
                    parts.append(part)
            yield b"".join(parts)
        finally:
            self.memory.held -= held

    async def _parts(self, request: Request) -> AsyncIterator[bytes]:
        try:
            async with asyncio.timeout(self._limits.upload_s):
                async for part in request.stream():
                    yield part
        except TimeoutError as error:
            raise Refused(408, f"the body did not come within {self._limits.upload_s:g} s; send it again") from error
        except ClientDisconnect as error:
            raise Refused(400, "the client went before its body had come") from error

    def files(self, content_type: str, body: bytes) -> list[Upload]:
        """The images of a request: the body itself, or the files of a form.

        Raises:
            Refused: neither, too many, or a damaged form.
        """
        kind = content_type.partition(";")[0].strip().lower()
        if kind != "multipart/form-data":
            if kind not in _RAW and not kind.startswith("image/"):
                raise Refused(
                    415, f"{kind[:60]} is no image; send image/*, application/octet-stream or a form of files"
                )
            return [Upload("", body)]
        try:
            found = files_of(content_type, body)
        except BadForm as error:
            raise Refused(400, f"the form cannot be read: {error}") from error
        if not 1 <= len(found) <= self._limits.max_files:
            most = self._limits.max_files
            raise Refused(400, f"the form holds {len(found)} files; send 1 to {most}, such as -F image=@cat.jpg")
        return [Upload(name[:_NAME], content) for name, content in found]

    def _announced(self, request: Request) -> int:
        text = request.headers.get("content-length", "0")
        count = int(text) if text.isascii() and text.isdigit() else 0
        self._check(count)
        return count

    def _check(self, count: int) -> None:
        if count > self._limits.max_bytes:
            most = self._limits.max_bytes
            raise Refused(413, f"the body is larger than {most} bytes; send less", {"Connection": "close"})
