"""One file from one address into a temporary file: resumed where the server can, and bounded in bytes and in time."""

import json
import os
import threading
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import urljoin

from overtone.errors import OvertoneError
from overtone.plain_json import parse_json

Progress = Callable[[int, int | None], None]
TIMEOUT_S = 30.0
_SLOWEST = 16 << 10  # bytes per second over the whole file; below that an address is given up
_GRACE_S = 120.0
_BLOCK = 1 << 18
_ATTEMPTS = 4  # at one address, as long as each adds bytes to the file


class DownloadFailed(Exception):
    """An address did not give the file; the message says why. What arrived is kept for the next attempt."""


class TooSlow(DownloadFailed):
    """The time for the whole file has passed, whatever still arrives; another attempt would not help."""


class _Bounds(NamedTuple):
    max_bytes: int
    timeout: float
    ends: float  # on the monotonic clock

    def check_time(self, done: int) -> None:
        if time.monotonic() > self.ends:
            raise TooSlow(f"too slow: {done} bytes when its time was over")


def download(
    url: str,
    part: Path,
    *,
    max_bytes: int,
    timeout: float = TIMEOUT_S,
    deadline: float | None = None,
    progress: Progress | None = None,
) -> None:
    """Fetch an address into `part`, resuming what is there if it is of the same file.

    Args:
        url: http or https; a redirect to anything else is refused.
        part: the temporary file; every byte is written as it arrives. Beside it is `part` + `.json`, which says what
            it is a part of.
        max_bytes: the most that is taken from the server.
        timeout: seconds without a byte after which the attempt ends.
        deadline: seconds for the whole file; None: two minutes, and a second more for each 16 KiB of `max_bytes`.
        progress: called with the bytes there are and the bytes there will be, if the server says.

    Raises:
        DownloadFailed: no connection, a refusal, a cut, too much data, too slow.
        OvertoneError: the file cannot be written.
    """
    if not _is_web(url):
        raise DownloadFailed(f"{url} is not a web address")
    allowed = _GRACE_S + max_bytes / _SLOWEST if deadline is None else deadline
    bounds = _Bounds(max_bytes, timeout, time.monotonic() + allowed)
    before = 0
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _attempt(url, part, bounds, progress)
            return
        except TooSlow:
            raise
        except DownloadFailed:
            there = part.stat().st_size if part.is_file() else 0
            if there <= before or attempt == _ATTEMPTS:
                raise
            before = there
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadFailed(f"the server answered {error.code} {error.reason}") from error
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            raise DownloadFailed(_reason(error)) from error


def _attempt(url: str, part: Path, bounds: _Bounds, progress: Progress | None) -> None:
    start, validator, expected = _resumable(url, part)
    if start and start == expected:
        return  # whole already: the process ended before it could be verified
    try:
        response = _requested(url, bounds, {"Range": f"bytes={start}-", "If-Range": validator} if start else {})
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()  # there is no such byte: the file is another one now
        start, response = 0, _requested(url, bounds, {})
    with response:
        start = start if _continues(response, start) else 0
        total = _total(response, start)
        if total is not None and total > bounds.max_bytes:
            raise DownloadFailed(f"it offers {total} bytes, far more than the file can have")
        _remember(url, part, response, total)
        _receive(response, part, start, total, bounds, progress)


# --- the request


def _is_web(url: str) -> bool:
    return url.lower().startswith(("http://", "https://"))


class _OnlyWeb(urllib.request.HTTPRedirectHandler):
    """Follows redirects to http and https; urllib would follow one to ftp too."""

    def http_error_302(self, req: Any, fp: Any, code: int, msg: str, headers: Any) -> Any:
        target = urljoin(req.full_url, headers.get("location") or headers.get("uri") or "")
        if not _is_web(target):
            fp.close()
            raise DownloadFailed(f"it redirects to {target[:200]!r}, which is not a web address")
        return super().http_error_302(req, fp, code, msg, headers)

    http_error_301 = http_error_303 = http_error_307 = http_error_308 = http_error_302


def _requested(url: str, bounds: _Bounds, headers: dict[str, str]) -> HTTPResponse:
    """The response with its headers.

    A server may send these so slowly that no time-out ever passes, so they are awaited in a thread that is abandoned
    at the deadline.
    """
    headers = {"User-Agent": "overtone", "Accept-Encoding": "identity"} | headers
    request, answer = urllib.request.Request(url, headers=headers), Future()

    def ask() -> None:
        try:
            opener = urllib.request.build_opener(_OnlyWeb())
            answer.set_result(opener.open(request, timeout=bounds.timeout))
        except BaseException as error:
            answer.set_exception(error)

    threading.Thread(target=ask, name="overtone download", daemon=True).start()
    try:
        return answer.result(max(0.0, bounds.ends - time.monotonic()))
    except TimeoutError:
        if answer.done():
            raise  # the socket's own
        answer.add_done_callback(_close_late)
        raise TooSlow("too slow: no whole answer when its time was over") from None


def _close_late(answer: "Future[HTTPResponse]") -> None:
    if answer.exception() is None:
        answer.result().close()


# --- the bytes


def _receive(
    response: HTTPResponse, part: Path, start: int, total: int | None, bounds: _Bounds, progress: Progress | None
) -> None:
    done = start
    with _writable(part, append=start > 0) as file:
        while True:
            try:
                block = response.read1(_BLOCK)  # what has arrived, without waiting for a whole block
            except (OSError, HTTPException) as error:
                raise DownloadFailed(f"cut after {done} bytes: {_reason(error)}") from error
            if not block:
                break
            done += len(block)
            if done > bounds.max_bytes:
                raise DownloadFailed(f"it sends more than {bounds.max_bytes} bytes, far more than the file can have")
            _write(file, block, part)
            if progress is not None:
                progress(done, total)
            bounds.check_time(done)
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise DownloadFailed(f"cut after {done} of {total} bytes")


def _writable(part: Path, append: bool) -> Any:
    try:
        return part.open("ab" if append else "wb", buffering=0)
    except OSError as error:
        raise OvertoneError(
            f"{part} cannot be written: {error.strerror}; make room or set OVERTONE_CACHE to another folder"
        ) from error


def _write(file: Any, block: bytes, part: Path) -> None:
    try:
        view = memoryview(block)
        while view:
            view = view[file.write(view) :]
    except OSError as error:
        raise OvertoneError(
            f"{part} cannot be written: {error.strerror}; free some space or set OVERTONE_CACHE"
        ) from error


# --- the note beside a part


def forget(part: Path) -> None:
    """Remove a temporary file and the note beside it."""
    part.unlink(missing_ok=True)
    _note(part).unlink(missing_ok=True)


def _note(part: Path) -> Path:
    return part.with_name(part.name + ".json")


def _remember(url: str, part: Path, response: HTTPResponse, total: int | None) -> None:
    etag = response.headers.get("ETag")
    strong = etag if etag and not etag.startswith("W/") else None
    note = {"url": url, "validator": strong or response.headers.get("Last-Modified"), "total": total}
    try:
        _note(part).write_text(json.dumps(note), encoding="utf-8")
    except OSError as error:
        raise OvertoneError(
            f"{part.parent} cannot be written: {error.strerror}; free some space or set OVERTONE_CACHE"
        ) from error


def _resumable(url: str, part: Path) -> tuple[int, str, int | None]:
    """The first byte to ask for (0: all), the validator of the server's file, and its length if known."""
    try:
        note = parse_json(_note(part).read_text(encoding="utf-8"))
        if note["url"] == url and isinstance(note["validator"], str):
            return part.stat().st_size, note["validator"], note["total"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, "", None


def _continues(response: HTTPResponse, start: int) -> bool:
    content_range = response.headers.get("Content-Range", "")
    if response.status == 206 and not content_range.startswith(f"bytes {start}-"):
        raise DownloadFailed(f"it was asked for the bytes from {start} on and sends {content_range or 'others'}")
    return response.status == 206


def _total(response: HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None or not length.isdigit() else start + int(length)


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server stopped answering"
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
