"""JPEG files to batches: the published pipeline against ours, images per second of one core.

    python benchmarks/loader.py [--images DIR] [--json loader.json]

Published: Pillow, then torchvision's RandomResizedCrop to 224 pixels, flip, ToTensor, Normalize, through a DataLoader.
Ours: `overtone.data.loader.Loader` with the training transform. Both in one process with one thread and no workers,
bilinear, an epoch each in turn. Crops are drawn by different generators, so only their distribution is the same; before
the timing, both must give the same pixels for the evaluation transform, which draws nothing.

Without `--images`, pictures of 500x375 are made: soft fields of colour, edges and noise, JPEG quality 90. How long
decoding takes depends on how much is in a picture, so the size of the files is printed too; ImageNet's are 110 kB.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms

from overtone.config import Augment, Preprocess
from overtone.data.loader import Loader
from overtone.data.sources import ImageList
from overtone.data.transforms import evaluation_transform, training_transform
from overtone.published import IMAGENET_MEAN, IMAGENET_STD
from overtone.verbs.benchmark_report import machine

WIDTH, HEIGHT, QUALITY = 500, 375, 90


class Files(Dataset):
    """Pictures as the published code opens them."""

    def __init__(self, paths: list[Path], transform: Callable) -> None:
        self.paths, self.transform = paths, transform

    def __len__(self) -> int:
        """Number of pictures."""
        return len(self.paths)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        """A picture, and a class."""
        with self.paths[index].open("rb") as file:
            return self.transform(Image.open(file).convert("RGB")), 0


def draw(folder: Path, count: int) -> list[Path]:
    """Pictures of soft fields, straight edges and noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:HEIGHT, :WIDTH]
    paths = []
    for number in range(count):
        values = np.zeros((HEIGHT, WIDTH, 3))
        for shades in (4, 12, 40, 120):
            coarse = Image.fromarray(random.integers(0, 256, (shades * 3 // 4, shades, 3), dtype=np.uint8))
            field = np.asarray(coarse.resize((WIDTH, HEIGHT), Image.Resampling.BICUBIC), dtype=float) - 127.5
            values += field * 3 / shades**0.5
        for _ in range(12):
            a, b, c = random.normal(0, 1, 3)
            values[a * (rows - HEIGHT / 2) + b * (columns - WIDTH / 2) > 150 * c] += random.normal(0, 20, 3)
        values += random.normal(0, 4, values.shape)
        paths.append(folder / f"{number:04}.jpg")
        Image.fromarray((values + 127.5).clip(0, 255).astype(np.uint8)).save(paths[-1], quality=QUALITY)
    return paths


def same_pixels(paths: list[Path], size: int) -> float:
    """The largest difference of normalised values between the evaluation transforms."""
    shorter = int(size / 0.875)
    published = transforms.Compose(
        [
            transforms.Resize(shorter),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours = evaluation_transform(Preprocess(size=size))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    return max(float((published(picture) - ours(picture)).abs().max()) for picture in pictures)


def epoch(batches: Iterable, count: int) -> tuple[float, float]:
    """Images per second by the clock, and per second of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files, also in folders inside")
    parser.add_argument("--count", type=int, default=200, help="pictures at most")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            paths = draw(Path(folder), args.count)
        else:
            found = (path for path in args.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            paths = sorted(found)[: args.count]
            if not paths:
                parser.error(f"{args.images} holds no JPEG files")
        kilobytes = sum(path.stat().st_size for path in paths) / len(paths) / 1000
        difference = same_pixels(paths[:8], args.size)
        rates = measure(paths, args)
    files = f"{len(paths)} files of {kilobytes:.0f} kB"
    print(f"{machine()['processor']}, 1 thread; {files}, {args.size} pixels, batch {args.batch}")
    print(f"evaluation transforms: largest difference {difference:.1e}")
    rows = {}
    for name, found in rates.items():
        wall, cpu = (statistics.median(values) for values in zip(*found, strict=True))
        rows[name] = {"images_per_second": wall, "images_per_cpu_second": cpu}
        print(f"{name:12}{wall:9.1f} images/s by the clock{cpu:9.1f} per second of the processor")
    pairs = list(zip(rates["published"], rates["ours"], strict=True))
    ratios = [statistics.median(ours[kind] / published[kind] for published, ours in pairs) for kind in (0, 1)]
    print(f"{'ratio':12}{ratios[0]:9.2f}{'':22}{ratios[1]:9.2f}")
    if args.json is not None:
        result = {"machine": machine(), "rows": rows, "ratio": ratios[0], "cpu_ratio": ratios[1]}
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def measure(paths: list[Path], args: argparse.Namespace) -> dict[str, list[tuple[float, float]]]:
    """Rates of an epoch of each, in turn; the first round warms up."""
    published = transforms.Compose(
        [
            transforms.RandomResizedCrop(args.size),
            transforms.RandomHorizontalFlip(),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    preprocess = Preprocess(size=args.size, interpolation="bilinear")
    images = ImageList(("a",), tuple(paths), (0,) * len(paths))
    readers = {
        "published": DataLoader(Files(paths, published), args.batch, shuffle=True),
        "ours": Loader(images, training_transform(preprocess, Augment()), batch_size=args.batch, shuffle=True),
    }
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for _ in range(args.rounds + 1):
        for name, reader in readers.items():
            rates[name].append(epoch(reader, len(paths)))
    return {name: found[1:] for name, found in rates.items()}


if __name__ == "__main__":
    sys.exit(main())
