"""Image files and their classes: which files a folder holds, how they are split, and how one file becomes a picture.

A folder holds `train/` and `val/` (or `valid/`, `validation/`, `test/`) of class folders, or is one folder of class
folders; then part of each class is held out for validation, chosen by a hash of the file's name.
"""

import hashlib
import os
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from overtone.config import Data
from overtone.data.decoding import BadImage, decode_image
from overtone.data.folders import FORMATS, Found, class_folders, has_images, images_in, subfolders
from overtone.data.opening import is_folder, resolved_once
from overtone.errors import OvertoneError

__all__ = ["BadImage", "ImageList", "Splits", "decode_image", "find_evaluation", "find_images", "find_splits"]

Part = Literal["auto", "train", "val", "test", "all"]

_NAMES: dict[str, tuple[str, ...]] = {
    "train": ("train", "training"),
    "val": ("val", "valid", "validation"),
    "test": ("test", "testing"),
}
_LAYOUT = (
    "give a folder with train/ and val/ of class folders, or one folder of class folders "
    "(flowers/rose/1.jpg, flowers/tulip/2.jpg)"
)


@dataclass(frozen=True)
class ImageList:
    """Image files with their classes.

    Attributes:
        classes: names of the classes, sorted; a target is a position in it.
        paths: the files, by class and then by name.
        targets: class of each file.
        origin: where the list comes from, to be read.
    """

    classes: tuple[str, ...]
    paths: tuple[Path, ...]
    targets: tuple[int, ...]
    origin: str = ""

    def __len__(self) -> int:
        """Number of images."""
        return len(self.paths)

    def counts(self) -> tuple[int, ...]:
        """Number of images of each class."""
        counts = [0] * len(self.classes)
        for target in self.targets:
            counts[target] += 1
        return tuple(counts)


@dataclass(frozen=True)
class Splits:
    """What is trained on and what is held out.

    Attributes:
        train: training images.
        val: validation images, with the same classes in the same order.
        origin: `folders …` or `seeded split …`, to be read.
        seeded: whether the files of `val` were chosen by the seed rather than by the folders.
    """

    train: ImageList
    val: ImageList
    origin: str
    seeded: bool = False


def find_splits(data: Data) -> Splits:
    """The training and the validation images of a folder.

    With `train/` beside `val/` (else `test/`) these are the splits. Otherwise the class folders, of `train/` or of the
    folder itself, are split: round(n * val_fraction) images of each class, at least one of two or more, are held out;
    with a fraction of 0 none, and the validation images are an empty list.
    Which ones depends on `split_seed` and on each file's class and name, not on other files' order or the machine.

    Raises:
        OvertoneError: no folder, no images, images without class folders, an empty class folder, one class only, or
            classes that differ between `train/` and `val/`.
    """
    root = _root(data.root)
    layout = _layout(root)
    if "train" not in layout:
        raise OvertoneError(f"{root} has {_listing(layout)} but no train/; {_LAYOUT}")
    train = _read(layout["train"], data.allow_empty_classes)
    if len(train.classes) < 2:
        raise OvertoneError(
            f"{layout['train']} has one class only, {', '.join(train.classes)}; put images of another class beside it"
        )
    held_out = layout.get("val") or layout.get("test")
    if held_out is None:
        return _seeded_split(train, layout["train"], data)
    val = _with_classes(_read(held_out, data.allow_empty_classes), held_out, train.classes, layout["train"], data)
    return Splits(train, val, f"folders {layout['train'].name}/ and {held_out.name}/ of {root}")


def find_evaluation(
    root: Path | None, split: Part = "auto", held_out: Data | None = None, *, allow_empty_classes: bool = False
) -> ImageList:
    """The images to evaluate on.

    Args:
        root: folder, as for `find_splits`, or one with `val/` or `test/` alone.
        split: `train`, `val`, `test` (a folder of that name; `train` and `val` fall back to the seeded split), `all`
            images; or `auto`: `val/`, else `test/`, else the held-out part where the model was trained on other images
            of the same folder, else all.
        held_out: how the model's training split its images, if it did; `None` for a model from elsewhere. It is used
            where its own root is this folder, or is no longer there, and `root` is one folder of class folders.
        allow_empty_classes: keep class folders that hold no image as classes.

    Raises:
        OvertoneError: no folder, no images, no such split, images without class folders, or an empty class folder.
    """
    root = _root(root)
    layout = _layout(root)
    if split == "auto":
        split = _automatic(layout, held_out)
    if split == "all":
        return _joined([_read(folder, allow_empty_classes) for folder in layout.values()], root)
    found = layout.get(split) or (layout.get("test") if split == "val" else None)
    if found is None and "train" not in layout:
        raise OvertoneError(f"{root} has no {split}/; it has {_listing(layout)}: choose one of these, or all")
    if split == "test" and found is None:
        raise OvertoneError(f"{root} has no test/ of class folders; choose val (the held-out part) or all")
    if found is not None and (split != "train" or len(layout) > 1):
        return _read(found, allow_empty_classes)
    pool = layout["train"]
    splits = _seeded_split(_read(pool, allow_empty_classes), pool, held_out or Data())
    if split == "val" and not splits.val:
        raise OvertoneError(f"the training held nothing of {pool} out to evaluate on; choose all, or other images")
    return splits.train if split == "train" else splits.val


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


def _root(root: Path | None) -> Path:
    if root is None:
        raise OvertoneError(f"data.root is not given, so there are no images; {_LAYOUT}")
    if not root.is_dir():
        kind = "is not a folder" if root.exists() else "does not exist"
        raise OvertoneError(f"data.root {root} {kind}; {_LAYOUT}")
    return root


def _layout(root: Path) -> dict[str, Path]:
    """The splits that are folders (`train`, `val`, `test`), or the root alone as `train`: a folder of class folders.

    A folder named like a split is one only if it holds folders: `train/` with images may be the class of trains.
    """
    below = subfolders(root)
    names = {name.lower(): path for name, path in sorted(below.items(), reverse=True)}
    splits = {
        split: next(names[alias] for alias in aliases if alias in names)
        for split, aliases in _NAMES.items()
        if any(alias in names for alias in aliases)
    }
    holding = {split: folder for split, folder in splits.items() if subfolders(folder)}
    others = set(names) - {alias for aliases in _NAMES.values() for alias in aliases}
    if "train" not in holding and (others or not splits):
        return {"train": root}
    for split, folder in splits.items():
        # A test/ without class folders beside train/ is the custom for pictures whose classes are kept back.
        if split not in holding and not (split == "test" and "train" in holding):
            state = "images but no class folders" if has_images(folder) else "no class folders"
            raise OvertoneError(f"{folder} holds {state}; put each class's images in a folder of its own in it")
    return holding


def _listing(layout: Mapping[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in layout.values())


def _read(folder: Path, allow_empty: bool) -> ImageList:
    """The images of a folder of class folders."""
    folders = class_folders(folder)
    if not folders:
        state = "holds images but no class folders" if has_images(folder) else f"holds no images ({FORMATS})"
        raise OvertoneError(f"{folder} {state}; {_LAYOUT}")
    found = images_in(folders, folder)
    if not any(found.values()):
        raise OvertoneError(f"{folder} holds no images ({FORMATS}); {_LAYOUT}")
    empty = [name for name, images in found.items() if not images]
    if empty and not allow_empty:
        raise OvertoneError(
            f"{folder} has class folders without an image: {_some(empty)}; remove them, fill them, "
            "or keep them as classes with --data.allow-empty-classes"
        )
    return _image_list(found, f"all images of {folder}")


def _image_list(found: Mapping[str, Iterable[Found]], origin: str) -> ImageList:
    pairs = [(Path(image.path), target) for target, images in enumerate(found.values()) for image in images]
    return ImageList(tuple(found), tuple(path for path, _ in pairs), tuple(target for _, target in pairs), origin)


def _some(names: Iterable[str], limit: int = 8) -> str:
    """The first names, and how many there are beyond."""
    names = sorted(names)
    return ", ".join(names[:limit]) + (f" and {len(names) - limit} more" if len(names) > limit else "")


def _with_classes(val: ImageList, folder: Path, classes: tuple[str, ...], train: Path, data: Data) -> ImageList:
    """The validation images with the targets of the training's classes."""
    missing, unknown = set(classes) - set(val.classes), set(val.classes) - set(classes)
    if unknown or (missing and not data.allow_empty_classes):
        sides = ((train, missing), (folder, unknown))
        difference = "; ".join(f"only in {where.name}/: {_some(names)}" for where, names in sides if names)
        remedy = "" if unknown else ", or allow it with --data.allow-empty-classes"
        raise OvertoneError(
            f"{train} and {folder} do not have the same classes; {difference}; make the class folders the same{remedy}"
        )
    position = {name: target for target, name in enumerate(classes)}
    targets = tuple(position[val.classes[target]] for target in val.targets)
    return ImageList(classes, val.paths, targets, val.origin)


def _joined(lists: Sequence[ImageList], root: Path) -> ImageList:
    """All images of all splits, by the union of their classes."""
    classes = tuple(sorted({name for images in lists for name in images.classes}))
    position = {name: target for target, name in enumerate(classes)}
    paths = tuple(path for images in lists for path in images.paths)
    targets = tuple(position[images.classes[target]] for images in lists for target in images.targets)
    return ImageList(classes, paths, targets, f"all images of {root}")


def _automatic(layout: Mapping[str, Path], held_out: Data | None) -> Part:
    """Which images evaluation takes when nobody says."""
    if "val" in layout:
        return "val"
    if "test" in layout:
        return "test"
    if held_out is None:
        return "all"
    if held_out.root is None or not held_out.root.is_dir():
        return "val"  # moved since, so this may well be the folder: never count images that were trained on
    return "val" if _layout(held_out.root).get("train", Path()).resolve() == layout["train"].resolve() else "all"


def _seeded_split(images: ImageList, pool: Path, data: Data) -> Splits:
    """Hold out part of each class, chosen by a hash of the file's name and the seed."""
    if data.val_fraction == 0:
        origin = f"all images of {pool} (nothing held out)"
        return Splits(images, ImageList(images.classes, (), (), origin), origin)
    chosen = _held_out(images, pool, data)
    origin = f"seeded split of {pool} (seed {data.split_seed}, {data.val_fraction:.4g} of each class held out)"

    def part(keep: Callable[[int], bool], name: str) -> ImageList:
        positions = [position for position in range(len(images)) if keep(position)]
        paths = tuple(images.paths[position] for position in positions)
        targets = tuple(images.targets[position] for position in positions)
        return ImageList(images.classes, paths, targets, f"{name} part of the {origin}")

    train = part(lambda position: position not in chosen, "training")
    val = part(lambda position: position in chosen, "held-out")
    if not val:
        raise OvertoneError(
            f"{pool} has one image in each class, so nothing can be held out; add images or a val/ folder"
        )
    return Splits(train, val, origin, seeded=True)


def _held_out(images: ImageList, pool: Path, data: Data) -> set[int]:
    """Positions of the held-out images: the first of each class in the order of their hashes."""
    below = len(str(pool / "x")) - 1  # where a file's name below the pool begins; relative_to is too slow for a million
    ranked: dict[int, list[tuple[bytes, int]]] = {}
    for position, (path, target) in enumerate(zip(images.paths, images.targets, strict=True)):
        # One spelling of accented letters: file systems differ in the one they keep.
        name = unicodedata.normalize("NFC", str(path)[below:].replace(os.sep, "/"))
        rank = hashlib.sha256(f"{data.split_seed}\n{name}".encode(errors="surrogateescape")).digest()
        ranked.setdefault(target, []).append((rank, position))
    chosen: set[int] = set()
    for files in ranked.values():
        wanted = round(len(files) * data.val_fraction)
        number = min(max(wanted, 1), len(files) - 1)
        chosen.update(position for _, position in sorted(files)[:number])
    return chosen
