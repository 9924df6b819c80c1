"""A web server on this machine that serves a file well, or in one of the ways in which servers fail."""

import threading
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self


@dataclass
class Served:
    """One address.

    Attributes:
        content: what is sent.
        ranges: whether a part of it may be asked for.
        cut_after: bytes after which the connection is closed, in each of the first `cuts` answers.
        stall_after: bytes after which nothing more comes, though the connection stays.
        pause: seconds between pieces of 1 KiB.
        length: whether the length is said before.
        status: another one than 200 is all that is sent.
        redirect: an address that the answer sends the client to.
        header_pause: seconds between the bytes of the headers.
        etag: names this version of the content.
    """

    content: bytes = b""
    ranges: bool = True
    cut_after: int | None = None
    cuts: int = 10**9
    stall_after: int | None = None
    pause: float = 0.0
    length: bool = True
    status: int = 200
    etag: str | None = '"one"'
    redirect: str | None = None
    header_pause: float = 0.0
    asked: list[str | None] = field(default_factory=list)


class FileServer:
    """Serves on 127.0.0.1 until the end of the `with`, from daemon threads."""

    def __init__(self) -> None:
        self.files: dict[str, Served] = {}
        self.released = threading.Event()
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._server.block_on_close = False
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: type[BaseException] | BaseException | TracebackType | None) -> None:
        self.released.set()
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def serve(self, name: str, content: bytes, **how: Any) -> str:
        """Put a file there; returns its address."""
        self.files[name] = Served(content, **how)
        return f"http://127.0.0.1:{self._server.server_address[1]}/{name}"

    def asked(self, name: str) -> list[str | None]:
        """The `Range` of each request for a file so far."""
        return self.files[name].asked

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        served = self.files.get(request.path.lstrip("/"), Served(status=404))
        wanted = request.headers.get("Range")
        served.asked.append(wanted)
        request.close_connection = True
        if served.redirect is not None:
            request.send_response(302)
            request.send_header("Location", served.redirect)
            request.end_headers()
            return
        if served.header_pause:
            for byte in b"HTTP/1.1 200 OK\r\nX-Slow: " + b"x" * 60_000:
                request.wfile.write(bytes([byte]))
                request.wfile.flush()
                if self.released.wait(served.header_pause):
                    return
        if served.status != 200:
            request.send_error(served.status)
            return
        start = 0
        if wanted and served.ranges and request.headers.get("If-Range") == served.etag:
            start = int(wanted.removeprefix("bytes=").rstrip("-"))
            if start >= len(served.content):
                request.send_error(416)
                return
        body = served.content[start:]
        request.send_response(206 if start else 200)
        if start:
            request.send_header("Content-Range", f"bytes {start}-{len(served.content) - 1}/{len(served.content)}")
        if served.length:
            request.send_header("Content-Length", str(len(body)))
        if served.etag:
            request.send_header("ETag", served.etag)
        request.end_headers()
        self._send(request, served, body)

    def _send(self, request: BaseHTTPRequestHandler, served: Served, body: bytes) -> None:
        if served.cut_after is not None and len(served.asked) <= served.cuts:
            body = body[: served.cut_after]
        if served.stall_after is not None:
            body = body[: served.stall_after]
        step = 1024 if served.pause else max(len(body), 1)
        for at in range(0, len(body), step):
            request.wfile.write(body[at : at + step])
            request.wfile.flush()
            if served.pause:
                self.released.wait(served.pause)
        if served.stall_after is not None:
            self.released.wait(20)
