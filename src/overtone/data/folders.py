"""Which image files lie below a folder: hidden files and other files are ignored, each real file is found once.

Links are followed. A link never hides the file or folder itself, and one that leads back to a folder above, to a folder
that was seen already or to another class's folder is not entered, so a loop ends and no image gets two classes.
"""

import os
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

from overtone.errors import OvertoneError

SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff"})
FORMATS = "JPEG, PNG, WebP, BMP, GIF, TIFF"

_Identity = tuple[int, int]  # device and inode: what a folder is, whatever it is called


class Found(NamedTuple):
    """An image file: its name below the folder that was searched, its path, and the path without links."""

    name: str
    path: str
    real: str


def subfolders(folder: Path) -> dict[str, Path]:
    """The visible folders in a folder, links to folders included, by name."""
    return {entry.name: Path(entry.path) for entry in _entries(str(folder)) if _is_folder(entry)}


def has_images(folder: Path) -> bool:
    """Whether images lie in the folder itself."""
    return any(_is_image(entry) for entry in _entries(str(folder)))


def class_folders(folder: Path) -> dict[str, Path]:
    """The class folders in a folder by name, sorted; a link to a folder above or to another class's is none."""
    seen = _above(folder)
    chosen: dict[str, Path] = {}
    below = subfolders(folder)
    for name, path in sorted(below.items(), key=lambda item: (item[1].is_symlink(), item[0])):
        identity = _identity(path)
        if identity not in seen:
            seen.add(identity)
            chosen[name] = path
    return dict(sorted(chosen.items()))


def images_in(folders: Mapping[str, Path], root: Path | None = None) -> dict[str, list[Found]]:
    """The image files below each folder, however deep, by name.

    Args:
        folders: folders by class.
        root: the folder they lie in; links to it or to a folder above it are not entered.

    Raises:
        OvertoneError: a folder that may not be read.
    """
    seen = _above(root) if root is not None else set()
    seen |= {_identity(path) for path in folders.values()}
    direct: dict[str, list[Found]] = {}
    linked: dict[str, list[Found]] = {}
    for name, folder in folders.items():
        direct[name], linked[name] = _walk(str(folder), seen)
    taken = {image.real for images in direct.values() for image in images}
    for name, images in linked.items():
        for image in images:
            if image.real not in taken:
                taken.add(image.real)
                direct[name].append(image)
    return {name: sorted(images) for name, images in direct.items()}


def _walk(folder: str, seen: set[_Identity]) -> tuple[list[Found], list[Found]]:
    """Image files below a folder: files themselves, and links to files. Folders come before links to folders."""
    direct: list[Found] = []
    linked: list[Found] = []
    folders, links = deque([("", folder)]), deque[tuple[str, str]]()
    while folders or links:
        if folders:
            prefix, current = folders.popleft()
        else:
            prefix, current = links.popleft()
            if not _first_visit(current, seen):
                continue
        real = os.path.realpath(current)
        for entry in _entries(current):
            name = prefix + entry.name
            if _is_folder(entry):
                if entry.is_symlink():
                    links.append((name + "/", entry.path))
                elif _first_visit(entry.path, seen):
                    folders.append((name + "/", entry.path))
            elif _is_image(entry):
                if entry.is_symlink():
                    linked.append(Found(name, entry.path, os.path.realpath(entry.path)))
                else:
                    direct.append(Found(name, entry.path, os.path.join(real, entry.name)))
    return direct, linked


def _first_visit(folder: str, seen: set[_Identity]) -> bool:
    identity = _identity(folder)
    if identity in seen:
        return False
    seen.add(identity)
    return True


def _entries(folder: str) -> list[os.DirEntry[str]]:
    """Visible entries by name."""
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise OvertoneError(
            f"{folder} cannot be read: {error.strerror}; check the folder and its permissions"
        ) from error


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _is_image(entry: os.DirEntry[str]) -> bool:
    """Whether it is a file, or a link to one, with the suffix of an image."""
    try:
        return os.path.splitext(entry.name)[1].lower() in SUFFIXES and entry.is_file()
    except OSError:
        return False


def _identity(folder: str | Path) -> _Identity:
    status = os.stat(folder)
    return status.st_dev, status.st_ino


def _above(folder: Path) -> set[_Identity]:
    """The folder and all folders above it."""
    real = folder.resolve()
    return {_identity(path) for path in (real, *real.parents)}
