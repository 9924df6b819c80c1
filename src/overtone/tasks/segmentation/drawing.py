"""Masks as images: a colour for each class, the overlay of a mask, and a prediction beside its truth."""

import colorsys
from collections.abc import Mapping, Sequence

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from overtone.data.masks import IGNORED

_TURN = 0.61803398875  # of the circle of hues from class to class: never the same, never near the last ones
_OPACITY = 0.55
_SIDE = 640  # of a panel, pixels
_LINE, _POINTS = 22, 13
_WRONG, _UNLABELLED = (225, 30, 30), (128, 128, 128)
_MOST_NAMES = 24


def palette(num_classes: int) -> np.ndarray:
    """A colour for each class, uint8 `(num_classes, 3)`: hues far from each other, in three degrees of brightness."""
    rows: Sequence[tuple[float, float, float]] = [
        colorsys.hsv_to_rgb(index * _TURN % 1, (0.85, 0.6, 0.95)[index % 3], (0.95, 0.75, 0.55)[index // 3 % 3])
        for index in range(num_classes)
    ]
    return np.rint(255 * np.array(rows)).astype(np.uint8)


def tinted(image: Image.Image, classes: np.ndarray, num_classes: int) -> Image.Image:
    """An image in RGB with every pixel tinted by its class; those of `IGNORED` stay as they are.

    Args:
        image: of the size of `classes`.
        classes: uint8 `(H, W)`.
        num_classes: gives the palette.
    """
    pixels = np.asarray(image, dtype=np.float32)
    colours = palette(num_classes)[np.minimum(classes, num_classes - 1)]
    drawn = np.rint(_OPACITY * colours + (1 - _OPACITY) * pixels).astype(np.uint8)
    return Image.fromarray(np.where((classes == IGNORED)[..., None], pixels.astype(np.uint8), drawn))


def comparison(image: Image.Image, truth: np.ndarray, classes: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """Four panels with headings: the image, its true mask, the predicted one, and the pixels that are wrong.

    Args:
        image: in RGB, of the size of the masks.
        truth: uint8 `(H, W)`, `IGNORED` where there is no class.
        classes: uint8 `(H, W)`, the predicted classes.
        labels: names of the classes.
    """
    counted = truth != IGNORED
    wrong = counted & (truth != classes)
    right = 100 * (1 - wrong.sum() / max(int(counted.sum()), 1))
    grey = np.repeat(np.asarray(image.convert("L"))[..., None], 3, axis=2)
    faults = np.where(wrong[..., None], np.array(_WRONG), np.where(counted[..., None], grey // 2 + 96, _UNLABELLED))
    panels = {
        "image": image,
        "truth": tinted(image, truth, len(labels)),
        "prediction": tinted(image, classes, len(labels)),
        f"wrong pixels in red: {right:.1f} % are right": Image.fromarray(faults.astype(np.uint8)),
    }
    return _sheet(panels, np.concatenate([truth[counted], classes[counted]]), labels)


def explained(image: Image.Image, mask: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """Two panels with headings: the image, in RGB, and its mask, uint8 `(H, W)`, with the names of the classes."""
    return _sheet({"image": image, "mask": tinted(image, mask, len(labels))}, mask[mask != IGNORED], labels)


def _sheet(panels: Mapping[str, Image.Image], classes: np.ndarray, labels: Sequence[str]) -> Image.Image:
    """Panels of equal size in rows of two, at most 640 pixels wide and high, and below them the classes, largest first.

    Args:
        panels: images by heading.
        classes: the pixels of the masks that have a class.
        labels: names of all classes.
    """
    width, height = _fitted(*next(iter(panels.values())).size)
    sizes = np.bincount(classes, minlength=len(labels))
    named: list[int] = [index for index in np.argsort(-sizes, kind="stable").tolist() if sizes[index]][:_MOST_NAMES]
    places = _places([labels[index] for index in named], 2 * width)
    below = -(-len(panels) // 2) * (height + _LINE)
    lines = max((row for row, _ in places), default=0) + 1
    sheet = Image.new("RGB", (2 * width, below + _LINE * lines), "white")
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(_POINTS)
    for at, (heading, panel) in enumerate(panels.items()):
        left, top = at % 2 * width, at // 2 * (height + _LINE)
        draw.text((left + 4, top + 4), heading, fill="black", font=font)
        sheet.paste(panel.resize((width, height)), (left, top + _LINE))
    colours = palette(len(labels))
    for index, (row, left) in zip(named, places, strict=True):
        top = below + _LINE * row + 4
        draw.rectangle((left + 4, top, left + 18, top + 13), fill=tuple(colours[index].tolist()))
        draw.text((left + 24, top - 1), labels[index], fill="black", font=font)
    return sheet


def _places(names: Sequence[str], width: int) -> list[tuple[int, int]]:
    """Line and left edge of each name, one after the other in lines of a width, pixels."""
    font, row, left = ImageFont.load_default(_POINTS), 0, 0
    places = []
    for name in names:
        taken = int(font.getlength(name)) + 40
        if left and left + taken > width:
            row, left = row + 1, 0
        places.append((row, left))
        left += taken
    return places


def _fitted(width: int, height: int) -> tuple[int, int]:
    """Width and height of a panel: those of the image, or less."""
    factor = min(1.0, _SIDE / max(width, height))
    return max(int(width * factor), 1), max(int(height * factor), 1)
