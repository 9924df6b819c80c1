"""Objects in YOLO's text files: a line `class x y width height` for each, centre and sides as shares of the image.

`data.yaml` has `names` (a list, or a mapping by number) and the folders `train`, `val`, `test`. The labels of
`images/a.jpg` are in `labels/a.txt`; an image without a file has no objects. Lines of more numbers are outlines.
"""

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import yaml

from overtone.config import Data
from overtone.data.folders import images_in
from overtone.data.opening import read_file
from overtone.data.segments import pack
from overtone.data.sources.boxed import Faults, Marked, Noted
from overtone.data.sources.image_size import image_size
from overtone.errors import OvertoneError, some

_MOST_BYTES = 20_000_000
_KEYS = {"train": ("train",), "val": ("val", "valid", "validation"), "test": ("test",)}
_LABELS = "labels"


def read_yolo(path: Path, data: Data, faults: Faults) -> tuple[dict[str, list[Marked]], list[str]]:
    """The images of each part with their objects, and the names of the classes.

    Args:
        path: `data.yaml`.
        data: gives how images are turned.
        faults: gets label files without an image, which are left out.

    Raises:
        OvertoneError: no such file, folders that are not there, or lines that are no objects.
    """
    content = _content(path)
    names = _names(content, path)
    base = path.parent / str(content.get("path") or "")
    if not os.path.isdir(base):  # which, unlike Path's, takes any text
        base = path.parent  # written on another machine
    parts = {}
    for part, keys in _KEYS.items():
        given = next((content[key] for key in keys if content.get(key)), None)
        if given is not None:
            parts[part] = _part(_folder(str(given), base, path), names, data, faults)
    if not parts:
        raise OvertoneError(f"{path} names no folder of images; add a line train: images/train")
    return parts, names


def _content(path: Path) -> Mapping[str, Any]:
    try:
        content = yaml.safe_load(read_file(path, _MOST_BYTES))
    except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
        raise OvertoneError(f"{path} cannot be read as YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, Mapping):
        raise OvertoneError(f"{path} is no data.yaml; it must have names and train")
    return content


def _names(content: Mapping[str, Any], path: Path) -> list[str]:
    names = content.get("names")
    if isinstance(names, Mapping) and set(names) == set(range(len(names))):
        names = [names[number] for number in range(len(names))]
    if not isinstance(names, list) or not names or not all(isinstance(name, (str, int)) for name in names):
        raise OvertoneError(f"{path} has no names of classes; add a line such as names: [cat, dog]")
    if len(set(map(str, names))) < len(names):
        raise OvertoneError(f"{path}: two classes have the same name; give each a name of its own")
    return [str(name) for name in names]


def _folder(given: str, base: Path, path: Path) -> Path:
    """A folder of images; exporters write `../train/images` for one that is beside the file."""
    candidates = [base / given, path.parent / given, path.parent / given.removeprefix("../")]
    found = next((folder for folder in candidates if os.path.isdir(folder)), None)
    if found is None:
        raise OvertoneError(f"{path} names the folder {given}, which is not there; mend the line")
    return found


def _part(folder: Path, names: list[str], data: Data, faults: Faults) -> list[Marked]:
    """The images below a folder with what their label files say."""
    inside = folder / "images"
    folder = inside if inside.is_dir() else folder
    labels = _labels_of(folder)
    found, stems, broken = [], set(), []
    for image in images_in({"": folder})[""]:
        stem = image.name.rpartition(".")[0]
        stems.add(stem)
        marked = Marked(image.name, Path(image.path), image_size(Path(image.path), data.preprocess.exif))
        file = labels / f"{stem}.txt"
        if file.is_file() and marked.size != (0, 0):
            try:
                marked.objects = read_lines(file, names, marked.size or (1, 1))
            except (OSError, ValueError) as error:
                broken.append(f"{file.name}: {error}")
        found.append(marked)
    if broken:
        raise OvertoneError(f"{len(broken)} label files of {labels} cannot be read ({some(broken, 3)}); mend them")
    for file in sorted(labels.rglob("*.txt")) if labels.is_dir() else ():
        if file.relative_to(labels).with_suffix("").as_posix() not in stems and file.name != "classes.txt":
            faults.add("annotations without image", file.name)
    return found


def _labels_of(images: Path) -> Path:
    """The folder of labels: where the last `images` of the path is `labels`."""
    parts = list(images.parts)
    at = next((i for i in range(len(parts) - 1, -1, -1) if parts[i] == "images"), None)
    if at is None:
        return images / _LABELS if (images / _LABELS).is_dir() else images
    return Path(*parts[:at], _LABELS, *parts[at + 1 :])


def read_lines(path: Path, names: list[str], size: tuple[int, int]) -> list[Noted]:
    """The objects of a label file of an image of this height and width.

    Raises:
        ValueError: a line is no object, or of a class that has no name.
    """
    height, width = size
    objects = []
    for number, line in enumerate(read_file(path, _MOST_BYTES).decode().splitlines(), 1):
        words = line.split()
        if not words:
            continue
        try:
            index, values = int(words[0]), np.array([float(word) for word in words[1:]])
        except ValueError:
            raise ValueError(f"line {number} is not a class and numbers") from None
        if not 0 <= index < len(names):
            raise ValueError(f"line {number} is of the class {index}, and there are {len(names)} names")
        if len(values) < 4 or not np.isfinite(values).all() or (len(values) > 4 and len(values) % 2):
            raise ValueError(f"line {number} has not four numbers after the class, or the points of an outline")
        objects.append(_noted(names[index], values, height, width))
    return objects


def _noted(label: str, values: np.ndarray, height: int, width: int) -> Noted:
    if len(values) > 4:
        points = values.reshape(-1, 2) * (width, height)
        (left, top), (right, bottom) = points.min(0).tolist(), points.max(0).tolist()
        outline = pack([points.round(2).ravel().tolist()]) if len(points) > 2 else b""
        return Noted(label, (left, top, right, bottom), outline=outline)
    x, y, w, h = values.tolist()
    box = ((x - w / 2) * width, (y - h / 2) * height, (x + w / 2) * width, (y + h / 2) * height)
    return Noted(label, box)
