"""Where what can be made again is kept on this machine, and files that are there whole or not at all."""

import os
import tempfile
from collections.abc import Callable
from pathlib import Path

CACHE_VARIABLE = "OVERTONE_CACHE"


def data_cache() -> Path:
    """The folder for indices and fetched shards: `data` in OVERTONE_CACHE, else in the user's cache folder."""
    given = os.environ.get(CACHE_VARIABLE)
    if given:
        return Path(given).expanduser() / "data"
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "overtone" / "data"


def write_whole(path: Path, write: Callable[[Path], object]) -> None:
    """Write a file under another name in the same folder, then give it its own: nobody sees a part of it.

    Args:
        path: the file; its folder is made.
        write: called with the path to write to.

    Raises:
        OSError: the folder or the file cannot be written.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".part", dir=path.parent)
    os.close(descriptor)
    part = Path(name)
    try:
        write(part)
        os.chmod(part, 0o666 & ~_umask())  # mkstemp lets nobody else read
        os.replace(part, path)
    finally:
        part.unlink(missing_ok=True)


def _umask() -> int:
    mask = os.umask(0)
    os.umask(mask)
    return mask
