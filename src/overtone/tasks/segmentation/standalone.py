"""A segmentation by NumPy and Pillow, around any function from pixels to logits: the body of an export's `run.py`.

Its functions do what `task.predict` and `prediction.MaskPrediction.write` do, and are copied into the script as they
are; nothing of overtone may be named in them. `settings` and `preprocess` are those of model.json.
"""

import colorsys
import pathlib
from collections.abc import Callable
from typing import Any

import numpy
from PIL import Image

Run = Callable[[Any], Any]


# --- copied from here on
def resized(maps: Any, height: int, width: int) -> Any:
    """Maps (C, h, w) at another size: bilinear, corners not aligned."""
    for axis, new in ((1, height), (2, width)):
        old = maps.shape[axis]
        if old == new:
            continue
        place = ((numpy.arange(new, dtype="float32") + 0.5) * numpy.float32(old / new) - 0.5).clip(0)
        first = place.astype(int).clip(0, old - 1)
        share = (place - first).astype("float32").reshape((-1, 1) if axis == 1 else (-1,))
        second = (first + 1).clip(0, old - 1)
        maps = maps.take(first, axis) * (1 - share) + maps.take(second, axis) * share
    return maps


def scaled(image: Any, factor: float, settings: Any, preprocess: Any) -> Any:
    """An image in the size that the network sees: float32 (1, 3, H, W), normalised."""
    width, height = image.size
    if settings["scale"]:
        longer, shorter = (max(int(side * factor), 1) for side in settings["scale"])
        factor = min(longer / max(height, width), shorter / min(height, width))
    new = tuple(max(int(side * factor + 0.5), 1) for side in (width, height))
    pixels = numpy.asarray(image, "float32").transpose(2, 0, 1)
    if new != image.size and settings["antialias"]:
        image = image.resize(new, getattr(Image.Resampling, preprocess["interpolation"].upper()))
        pixels = numpy.asarray(image, "float32").transpose(2, 0, 1)
    elif new != image.size:  # Pillow always smooths where an image shrinks
        pixels = numpy.rint(resized(pixels, new[1], new[0]))
    mean, std = (numpy.array(preprocess[name], "float32").reshape(3, 1, 1) for name in ("mean", "std"))
    return ((pixels / numpy.float32(255) - mean) / std)[None]


def starts(length: int, window: int, stride: int) -> Any:
    """Where the windows along one side begin; the last one ends where the side ends."""
    return [max(min(i * stride, length - window), 0) for i in range(max(length - window + stride - 1, 0) // stride + 1)]


def logits_of(run: Run, pixels: Any, settings: Any) -> Any:
    """Logits (K, H, W) of pixels (1, 3, H, W): of the whole image, or averaged over sliding windows."""
    height, width = pixels.shape[2:]
    if settings["inference"] == "whole":
        return resized(run(pixels)[0][0], height, width)
    window = settings["window"]
    if settings["pad"]:
        pixels = numpy.pad(pixels, ((0, 0), (0, 0), (0, max(window - height, 0)), (0, max(window - width, 0))))
    total: Any = 0
    count = numpy.zeros(pixels.shape[2:], "float32")
    for top in starts(pixels.shape[2], window, settings["stride"]):
        for left in starts(pixels.shape[3], window, settings["stride"]):
            part = numpy.ascontiguousarray(pixels[:, :, top : top + window, left : left + window])
            logits = resized(run(part)[0][0], *part.shape[2:])
            if isinstance(total, int):
                total = numpy.zeros((len(logits), *pixels.shape[2:]), "float32")
            total[:, top : top + window, left : left + window] += logits
            count[top : top + window, left : left + window] += 1
    return (total / count)[:, :height, :width]


def probabilities(logits: Any) -> Any:
    """Softmax over the classes of logits (K, H, W)."""
    shares = numpy.exp(logits - logits.max(axis=0))
    return shares / shares.sum(axis=0)


def classes_of(run: Run, image: Any, settings: Any, preprocess: Any) -> Any:
    """The class of every pixel of an image, uint8 (H, W)."""
    width, height = image.size
    if len(settings["scales"]) == 1 and not settings["flip"]:
        pixels = scaled(image, settings["scales"][0], settings, preprocess)
        return resized(logits_of(run, pixels, settings), height, width).argmax(axis=0).astype("uint8")
    total: Any = 0
    for factor in settings["scales"]:
        pixels = scaled(image, factor, settings, preprocess)
        total = total + probabilities(resized(logits_of(run, pixels, settings), height, width))
        if settings["flip"]:
            mirrored = logits_of(run, numpy.ascontiguousarray(pixels[..., ::-1]), settings)
            total = total + probabilities(resized(mirrored, height, width))[..., ::-1]
    return total.argmax(axis=0).astype("uint8")


def colours(count: int) -> Any:
    """A colour for each class, uint8 (count, 3)."""
    rows = [
        colorsys.hsv_to_rgb(i * 0.61803398875 % 1, (0.85, 0.6, 0.95)[i % 3], (0.95, 0.75, 0.55)[i // 3 % 3])
        for i in range(count)
    ]
    return numpy.rint(255 * numpy.array(rows)).astype("uint8")


def written(classes: Any, image: Any, names: Any, folder: Any, stem: str) -> Any:
    """Write the indices of the classes with a palette, and the image tinted by them; lines with the share of each."""
    index, overlay = folder / f"{stem}.mask.png", folder / f"{stem}.overlay.png"
    palette = colours(len(names))
    drawn = Image.fromarray(classes)
    drawn.putpalette(palette.tobytes())
    drawn.save(index)
    tinted = numpy.rint(0.55 * palette[classes] + 0.45 * numpy.asarray(image, "float32"))
    Image.fromarray(tinted.astype("uint8")).save(overlay)
    counts = numpy.bincount(classes.ravel(), minlength=len(names))
    lines = []
    for i in sorted(numpy.flatnonzero(counts), key=lambda i: -counts[i]):
        name = "".join(c if c.isprintable() else "?" for c in str(names[i]))
        lines.append(f"{100 * counts[i] / classes.size:.2f} % {name}")
    return [*lines, f"written: {index} {overlay}"]


def main(run: Run, image: Any, about: Any, arguments: Any) -> Any:
    """Segment an image; arguments: its path and, if not the current one, the folder to write to. Lines to print."""
    found = classes_of(run, image, about["task_settings"], about["preprocess"])
    folder = pathlib.Path(arguments[1] if len(arguments) > 1 else ".")
    folder.mkdir(parents=True, exist_ok=True)
    names = about["labels"] or range(about["num_classes"])
    return written(found, image, names, folder, pathlib.Path(arguments[0]).stem)
