"""Images with a mask each: the source, its splits, and the common layout of an `images/` and a `masks/` folder.

| layout | |
|---|---|
| `images/train/a.jpg`, `masks/train/a.png` | split folders below; also `val`, `test` |
| `train/images/a.jpg`, `train/masks/a.png` | split folders above |
| `images/a.jpg`, `masks/a.png` | a part is held out by a seed |

An image and its mask have the same name but for the suffix. Masks are PNG files (or BMP, TIFF, GIF) of class indices,
grey or with a palette, or of colours that `classes.csv` names. `classes.txt` or `classes.csv` beside the folders names
the classes; without one they are `class 0`, `class 1`, … up to the largest index in any mask.
"""

import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np

from overtone.config import Data
from overtone.data.decoding import BadImage, decode_stored
from overtone.data.folders import FORMATS, images_in, subfolders
from overtone.data.masks import IGNORED, MOST_CLASSES, ClassList, MaskFile, class_list, read_class_list
from overtone.data.sources.image_list import Paths
from overtone.data.sources.parts import PARTS, evaluation_of, root_of, splits_of
from overtone.data.sources.source import Part, Record, Source, Splits
from overtone.errors import OvertoneError

IMAGES = ("images", "imgs", "image")
MASKS = ("masks", "mask", "labels", "annotations", "annots", "segmentation")
LISTS = ("classes.csv", "class_dict.csv", "classes.txt", "labels.txt")
_LAYOUT = "give a folder with images/ and masks/ of files of the same names (images/a.jpg, masks/a.png)"


class Masks(Protocol):
    """Masks by position; picklable."""

    def __len__(self) -> int:
        """Number of masks."""
        ...

    def __getitem__(self, position: int, /) -> Any:
        """The mask at a position, a `data.masks.Mask`."""
        ...


class MaskedImages:
    """Image files with a mask each: a source of records with `image` and `mask`.

    Args:
        labels: names of the classes.
        images: the files.
        masks: the mask of each.
        origin: where they come from, one phrase for messages.
        root: folder that the names of `entry` are relative to.
    """

    def __init__(
        self,
        labels: Sequence[str],
        images: Iterable[Path],
        masks: Masks,
        origin: str,
        root: Path | None = None,
    ) -> None:
        self.labels, self.origin, self.root = tuple(labels), origin, root
        self.paths = images if isinstance(images, Paths) else Paths(images)
        self.masks = masks

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def name(self, position: int) -> str:
        """The image's file."""
        return str(self.paths[position])

    def read(self, position: int) -> Record:
        """The image's file and its mask; neither is opened."""
        return {"image": self.paths[position], "mask": self.masks[position]}

    def entry(self, position: int) -> tuple[str, str, int]:
        """Names of image and mask below `root`, and the bytes of both (-1 where one is gone)."""
        image, mask = self.paths[position], self.masks[position]
        try:
            size = os.stat(image).st_size + (os.stat(mask.path).st_size if isinstance(mask, MaskFile) else 0)
        except (OSError, ValueError):
            size = -1
        return _below(image, self.root), _below(Path(mask.name), self.root), size

    def part(self, positions: Sequence[int] | np.ndarray, origin: str) -> "MaskedImages":
        """The images at some positions."""
        chosen = [int(position) for position in positions]
        masks = self.masks.part(chosen) if isinstance(self.masks, MaskPaths) else [self.masks[i] for i in chosen]
        return MaskedImages(self.labels, [self.paths[i] for i in chosen], masks, origin, self.root)


class MaskPaths:
    """Mask files of the same classes, packed."""

    def __init__(self, paths: Iterable[Path], classes: ClassList) -> None:
        self.paths, self.classes = Paths(paths), classes

    def __len__(self) -> int:
        """Number of masks."""
        return len(self.paths)

    def __getitem__(self, position: int) -> MaskFile:
        """The mask at a position."""
        return MaskFile(self.paths[position], self.classes)

    def part(self, positions: Sequence[int]) -> "MaskPaths":
        """The masks at some positions."""
        return MaskPaths([self.paths[position] for position in positions], self.classes)


class MaskFolders:
    """A folder of images and a folder of masks; see the module."""

    target = "mask"

    def matches(self, data: Data) -> bool:
        """Whether the data is a folder: without anything else to go by, of images and masks."""
        return data.table is None

    def splits(self, data: Data) -> Splits:
        """The images to train on and to validate on."""
        return mask_splits(self._read(data), data)

    def evaluation(self, data: Data, part: Part, trained_on: Data | None) -> Source:
        """The images of a part."""
        return mask_evaluation(self._read(data), data, part, trained_on)

    def _read(self, data: Data) -> dict[str, MaskedImages]:
        root = root_of(data.root, _LAYOUT)
        found = _folders(root)
        if not found:
            raise OvertoneError(f"{root} has no images/ beside a masks/; {_LAYOUT}")
        pairs = {part: _paired(images, masks) for part, (images, masks) in found.items()}
        listed = next((root / name for name in LISTS if (root / name).is_file()), None)
        if listed is None:
            masks = [mask for files in pairs.values() for _, mask in files]
            classes = _numbered(masks, root, data.ignore_index)
        else:
            classes = read_class_list(listed, data.ignore_index)
        return {part: listed_images(files, classes, part, root) for part, files in pairs.items()}


def has_masks(data: Data) -> bool:
    """Whether the data is a folder of images beside a folder of masks."""
    return data.table is None and data.root is not None and data.root.is_dir() and bool(_folders(data.root))


def listed_images(pairs: Sequence[tuple[Path, Path]], classes: ClassList, part: str, root: Path) -> MaskedImages:
    """The source of pairs of image and mask files."""
    origin = f"all images of {root}" if part == "all" else f"the {part} images of {root}"
    masks = MaskPaths((mask for _, mask in pairs), classes)
    return MaskedImages(classes.labels, (image for image, _ in pairs), masks, origin, root)


def mask_splits(parts: Mapping[str, MaskedImages], data: Data) -> Splits:
    """The images to train on and to validate on; see `parts.splits_of`."""
    return splits_of(parts, data, f"the folders of {data.root}")


def mask_evaluation(parts: Mapping[str, MaskedImages], data: Data, part: Part, trained_on: Data | None) -> MaskedImages:
    """The images of a part; see `parts.evaluation_of`."""
    return evaluation_of(parts, data, part, trained_on, lambda: _joined(list(parts.values()), data))


def _joined(parts: Sequence[MaskedImages], data: Data) -> MaskedImages:
    if len(parts) == 1:
        return parts[0]
    images = [path for part in parts for path in part.paths]
    masks = [part.masks[position] for part in parts for position in range(len(part))]
    return MaskedImages(parts[0].labels, images, masks, f"all images of {data.root}", data.root)


def folder_named(folders: Mapping[str, Path], names: Sequence[str]) -> Path | None:
    """The first of some folders that is there; upper and lower case are the same."""
    lower = {name.lower(): path for name, path in folders.items()}
    return next((lower[name] for name in names if name in lower), None)


def _folders(root: Path) -> dict[str, tuple[Path, Path]]:
    """The folders of images and of masks of each part, or of `all`."""
    below = subfolders(root)
    images, masks = folder_named(below, IMAGES), folder_named(below, MASKS)
    if images is not None and masks is not None:
        of_images, of_masks = subfolders(images), subfolders(masks)
        found: dict[str, tuple[Path, Path]] = {}
        for part, names in PARTS.items():
            pair = folder_named(of_images, names), folder_named(of_masks, names)
            if pair[0] is not None and pair[1] is not None:
                found[part] = pair[0], pair[1]
        return found or {"all": (images, masks)}
    found = {}
    for part, names in PARTS.items():
        folder = folder_named(below, names)
        inside = {} if folder is None else subfolders(folder)
        pair = folder_named(inside, IMAGES), folder_named(inside, MASKS)
        if pair[0] is not None and pair[1] is not None:
            found[part] = pair[0], pair[1]
    return found


def _paired(images: Path, masks: Path) -> list[tuple[Path, Path]]:
    """Each image with the mask of the same name but for the suffix; one that is missing is noticed when it is read."""
    found = images_in({"": images})[""]
    if not found:
        raise OvertoneError(f"{images} holds no images ({FORMATS}); {_LAYOUT}")
    there = {os.path.splitext(mask.name)[0]: Path(mask.path) for mask in images_in({"": masks})[""]}
    if not there:
        raise OvertoneError(f"{masks} holds no masks ({FORMATS}); {_LAYOUT}")
    stems = [os.path.splitext(image.name)[0] for image in found]
    return [
        (Path(image.path), there.get(stem, masks / f"{stem}.png")) for image, stem in zip(found, stems, strict=True)
    ]


def _numbered(masks: Sequence[Path], root: Path, ignore_index: int | None) -> ClassList:
    """`class 0` to the largest index in any of the masks; those that cannot be read are named when they are used."""
    largest = -1
    for mask in masks:
        try:
            values, _ = decode_stored(mask)
        except BadImage:
            continue
        if values.ndim == 3 and not (values == values[..., :1]).all():
            raise OvertoneError(
                f"{mask} is a mask of colours; say in {root / 'classes.csv'} what they stand for: a first line "
                "name,r,g,b and then a line for each class"
            )
        counted = values[(values != IGNORED) & (values != ignore_index)]
        largest = max(largest, int(counted.max()) if counted.size else -1)
    if largest < 0:
        raise OvertoneError(f"no mask of {root} could be read, or none holds a class; see what they hold")
    if largest >= MOST_CLASSES:
        raise OvertoneError(
            f"the masks of {root} hold indices up to {largest}; name their classes in {root / 'classes.csv'}, or use "
            f"indices below {MOST_CLASSES}"
        )
    return class_list([f"class {index}" for index in range(largest + 1)], ignore_index)


def _below(path: Path, root: Path | None) -> str:
    return path.relative_to(root).as_posix() if root is not None and path.is_relative_to(root) else path.as_posix()
