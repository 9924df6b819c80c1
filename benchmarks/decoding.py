"""JPEG decoders on one core: images per second, and how far their pixels are from Pillow's.

    python benchmarks/decoding.py [--images DIR] [--rounds 5]

Pillow, torchvision and simplejpeg (where it is installed) decode the same bytes to uint8 RGB in turn; `ours` is
`overtone.data.decoding.decode_pixels`, the one that is used. Only a decoder whose largest difference is 0 keeps the
promise of `data.decoding`. Prints JSON, with the median of the rounds and the process's peak memory.
"""

import argparse
import importlib
import io
import json
import resource
import statistics
import sys
import time
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torchvision
from PIL import Image

from overtone.data.decoding import decode_pixels

_KINDS = (((500, 375), 90, 2), ((500, 375), 95, 0), ((256, 340), 92, 2), ((2000, 1500), 90, 2))


def drawn(count: int) -> dict[str, list[bytes]]:
    """Images of soft fields and noise as JPEG files, of several sizes, qualities and subsamplings of the colours."""
    random, found = np.random.default_rng(0), {}
    for size, quality, subsampling in _KINDS:
        contents = []
        for _ in range(max(count * 500 * 375 // (size[0] * size[1]), 4)):
            field = Image.fromarray(random.integers(0, 256, (24, 32, 3), dtype=np.uint8)).resize(size)
            values = np.asarray(field) + random.normal(0, 5, (size[1], size[0], 3))
            file = io.BytesIO()
            image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
            image.save(file, "JPEG", quality=quality, subsampling=subsampling)
            contents.append(file.getvalue())
        found[f"{size[0]}x{size[1]}, quality {quality}, {'4:2:0' if subsampling else '4:4:4'}"] = contents
    return found


def pillow(content: bytes) -> Any:
    """Pillow, as the usual loaders call it."""
    return np.asarray(Image.open(io.BytesIO(content)).convert("RGB"))


def of_torchvision(content: bytes) -> Any:
    """Torchvision's `decode_jpeg` on the CPU."""
    pixels: Any = torchvision.io.decode_jpeg(torch.frombuffer(bytearray(content), dtype=torch.uint8))
    return pixels.permute(1, 2, 0)


def contenders() -> dict[str, Callable[[bytes], Any]]:
    """The decoders that are installed."""
    found: dict[str, Callable[[bytes], Any]] = {"pillow": pillow, "torchvision": of_torchvision, "ours": decode_pixels}
    try:
        simplejpeg = importlib.import_module("simplejpeg")
    except ImportError:
        return found
    found["simplejpeg"] = simplejpeg.decode_jpeg
    found["simplejpeg, fast"] = lambda content: simplejpeg.decode_jpeg(content, fastdct=True, fastupsample=True)
    return found


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--images", type=Path)
    parser.add_argument("--count", type=int, default=40)
    parser.add_argument("--rounds", type=int, default=5)
    chosen = parser.parse_args()
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    files = drawn(chosen.count)
    if chosen.images is not None:
        files = {str(chosen.images): [path.read_bytes() for path in sorted(chosen.images.rglob("*.jp*g"))]}
    results: dict[str, Any] = {}
    for kind, contents in files.items():
        rates: dict[str, list[float]] = {}
        for _ in range(chosen.rounds):
            for name, decode in contenders().items():
                start = time.process_time()
                for content in contents:
                    decode(content)
                rates.setdefault(name, []).append(len(contents) / (time.process_time() - start))
        results[kind] = {
            name: {
                "images_per_s": round(statistics.median(values), 1),
                "of_pillow": round(statistics.median(values) / statistics.median(rates["pillow"]), 2),
                "largest_difference": max(_difference(contenders()[name], content) for content in contents[:8]),
            }
            for name, values in rates.items()
        }
    results["peak_mb"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss // 1024
    sys.stdout.write(json.dumps(results, indent=1) + "\n")


def _difference(decode: Callable[[bytes], Any], content: bytes) -> int:
    """Grey levels between a decoder's pixels and Pillow's, at most."""
    return int(np.abs(np.asarray(decode(content)).astype(int) - pillow(content)).max())


if __name__ == "__main__":
    main()
