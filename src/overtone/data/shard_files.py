"""Reading ranges of shards: local ones in place, remote ones by range or fetched whole into a cache of bounded size."""

import hashlib
import os
import re
import threading
from collections import OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock

from overtone.data.caching import data_cache, write_whole
from overtone.data.decoding import BadImage
from overtone.data.opening import FLAGS, read_at
from overtone.data.storage import Changed, Stamp, fetch, is_remote, read_range, stamp
from overtone.errors import OvertoneError

_MOST_OPEN = 64
_CHANGED = "the shard has changed since its index was made"
_MD5 = re.compile(r'"?([0-9a-f]{32})"?')
_ATTEMPTS = 3


class ShardFiles:
    """Shards that are opened when they are first read from; a copy in another process opens its own.

    Args:
        addresses: the shards.
        stamps: size and version of each when its index was made.
        cache_bytes: room for remote shards on this machine; 0: they are read by range.
        hashes: SHA-256 of each, where known; what is fetched is compared with it.
    """

    def __init__(
        self, addresses: Sequence[str], stamps: Sequence[Stamp], cache_bytes: int = 0, hashes: Sequence[str] = ()
    ) -> None:
        self.addresses, self.stamps, self.cache_bytes = tuple(addresses), tuple(stamps), cache_bytes
        self.hashes = tuple(hashes) or ("",) * len(self.addresses)
        self._gone: dict[int, str] = {}
        self._open: OrderedDict[int, int] = OrderedDict()
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in self.__dict__.items() if name not in ("_open", "_lock")}

    def __setstate__(self, state: dict[str, Any]) -> None:
        self.__dict__.update(state, _open=OrderedDict(), _lock=threading.Lock())

    def read(self, shard: int, start: int, length: int) -> bytes:
        """Some bytes of a shard.

        Raises:
            BadImage: the shard has changed, or can no longer be read.
        """
        if shard in self._gone:
            raise BadImage(None, self._gone[shard])
        address, wanted = self.addresses[shard], self.stamps[shard]
        try:
            if is_remote(address) and not self.cache_bytes:
                return read_range(address, start, length, wanted)
            with self._lock:
                content = read_at(self._descriptor(shard), start, length)
        except Changed:
            raise BadImage(None, _CHANGED) from None
        except OSError as error:
            raise BadImage(None, f"the shard cannot be read: {error.strerror or error}".lower()) from error
        except OvertoneError as error:
            self._gone[shard] = str(error)  # not waited for again with every image
            raise BadImage(None, str(error)) from error
        if len(content) != length:
            raise BadImage(None, _CHANGED)
        return content

    def path(self, shard: int) -> Path:
        """A file on this machine with the content of a shard, fetched if need be.

        Raises:
            Changed: the shard has another size or version than in its stamp.
            Unreachable: it cannot be read.
        """
        address = self.addresses[shard]
        if not is_remote(address):
            if stamp(address) != self.stamps[shard]:
                raise Changed(address)
            return Path(address)
        return ShardCache(data_cache() / "shards", self.cache_bytes).get(
            address, self.stamps[shard], self.hashes[shard]
        )

    def open(self, shard: int) -> int:
        """A descriptor of the file of a shard, which the caller closes.

        Raises:
            Changed: as `path`.
            OvertoneError: as `path`.
            OSError: it cannot be opened.
        """
        for _ in range(_ATTEMPTS):
            with suppress(FileNotFoundError):  # another process has made room in the cache in this moment
                return os.open(self.path(shard), FLAGS)
        return os.open(self.path(shard), FLAGS)

    def close(self) -> None:
        """Close what is open."""
        with self._lock:
            while self._open:
                os.close(self._open.popitem()[1])

    def __del__(self) -> None:
        if "_open" in self.__dict__:
            self.close()

    def _descriptor(self, shard: int) -> int:
        """The open file of a shard, the least recently used of the others closed where there are too many."""
        if shard in self._open:
            self._open.move_to_end(shard)
            return self._open[shard]
        descriptor = self.open(shard)
        self._open[shard] = descriptor
        if len(self._open) > _MOST_OPEN:
            os.close(self._open.popitem(last=False)[1])
        return descriptor


class ShardCache:
    """Whole remote shards in a folder, up to so many bytes; the least recently used goes first.

    Args:
        folder: made when needed; processes may share it.
        limit: bytes; one shard is kept even if it alone is larger.
    """

    def __init__(self, folder: Path, limit: int) -> None:
        self.folder, self.limit = folder, limit

    def get(self, address: str, wanted: Stamp, sha256: str = "") -> Path:
        """The file of a shard, fetched and verified if it is not there; one process fetches, others wait for it.

        Raises:
            Changed: the address has another size or version.
            OvertoneError: it cannot be read, or what comes is, again and again, not what its checksum says.
        """
        name = hashlib.sha256(f"{address}\n{wanted.size}\n{wanted.version}".encode()).hexdigest()
        path = self.folder / f"{name}.tar"
        if not self._is_there(path, wanted):
            self.folder.mkdir(parents=True, exist_ok=True)
            with FileLock(self.folder / f"{name}.lock"):
                if not self._is_there(path, wanted):
                    self._make_room(wanted.size)
                    write_whole(path, lambda part: _fetch_verified(address, part, wanted, sha256))
                    self._make_room(0, keep=path)  # others have fetched meanwhile
        return path

    def _is_there(self, path: Path, wanted: Stamp) -> bool:
        try:
            if path.stat().st_size != wanted.size:
                return False
            os.utime(path)  # used now
        except OSError:
            return False
        return True

    def _make_room(self, size: int, keep: Path | None = None) -> None:
        """Remove the least recently used shards until so many bytes fit."""
        with FileLock(self.folder / "room.lock"):
            found = []
            for path in self.folder.glob("*.tar"):
                with suppress(OSError):
                    found.append((path.stat(), path))
            total = sum(status.st_size for status, _ in found)
            for status, path in sorted(found, key=lambda pair: pair[0].st_mtime_ns):
                if total + size <= self.limit:
                    break
                if path != keep:
                    path.unlink(missing_ok=True)
                    path.with_suffix(".lock").unlink(missing_ok=True)
                    total -= status.st_size


def _fetch_verified(address: str, path: Path, wanted: Stamp, sha256: str) -> None:
    """Fetch, again where the bytes are not what the checksums say."""
    md5 = _MD5.fullmatch(wanted.version) if address.startswith("s3://") else None
    kind, digest = ("sha256", sha256) if sha256 else ("md5", md5[1]) if md5 else ("", "")
    for _ in range(_ATTEMPTS):
        fetch(address, path, wanted)
        if not kind:
            return
        with path.open("rb") as file:
            if hashlib.file_digest(file, kind).hexdigest() == digest:
                return
    raise OvertoneError(
        f"{address}: what came {_ATTEMPTS} times is not what its {kind.upper()} {digest} says; write the shard again, "
        "or look at what lies between"
    )
