"""Masks from COCO's JSON of objects: polygons and run lengths, drawn into the class of every pixel.

| layout | |
|---|---|
| `annotations/instances_train2017.json`, `train2017/a.jpg` | as COCO is unpacked; `val2017` in the same way |
| `train/_annotations.coco.json`, `train/a.jpg` | as labelling tools export it; `valid`, `val`, `test` in the same way |

Class 0 is the background: pixels of no object. Where objects overlap, the smaller one is on top.
"""

import json
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageDraw

from overtone.config import Data
from overtone.data.decoding import MAX_PIXELS, BadImage
from overtone.data.masks import MOST_CLASSES
from overtone.data.opening import read_file
from overtone.data.run_lengths import lengths_in
from overtone.data.sources.masks import MaskedImages, mask_evaluation, mask_splits
from overtone.data.sources.parts import PARTS
from overtone.data.sources.source import Part, Source, Splits
from overtone.errors import OvertoneError

BACKGROUND = "background"
_MOST_BYTES = 2_000_000_000
_YEARS = ("2017", "2014", "")
_LISTS = ("_annotations.coco.json", "annotations.json", "instances.json")


@dataclass(frozen=True)
class DrawnMask:
    """A mask that is drawn from objects.

    Attributes:
        name: of the image in its list.
        size: height and width.
        objects: class and outline of each, largest first, as JSON text.
    """

    name: str
    size: tuple[int, int]
    objects: bytes

    def pixels(self) -> np.ndarray:
        """The class of every pixel, uint8 `(H, W)`; see `data.masks.Mask`."""
        height, width = self.size
        if not 0 < height * width <= MAX_PIXELS:
            raise BadImage(None, f"its mask would have {width}x{height} pixels")
        mask = np.zeros(self.size, dtype=np.uint8)
        for label, outline in json.loads(self.objects):
            try:
                mask[drawn(outline, height, width)] = label
            except (ValueError, TypeError, KeyError, IndexError) as error:
                raise BadImage(None, f"an object of its mask cannot be drawn: {error}") from error
        return mask


class DrawnMasks:
    """Drawn masks, packed: the objects of a hundred thousand images would be copied into every worker."""

    def __init__(self, masks: Iterable[DrawnMask]) -> None:
        kept = list(masks)
        self._names = [mask.name for mask in kept]
        self._sizes = np.array([mask.size for mask in kept], dtype=np.int32).reshape(-1, 2)
        self._ends = np.cumsum([len(mask.objects) for mask in kept], dtype=np.int64)
        self._objects = b"".join(mask.objects for mask in kept)

    def __len__(self) -> int:
        """Number of masks."""
        return len(self._names)

    def __getitem__(self, position: int) -> DrawnMask:
        """The mask at a position."""
        start = int(self._ends[position - 1]) if position else 0
        height, width = self._sizes[position].tolist()
        return DrawnMask(self._names[position], (height, width), self._objects[start : int(self._ends[position])])


class CocoMasks:
    """Images with COCO's JSON; see the module."""

    target = "mask"

    def matches(self, data: Data) -> bool:
        """Whether such a JSON file lies where it is looked for."""
        return data.table is None and data.root is not None and bool(_files(data.root))

    def splits(self, data: Data) -> Splits:
        """The images to train on and to validate on."""
        return mask_splits(_read(data), data)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part."""
        return mask_evaluation(_read(data), data, part, trained_on)


def drawn(outline: Any, height: int, width: int) -> np.ndarray:
    """The pixels of an object, bool `(H, W)`.

    Args:
        outline: polygons `[[x, y, x, y, …], …]` in pixels, or run lengths `{"size": [H, W], "counts": …}` down the
            columns, alternately outside and inside, as numbers or as COCO's text.
        height: H.
        width: W.

    Raises:
        ValueError: run lengths of another size.
    """
    if not isinstance(outline, Mapping):
        image = Image.new("1", (width, height))
        for polygon in outline:
            points = [(float(x) - 0.5, float(y) - 0.5) for x, y in zip(polygon[::2], polygon[1::2], strict=True)]
            if len(points) >= 3:
                ImageDraw.Draw(image).polygon(points, fill=1, outline=1)
        return np.array(image)
    counts = outline["counts"]
    lengths = lengths_in(counts.encode("ascii")) if isinstance(counts, str) else [int(count) for count in counts]
    if list(outline["size"]) != [height, width] or sum(lengths) != height * width or min(lengths, default=0) < 0:
        raise ValueError(f"run lengths of size {outline['size']} for {height} rows of {width} pixels")
    values = np.zeros(len(lengths), dtype=bool)
    values[1::2] = True
    return np.repeat(values, lengths).reshape(width, height).T


def _files(root: Path) -> dict[str, tuple[Path, Path]]:
    """The JSON file and the folder of images of each part."""
    found: dict[str, tuple[Path, Path]] = {}
    for part, names in PARTS.items():
        for name in names:
            listed = [(root / name / file, root / name) for file in _LISTS]
            listed += [
                (root / "annotations" / f"instances_{name}{year}.json", root / f"{name}{year}") for year in _YEARS
            ]
            for file, folder in listed:
                if part not in found and file.is_file():
                    found[part] = file, folder
    return found


def _read(data: Data) -> dict[str, MaskedImages]:
    root = data.root
    assert root is not None
    files = _files(root)
    contents = {part: _json(file) for part, (file, _) in files.items()}
    try:
        categories = {int(c["id"]): str(c["name"]) for values in contents.values() for c in values["categories"]}
        used = sorted({int(o["category_id"]) for values in contents.values() for o in values["annotations"]})
    except (KeyError, TypeError, ValueError) as error:
        listed = " or ".join(str(file) for file, _ in files.values())
        raise OvertoneError(f"{listed} is no list of objects as COCO has it ({error}); export it anew") from error
    names = [categories.get(identity, f"class {identity}") for identity in used]
    if not used or len(names) + 1 > MOST_CLASSES or len({BACKGROUND, *names}) <= len(names):
        raise OvertoneError(
            f"{root} has objects of {len(names)} categories; there must be 1 to {MOST_CLASSES - 1} with different names"
        )
    labels = {identity: index + 1 for index, identity in enumerate(used)}
    parts = {}
    for part, (file, folder) in files.items():
        try:
            parts[part] = _images(contents[part], folder, (BACKGROUND, *names), labels, f"the {part} images of {file}")
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise OvertoneError(f"{file} is no list of objects as COCO has it ({error}); export it anew") from error
    return parts


def _images(
    contents: Mapping[str, Any], folder: Path, names: Sequence[str], labels: Mapping[int, int], origin: str
) -> MaskedImages:
    of_image: dict[int, list[Any]] = {}
    for item in contents["annotations"]:
        if item.get("segmentation"):
            of_image.setdefault(int(item["image_id"]), []).append(item)
    paths, masks = [], []
    for image in contents["images"]:
        name = str(image["file_name"])
        if os.path.isabs(name) or ".." in Path(name).parts:
            raise ValueError(f"the image {name} lies outside of {folder}")
        objects = sorted(of_image.get(int(image["id"]), ()), key=lambda item: -float(item.get("area", 0)))
        drawn_in_order = [[labels[int(item["category_id"])], item["segmentation"]] for item in objects]
        paths.append(folder / name)
        size = int(image["height"]), int(image["width"])
        masks.append(DrawnMask(name, size, json.dumps(drawn_in_order).encode()))
    return MaskedImages(names, paths, DrawnMasks(masks), origin, folder.parent)


def _json(path: Path) -> Mapping[str, Any]:
    try:
        values = json.loads(read_file(path, _MOST_BYTES))
        if not all(isinstance(values[key], list) for key in ("images", "annotations", "categories")):
            raise TypeError("images, annotations and categories must be lists")
    except (OSError, ValueError, KeyError, TypeError, RecursionError) as error:
        raise OvertoneError(f"{path} is no list of objects as COCO has it ({error}); export it anew") from error
    return values
