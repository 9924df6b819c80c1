"""A scan of class folders without links, in parallel and packed: a million files in seconds, and in little memory.

Folders with many files are kept as an index in the cache. A folder's time changes when a file in it is added, removed
or renamed, so the next scan asks for the times of the folders alone.
"""

import hashlib
import os
import time
import zipfile
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

import numpy as np

from overtone.data.caching import data_cache, write_whole
from overtone.data.folders import SUFFIXES
from overtone.data.mapped_bytes import MappedBytes
from overtone.data.packed_texts import PackedTexts
from overtone.data.scan_progress import counted
from overtone.data.sources.image_list import Paths
from overtone.errors import OvertoneError

KEPT_FROM = 50_000
"""Files from which on an index is kept."""
_THREADS = 16
_SETTLED = 2 * 10**9  # ns: a folder that has changed since may change again within the same tick of its file system
_FORMAT = 2
_NAMES = ".names"


class _Links(Exception):
    """There are links, which this scan does not resolve."""


class _Listing(NamedTuple):
    """A class folder: how many images lie below it, their paths packed, and all its folders with their times."""

    names: bytes
    lengths: np.ndarray
    folders: list[tuple[str, int]]


def scan(folders: Mapping[str, Path]) -> tuple[Paths, np.ndarray] | None:
    """The image files below class folders: by folder, then by name.

    Args:
        folders: the class folders.

    Returns:
        The paths, and int64 `(len(folders),)`, the number of files in each; None where links lie among them.

    Raises:
        OvertoneError: a folder that may not be read.
    """
    if any(path.is_symlink() for path in folders.values()):
        return None
    roots = [str(path) for path in folders.values()]
    kept = _kept_path(roots)
    found = _read(kept)
    if found is not None:
        return found
    started = time.time_ns()
    try:
        with counted(f"scanning {os.path.dirname(roots[0])}: files") as add, ThreadPoolExecutor(_THREADS) as pool:
            listings = list(pool.map(lambda root: _listed(root, add), roots))
    except _Links:
        return None
    lengths = np.concatenate([listing.lengths for listing in listings] or [np.empty(0, np.int64)])
    counts = np.array([len(listing.lengths) for listing in listings], dtype=np.int64)
    below = [pair for listing in listings for pair in listing.folders]
    names = b"".join([listing.names for listing in listings])
    del listings
    paths = Paths.packed(names, np.cumsum(lengths, dtype=np.int64))
    if len(paths) >= KEPT_FROM and all(changed < started - _SETTLED for _, changed in below):
        with suppress(OSError):  # a cache that cannot be written costs time, nothing else
            _keep(kept, names, lengths, counts, below, f"{kept.stem}.{started}{_NAMES}")
            return _read(kept) or (paths, counts)  # in memory that all processes share
    return paths, counts


def _listed(root: str, add: Callable[[int], None]) -> _Listing:
    """The images below a folder, sorted by name.

    Raises:
        _Links: there is a link.
        OvertoneError: a folder that may not be read.
    """
    names: list[str] = []
    folders: list[tuple[str, int]] = []
    waiting = [("", root)]
    while waiting:
        prefix, folder = waiting.pop()
        try:
            folders.append((folder, os.stat(folder).st_mtime_ns))
            with os.scandir(folder) as entries:
                for entry in entries:
                    name = entry.name
                    if name[0] == ".":
                        continue
                    if entry.is_symlink():
                        raise _Links
                    if entry.is_dir():
                        waiting.append((f"{prefix}{name}/", entry.path))
                    elif os.path.splitext(name)[1].lower() in SUFFIXES and entry.is_file():
                        names.append(prefix + name)
        except OSError as error:
            raise OvertoneError(
                f"{folder} cannot be read: {error.strerror}; check the folder and its permissions"
            ) from error
    add(len(names))
    names.sort()
    start = os.path.join(root, "")
    encoded = [os.fsencode(start + name) for name in names]
    return _Listing(b"".join(encoded), np.array([len(name) for name in encoded], dtype=np.int64), folders)


def _kept_path(roots: list[str]) -> Path:
    digest = hashlib.sha256()
    for root in roots:
        digest.update(os.fsencode(os.path.abspath(root)) + b"\0" + os.fsencode(root) + b"\0")
    return data_cache() / "folders" / f"{digest.hexdigest()}.npz"


def _keep(
    kept: Path,
    names: bytes,
    lengths: np.ndarray,
    counts: np.ndarray,
    folders: list[tuple[str, int]],
    file: str,
) -> None:
    """Write the index, the paths into a file of this name beside it, and remove those of an earlier index."""
    write_whole(kept.with_name(file), lambda part: part.write_bytes(names))
    write_whole(kept, lambda part: _write(part, file, lengths, counts, folders))
    for other in kept.parent.glob(f"{kept.stem}.*{_NAMES}"):
        if other.name != file:
            with suppress(OSError):
                other.unlink()


def _write(path: Path, name: str, lengths: np.ndarray, counts: np.ndarray, folders: list[tuple[str, int]]) -> None:
    below = PackedTexts.of([folder for folder, _ in folders])
    with path.open("wb") as file:
        np.savez(
            file,
            format=np.array(_FORMAT),
            names=np.array(name),
            lengths=lengths.astype(np.uint16 if len(lengths) and lengths.max() < 1 << 16 else np.int64),
            counts=counts,
            folders=below.content,
            folder_ends=below.ends,
            times=np.array([changed for _, changed in folders], dtype=np.int64),
        )


def _read(path: Path) -> tuple[Paths, np.ndarray] | None:
    """What an earlier scan has found, if no folder has changed since."""
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as kept:
            if int(kept["format"]) != _FORMAT:
                return None
            folders, times = PackedTexts(kept["folders"], kept["folder_ends"]), kept["times"].tolist()
            with ThreadPoolExecutor(_THREADS) as pool:
                now = list(pool.map(_changed, folders))
            if now != times:
                return None
            names = MappedBytes(path.with_name(Path(str(kept["names"])).name))
            ends, counts = np.cumsum(kept["lengths"], dtype=np.int64), kept["counts"]
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile):
        return None
    if len(ends) != counts.sum() or (ends[-1] if len(ends) else 0) != len(names):
        return None
    return Paths.packed(names, ends), counts


def _changed(folder: str) -> int:
    return os.stat(folder).st_mtime_ns
