"""Files by address, on this machine or elsewhere: size and version, a range of bytes, all of it, what lies in a folder.

`http(s)://` is read with the standard library; `s3://`, `gs://`, `az://`, `hf://` and others through fsspec and the
package of the store. What fails for a moment is tried again, after longer and longer waits; an address that stays
unreachable is one `Unreachable`, which names it.
"""

import http.client
import importlib
import os
import re
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple, TypeVar
from urllib.parse import urljoin

from overtone.errors import OvertoneError

T = TypeVar("T")

WAITS = [0.5, 1.0, 2.0, 4.0]
"""Seconds before each further attempt."""
TIMEOUT = 30.0
"""Seconds without a byte after which a connection is given up."""
_PIECE = 1 << 20
_ADDRESS = re.compile(r"([a-z][a-z0-9+]+):/{1,2}(?=[^/])", re.IGNORECASE)
_PACKAGES = {"s3": "s3fs", "gs": "gcsfs", "gcs": "gcsfs", "az": "adlfs", "abfs": "adlfs", "hf": "huggingface_hub"}
_FOR_GOOD = frozenset({400, 401, 403, 404, 405, 410, 416})  # answers that do not change by asking again


class Stamp(NamedTuple):
    """What identifies the content of a file.

    Attributes:
        size: bytes.
        version: time of the last change, or the store's checksum or tag; empty where it gives none.
    """

    size: int
    version: str


class Unreachable(OvertoneError):
    """An address that could not be read, tried as often as makes sense."""


class _Refused(OSError):
    """An answer of a web server that is none of success; `errno` is its status."""


class Changed(Exception):
    """A file that is no longer the one of its stamp."""


def address_of(place: str | Path) -> str:
    """A path as text; an address again as it was before it went through `Path`, which drops one of two slashes."""
    text = str(place)
    found = _ADDRESS.match(text)
    return text if found is None else f"{found[1].lower()}://{text[found.end() :]}"


def is_remote(address: str) -> bool:
    """Whether an address is one of a store rather than a path."""
    return "://" in address


def stamp(address: str) -> Stamp:
    """Size and version of a file.

    Raises:
        Unreachable: it cannot be asked for.
    """
    if not is_remote(address):
        try:
            status = os.stat(address)
        except (OSError, ValueError) as error:
            raise Unreachable(f"{address} cannot be read: {_reason(error)}; check the path") from error
        return Stamp(status.st_size, str(status.st_mtime_ns))
    return _tried(address, lambda: _http_stamp(address) if _is_http(address) else _fsspec_stamp(address))


def read_range(address: str, start: int, length: int, wanted: Stamp | None = None) -> bytes:
    """Some bytes of a remote file; fewer only at its end.

    Args:
        address: the file.
        start: first byte.
        length: number of bytes.
        wanted: raise where the answer is visibly of another version.

    Raises:
        Changed: the file has another size or version.
        Unreachable: it cannot be read.
    """
    if length <= 0:
        return b""
    if not _is_http(address):
        return _tried(address, lambda: _filesystem(address).cat_file(address, start=start, end=start + length))
    return _tried(address, lambda: _http_range(address, start, length, wanted))


def fetch(address: str, path: Path, wanted: Stamp) -> None:
    """Copy a whole remote file, which must have the size and the version of `wanted`, to a path.

    Raises:
        Changed: it has another size or version.
        Unreachable: it cannot be read.
    """
    _tried(address, lambda: _copy(address, path, wanted))


def read_all(address: str) -> bytes:
    """All of a small file, local or remote.

    Raises:
        Unreachable: it cannot be read.
    """
    if not is_remote(address):
        try:
            return Path(address).read_bytes()
        except (OSError, ValueError) as error:
            raise Unreachable(f"{address} cannot be read: {_reason(error)}; check the path") from error
    if not _is_http(address):
        return _tried(address, lambda: _filesystem(address).cat_file(address))

    def read() -> bytes:
        with _asked(address) as answer:
            content = answer.read()
            _whole(len(content), answer)
            return content

    return _tried(address, read)


def names_in(address: str) -> list[str]:
    """Addresses of the files in a remote folder, sorted; of a web server's folder those that its page links to.

    Raises:
        Unreachable: it cannot be listed.
    """
    if not _is_http(address):
        scheme = address.partition("://")[0]
        found = _tried(address, lambda: _filesystem(address).ls(address.rstrip("/"), detail=False))
        return sorted(name if is_remote(name) else f"{scheme}://{name.lstrip('/')}" for name in found)
    folder = address.rstrip("/") + "/"
    page = read_all(folder).decode("utf-8", "replace")
    links = (urljoin(folder, link) for link in re.findall(r'href="([^"?#]+)"', page))
    return sorted({link for link in links if link.startswith(folder) and "/" not in link[len(folder) :]})


def _copy(address: str, path: Path, wanted: Stamp) -> None:
    if _is_http(address):
        with _asked(address) as answer, path.open("wb") as file:
            _same(answer, wanted)
            while piece := answer.read(_PIECE):
                file.write(piece)
    else:
        _filesystem(address).get_file(address, str(path))
    size = path.stat().st_size
    if size != wanted.size:
        raise ConnectionError(f"{size:,} of {wanted.size:,} bytes came")


def _is_http(address: str) -> bool:
    return address.startswith(("http://", "https://"))


def _asked(address: str, method: str = "GET", **headers: str) -> Any:
    request = urllib.request.Request(address, method=method, headers={"User-Agent": "overtone", **headers})
    try:
        return urllib.request.urlopen(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        error.close()
        raise _Refused(error.code, f"{error.code} {error.reason}") from None


def _http_stamp(address: str) -> Stamp:
    with _asked(address, "HEAD") as answer:
        length = answer.headers.get("Content-Length")
        if length is None:
            raise OvertoneError(f"{address}: the server does not say how long the file is; copy it to this machine")
        return Stamp(int(length), _version(answer))


def _http_range(address: str, start: int, length: int, wanted: Stamp | None) -> bytes:
    with _asked(address, Range=f"bytes={start}-{start + length - 1}") as answer:
        if answer.status != 206:
            if wanted is not None:
                _same(answer, wanted)
            raise OvertoneError(
                f"{address}: the server sends no ranges; fetch whole shards with --data.cache-gb above 0"
            )
        content = answer.read()
        total = answer.headers.get("Content-Range", "").rpartition("/")[2]
        if wanted is not None and (
            (total.isdigit() and int(total) != wanted.size) or _version(answer) != wanted.version
        ):
            raise Changed(address)
        expected = length if wanted is None else max(min(length, wanted.size - start), 0)
        if len(content) != expected:
            raise ConnectionError(f"{len(content):,} of {expected:,} bytes came")
        return content


def _version(answer: Any) -> str:
    return answer.headers.get("ETag") or answer.headers.get("Last-Modified") or ""


def _same(answer: Any, wanted: Stamp) -> None:
    length = answer.headers.get("Content-Length")
    if (length is not None and int(length) != wanted.size) or _version(answer) != wanted.version:
        raise Changed


def _whole(size: int, answer: Any) -> None:
    length = answer.headers.get("Content-Length")
    if length is not None and int(length) != size:
        raise ConnectionError(f"{size:,} of {int(length):,} bytes came")


def _fsspec_stamp(address: str) -> Stamp:
    info = _filesystem(address).info(address)
    keys = (
        "ETag",
        "etag",
        "md5Hash",
        "checksum",
        "lfs",
        "blob_id",
        "LastModified",
        "last_modified",
        "mtime",
        "created",
    )
    version = next((str(info[key]) for key in keys if info.get(key)), "")
    return Stamp(int(info["size"]), version)


def _filesystem(address: str) -> Any:
    scheme = address.partition("://")[0]
    package = _PACKAGES.get(scheme, "fsspec")
    try:
        fsspec = importlib.import_module("fsspec")
        return fsspec.filesystem(scheme)
    except ImportError as error:
        raise OvertoneError(f"reading {address} needs fsspec and {package}: pip install 'overtone[remote]'") from error
    except ValueError as error:
        raise OvertoneError(f"{address}: {scheme}:// is no store that fsspec knows; check the address") from error


def _tried(address: str, attempt: Callable[[], T]) -> T:
    """What an attempt gives; after a failure that may pass it is made again."""
    failure: Exception = OSError("it was not asked for")
    for wait in [*WAITS, None]:
        try:
            return attempt()
        except _Refused as error:
            failure = error
            if error.errno in _FOR_GOOD:
                break
        except (FileNotFoundError, PermissionError) as error:
            failure = error
            break
        except (OSError, http.client.HTTPException) as error:
            failure = error
        if wait is not None:
            time.sleep(wait)
    raise Unreachable(f"{address} cannot be read: {_reason(failure)}; check the address and the network") from failure


def _reason(error: BaseException) -> str:
    reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or str(error)
    return " ".join(str(reason).split()) or type(error).__name__
