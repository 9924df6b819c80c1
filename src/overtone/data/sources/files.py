"""Image files given one by one or as folders, without labels: what prediction takes."""

from collections.abc import Sequence
from pathlib import Path

from overtone.data.folders import FORMATS, images_in
from overtone.data.opening import is_folder, resolved_once
from overtone.errors import OvertoneError


def find_images(paths: Sequence[Path]) -> list[Path]:
    """Files as they are given, and all images below the folders among them, by name; each file once.

    A path that is neither is kept: reading it says what is wrong, and the others are not stopped.

    Raises:
        OvertoneError: a folder that holds no image.
    """
    found: dict[Path, Path] = {}
    for path in paths:
        if is_folder(path):
            images = images_in({"": path})[""]
            if not images:
                raise OvertoneError(f"{path} holds no images ({FORMATS}); give image files or a folder of them")
            found |= {resolved_once(Path(image.path)): Path(image.path) for image in images}
        else:
            found.setdefault(resolved_once(path), path)
    return list(found.values())
