"""A published file by its row: found on this machine, else downloaded, proved, and only then given its name."""

import os
import sys
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from overtone.checkpoint import SUFFIX, has_manifest, read_manifest
from overtone.errors import OvertoneError
from overtone.published import Published
from overtone.zoo.cache import (
    CACHE_VARIABLE,
    WEIGHTS_VARIABLE,
    Folders,
    cache_folder,
    file_name,
    names_by_hand,
    weights_files,
    weights_folders,
)
from overtone.zoo.download import TIMEOUT_S, DownloadFailed, Progress, download, forget
from overtone.zoo.proof import Proof, UnverifiedWarning, has_published_hash, prove, records_path
from overtone.zoo.reading import inspect_file

try:
    import fcntl
except ImportError:  # Windows has no flock; there, two processes that fetch one file at a time get in each other's way
    fcntl = None

_SLACK_BYTES = 64 << 20


@dataclass(frozen=True)
class Located:
    """A published file on this machine, proved.

    Attributes:
        path: the file.
        proof: what proves it.
        origin: `cache`, the folder of weights that it lies in, or the address it was fetched from.
        row: what it is.
    """

    path: Path
    proof: Proof
    origin: str
    row: Published


def find_published(row: Published, weights_dir: Folders = None) -> Located | None:
    """The file of a row if it is on this machine: in the cache, else in a folder of weights, by name or by hash.

    Raises:
        OvertoneError: a file that has the name of the row's is another one, and the right one is nowhere.
    """
    altered: list[str] = []
    for path in _candidates(row, weights_dir):
        located = _proved(path, row, altered)
        if located is not None:
            return located
    if altered:
        raise OvertoneError(
            f"{altered[0]}: not the file that was published as {row.full_name}; remove it to have it fetched anew"
        )
    return None


def fetch_published(
    row: Published,
    weights_dir: Folders = None,
    *,
    progress: Progress | None = None,
    timeout: float = TIMEOUT_S,
) -> Located:
    """The file of a row, downloaded if it is not on this machine.

    Args:
        row: what to fetch.
        weights_dir: folders to look in beside the cache and OVERTONE_WEIGHTS_DIR.
        progress: called with the bytes there are and there will be; None: a bar on stderr if it is a terminal.
        timeout: seconds of silence after which an address is given up.

    Raises:
        OvertoneError: the row was published without weights; a file that was altered; no address gave the file.
    """
    if not row.urls:
        raise OvertoneError(f"{row.full_name} was published without weights; train it, or choose another tag")
    found = find_published(row, weights_dir)
    if found is not None:
        return found
    folder = _made(cache_folder())
    failures = []
    with _claimed(folder / f"{file_name(row)}.lock"):
        found = find_published(row, weights_dir)  # another process may have fetched it while this one waited
        if found is not None:
            return found
        for url in row.urls:
            try:
                return _fetched(row, url, folder, progress, timeout)
            except DownloadFailed as failure:
                failures.append(f"{url} ({failure})")
    raise OvertoneError(
        f"{row.full_name} could not be fetched: {'; '.join(failures)}; try again, or put the file by hand at "
        f"{folder / file_name(row)} or into a folder named by --weights-dir or {WEIGHTS_VARIABLE}"
    )


def _fetched(row: Published, url: str, folder: Path, progress: Progress | None, timeout: float) -> Located:
    path = folder / file_name(row, url)
    part = path.with_name(path.name + ".part")
    max_bytes = row.size_bytes or int(16e6 * (row.params_m or 100)) + _SLACK_BYTES
    resumed = part.is_file()
    with _shown(f"{row.full_name} from {url.split('/')[2]}", progress) as shown:
        download(url, part, max_bytes=max_bytes, timeout=timeout, progress=shown)
        proof = _proof_of_part(part, row, url, path.name)
        if not proof.holds and resumed:  # the part may have been of an older file: once more, from the beginning
            forget(part)
            download(url, part, max_bytes=max_bytes, timeout=timeout, progress=shown)
            proof = _proof_of_part(part, row, url, path.name)
    if not proof.holds:
        forget(part)
        raise DownloadFailed(f"altered: {proof}")
    os.replace(part, path)
    forget(part)
    _flush(folder)
    proof = prove(path, row, url=url, record=True)
    _warn_of(proof, path)
    return Located(path, proof, url, row)


def _proof_of_part(part: Path, row: Published, url: str, name: str) -> Proof:
    proof = prove(part, row, url=url, name=name)
    if proof.kind == "first_use":  # nothing vouches for its bytes, so at least it must be a whole checkpoint
        try:
            inspect_file(part)
        except OvertoneError as error:
            forget(part)
            raise DownloadFailed(f"it sends something else than a checkpoint: {error}") from error
    return proof


def _candidates(row: Published, weights_dir: Folders) -> Iterator[Path]:
    cache, folders = cache_folder(), weights_folders(weights_dir)
    in_cache = dict.fromkeys([file_name(row), *(file_name(row, url) for url in row.urls)])
    yield from (cache / name for name in in_cache if (cache / name).is_file())
    yield from (folder / name for folder in folders for name in names_by_hand(row) if (folder / name).is_file())
    if has_published_hash(row):
        for path in weights_files(folders):
            fits = row.size_bytes is None or path.stat().st_size == row.size_bytes
            if fits and path.suffix != SUFFIX and prove(path, row).verified:
                yield path


def _proved(path: Path, row: Published, altered: list[str]) -> Located | None:
    if path.suffix == SUFFIX and not _converted(path, row):
        return None
    proof = prove(path, row, record=True)
    if not proof.holds:
        hint = f" (recorded in {records_path()})" if proof.kind == "first_use" else ""
        altered.append(f"{path}: {proof}{hint}")
        return None
    _warn_of(proof, path)
    origin = "cache" if path.parent == cache_folder() else str(path.parent)
    return Located(path, proof, origin, row)


def _converted(path: Path, row: Published) -> bool:
    return has_manifest(path) and read_manifest(path).architecture == row.architecture


def _warn_of(proof: Proof, path: Path) -> None:
    if proof.kind == "first_use" and proof.expected is None:
        warnings.warn(f"{path} is unverified ({proof})", UnverifiedWarning, stacklevel=4)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OvertoneError(
            f"the cache {folder} cannot be made: {error.strerror}; set {CACHE_VARIABLE} to another folder"
        ) from error
    return folder


@contextmanager
def _claimed(lock: Path) -> Iterator[None]:
    """Hold a file for this process alone, waiting for whoever has it; the hold ends with the process."""
    try:
        handle = os.open(lock, os.O_RDWR | os.O_CREAT, 0o644)
    except OSError as error:
        raise OvertoneError(
            f"the cache {lock.parent} cannot be written: {error.strerror}; set {CACHE_VARIABLE} to another folder"
        ) from error
    try:
        while fcntl is not None:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except BlockingIOError:
                time.sleep(0.1)
        yield
    finally:
        os.close(handle)


@contextmanager
def _shown(what: str, progress: Progress | None) -> Iterator[Progress | None]:
    if progress is not None or not sys.stderr.isatty():
        yield progress
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)


def _flush(folder: Path) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
