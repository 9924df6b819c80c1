"""Which artifacts this user trusts, for formats that can carry code.

An ONNX or OpenVINO file is data. A `.pt2` of PyTorch names the functions that it calls, a package of AOTInductor is a
shared library, and a `.pte` of ExecuTorch is read by native code that checks little: opening one of these is running
it. So such a file is opened only if its SHA-256 is recorded on this machine, outside of the folder that the file came
in. `overtone export` records what it writes, `overtone trust FOLDER` what a user vouches for.
"""

import hashlib
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from overtone.errors import OvertoneError

TRUST_VARIABLE = "OVERTONE_TRUST_DIR"


def record_folder() -> Path:
    """The folder with one file per trusted SHA-256: OVERTONE_TRUST_DIR, or `overtone/trusted` in the user's state."""
    given = os.environ.get(TRUST_VARIABLE)
    if given:
        return Path(given).expanduser()
    state = os.environ.get("LOCALAPPDATA" if sys.platform == "win32" else "XDG_STATE_HOME", "")
    base = Path(state) if os.path.isabs(state) else Path("~/.local/state").expanduser()
    return base / "overtone" / "trusted"


def record(files: Mapping[str, str], origin: str) -> None:
    """Trust files from now on.

    Args:
        files: SHA-256 by name.
        origin: where they come from, for a reader of the record.

    Raises:
        OvertoneError: the record cannot be written.
    """
    folder = record_folder()
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for name, digest in files.items():
            (folder / digest).write_text(f"{name} {origin!r}\n", encoding="utf-8")
    except OSError as error:
        raise OvertoneError(
            f"{folder}, the record of trusted files, cannot be written ({error.strerror or error}); make it writable, "
            f"or set {TRUST_VARIABLE} to another folder"
        ) from error


def untrusted(files: Mapping[str, str]) -> list[str]:
    """Names of the files whose SHA-256 is not recorded."""
    folder = record_folder()
    return [name for name, digest in files.items() if not (folder / digest).is_file()]


def check_trusted(folder: Path, files: Mapping[str, str], title: str) -> None:
    """Refuse to open files that can carry code, unless every one is trusted.

    Args:
        folder: the export.
        files: SHA-256, verified, by name.
        title: of the runtime, for the message.

    Raises:
        OvertoneError: one is not.
    """
    names = untrusted(files)
    if names:
        raise OvertoneError(
            f"{folder}/{', '.join(names)} is not trusted on this machine, and a file for {title} can run code; if you "
            f"trust whoever made it, run: overtone trust {folder}"
        )


def sha256(path: Path) -> str:
    """SHA-256 of a file, hexadecimal."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
