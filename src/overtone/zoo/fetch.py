"""A published file by its row: found on this machine, else downloaded, verified, and only then given its name."""

import os
import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

from filelock import FileLock
from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

from overtone.checkpoint import SUFFIX, has_manifest, read_manifest
from overtone.errors import OvertoneError
from overtone.published import PublishedRow
from overtone.replacing import flush
from overtone.zoo.download import TIMEOUT_S, DownloadFailed, Progress, download, forget
from overtone.zoo.proof import (
    CACHE_VARIABLE,
    WEIGHTS_VARIABLE,
    Folders,
    Proof,
    UnverifiedWarning,
    cache_folder,
    file_name,
    has_published_hash,
    names_by_hand,
    records_path,
    verify,
    weights_files,
    weights_folders,
)
from overtone.zoo.reading import inspect_file

_SLACK_BYTES = 64 << 20


class _Limits(NamedTuple):
    timeout: float
    deadline: float | None


@dataclass(frozen=True)
class Located:
    """A published file on this machine, verified.

    Attributes:
        path: the file.
        proof: what it was compared with.
        origin: `cache`, the folder of weights that it is in, or the address it was fetched from.
        row: what it is.
    """

    path: Path
    proof: Proof
    origin: str
    row: PublishedRow


def find_published(row: PublishedRow, weights_dir: Folders = None) -> Located | None:
    """The file of a row if it is on this machine: in the cache, else in a folder of weights, by name or by hash.

    Raises:
        OvertoneError: a file with the row's name has another content, and the published one is nowhere else.
    """
    altered: list[str] = []
    for path in _candidates(row, weights_dir):
        located = _verified(path, row, altered)
        if located is not None:
            return located
    if altered:
        raise OvertoneError(
            f"{altered[0]}: not the file that was published as {row.full_name}; remove it to download it again"
        )
    return None


def fetch_published(
    row: PublishedRow,
    weights_dir: Folders = None,
    *,
    progress: Progress | None = None,
    timeout: float = TIMEOUT_S,
    deadline: float | None = None,
) -> Located:
    """The file of a row, downloaded if it is not on this machine.

    Args:
        row: what to fetch.
        weights_dir: folders to look in beside the cache and OVERTONE_WEIGHTS_DIR.
        progress: called with the bytes there are and there will be; None: a bar on stderr if it is a terminal.
        timeout: seconds without a byte after which an address is given up.
        deadline: seconds that one address may take in all; None: by the size of the file (see `download`).

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
                return _fetched(row, url, folder, _Limits(timeout, deadline), progress)
            except DownloadFailed as failure:
                failures.append(f"{url} ({failure})")
    raise OvertoneError(
        f"{row.full_name} could not be fetched: {'; '.join(failures)}; try again, or put the file by hand at "
        f"{folder / file_name(row)} or into a folder named by --weights-dir or {WEIGHTS_VARIABLE}"
    )


def _fetched(row: PublishedRow, url: str, folder: Path, limits: "_Limits", progress: Progress | None) -> Located:
    path = folder / file_name(row, url)
    part = path.with_name(path.name + ".part")
    max_bytes = row.size_bytes or int(16e6 * (row.params_m or 100)) + _SLACK_BYTES
    resumed = part.is_file()
    with _shown(f"{row.full_name} from {url.split('/')[2]}", progress) as shown:
        download(url, part, max_bytes=max_bytes, **limits._asdict(), progress=shown)
        proof = _proof_of_part(part, row, url, path.name)
        if not proof.holds and resumed:  # the part may have been of an older file: once more, from the beginning
            forget(part)
            download(url, part, max_bytes=max_bytes, **limits._asdict(), progress=shown)
            proof = _proof_of_part(part, row, url, path.name)
    if not proof.holds:
        forget(part)
        raise DownloadFailed(f"altered: {proof}")
    os.replace(part, path)
    forget(part)
    flush(folder)
    proof = verify(path, row, url=url, record=True)
    _warn_of(proof, path)
    return Located(path, proof, url, row)


def _proof_of_part(part: Path, row: PublishedRow, url: str, name: str) -> Proof:
    proof = verify(part, row, url=url, name=name)
    if proof.kind == "first_use":  # no hash was published, so at least it must be a whole checkpoint
        try:
            inspect_file(part)
        except OvertoneError as error:
            forget(part)
            raise DownloadFailed(f"it sends something other than a checkpoint: {error}") from error
    return proof


def _candidates(row: PublishedRow, weights_dir: Folders) -> Iterator[Path]:
    cache, folders = cache_folder(), weights_folders(weights_dir)
    in_cache = dict.fromkeys([file_name(row), *(file_name(row, url) for url in row.urls)])
    yield from (cache / name for name in in_cache if (cache / name).is_file())
    yield from (folder / name for folder in folders for name in names_by_hand(row) if (folder / name).is_file())
    if has_published_hash(row):
        for path in weights_files(folders):
            fits = row.size_bytes is None or path.stat().st_size == row.size_bytes
            if fits and path.suffix != SUFFIX and verify(path, row).verified:
                yield path


def _verified(path: Path, row: PublishedRow, altered: list[str]) -> Located | None:
    if path.suffix == SUFFIX and not _converted(path, row):
        return None
    proof = verify(path, row, record=True)
    if not proof.holds:
        hint = f" (recorded in {records_path()})" if proof.kind == "first_use" else ""
        altered.append(f"{path}: {proof}{hint}")
        return None
    _warn_of(proof, path)
    origin = "cache" if path.parent == cache_folder() else str(path.parent)
    return Located(path, proof, origin, row)


def _converted(path: Path, row: PublishedRow) -> bool:
    return has_manifest(path) and read_manifest(path).architecture == row.architecture


def _warn_of(proof: Proof, path: Path) -> None:
    if proof.kind == "first_use" and proof.expected is None:
        warnings.warn(f"{path} is unverified ({proof})", UnverifiedWarning, stacklevel=4)


def _made(folder: Path) -> Path:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OvertoneError(
            f"the cache {folder} cannot be created: {error.strerror}; set {CACHE_VARIABLE} to another folder"
        ) from error
    return folder


@contextmanager
def _claimed(lock: Path) -> Iterator[None]:
    """Hold a lock file, waiting for whoever has it; the system releases it when the process ends."""
    claim = FileLock(lock)
    try:
        claim.acquire()
    except OSError as error:
        raise OvertoneError(
            f"the cache {lock.parent} cannot be written: {error.strerror}; set {CACHE_VARIABLE} to another folder"
        ) from error
    try:
        yield
    finally:
        claim.release()


@contextmanager
def _shown(what: str, progress: Progress | None) -> Iterator[Progress | None]:
    if progress is not None or not sys.stderr.isatty():
        yield progress
        return
    columns = (TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TimeRemainingColumn())
    with Bar(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task(what, total=None)
        yield lambda done, total: bar.update(task, completed=done, total=total)
