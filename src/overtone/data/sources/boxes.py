"""Images with boxes around their objects: COCO's JSON, Pascal VOC's XML, YOLO's text files, or a table.

| form | what is looked for |
|---|---|
| COCO | `annotations/*train*.json` and `*val*.json`; or a JSON file in each of `train/`, `val/`; or one JSON file |
| VOC | `Annotations/`, `JPEGImages/` and perhaps `ImageSets/Main/train.txt`, `val.txt`; or XML beside the images |
| YOLO | `data.yaml` |
| table | `data.table` with a row for each object (`data.sources.box_table`) |

`data.table` may also name the JSON or YAML file. Classes are sorted by name, images by their names; coordinates are
rounded to 0.01 pixel, which the shares of YOLO are exact to, so the same annotations give the same records in every
form. Where the data has no validation images, a seeded part of the training images is held out.

Refused: files that cannot be read, ids or image names that are there twice, objects of unknown classes or images, and
numbers that are none. Left out, counted and named: boxes of no size or outside the image, annotated images that are not
there, VOC's images without a file of annotations. Boxes that reach over an edge are cut at it. Images without objects
stay.
"""

import dataclasses
import itertools
import math
from collections.abc import Mapping, Sequence
from pathlib import Path

from overtone.config import Data
from overtone.data.folders import images_in, subfolders
from overtone.data.sources.box_table import read_table
from overtone.data.sources.boxed import BoxedImages, Faults, Marked, Noted
from overtone.data.sources.coco import read_coco
from overtone.data.sources.parts import PARTS, evaluation_of, root_of, splits_of
from overtone.data.sources.source import Part, Source, Splits
from overtone.data.sources.voc import listed, read_voc
from overtone.data.sources.yolo import read_yolo
from overtone.errors import OvertoneError, some

_LAYOUT = (
    "give a folder with COCO's JSON, VOC's Annotations/ and JPEGImages/, or YOLO's data.yaml, or a table with a row "
    "for each box as --data.table"
)
_DECIMALS = 2
_Found = tuple[dict[str, list[Marked]], list[str] | None, str]  # images by part, classes where they are listed, form


class BoxData:
    """Images with objects in any of the forms; see the module."""

    target = "boxes"

    def matches(self, data: Data) -> bool:
        """Whether there is anything to look at: all forms are found out while they are read."""
        return data.root is not None or data.table is not None

    def splits(self, data: Data) -> Splits:
        """The images to train on and to validate on."""
        parts = read_boxes(data)
        name = "train" if "train" in parts else "all"
        if name in parts:
            if data.drop_empty:
                parts[name] = parts[name].part(parts[name].usable(), parts[name].origin)
            if len(parts[name]) and not sum(parts[name].counts()):
                raise OvertoneError(f"no training image of {_place(data)} has an object; mark some")
        return splits_of(parts, data, next(iter(parts.values())).origin)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part: the data's own, else by the seeded split of the training."""
        parts = read_boxes(data)
        return evaluation_of(parts, data, part, trained_on, lambda: _joined(list(parts.values())))


def read_boxes(data: Data) -> dict[str, BoxedImages]:
    """The images of each part, or of `all`, with the same labels.

    Raises:
        OvertoneError: see the module.
    """
    faults = Faults()
    parts, names, form = _read(data, faults)
    for images in parts.values():
        images.sort(key=lambda image: image.name)
        twice = [image.name for image, other in itertools.pairwise(images) if image.name == other.name]
        if twice:
            raise OvertoneError(
                f"{_place(data)} has {len(twice)} images twice ({some(set(twice), 3)}); keep one of each"
            )
        for image in images:
            image.objects = [kept for noted in image.objects if (kept := within(noted, image, faults)) is not None]
    labels = sorted(set(names or ()) | {o.label for images in parts.values() for i in images for o in i.objects})
    if not labels:
        raise OvertoneError(f"{_place(data)} has no object in any image; {_LAYOUT}")
    origin = f"{form} annotations of {_place(data)}" + (f"; left out: {faults}" if faults else "")
    return {
        part: BoxedImages(labels, images, origin, data.root or _place(data).parent, faults)
        for part, images in parts.items()
    }


def within(noted: Noted, image: Marked, faults: Faults) -> Noted | None:
    """The object with its box rounded and cut at the edges; None for one without any pixel."""
    height, width = image.size or (0, 0)
    if not all(map(math.isfinite, noted.box)):
        raise OvertoneError(f"{image.name} has a box of {noted.box}; its four numbers must be finite")
    left, top, right, bottom = (round(value, _DECIMALS) for value in noted.box)
    if right <= left or bottom <= top:
        faults.add("boxes of no size", image.name)
        return None
    if left >= width or top >= height or right <= 0 or bottom <= 0:
        faults.add("boxes outside of their images", image.name)
        return None
    box = max(left, 0.0), max(top, 0.0), min(right, float(width)), min(bottom, float(height))
    if box != (left, top, right, bottom):
        faults.add("boxes over an edge, which are cut,", image.name)
    return dataclasses.replace(noted, box=box)


def _read(data: Data, faults: Faults) -> _Found:
    """The images of each part as the data's form has them."""
    table, root = data.table, data.root
    if root is not None:
        root_of(root, _LAYOUT)
    if table is not None:
        file = table if root is None or table.is_file() else root / table
        suffix = file.suffix.lower()
        if suffix not in (".json", ".yaml", ".yml"):
            return *read_table(data, faults), "table of"
        if not file.is_file():
            raise OvertoneError(f"data.table {table} is not there; {_LAYOUT}")
        return _coco({"all": file}, root or file.parent, faults) if suffix == ".json" else _yolo(file, data, faults)
    assert root is not None
    for file in (root / "data.yaml", root / "data.yml"):
        if file.is_file():
            return _yolo(file, data, faults)
    folders = _part_folders(root)
    files = _json_files(root, folders)
    if files:
        return _coco(files, root, faults)
    parts = _voc_parts(root, faults) or {
        part: images for part, folder in folders.items() if (images := _voc(folder, faults)) is not None
    }
    if not parts:
        raise OvertoneError(f"{root} has no annotations of boxes that are known; {_LAYOUT}")
    return parts, None, "VOC"


def _yolo(file: Path, data: Data, faults: Faults) -> _Found:
    return *read_yolo(file, data, faults), "YOLO"


def _coco(files: Mapping[str, Path], root: Path, faults: Faults) -> _Found:
    """The images of one file for each part; all files have the same classes."""
    parts, names = {}, {}
    for part, file in files.items():
        below = subfolders(root)
        own = [
            folder for name, folder in below.items() if file.stem.endswith(name) or name.lower() in PARTS.get(part, ())
        ]
        near = [file.parent / "images", file.parent]
        own = [*near, *own] if file.parent in below.values() and file.parent.name != "annotations" else [*own, *near]
        inside = [folder / "images" for folder in own] + [root / "images" / name for name in (part, file.stem)]
        parts[part], names[part] = read_coco(file, [*own, *inside, root / "images", root], faults)
    classes = {name for listed_names in names.values() for name in listed_names}
    return parts, sorted(classes), "COCO"


def _json_files(root: Path, folders: Mapping[str, Path]) -> dict[str, Path]:
    """COCO's files by part, or one as `all`."""
    found: dict[str, Path] = {}
    for folder in (root / "annotations", root):
        files = sorted(folder.glob("*.json")) if folder.is_dir() else []
        instances = [file for file in files if file.name.startswith("instances_")] or files
        for part, names in PARTS.items():
            named = [file for file in instances if any(name in file.stem.lower() for name in names)]
            if len(named) > 1:
                raise OvertoneError(f"{folder} has {len(named)} JSON files for {part} ({some(f.name for f in named)})")
            found |= {part: named[0]} if named and part not in found else {}
        if not found and len(instances) == 1:
            return {"all": instances[0]}
    for part, folder in folders.items():
        files = sorted(folder.glob("*.json"))
        if len(files) == 1 and part not in found:
            found[part] = files[0]
    return found


def _part_folders(root: Path) -> dict[str, Path]:
    below = {name.lower(): folder for name, folder in subfolders(root).items()}
    found = {part: next((below[n] for n in names if n in below), None) for part, names in PARTS.items()}
    return {part: folder for part, folder in found.items() if folder is not None}


def _voc_parts(root: Path, faults: Faults) -> dict[str, list[Marked]]:
    """The images of a VOC folder by the lists of `ImageSets/Main`; without them all."""
    sets = root / "ImageSets" / "Main"
    files = {part: sets / f"{part}.txt" for part in PARTS if (sets / f"{part}.txt").is_file()}
    parts = {}
    for part, file in files.items():
        images = _voc(root, faults, listed(file))
        if images:
            parts[part] = images
    if parts:
        return parts
    images = _voc(root, faults)
    return {} if images is None else {"all": images}


def _voc(folder: Path, faults: Faults, stems: Sequence[str] | None = None) -> list[Marked] | None:
    """The images of a folder with `Annotations/`, or with XML files beside the images; None where there are neither."""
    below = subfolders(folder)
    annotations = below.get("Annotations") or below.get("annotations") or folder
    images = below.get("JPEGImages") or below.get("images") or folder
    is_flat = annotations == folder
    files = folder.glob("*.xml") if is_flat else annotations.rglob("*.xml")
    notes = {file.relative_to(annotations).with_suffix("").as_posix(): file for file in files}
    if not notes:
        return None
    found = {
        image.name.rpartition(".")[0]: Path(image.path)
        for image in images_in({"": images})[""]
        if not is_flat or Path(image.path).parent == folder
    }
    marked = read_voc(found, notes, stems, faults)
    if not marked:
        raise OvertoneError(f"none of the annotated images of {annotations} are in {images}; put them there")
    return marked


def _joined(parts: Sequence[BoxedImages]) -> BoxedImages:
    """All images of all parts; the first of those that are in two."""
    first, *others = parts
    if not others:
        return first
    images = {str(part.paths[at]): part.marked(at) for part in reversed(parts) for at in range(len(part))}
    return BoxedImages(first.labels, [images[path] for path in sorted(images)], first.origin, first.root, first.faults)


def _place(data: Data) -> Path:
    place = data.table or data.root
    assert place is not None
    return place
