"""The sets of images that `recipes.py` trains on, as folders of train/ and val/ with a folder a class.

CIFAR-10 in four sizes, all validated on the same 5,000 images; blood cells cut out of BCCD by their boxes; textures cut
out of CamVid by their masks; scikit-learn's digits; and pairs of classes for fine-tuning. Every choice is seeded.
"""

import functools
import random
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from overtone.verbs.demo import write_digits

_SEED = 0
_HELD_OUT = 500  # of CIFAR-10's 5,000 training images of each class
_CIFAR_SIZES = (500, 2500, 10000, 45000)
_PAIR, _PAIR_SIZES = ("cat", "dog"), (20, 100, 1000)  # left out of the network that is fine-tuned; images of each
_MARGIN = 0.1  # around a blood cell, of the sides of its box
_PATCH, _SHARE = 48, 0.7  # side of a CamVid texture, pixels; share of it that is of one class
_EACH = 12  # patches of a class from an image, at most


def cifar(root: Path, count: int, classes: Sequence[str] | None, out: Path) -> None:
    """Links to `count` images, equally many of each class, and to those held out of these classes."""
    names = classes or sorted(folder.name for folder in root.iterdir() if folder.is_dir())
    for name in names:
        files = sorted((root / name).iterdir())
        random.Random(_SEED).shuffle(files)
        for part, chosen in (("val", files[:_HELD_OUT]), ("train", files[_HELD_OUT:][: count // len(names)])):
            folder = out / part / name
            folder.mkdir(parents=True)
            for file in chosen:
                (folder / file.name).symlink_to(file.resolve())


def cells(root: Path, out: Path) -> None:
    """Blood cells cut out by their boxes: red cells, and far fewer white cells and platelets; BCCD's own split."""
    for part in ("train", "val"):
        for name in (root / "ImageSets" / "Main" / f"{part}.txt").read_text(encoding="utf-8").split():
            image = Image.open(root / "JPEGImages" / f"{name}.jpg").convert("RGB")
            objects = ElementTree.parse(root / "Annotations" / f"{name}.xml").getroot().iter("object")
            for number, found in enumerate(objects):
                left, top, right, bottom = (float(found.findtext(f"bndbox/{side}") or 0) for side in _SIDES)
                across, down = _MARGIN * (right - left), _MARGIN * (bottom - top)
                box = (max(left - across, 0), max(top - down, 0), right + across, bottom + down)
                box = (*box[:2], min(box[2], image.width), min(box[3], image.height))
                if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
                    folder = out / part / str(found.findtext("name"))
                    folder.mkdir(parents=True, exist_ok=True)
                    image.crop(tuple(map(round, box))).save(folder / f"{name}-{number}.png")


_SIDES = ("xmin", "ymin", "xmax", "ymax")


def textures(root: Path, out: Path) -> None:
    """Patches of CamVid that are mostly of one class; its own split, classes of fewer than 20 patches left out."""
    names = (root / "classes.txt").read_text(encoding="utf-8").split()
    patches = {part: list(_patches(root, part, len(names))) for part in ("train", "val")}
    counts = np.bincount([kind for _, kind, _ in patches["train"]], minlength=len(names))
    for part, found in patches.items():
        for number, (patch, kind, stem) in enumerate(found):
            if counts[kind] >= 20 and names[kind] != "unlabelled":
                folder = out / part / names[kind]
                folder.mkdir(parents=True, exist_ok=True)
                patch.save(folder / f"{stem}-{number}.png")


def _patches(root: Path, part: str, num_classes: int) -> Iterator[tuple[Image.Image, int, str]]:
    for file in sorted((root / "images" / part).iterdir()):
        image = Image.open(file).convert("RGB")
        mask = np.asarray(Image.open(root / "masks" / part / f"{file.stem}.png"))
        taken = np.zeros(num_classes, int)
        for top in range(0, mask.shape[0] - _PATCH + 1, _PATCH):
            for left in range(0, mask.shape[1] - _PATCH + 1, _PATCH):
                counts = np.bincount(mask[top : top + _PATCH, left : left + _PATCH].ravel(), minlength=256)
                kind = int(counts.argmax())
                if kind < num_classes and counts[kind] >= _SHARE * _PATCH**2 and taken[kind] < _EACH:
                    taken[kind] += 1
                    yield image.crop((left, top, left + _PATCH, top + _PATCH)), kind, file.stem


def digits(out: Path) -> None:
    """scikit-learn's digits."""
    write_digits(out)


def builders(roots: dict[str, Path | None]) -> dict[str, Callable[[Path], object]]:
    """What writes each set that can be had from the given folders, by the set's name."""
    found: dict[str, Callable[[Path], object]] = {"digits": digits}
    if root := roots.get("cifar"):
        names = sorted(folder.name for folder in root.iterdir() if folder.is_dir())
        for size in _CIFAR_SIZES:
            found[f"cifar10-{size}"] = functools.partial(cifar, root, size, None)
        others = tuple(name for name in names if name not in _PAIR)
        found["cifar10-eight-classes"] = functools.partial(cifar, root, 4500 * len(others), others)
        for size in _PAIR_SIZES:
            found[f"{'-'.join(_PAIR)}-{size}"] = functools.partial(cifar, root, 2 * size, _PAIR)
    if root := roots.get("bccd"):
        found["blood-cells"] = functools.partial(cells, root)
    if root := roots.get("camvid"):
        found["textures"] = functools.partial(textures, root)
    return found
