"""`overtone weights list|fetch|verify|inspect`: the published weights, and what a file of weights is."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from overtone import options, zoo
from overtone.checkpoint import has_manifest, read_checkpoint
from overtone.config import to_dict
from overtone.errors import OvertoneError
from overtone.published import DENSE, PUBLISHED, PublishedRow, find, matching, select
from overtone.verbs.console import note, print_json, print_line, print_table, warn

_WILDCARDS = "*?["


def list_weights(chosen: options.WeightsList) -> int:
    """Print every published row, or JSON.

    Raises:
        OvertoneError: no row matches, or a folder of weights that is none.
    """
    lines = [_listed(row, chosen.weights_dir) for row in select(chosen.pattern)]
    if chosen.json:
        print_json(lines)
        return 0
    print_table(
        ("name", "file", "proof", "licence", "at hand", "size", "resolution", "published"),
        [
            (
                line["name"],
                line["file"],
                line["proof"],
                line["license"],
                line["at_hand"] and ("yes" if line["problem"] is None else "damaged"),
                _size(line["size"]),
                line["resolution"],
                line["published"],
            )
            for line in lines
        ],
        left=5,
    )
    for line in lines:
        if line["problem"] is not None:
            warn(line["problem"])
    at_hand = sum(line["at_hand"] is not None for line in lines)
    with_weights = sum(line["file"] is not None for line in lines)
    note(f"{len(lines)} published rows, {with_weights} with weights, {at_hand} of these at hand")
    return 0


def fetch_weights(chosen: options.WeightsFetch) -> int:
    """Download what is not on this machine, verify it, and print where it is.

    Raises:
        OvertoneError: no such row, one without weights, or the first file that could not be fetched, after the others.
    """
    if not chosen.names:
        raise OvertoneError("no weights are named; overtone weights list names them all")
    failures: list[OvertoneError] = []
    for row in _rows_named(chosen.names):
        try:
            located = zoo.fetch_published(row, chosen.weights_dir)
        except OvertoneError as error:
            failures.append(error)
            continue
        print_line(f"{row.full_name}: {located.path} ({located.proof})")
    for failure in failures[1:]:
        warn(str(failure))
    if failures:
        raise failures[0]
    return 0


def verify_weights(chosen: options.WeightsVerify) -> int:
    """Verify files; 1 if one of them is not what it should be, or no hash of it is known.

    Raises:
        OvertoneError: nothing named, or neither a file nor the name of a published row.
    """
    if not chosen.names:
        raise OvertoneError("nothing is named; give files or published rows (overtone weights list)")
    lines = [line for name in chosen.names for line in _verified(name, chosen.weights_dir)]
    if chosen.json:
        print_json(lines)
    else:
        print_table(
            ("file", "published row", "state", "proof"),
            [(line["file"], line["published"], line["state"], line["proof"]) for line in lines],
            left=4,
        )
    return 0 if all(line["state"] == "verified" for line in lines) else 1


def inspect_weights(chosen: options.WeightsInspect) -> int:
    """Print what a file is.

    Raises:
        OvertoneError: a file that cannot be read, or asks for more than tensors.
    """
    found = zoo.describe(chosen.file)
    values = _described(found)
    if chosen.json:
        print_json(values)
        return 0
    print_table(
        ("", ""), [(name, _spelled(value)) for name, value in values.items() if value not in (None, {}, [])], left=2
    )
    return 0


# --- lines of the tables


def _listed(row: PublishedRow, weights_dir: Sequence[Path]) -> dict[str, Any]:
    located, problem = None, None
    if row.urls:
        try:
            located = zoo.find_published(row, weights_dir)
        except OvertoneError as error:
            problem = str(error)
    return {
        "name": row.full_name,
        "file": zoo.file_name(row) if row.urls else None,
        "proof": _kind_of_proof(row),
        "license": row.license,
        "at_hand": str(located.path) if located else (None if problem is None else "damaged"),
        "problem": problem,
        "size": located.path.stat().st_size if located else row.size_bytes,
        "resolution": row.resolution,
        "num_classes": row.num_classes,
        "published": row.score,
        "top1": row.top1,
        "top5": row.top5,
        "urls": list(row.urls),
    }


def _kind_of_proof(row: PublishedRow) -> str | None:
    if not row.urls:
        return None
    if row.sha256:
        return "sha256"
    if row.git_blob_sha1:
        return "git blob sha1"
    return "sha256 prefix" if row.sha256_prefix else "first use"


def _rows_named(names: Sequence[str]) -> list[PublishedRow]:
    """The rows of names and patterns; one that is named itself must have weights."""
    rows: dict[str, PublishedRow] = {}
    for name in names:
        found = [find(name)] if find(name) else list(matching(name))
        if not found:
            raise OvertoneError(f"no published row matches {name!r}; overtone weights list names them all")
        fetched = [row for row in found if row is not None and row.urls]
        if not fetched:
            raise OvertoneError(f"{name} was published without weights; overtone weights list shows which have some")
        rows |= {row.full_name: row for row in fetched}
    return list(rows.values())


def _verified(name: str, weights_dir: Sequence[Path]) -> list[dict[str, Any]]:
    path = Path(name)
    if path.is_file():
        return [_verified_file(path)]
    rows = [row for row in matching(name) if row.urls]
    if not rows:
        raise OvertoneError(
            f"{name} is neither a file nor the name of published weights; overtone weights list names these"
        )
    lines: list[dict[str, Any]] = []
    for row in rows:
        try:
            located = zoo.find_published(row, weights_dir)
        except OvertoneError as error:
            lines.append(_line(None, row, "altered", str(error)))
            continue
        if located is not None:
            lines.append(_judged(located.path, row))
        elif not any(sign in name for sign in _WILDCARDS):
            lines.append(_line(None, row, "not at hand", "overtone weights fetch downloads it"))
    return lines


def _verified_file(path: Path) -> dict[str, Any]:
    if has_manifest(path):
        manifest = read_checkpoint(path).manifest  # raises where its own hash does not hold
        return _line(
            path, None, "verified", f"the SHA-256 in its header matches; source: {manifest.source or 'trained here'}"
        )
    row = zoo.identify(path)
    if row is None:
        # Not the bytes of a published file; by its name it may be meant to be one.
        row = next((row for row in (*PUBLISHED, *DENSE) if row.urls and path.name == zoo.file_name(row)), None)
    if row is not None:
        return _judged(path, row)
    return _line(path, None, "unknown", f"no published file has the sha256 {zoo.digests(path).sha256}")


def _judged(path: Path, row: PublishedRow) -> dict[str, Any]:
    if has_manifest(path):
        read_checkpoint(path)
        return _line(path, row, "verified", "converted; the SHA-256 in its header matches")
    proof = zoo.verify(path, row)
    if not proof.holds:
        return _line(path, row, "altered", str(proof))
    return _line(path, row, "verified" if proof.verified else "unverified", str(proof))


def _line(path: Path | None, row: PublishedRow | None, state: str, proof: str) -> dict[str, Any]:
    return {
        "file": None if path is None else str(path),
        "published": None if row is None else row.full_name,
        "state": state,
        "proof": proof,
    }


def _described(found: zoo.Description) -> dict[str, Any]:
    manifest = found.manifest
    return {
        "file": str(found.path),
        "bytes": found.size,
        "format": found.format,
        "layout": found.layout,
        "architecture": found.architecture,
        "arguments": to_dict(found.model_args),
        "classes": found.num_classes,
        "input channels": found.in_chans,
        "tensors": found.num_tensors,
        "values": found.num_parameters,
        "types": dict(found.dtypes),
        "beside the weights": to_dict(found.extra),
        "averaged weights": found.has_ema or None,
        "published as": None if found.published is None else found.published.full_name,
        "proof": None if found.proof is None else str(found.proof),
        "source": None if manifest is None else manifest.source,
        "class names": None if manifest is None else list(manifest.labels),
        "preprocess": None if manifest is None else to_dict(manifest.preprocess),
        "notes": list(found.notes),
    }


def _spelled(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {item}" for name, item in value.items())
    if isinstance(value, list):
        shown = [str(item) for item in value]
        return ", ".join(shown[:5]) + (f" … ({len(shown)})" if len(shown) > 5 else "")
    if isinstance(value, bool):
        return "yes" if value else "no"
    return f"{value:,}" if isinstance(value, int) else str(value)


def _size(count: int | None) -> str | None:
    return None if count is None else f"{count / 1e6:.1f} MB"
