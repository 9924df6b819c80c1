"""Where published files are on this machine, and whether a file is the one that was published.

It is compared with the hash that came with it, else with the one recorded when it was first used.
"""

import hashlib
import json
import os
import re
from collections.abc import Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

import torch

from overtone.checkpoint import SUFFIX, has_manifest, write_text
from overtone.errors import OvertoneError
from overtone.plain_json import parse_json
from overtone.published import PUBLISHED, Published, PublishedRow, rows_of

CACHE_VARIABLE, WEIGHTS_VARIABLE = "OVERTONE_CACHE", "OVERTONE_WEIGHTS_DIR"
WEIGHTS_SUFFIXES = (".pth", ".pt", ".tar", ".safetensors")

Folders = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None
Kind = Literal["git_blob_sha1", "sha256", "sha256_prefix", "first_use", "converted"]
RECORDS = "proofs.json"
_BLOCK = 1 << 20


def cache_folder() -> Path:
    """The folder that published files are downloaded to: OVERTONE_CACHE, else torch hub's folder of checkpoints."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path(torch.hub.get_dir()) / "checkpoints"


def weights_folders(weights_dir: Folders = None) -> list[Path]:
    """The folders with files that a user has put there: those given, then those of OVERTONE_WEIGHTS_DIR.

    Raises:
        OvertoneError: one that was given is not a folder.
    """
    named = [weights_dir] if isinstance(weights_dir, (str, os.PathLike)) else list(weights_dir or ())
    named += [name for name in os.environ.get(WEIGHTS_VARIABLE, "").split(os.pathsep) if name]
    folders = [Path(name).expanduser() for name in named]
    for folder in folders:
        if not folder.is_dir():
            raise OvertoneError(f"{folder} is not a folder; give a folder of weights (also in {WEIGHTS_VARIABLE})")
    return folders


def file_name(row: PublishedRow, url: str | None = None) -> str:
    """The name of a row's file in the cache: the published one, else one made of the row's name.

    Args:
        row: a published row.
        url: the address, where a row has several files: the name in it, if it has one.
    """
    if row.file is not None:
        return row.file
    last = "" if url is None else url.partition("?")[0].rpartition("/")[2]
    return last if last.endswith(WEIGHTS_SUFFIXES) else f"{row.full_name}.pth"


def names_by_hand(row: PublishedRow) -> list[str]:
    """Names under which a file in a user's folder is taken for the row's, the likeliest first."""
    names = [file_name(row), *(file_name(row, url) for url in row.urls)]
    stems = [row.full_name] + ([row.architecture] if len(rows_of(row.architecture)) <= 1 else [])
    names += [stem + suffix for stem in stems for suffix in WEIGHTS_SUFFIXES]
    return list(dict.fromkeys(names))


def weights_files(folders: Iterable[Path]) -> list[Path]:
    """Every file in the folders, not below them, that has a name as weights have."""
    return [
        path
        for folder in folders
        for path in sorted(folder.iterdir())
        if path.is_file() and path.suffix in WEIGHTS_SUFFIXES
    ]


# --- verifying them


class UnverifiedWarning(UserWarning):
    """A file was published without a hash, and this is the first time that it is used here."""


@dataclass(frozen=True)
class Proof:
    """What was compared.

    Attributes:
        kind: the hash that was published; `first_use` where none was: the SHA-256 recorded when the file was first
            used; `converted`: a checkpoint of overtone, which is verified when it is read.
        expected: hexadecimal; None where there was nothing to compare with.
        actual: hexadecimal, of the same kind.
        verified: whether a hash of its publisher matches.
    """

    kind: Kind
    expected: str | None
    actual: str
    verified: bool

    @property
    def holds(self) -> bool:
        """Whether no hash contradicts the file."""
        return self.expected is None or self.actual.startswith(self.expected)

    def __str__(self) -> str:
        name = {"git_blob_sha1": "git blob sha1", "sha256_prefix": "sha256"}.get(self.kind, self.kind)
        if not self.holds:
            return f"the {name} should be {self.expected} and is {self.actual}"
        if self.kind == "converted":
            return "converted: verified by the SHA-256 in its header when it is read"
        if self.kind == "first_use":
            state = "recorded now, unverified" if self.expected is None else "the one of its first use"
            return f"sha256 {self.actual}: {state}; none was published"
        return f"{name} {self.expected} matches"


@dataclass(frozen=True)
class Digests:
    """The hashes of a file (hexadecimal) and its size in bytes."""

    git_blob_sha1: str
    sha256: str
    size: int


def digests(path: Path) -> Digests:
    """The hashes of a file, cached while its size and modification time stay."""
    status = path.stat()
    return _digests(path.resolve(), status.st_size, status.st_mtime_ns)


@lru_cache(maxsize=1024)
def _digests(path: Path, size: int, changed_ns: int) -> Digests:
    blob = hashlib.sha1(b"blob %d\0" % size, usedforsecurity=False)
    whole = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(_BLOCK):
            blob.update(block)
            whole.update(block)
    return Digests(blob.hexdigest(), whole.hexdigest(), size)


def verify(
    path: Path, row: PublishedRow, *, url: str | None = None, name: str | None = None, record: bool = False
) -> Proof:
    """Compare a file with what is known of a published row.

    Args:
        path: the file.
        row: what it should be.
        url: where it was fetched, if it was: OpenMMLab names its files after their SHA-256.
        name: the final name of a file that still has a temporary one.
        record: keep the SHA-256 of a file without a published hash.

    Returns:
        The strongest comparison there is. A mismatch does not raise: look at `holds`.
    """
    if path.suffix == SUFFIX and has_manifest(path):
        return Proof("converted", None, "", verified=False)
    found = digests(path)
    expected = _published_hash(row, path.name if url is None else url)
    if expected is not None:
        kind, value = expected
        actual = found.git_blob_sha1 if kind == "git_blob_sha1" else found.sha256
        return Proof(kind, value, actual, verified=actual.startswith(value))
    record_name = f"{row.full_name}/{name or path.name}"
    known = _records().get(record_name)
    if known is None and record:
        _write_record(record_name, found, url)
    return Proof("first_use", known and known["sha256"], found.sha256, verified=False)


def has_published_hash(row: PublishedRow) -> bool:
    """Whether a hash was published with a row, so that its file can be verified wherever it comes from."""
    return _published_hash(row, "") is not None


def identify(path: Path) -> Published | None:
    """The published row whose file this is by its hash; None where it is none."""
    found = digests(path)
    for row in PUBLISHED:
        expected = _published_hash(row, "")
        if expected is None or (row.size_bytes is not None and row.size_bytes != found.size):
            continue
        kind, value = expected
        if (found.git_blob_sha1 if kind == "git_blob_sha1" else found.sha256).startswith(value):
            return row
    return None


def _published_hash(row: PublishedRow, origin: str) -> tuple[Kind, str] | None:
    if row.sha256 is not None:
        return "sha256", row.sha256
    if row.git_blob_sha1 is not None:
        return "git_blob_sha1", row.git_blob_sha1
    if row.sha256_prefix is not None:
        return "sha256_prefix", row.sha256_prefix
    named = re.search(r"_3rdparty_\w+-([0-9a-f]{8})\.pth$", origin)  # OpenMMLab's way of naming
    return None if named is None else ("sha256_prefix", named[1])


def records_path() -> Path:
    """The file with the hashes of files that were published without one."""
    return cache_folder() / RECORDS


def _records() -> dict[str, Any]:
    path = records_path()
    try:
        files = parse_json(path.read_text(encoding="utf-8"))["files"]
        if all(re.fullmatch("[0-9a-f]{64}", entry["sha256"]) for entry in files.values()):
            return files
    except FileNotFoundError:
        return {}
    except (ValueError, KeyError, TypeError, AttributeError, OSError):
        pass
    raise OvertoneError(
        f"{path}, the record of files first used here, cannot be read; repair it, or remove it to trust them again"
    )


def _write_record(record_name: str, found: Digests, url: str | None) -> None:
    entry = {"sha256": found.sha256, "size": found.size, "url": url, "recorded": datetime.now(UTC).isoformat()}
    files = _records() | {record_name: entry}
    with suppress(OvertoneError):  # a read-only cache: the file is reported as unverified every time
        write_text(records_path(), json.dumps({"format": 1, "files": files}, indent=1, sort_keys=True) + "\n")
