"""Where published files lie on this machine."""

import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import torch

from overtone.errors import OvertoneError
from overtone.published import Published, rows_of

CACHE_VARIABLE, WEIGHTS_VARIABLE = "OVERTONE_CACHE", "OVERTONE_WEIGHTS_DIR"
WEIGHTS_SUFFIXES = (".pth", ".pt", ".tar", ".safetensors")

Folders = str | os.PathLike[str] | Sequence[str | os.PathLike[str]] | None


def cache_folder() -> Path:
    """The folder that published files are fetched to: OVERTONE_CACHE, else torch hub's folder of checkpoints."""
    given = os.environ.get(CACHE_VARIABLE)
    return Path(given).expanduser() if given else Path(torch.hub.get_dir()) / "checkpoints"


def weights_folders(weights_dir: Folders = None) -> list[Path]:
    """The folders with files put there by hand: those given, then those of OVERTONE_WEIGHTS_DIR.

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


def file_name(row: Published, url: str | None = None) -> str:
    """The name of a row's file in the cache: the published one, else one made of the row's name.

    Args:
        row: a published row.
        url: the address, where a row has several files: the name in it, if it has one.
    """
    if row.file is not None:
        return row.file
    last = "" if url is None else url.partition("?")[0].rpartition("/")[2]
    return last if last.endswith(WEIGHTS_SUFFIXES) else f"{row.full_name}.pth"


def names_by_hand(row: Published) -> list[str]:
    """Names under which a file put somewhere by hand is taken for the row's, the likeliest first."""
    names = [file_name(row), *(file_name(row, url) for url in row.urls)]
    stems = [row.full_name] + ([row.architecture] if len(rows_of(row.architecture)) == 1 else [])
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
