"""JPEG files to batches: the published pipeline against ours, images per second of one core.

    python benchmarks/loader.py [--images DIR] [--json loader.json]

published  Pillow, then torchvision's RandomResizedCrop to 224 pixels, flip, ToTensor, Normalize, through a DataLoader
ours       `overtone.data.loader.Loader` with the training transform, channels_last as `overtone train` asks for it
scaled     the same with `data.scaled_decoding`, which changes pixels where a crop is at least twice the input

All in one process with one thread and no workers, bilinear, an epoch each in turn. Crops are drawn by different
generators, so only their distribution is the same in what is timed. Before that, the crops and flips that ours has
drawn are computed with the published pipeline's functions too: how far the two lie apart is printed, in grey levels of
0..255, and more than the resize's rounding ends the benchmark. The evaluation transforms must be equal bit for bit.

Without `--images`, pictures of 500x375 are made: soft fields of colour, edges and noise. How long decoding takes
depends on how much is in a file, so there are small files, and ones of ImageNet's 110 kB with subsampled colours and
without; and photographs of 2000x1500, which is where scaled decoding counts.
"""

import argparse
import json
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms
from torchvision.transforms import functional as F

from overtone.config import Augment, Preprocess
from overtone.data.loader import Loader
from overtone.data.pipeline import ImagePipeline, class_of
from overtone.data.seeding import seeded
from overtone.data.sources import ImageList
from overtone.data.transforms import evaluation_transform, training_transform
from overtone.published import IMAGENET_MEAN, IMAGENET_STD
from overtone.verbs.benchmark_report import machine

ROUNDING = 2  # grey levels: half of one after each of the two passes of a resize, whose order is Pillow's to choose


@dataclass(frozen=True)
class Kind:
    """Pictures to make."""

    name: str
    size: tuple[int, int]
    noise: float
    quality: int
    subsampling: str
    share: float = 1.0  # of the number of pictures asked for


KINDS = (
    Kind("500x375, quality 90, 4:2:0", (500, 375), 4, 90, "4:2:0"),
    Kind("500x375, quality 95, 4:2:0", (500, 375), 7.5, 95, "4:2:0"),
    Kind("500x375, quality 95, 4:4:4", (500, 375), 2.5, 95, "4:4:4"),
    Kind("2000x1500, quality 90, 4:2:0", (2000, 1500), 4, 90, "4:2:0", 0.2),
)


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


def draw(folder: Path, kind: Kind, count: int) -> list[Path]:
    """Pictures of soft fields, straight edges and noise."""
    random = np.random.default_rng(0)
    rows, columns = np.mgrid[:375, :500]
    paths = []
    for number in range(max(round(count * kind.share), 1)):
        values = np.zeros((375, 500, 3))
        for shades in (4, 12, 40, 120):
            coarse = Image.fromarray(random.integers(0, 256, (shades * 3 // 4, shades, 3), dtype=np.uint8))
            field = np.asarray(coarse.resize((500, 375), Image.Resampling.BICUBIC), dtype=float) - 127.5
            values += field * 3 / shades**0.5
        for _ in range(12):
            a, b, c = random.normal(0, 1, 3)
            values[a * (rows - 187) + b * (columns - 250) > 150 * c] += random.normal(0, 20, 3)
        picture = Image.fromarray((values + 127.5).clip(0, 255).astype(np.uint8))
        values = np.asarray(picture.resize(kind.size, Image.Resampling.BICUBIC), dtype=np.float32)
        values = values + random.normal(0, kind.noise, values.shape)
        paths.append(folder / f"{number:04}.jpg")
        picture = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        picture.save(paths[-1], quality=kind.quality, subsampling=kind.subsampling)
    return paths


def evaluation_difference(paths: list[Path], size: int) -> float:
    """The largest difference of normalised values between the evaluation transforms."""
    published = transforms.Compose(
        [
            transforms.Resize(int(size / 0.875)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours = evaluation_transform(Preprocess(size=size))
    pictures = [Image.open(path).convert("RGB") for path in paths]
    return max(float((published(picture) - ours(picture)).abs().max()) for picture in pictures)


def training_difference(loader: Loader, size: int) -> dict[str, float]:
    """Grey levels between a loader's images and the published functions on the crops and flips it has drawn."""
    scale, augment = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), Augment()
    loader.set_epoch(0)
    largest, total, differ, values = 0.0, 0.0, 0, 0
    files = loader.source
    assert isinstance(files, ImageList)
    for batch in loader:
        for position, image in zip(batch.ids.tolist(), batch.inputs, strict=True):
            picture = Image.open(files.paths[position]).convert("RGB")
            with seeded(0, 0, position):
                box = RandomResizedCropAndInterpolation.get_params(picture, augment.scale, augment.ratio)
                flipped = torch.rand(1) < augment.hflip
            picture = F.resized_crop(picture, *box, [size, size], F.InterpolationMode.BILINEAR)
            picture = F.hflip(picture) if flipped else picture
            expected = F.normalize(F.to_tensor(picture), list(IMAGENET_MEAN), list(IMAGENET_STD))
            difference = (image - expected).abs() * scale
            largest = max(largest, float(difference.max()))
            total, values = total + float(difference.sum()), values + difference.numel()
            differ += int((difference > 0.5).sum())
    return {"largest": round(largest, 3), "mean": total / values, "share_that_differs": differ / values}


def epoch(batches: Iterable, count: int) -> tuple[float, float]:
    """Images per second by the clock, and per second of the processor."""
    wall, cpu = time.perf_counter(), time.process_time()
    for _ in batches:
        pass
    return count / (time.perf_counter() - wall), count / (time.process_time() - cpu)


def readers_of(paths: list[Path], args: argparse.Namespace) -> dict[str, DataLoader | Loader]:
    """What is compared."""
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

    def ours(scaled: bool) -> Loader:
        transform = training_transform(preprocess, Augment(), scaled_decoding=scaled)
        pipeline = ImagePipeline(transform, class_of, torch.empty(0, dtype=torch.int64), channels_last=True)
        return Loader(images, pipeline, batch_size=args.batch, shuffle=True)

    return {
        "published": DataLoader(Files(paths, published), args.batch, shuffle=True),
        "ours": ours(False),
        "scaled": ours(True),
    }


def measure(paths: list[Path], args: argparse.Namespace) -> dict[str, Any]:
    """Differences, then rates of an epoch of each in turn; the first round warms up."""
    evaluation = evaluation_difference(paths[:8], args.size)
    readers = readers_of(paths, args)
    same = training_difference(readers["ours"], args.size)
    scaled = training_difference(readers["scaled"], args.size)
    if evaluation > 0 or same["largest"] > ROUNDING + 0.01:
        raise SystemExit(f"not the same pixels: evaluation differs by {evaluation}, training by {same} grey levels")
    rates: dict[str, list[tuple[float, float]]] = {name: [] for name in readers}
    for number in range(args.rounds + 1):
        for name, reader in readers.items():
            if isinstance(reader, Loader):
                reader.set_epoch(number)
            rates[name].append(epoch(reader, len(paths)))
    rows: dict[str, dict[str, float]] = {}
    for name, found in rates.items():
        wall, cpu = (statistics.median(values) for values in zip(*found[1:], strict=True))
        pairs = list(zip(found[1:], rates["published"][1:], strict=True))
        ratio, cpu_ratio = (statistics.median(own[kind] / other[kind] for own, other in pairs) for kind in (0, 1))
        rows[name] = {
            "images_per_second": round(wall, 1),
            "images_per_cpu_second": round(cpu, 1),
            "ratio": round(ratio, 3),
            "cpu_ratio": round(cpu_ratio, 3),
        }
    return {
        "files": len(paths),
        "kilobytes": round(sum(path.stat().st_size for path in paths) / len(paths) / 1000, 1),
        "evaluation_difference": evaluation,
        "training_difference_in_grey_levels": {"ours": same, "scaled": scaled},
        "rows": rows,
    }


def show(name: str, found: dict[str, Any]) -> None:
    """Print what was measured."""
    print(f"\n{name}: {found['files']} files of {found['kilobytes']:.0f} kB")
    for row, rates in found["rows"].items():
        told = ""
        if row != "published":
            apart = found["training_difference_in_grey_levels"][row]
            told = f"  pixels: at most {apart['largest']:.0f} apart, {apart['mean']:.4f} on average, of 255"
        print(
            f"  {row:10}{rates['images_per_second']:8.1f} images/s by the clock,"
            f"{rates['images_per_cpu_second']:8.1f} per second of the processor{rates['ratio']:7.2f}x{told}"
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files, also in folders inside")
    parser.add_argument("--count", type=int, default=100, help="pictures at most")
    parser.add_argument("--batch", type=int, default=32)
    parser.add_argument("--size", type=int, default=224)
    parser.add_argument("--rounds", type=int, default=7, help="epochs of each")
    parser.add_argument("--json", type=Path)
    args = parser.parse_args()
    torch.set_num_threads(1)
    result: dict[str, Any] = {
        "machine": {**machine(), **{name: version(name) for name in ("pillow", "torchvision")}},
        "size": args.size,
        "batch": args.batch,
        "pictures": {},
    }
    print(f"{result['machine']['processor']}, 1 thread, no workers; {args.size} pixels, batches of {args.batch}")
    with tempfile.TemporaryDirectory() as folder:
        if args.images is None:
            for number, kind in enumerate(KINDS):
                made = Path(folder) / str(number)
                made.mkdir()
                result["pictures"][kind.name] = measure(draw(made, kind, args.count), args)
                show(kind.name, result["pictures"][kind.name])
        else:
            found = (path for path in args.images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))
            paths = sorted(found)[: args.count]
            if not paths:
                parser.error(f"{args.images} holds no JPEG files")
            result["pictures"][args.images.name] = measure(paths, args)
            show(args.images.name, result["pictures"][args.images.name])
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
