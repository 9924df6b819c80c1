"""Finding or making the indices of shards: from the cache, from beside the shards, or from their headers."""

import contextlib
import io
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from overtone.data.opening import read_at
from overtone.data.scan_progress import counted
from overtone.data.shard_files import ShardFiles
from overtone.data.shard_index import SUFFIX, ShardIndex, cached_path, index_of, listed_members, read_index
from overtone.data.sources.shard_list import TAR
from overtone.data.storage import Changed, Stamp, Unreachable, is_remote, read_all, stamp
from overtone.errors import OvertoneError


def indexed(addresses: Sequence[str], hashes: Mapping[str, str], cache: int) -> tuple[ShardFiles, list[ShardIndex]]:
    """The shards and their indices, read or made in parallel.

    Raises:
        OvertoneError: a shard that cannot be reached, or that has another checksum than it should.
    """
    with counted("reading the indices of shards") as add, ThreadPoolExecutor(max(2 * (os.cpu_count() or 1), 4)) as pool:
        stamps = list(pool.map(stamp, addresses))
        known = [hashes.get(address.rpartition("/")[2], "") for address in addresses]
        files = ShardFiles(addresses, stamps, cache, known)
        try:
            return files, list(pool.map(lambda at: _index(files, at, add), range(len(addresses))))
        except Changed as error:
            raise OvertoneError(f"{error} changes while it is read; wait until it is written") from error


def _index(files: ShardFiles, at: int, add: Callable[[int], None]) -> ShardIndex:
    index = _found_index(files, at)
    add(1)
    return index


def _found_index(files: ShardFiles, at: int) -> ShardIndex:
    """The index of a shard: from the cache, from beside it, or made and kept in the cache."""
    address, wanted = files.addresses[at], files.stamps[at]
    kept = cached_path(address)
    index = read_index(kept, wanted.size, wanted.version)
    if index is not None:
        return index
    if is_remote(address):
        index = _fetched_index(address, wanted, kept)
        if index is not None:
            return index
    if not is_remote(address):
        path = Path(address)
        beside = path.with_name(path.name.removesuffix(TAR) + SUFFIX)
        # What lies beside was written for one version of the shard; its time may differ, since the two were copied.
        index = read_index(beside, wanted.size) if beside.exists() and _is_older(path, beside) else None
        if index is not None:
            return index
    with reader_of(files, at) as read:
        return _made(read, wanted, None if is_remote(address) else Path(address), kept)


@contextlib.contextmanager
def reader_of(files: ShardFiles, at: int) -> Iterator[Callable[[int, int], bytes]]:
    """Gives bytes of a shard from an offset on, of some length; it is read mostly from its beginning to its end.

    Raises:
        Changed: it has another size or version than in its stamp.
        OvertoneError: it cannot be read.
    """
    if is_remote(files.addresses[at]) and not files.cache_bytes:
        yield _buffered(files, at)
        return
    descriptor = files.open(at)
    try:
        yield lambda start, length: read_at(descriptor, start, length)
    finally:
        os.close(descriptor)


def _fetched_index(address: str, wanted: Stamp, kept: Path) -> ShardIndex | None:
    """The index that lies beside a remote shard, if there is one of it."""
    try:
        content = read_all(address.removesuffix(TAR) + SUFFIX)
    except Unreachable:
        return None
    index = read_index(io.BytesIO(content), wanted.size)
    if index is not None:
        _keep(index, kept, wanted)
    return index


def _is_older(path: Path, index: Path) -> bool:
    return path.stat().st_mtime_ns <= index.stat().st_mtime_ns


def _made(read: Callable[[int, int], bytes], wanted: Stamp, path: Path | None, kept: Path) -> ShardIndex:
    listed = None
    if path is not None:
        listing = path.with_suffix(".idx")
        if listing.exists() and _is_older(path, listing):
            listed = listed_members(listing.read_text(encoding="utf-8", errors="replace"))
    index = index_of(read, wanted.size, listed)
    _keep(index, kept, wanted)
    return index


def _keep(index: ShardIndex, kept: Path, wanted: Stamp) -> None:
    with contextlib.suppress(OSError):  # a cache that cannot be written costs time, nothing else
        index.write(kept, wanted)


def _buffered(files: ShardFiles, at: int, piece: int = 1 << 22) -> Callable[[int, int], bytes]:
    """Reads a remote shard from its beginning in large pieces."""
    start, content = 0, b""

    def read(offset: int, length: int) -> bytes:
        nonlocal start, content
        if not start <= offset <= offset + length <= start + len(content):
            most = min(max(length, piece), files.stamps[at].size - offset)
            start, content = offset, files.read(at, offset, most) if most > 0 else b""
        return content[offset - start : offset - start + length]

    return read
