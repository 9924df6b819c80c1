"""Objects in COCO's JSON: boxes as [left, top, width, height], outlines as polygons or run lengths, crowds.

Images are listed by `images`, classes by `categories`, objects by `annotations`. Category ids need not be consecutive.
"""

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from overtone.data.opening import MAX_BYTES, read_file
from overtone.data.segments import check_size, pack
from overtone.data.sources.boxed import Faults, Marked, Noted
from overtone.errors import OvertoneError, some
from overtone.plain_json import parse_json

_MOST_BYTES, _MOST_AREA = 4 * MAX_BYTES, 1 << 40
_FILE = "a COCO file has images, categories and annotations"


def read_coco(path: Path, folders: Sequence[Path], faults: Faults) -> tuple[list[Marked], list[str]]:
    """The images of a file with their objects, and the names of its classes.

    Args:
        path: the file.
        folders: where the images may be, the likeliest first; all are in the one that has the first image.
        faults: gets what is left out: annotations whose image is not there.

    Raises:
        OvertoneError: no COCO file, ids twice, objects of an unknown image or class, or numbers that are none.
    """
    content = _content(path)
    names = _by_id(content["categories"], path, "category")
    images = _by_id(content["images"], path, "image")
    marked = {number: _image(image, path) for number, image in images.items()}
    _by_id(content["annotations"], path, "annotation", needs_id=False)
    unknown = [str(note.get("image_id")) for note in content["annotations"] if not _is_among(note, "image_id", marked)]
    if unknown:
        raise OvertoneError(
            f"{path}: {len(unknown)} annotations are of image ids that are not listed ({some(set(unknown), 3)}); "
            "add these images or remove the annotations"
        )
    classes = {number: str(category.get("name", number)) for number, category in names.items()}
    if len(set(classes.values())) < len(classes):
        raise OvertoneError(f"{path}: two categories have the same name; give each a name of its own")
    foreign = {
        str(note.get("category_id")) for note in content["annotations"] if not _is_among(note, "category_id", classes)
    }
    if foreign:
        raise OvertoneError(f"{path}: annotations are of unknown category ids ({some(foreign)}); list these categories")
    for number, note in enumerate(content["annotations"]):
        image = marked[note["image_id"]]
        image.objects.append(_noted(note, classes, image.size, f"{path}: annotation {note.get('id', number)}"))
    return _found(list(marked.values()), folders, faults, path), list(classes.values())


def _content(path: Path) -> dict[str, list[dict[str, Any]]]:
    try:
        content = parse_json(read_file(path, _MOST_BYTES))
    except (OSError, ValueError) as error:
        raise OvertoneError(f"{path} cannot be read as JSON: {error}; {_FILE}") from error
    lists = {}
    for key in ("images", "categories", "annotations"):
        lists[key] = content.get(key) if isinstance(content, Mapping) else None
        if not isinstance(lists[key], list) or not all(isinstance(entry, Mapping) for entry in lists[key]):
            raise OvertoneError(f"{path} has no list of {key}; {_FILE}")
    return lists


def _by_id(entries: Sequence[Mapping[str, Any]], path: Path, what: str, needs_id: bool = True) -> dict[Any, Any]:
    """Entries by their ids, none of which may be there twice."""
    found: dict[Any, Any] = {}
    twice = []
    for entry in entries:
        number = entry.get("id")
        if not isinstance(number, (int, str)):
            if needs_id:
                raise OvertoneError(f"{path}: an entry of {what} has no id; give it one")
            continue
        if number in found:
            twice.append(str(number))
        found[number] = entry
    if twice:
        raise OvertoneError(
            f"{path}: {len(twice)} {what} ids are there twice ({some(set(twice), 3)}); give each an id of its own"
        )
    return found


def _is_among(note: Mapping[str, Any], key: str, known: Mapping[Any, Any]) -> bool:
    """Whether an annotation refers to something that is there."""
    number = note.get(key)
    return isinstance(number, (int, str)) and number in known


def _image(image: Mapping[str, Any], path: Path) -> Marked:
    name, height, width = image.get("file_name"), image.get("height"), image.get("width")
    if not isinstance(name, str) or not name or "\0" in name:
        raise OvertoneError(f"{path}: image {image['id']} has no file_name; fill it in")
    if not all(isinstance(side, int) and 0 < side < 1 << 20 for side in (height, width)):
        raise OvertoneError(f"{path}: image {image['id']} ({name}) has no width and height in pixels; fill them in")
    assert isinstance(height, int) and isinstance(width, int)
    return Marked(name.replace(os.sep, "/"), Path(name), (height, width))


def _noted(note: Mapping[str, Any], classes: Mapping[Any, str], size: tuple[int, int] | None, where: str) -> Noted:
    try:
        left, top, width, height = (float(value) for value in note["bbox"])
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise OvertoneError(f"{where} has no bbox of four numbers; fill it in or remove it") from error
    crowd = bool(note.get("iscrowd", 0))
    try:
        outline = pack(note.get("segmentation"))
        check_size(outline, *(size or (0, 0)))
    except ValueError as error:
        raise OvertoneError(f"{where}: {error}; mend or remove it") from error
    area = note.get("area") if outline else None
    if not isinstance(area, (int, float)) or not 0 <= area < _MOST_AREA:
        area = None
    return Noted(
        label=classes[note["category_id"]],
        box=(left, top, left + width, top + height),
        crowd=crowd,
        area=None if area is None else float(area),
        outline=outline,
    )


def _found(images: list[Marked], folders: Sequence[Path], faults: Faults, path: Path) -> list[Marked]:
    """The images whose files are there."""
    folder = next((f for f in folders for image in images[:50] if os.path.isfile(f / image.name)), None)
    if folder is None:
        tried = some(map(str, dict.fromkeys(folders)), 4)
        raise OvertoneError(f"none of the images of {path} are in {tried}; put them into a folder beside it")
    listings: dict[str, set[str]] = {}
    there = []
    for image in images:
        image.path = folder / image.name
        parent, name = os.path.split(image.path)
        if parent not in listings:
            listings[parent] = set(os.listdir(parent)) if os.path.isdir(parent) else set()
        if name in listings[parent]:
            there.append(image)
        else:
            faults.add("annotated images that are not there", image.name)
    return there
