"""Folders of class folders: which files they hold and how they are split.

A folder holds `train/` and `val/` (or `valid/`, `validation/`, `test/`) of class folders, or is one folder of class
folders; then part of each class is held out for validation, chosen by a hash of the file's name. With `train/` and
`test/` alone, the validation images are held out of `train/`: an epoch chosen on the test images would flatter them.
"""

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import numpy as np

from overtone.config import Data
from overtone.data.folders import FORMATS, Found, class_folders, has_images, images_in, subfolders
from overtone.data.sources.folder_scan import scan
from overtone.data.sources.image_list import ImageList
from overtone.data.sources.parts import PART_OF, PARTS, root_of
from overtone.data.sources.seeded import held_out
from overtone.data.sources.source import Part, Splits
from overtone.errors import OvertoneError, some

_LAYOUT = (
    "give a folder with train/ and val/ of class folders, or one folder of class folders "
    "(flowers/rose/1.jpg, flowers/tulip/2.jpg)"
)


def find_splits(data: Data) -> Splits:
    """The training and the validation images of a folder.

    With `train/` beside `val/` these are the splits. Otherwise the class folders, of `train/` or of the folder itself,
    are split: round(n * val_fraction) images of each class, at least one of two or more, are held out; with a fraction
    of 0 none, and the validation images are an empty list. Which ones are held out depends on `split_seed` and on each
    file's class and name, not on other files' order or the machine. `test/` is what the result is measured on once,
    unless `data.validate_on` makes it the validation images.

    Raises:
        OvertoneError: no folder, no images, images without class folders, an empty class folder, one class only, or
            classes that differ between `train/` and `val/`.
    """
    root = root_of(data.root, _LAYOUT)
    layout = _layout(root)
    if "train" not in layout:
        raise OvertoneError(f"{root} has {_listing(layout)} but no train/; {_LAYOUT}")
    train = _read(layout["train"], data.allow_empty_classes, root)
    if len(train.labels) < 2:
        raise OvertoneError(
            f"{layout['train']} has one class only, {', '.join(train.labels)}; put images of another class beside it"
        )
    test = None if "test" not in layout else _read(layout["test"], data.allow_empty_classes, root)
    part = "test" if data.validate_on == "test" and "val" not in layout else "val"
    folder = layout.get(part)
    if folder is not None:
        val = _with_classes(_read(folder, data.allow_empty_classes, root), folder, train.labels, layout["train"], data)
        splits = Splits(train, val, f"folders {layout['train'].name}/ and {folder.name}/ of {root}")
    else:
        splits = _seeded_split(train, layout["train"], data)
    if test is None or part == "test" or not set(test.labels) <= set(train.labels):
        return splits
    return dataclasses.replace(splits, test=test.relabelled(train.labels))


def find_evaluation(
    root: Path | None, split: Part = "auto", trained_on: Data | None = None, *, allow_empty_classes: bool = False
) -> ImageList:
    """The images to evaluate on.

    Args:
        root: folder, as for `find_splits`, or one with `val/` or `test/` alone.
        split: `train`, `val`, `test` (a folder of that name; `train` and `val` fall back to the seeded split), `all`
            images; or `auto`: `val/`, else `test/`, else the held-out part where the model was trained on other images
            of the same folder, else all.
        trained_on: how the model's training held images out by a seed, if it did; `None` for a model from elsewhere. It
            is used where its own root is this folder, or is no longer there.
        allow_empty_classes: keep class folders that hold no image as classes.

    Raises:
        OvertoneError: no folder, no images, no such split, images without class folders, or an empty class folder.
    """
    root = root_of(root, _LAYOUT)
    layout = _layout(root)
    if split == "auto":
        split = _automatic(layout, trained_on)
    if split == "all":
        return _joined([_read(folder, allow_empty_classes, root) for folder in layout.values()], root)
    found = layout.get(split) or (layout.get("test") if split == "val" and trained_on is None else None)
    if found is None and "train" not in layout:
        raise OvertoneError(f"{root} has no {split}/; it has {_listing(layout)}: choose one of these, or all")
    if split == "test" and found is None:
        raise OvertoneError(f"{root} has no test/ of class folders; choose val (the held-out part) or all")
    if found is not None and (split != "train" or (len(layout) > 1 and trained_on is None)):
        return _read(found, allow_empty_classes, root)
    pool = layout["train"]
    splits = _seeded_split(_read(pool, allow_empty_classes, root), pool, trained_on or Data())
    part = splits.train if split == "train" else splits.val
    assert isinstance(part, ImageList)
    if split == "val" and not len(part):
        raise OvertoneError(f"the training held nothing of {pool} out to evaluate on; choose all, or other images")
    return part


def _layout(root: Path) -> dict[str, Path]:
    """The splits that are folders (`train`, `val`, `test`), or the root alone as `train`: a folder of class folders.

    A folder named like a split is one only if it holds folders: `train/` with images may be the class of trains.
    """
    below = subfolders(root)
    names = {name.lower(): path for name, path in sorted(below.items(), reverse=True)}
    splits = {
        split: next(names[alias] for alias in aliases if alias in names)
        for split, aliases in PARTS.items()
        if any(alias in names for alias in aliases)
    }
    holding = {split: folder for split, folder in splits.items() if subfolders(folder)}
    others = set(names) - PART_OF.keys()
    if "train" not in holding and (others or not splits):
        return {"train": root}
    for split, folder in splits.items():
        # A test/ without class folders beside train/ is the custom for images whose classes are kept back.
        if split not in holding and not (split == "test" and "train" in holding):
            state = "images but no class folders" if has_images(folder) else "no class folders"
            raise OvertoneError(f"{folder} holds {state}; put each class's images in a folder of its own in it")
    return holding


def _listing(layout: Mapping[str, Path]) -> str:
    return " and ".join(f"{folder.name}/" for folder in layout.values())


def _read(folder: Path, allow_empty: bool, root: Path) -> ImageList:
    """The images of a folder of class folders, named relative to `root`."""
    folders = class_folders(folder)
    if not folders:
        state = "holds images but no class folders" if has_images(folder) else f"holds no images ({FORMATS})"
        raise OvertoneError(f"{folder} {state}; {_LAYOUT}")
    listed = scan(folders)
    if listed is None:
        return _checked_links(folders, folder, allow_empty, root)
    paths, counts = listed
    _check(folder, dict(zip(folders, counts.tolist(), strict=True)), allow_empty)
    targets = np.repeat(np.arange(len(counts)), counts)
    return ImageList(tuple(folders), paths, targets, f"all images of {folder}", root)


def _checked_links(folders: Mapping[str, Path], folder: Path, allow_empty: bool, root: Path) -> ImageList:
    """The images of class folders with links among them: each real file once."""
    found = images_in(folders, folder)
    _check(folder, {name: len(images) for name, images in found.items()}, allow_empty)
    return _image_list(found, f"all images of {folder}", root)


def _check(folder: Path, found: Mapping[str, int], allow_empty: bool) -> None:
    """Refuse a folder without images, or with class folders that hold none.

    Raises:
        OvertoneError: it is one.
    """
    if not any(found.values()):
        raise OvertoneError(f"{folder} holds no images ({FORMATS}); {_LAYOUT}")
    empty = [name for name, images in found.items() if not images]
    if empty and not allow_empty:
        raise OvertoneError(
            f"{folder} has class folders without an image: {some(empty)}; remove them, fill them, "
            "or keep them as classes with --data.allow-empty-classes"
        )


def _image_list(found: Mapping[str, Iterable[Found]], origin: str, root: Path) -> ImageList:
    pairs = [(Path(image.path), target) for target, images in enumerate(found.values()) for image in images]
    return ImageList(tuple(found), [path for path, _ in pairs], [target for _, target in pairs], origin, root)


def _with_classes(val: ImageList, folder: Path, classes: tuple[str, ...], train: Path, data: Data) -> ImageList:
    """The validation images with the targets of the training's classes."""
    missing, unknown = set(classes) - set(val.labels), set(val.labels) - set(classes)
    if unknown or (missing and not data.allow_empty_classes):
        sides = ((train, missing), (folder, unknown))
        difference = "; ".join(f"only in {where.name}/: {some(names)}" for where, names in sides if names)
        remedy = "" if unknown else ", or allow it with --data.allow-empty-classes"
        raise OvertoneError(
            f"{train} and {folder} do not have the same classes; {difference}; make the class folders the same{remedy}"
        )
    return val.relabelled(classes)


def _joined(lists: Sequence[ImageList], root: Path) -> ImageList:
    """All images of all splits, by the union of their classes."""
    labels = tuple(sorted({name for images in lists for name in images.labels}))
    same = [images.relabelled(labels) for images in lists]
    paths = [path for images in same for path in images.paths]
    return ImageList(labels, paths, np.concatenate([images.targets for images in same]), f"all images of {root}", root)


def _automatic(layout: Mapping[str, Path], trained_on: Data | None) -> Part:
    """Which images evaluation takes when nobody says."""
    if "val" in layout:
        return "val"
    if "test" in layout:
        return "test"
    if trained_on is None:
        return "all"
    if trained_on.root is None or not trained_on.root.is_dir():
        return "val"  # moved since, so this may well be the folder: never count images that were trained on
    same = _layout(trained_on.root).get("train", Path()).resolve() == layout["train"].resolve()
    return "val" if same else "all"


def _seeded_split(images: ImageList, pool: Path, data: Data) -> Splits:
    """Hold out part of each class, chosen by a hash of the file's name and the seed."""
    if data.val_fraction == 0:
        origin = f"all images of {pool} (nothing held out)"
        return Splits(images, images.part([], origin), origin)
    below = len(str(pool / "x")) - 1  # where a file's name below the pool begins; relative_to is too slow for a million
    names = (str(path)[below:] for path in images.paths)
    chosen = held_out(names, images.targets, data)
    origin = f"seeded split of {pool} (seed {data.split_seed}, {data.val_fraction:.4g} of each class held out)"
    train, val = (
        images.part(np.flatnonzero(chosen == wanted), f"{name} part of the {origin}")
        for name, wanted in (("training", False), ("held-out", True))
    )
    if not len(val):
        raise OvertoneError(
            f"{pool} has one image in each class, so nothing can be held out; add images or a val/ folder"
        )
    return Splits(train, val, origin, seeded=True)
