"""One file from one address into a temporary file: resumed where the server can, measured against what it said."""

import json
import os
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import HTTPException, HTTPResponse
from pathlib import Path
from typing import Any

from overtone.errors import OvertoneError
from overtone.plain_json import parse_json

Progress = Callable[[int, int | None], None]
TIMEOUT_S = 30.0
_BLOCK = 1 << 18
_ATTEMPTS = 4  # at one address, as long as each brings the file forward


class DownloadFailed(Exception):
    """An address did not give the file; the message says why. What came of it is kept for the next attempt."""


def download(
    url: str,
    part: Path,
    *,
    max_bytes: int,
    timeout: float = TIMEOUT_S,
    progress: Progress | None = None,
) -> None:
    """Fetch an address into `part`, going on from what is there if it is of the same file.

    Args:
        url: http or https.
        part: the temporary file; beside it lies `part` + `.json`, which says what it is a part of.
        max_bytes: the most that is taken from the server.
        timeout: seconds without a byte after which the server is given up.
        progress: called with the bytes there are and the bytes there will be, if the server says.

    Raises:
        DownloadFailed: no connection, a refusal, a cut, too much data.
        OvertoneError: the file cannot be written.
    """
    if not url.startswith(("http://", "https://")):
        raise DownloadFailed(f"{url} is not a web address")
    before = 0
    for attempt in range(1, _ATTEMPTS + 1):
        try:
            _attempt(url, part, max_bytes, timeout, progress)
            return
        except DownloadFailed:
            there = part.stat().st_size if part.is_file() else 0
            if there <= before or attempt == _ATTEMPTS:
                raise
            before = there
        except urllib.error.HTTPError as error:
            error.close()
            raise DownloadFailed(f"the server says {error.code} {error.reason}") from error
        except (urllib.error.URLError, HTTPException, OSError, ValueError) as error:
            raise DownloadFailed(_said(error)) from error


def _attempt(url: str, part: Path, max_bytes: int, timeout: float, progress: Progress | None) -> None:
    start, validator, expected = _resumable(url, part)
    if start and start == expected:
        return  # whole already: the process ended before it could be proved
    try:
        response = _asked(url, timeout, {"Range": f"bytes={start}-", "If-Range": validator} if start else {})
    except urllib.error.HTTPError as error:
        if error.code != 416 or not start:
            raise
        error.close()  # there is no such byte: the file is another one now
        start, response = 0, _asked(url, timeout, {})
    with response:
        start = start if _continues(response, start) else 0
        total = _total(response, start)
        if total is not None and total > max_bytes:
            raise DownloadFailed(f"it offers {total} bytes, far more than the file can have")
        _remember(url, part, response, total)
        _receive(response, part, start, total, max_bytes, progress)


def _asked(url: str, timeout: float, headers: dict[str, str]) -> HTTPResponse:
    headers = {"User-Agent": "overtone", "Accept-Encoding": "identity"} | headers
    return urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)


def _receive(
    response: HTTPResponse, part: Path, start: int, total: int | None, max_bytes: int, progress: Progress | None
) -> None:
    done = start
    with _writable(part, append=start > 0) as file:
        while True:
            try:
                block = response.read(_BLOCK)
            except (OSError, HTTPException) as error:
                block = getattr(error, "partial", b"")
                _write(file, block, part)
                raise DownloadFailed(f"cut after {done + len(block)} bytes: {_said(error)}") from error
            if not block:
                break
            done += len(block)
            if done > max_bytes:
                raise DownloadFailed(f"it sends more than {max_bytes} bytes, far more than the file can have")
            _write(file, block, part)
            if progress is not None:
                progress(done, total)
        file.flush()
        os.fsync(file.fileno())
    if total is not None and done != total:
        raise DownloadFailed(f"cut after {done} of {total} bytes")


def _writable(part: Path, append: bool) -> Any:
    try:
        return part.open("ab" if append else "wb")
    except OSError as error:
        raise OvertoneError(f"{part} cannot be written: {error.strerror}; free or choose another cache") from error


def _write(file: Any, block: bytes, part: Path) -> None:
    try:
        file.write(block)
    except OSError as error:
        raise OvertoneError(
            f"{part} cannot be written: {error.strerror}; free some space or set OVERTONE_CACHE"
        ) from error


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
    """From which byte on to ask (0: all), what must still hold of the file on the server, and its length if known."""
    try:
        note = parse_json(_note(part).read_text(encoding="utf-8"))
        if note["url"] == url and isinstance(note["validator"], str):
            return part.stat().st_size, note["validator"], note["total"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    return 0, "", None


def _continues(response: HTTPResponse, start: int) -> bool:
    said = response.headers.get("Content-Range", "")
    if response.status == 206 and not said.startswith(f"bytes {start}-"):
        raise DownloadFailed(f"asked for the bytes from {start} on, it sends {said or 'others'}")
    return response.status == 206


def _total(response: HTTPResponse, start: int) -> int | None:
    length = response.headers.get("Content-Length")
    return None if length is None or not length.isdigit() else start + int(length)


def _said(error: BaseException) -> str:
    reason = getattr(error, "reason", error)
    if isinstance(reason, TimeoutError):
        return "the server stopped answering"
    return str(getattr(reason, "strerror", None) or reason) or type(error).__name__
