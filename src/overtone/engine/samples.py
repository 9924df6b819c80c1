"""Which samples a run trains and validates on: written down when it starts, compared when it is resumed.

`samples.jsonl.gz` in the run folder has a line for each sample: part, name, target and size in bytes. Every checkpoint
has a digest of it. A file renamed, moved to another class, added, removed, or replaced by one of another size is a
change, since order and held-out part depend on the names; one replaced by another of the same size is not noticed.
"""

import gzip
import hashlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from overtone.checkpoint import write_with
from overtone.data.sources import Splits, entries
from overtone.engine import folder as files
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

_Line = tuple[str, str, str, int]  # part, name, target, bytes


@dataclass(frozen=True)
class Samples:
    """The samples of a run; a million of them are looked at again rather than kept as Python objects.

    Attributes:
        splits: where they are.
        digest: SHA-256 over part, name, target and size of all of them.
    """

    splits: Splits
    digest: str

    @property
    def lines(self) -> Iterator[_Line]:
        """Part (`train` or `val`), name, target and size of each."""
        return _lines(self.splits)

    @classmethod
    def of(cls, splits: Splits) -> "Samples":
        """The samples of the two splits."""
        digest = hashlib.sha256()
        for line in _lines(splits):
            digest.update(json.dumps(line).encode())
        return cls(splits, digest.hexdigest())

    def write(self, folder: Path) -> None:
        """Write the list into a run folder."""

        def write(path: Path) -> None:
            with path.open("wb") as raw, gzip.GzipFile(fileobj=raw, mode="wb", mtime=0) as file:
                file.writelines((json.dumps(line) + "\n").encode() for line in self.lines)

        write_with(folder / files.SAMPLES, write)

    def difference(self, folder: Path) -> str:
        """How the samples differ from those that a run folder has written down, in one phrase."""
        try:
            then = {(part, name): (target, size) for part, name, target, size in read_samples(folder / files.SAMPLES)}
        except (OSError, EOFError, ValueError, TypeError) as error:
            return f"{folder / files.SAMPLES} cannot be read ({error}), so it cannot be shown how"
        now = {(part, name): (target, size) for part, name, target, size in self.lines}
        both = then.keys() & now.keys()
        changes = {
            "added": now.keys() - then.keys(),
            "removed": then.keys() - now.keys(),
            "relabelled": {key for key in both if then[key][0] != now[key][0]},
            "of another size": {key for key in both if then[key][0] == now[key][0] and then[key][1] != now[key][1]},
        }
        named = (
            f"{len(keys)} {what} ({some([name for _, name in keys], limit=3)})"
            for what, keys in changes.items()
            if keys
        )
        return "; ".join(named) or "their order"


def check_samples(folder: Path, digest: str | None, samples: Samples, *, accept: bool) -> list[str]:
    """Compare the samples with those that a checkpoint was written for.

    Args:
        folder: the run folder.
        digest: the checkpoint's; None in one of an earlier version, which has none.
        samples: those of now.
        accept: resume on changed samples.

    Returns:
        What to report: nothing where they are the same.

    Raises:
        OvertoneError: they differ and that is not accepted; the message shows how.
    """
    if digest in (None, samples.digest):
        return []
    difference = samples.difference(folder)
    if not accept:
        raise OvertoneError(
            f"the training data of {folder} has changed: {difference}; restore it, start a new run, or resume on the "
            "changed data with --data.accept-changes"
        )
    return [f"resumed on changed data: {difference}; the epoch is not the one that was interrupted"]


def _lines(splits: Splits) -> Iterator[_Line]:
    for part in ("train", "val"):
        for entry in entries(getattr(splits, part)):
            yield part, *entry


def read_samples(path: Path) -> Iterator[_Line]:
    """Part, name, target and size in bytes of each sample that a run has written down."""
    with gzip.open(path, "rt", encoding="utf-8") as file:
        for line in file:
            part, name, target, size = parse_json(line)
            yield part, name, target, size
