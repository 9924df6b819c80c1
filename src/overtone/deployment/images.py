"""The images that an export is checked and calibrated with: a user's, or generated ones."""

from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from PIL import Image

from overtone.data.decoding import BadImage, decode_image
from overtone.data.sources import find_images
from overtone.errors import OvertoneError

_SHADES = (3, 5, 8, 16)  # sides of the coarse colour fields that a generated image is the sum of


def generated_images(count: int, size: int, seed: int = 0) -> list[Image.Image]:
    """Images of soft colour fields with a little noise, always the same ones.

    Args:
        count: how many.
        size: pixels, the side of the network's input; the images are somewhat larger, in portrait and landscape format.
        seed: another one gives other images.
    """
    random = np.random.default_rng(seed)
    return [_image(random, size, landscape=bool(number % 2)) for number in range(count)]


def _image(random: np.random.Generator, size: int, *, landscape: bool) -> Image.Image:
    width, height = round(size * 1.37) + 3, round(size * 1.18) + 2
    width, height = (width, height) if landscape else (height, width)
    values = np.full((height, width, 3), 127.5)
    for shades in _SHADES:
        coarse = Image.fromarray(random.integers(0, 256, (shades, shades, 3), dtype=np.uint8))
        values += 0.5 * (np.asarray(coarse.resize((width, height), Image.Resampling.BICUBIC), dtype=float) - 127.5)
    values += random.normal(0, 8, values.shape)
    return Image.fromarray(values.clip(0, 255).astype(np.uint8))


def given_images(folder: Path, most: int) -> list[Path]:
    """At most so many image files of a folder, evenly spread over it.

    Raises:
        OvertoneError: no such folder, or no images in it.
    """
    if not folder.is_dir():
        raise OvertoneError(f"{folder} is not a folder; give a folder of images like those to come")
    found = find_images([folder])
    chosen = np.unique(np.linspace(0, len(found) - 1, min(most, len(found))).round().astype(int))
    return [found[position] for position in chosen]


def read_images(paths: Sequence[Path], exif: str) -> Iterator[Image.Image]:
    """The images in these files; those that cannot be read are left out.

    Raises:
        OvertoneError: none can be read.
    """
    read = 0
    for path in paths:
        try:
            image = decode_image(path, "apply" if exif == "apply" else "ignore")
        except BadImage:
            continue
        read += 1
        yield image
    if not read:
        raise OvertoneError(f"none of the {len(paths)} images could be read ({paths[0]} …); check the files")
