"""What the tests of shards, packing and stores start from."""

import io
import json
import tarfile
from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np
from PIL import Image

COLOURS = {"blue": (30, 40, 200), "green": (20, 180, 40), "red": (210, 30, 30)}
SIZE = 16


def image_bytes(colour: str, number: int, kind: str = "JPEG") -> bytes:
    pixels = np.random.default_rng(number).integers(0, 60, (SIZE, SIZE, 3)) + np.array(COLOURS[colour]) - 30
    content = io.BytesIO()
    Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(content, kind, quality=95)
    return content.getvalue()


def write_tar(path: Path, files: Iterable[tuple[str, bytes]], form: int = tarfile.USTAR_FORMAT) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with tarfile.open(path, "w", format=form) as archive:
        for name, content in files:
            info = tarfile.TarInfo(name)
            info.size = len(content)
            archive.addfile(info, io.BytesIO(content))
    return path


def sample(key: str, number: int, label: object, **more: bytes) -> list[tuple[str, bytes]]:
    colour = list(COLOURS)[number % 3]
    members: Mapping[str, bytes] = {"jpg": image_bytes(colour, number), "cls": str(label).encode(), **more}
    return [(f"{key}.{suffix}", content) for suffix, content in members.items()]


def write_shards(folder: Path, shards: int = 3, each: int = 6, part: str = "train", first: int = 0) -> Path:
    """Shards of images whose class is the name of their colour."""
    for shard in range(shards):
        numbers = range(first + shard * each, first + (shard + 1) * each)
        files = [file for n in numbers for file in sample(f"s/{n:04}", n, list(COLOURS)[n % 3])]
        write_tar(folder / f"{part}-{shard:06}.tar", files)
    return folder


def write_folders(root: Path, each: int = 8) -> Path:
    """One folder of images for each colour."""
    for at, colour in enumerate(COLOURS):
        (root / colour).mkdir(parents=True)
        for number in range(each):
            (root / colour / f"{number}.jpg").write_bytes(image_bytes(colour, 100 * at + number))
    return root


def to_json(**values: object) -> bytes:
    return json.dumps(values).encode()
