"""A web server on this machine that serves a folder with ranges, and fails in the ways in which stores fail."""

import threading
import time
from collections import Counter
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Self
from urllib.parse import unquote


class HttpStore:
    """Serves on 127.0.0.1 until the end of the `with`.

    Attributes:
        folder: what is served.
        asked: requests by (method, name).
        fail: called with name and number of the request (from 1); a status to answer with, or None.
        alter: called with name and body; gives the body to send.
        cut: names whose bodies end early, and after how many requests they no longer do.
        pause: seconds before each answer.
        ranges: whether parts may be asked for.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, self.asked = folder, Counter[tuple[str, str]]()
        self.fail: Callable[[str, int], int | None] = lambda name, number: None
        self.alter: Callable[[str, bytes], bytes] = lambda name, body: body
        self.cut: dict[str, int] = {}
        self.pause, self.ranges = 0.0, True
        owner = self

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                owner.answer(self)

            def do_HEAD(self) -> None:
                owner.answer(self)

            def log_message(self, *_: Any) -> None: ...

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads, self._server.block_on_close = True, False
        self.address = f"http://127.0.0.1:{self._server.server_address[1]}"
        self._thread = threading.Thread(target=self._server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)

    def answer(self, request: BaseHTTPRequestHandler) -> None:
        name = unquote(request.path.lstrip("/"))
        self.asked[request.command, name] += 1
        time.sleep(self.pause)
        status = self.fail(name, self.asked[request.command, name])
        path = self.folder / name
        if status is None and path.is_dir():
            links = "".join(f'<a href="{entry.name}">{entry.name}</a>' for entry in path.iterdir())
            self._send(request, 200, links.encode(), {})
        elif status is not None or not path.is_file():
            self._send(request, status or 404, b"", {})
        else:
            self._file(request, name, path)

    def _file(self, request: BaseHTTPRequestHandler, name: str, path: Path) -> None:
        body, headers = path.read_bytes(), {"ETag": f'"{path.stat().st_mtime_ns}"'}
        wanted, status = request.headers.get("Range"), 200
        if wanted and self.ranges:
            first, last = wanted.removeprefix("bytes=").split("-")
            headers["Content-Range"] = f"bytes {first}-{min(int(last), len(body) - 1)}/{len(body)}"
            body, status = body[int(first) : int(last) + 1], 206
        self._send(request, status, self.alter(name, body), headers, self.cut.get(name, 0))

    def _send(
        self, request: BaseHTTPRequestHandler, status: int, body: bytes, headers: dict[str, str], cuts: int = 0
    ) -> None:
        request.send_response(status)
        for key, value in {**headers, "Content-Length": str(len(body))}.items():
            request.send_header(key, value)
        request.end_headers()
        if request.command == "HEAD":
            return
        name = unquote(request.path.lstrip("/"))
        is_cut = self.asked["GET", name] <= cuts
        request.close_connection = True
        request.wfile.write(body[: len(body) // 2] if is_cut else body)
