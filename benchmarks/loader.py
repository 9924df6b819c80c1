"""Photographs to batches: torchvision's usual pipeline against ours, images per second of one core, and memory.

    python benchmarks/loader.py [--images DIR] [--json loader.json]

usual        torchvision's ImageFolder, RandomResizedCrop to 224 pixels, flip, ToTensor, Normalize, in a DataLoader
files        `overtone.data.loader.Loader` on the same files, channels_last as `overtone train` asks for it
scaled       the same with `data.scaled_decoding`, which changes pixels where a crop is at least twice the input
shards       what `overtone data pack --max-side 256 --quality 92` makes of them
decoded      the files with `data.cache decoded`, filled before
decoded 256  the same with `data.cache_side 256`

Each in a process of its own with one thread and no workers, bilinear, an epoch each in turn; the first one, which fills
caches, is not counted. Crops are drawn by different generators, so only their distribution is the same in what is
timed. Before that, the crops and flips that `files` has drawn are computed with torchvision's functions too: how far
the two lie apart is printed, in grey levels of 0..255, and more than the resize's rounding ends the benchmark; so does
one value that `decoded` has otherwise than `files`, or one of the evaluation transforms. Memory is the largest resident
size of the process beyond what it had before it read an image, with the pages of the cache's files in it.

Without `--images`, images of 500x375 are made: soft fields of colour, edges and noise. How long decoding takes depends
on how much is in a file, so there are small files and ones of ImageNet's 110 kB, and photographs of 2000x1500, which is
where scaled decoding counts.
"""

import argparse
import dataclasses
import json
import multiprocessing
import os
import statistics
import sys
import tempfile
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from timm.data.transforms import RandomResizedCropAndInterpolation
from torch.utils.data import DataLoader
from torchvision import transforms
from torchvision.datasets import ImageFolder
from torchvision.transforms import functional as F

from overtone.config import Augment, Data, Preprocess, Recipe
from overtone.data.decoded_cache import DecodedCache
from overtone.data.loader import Loader
from overtone.data.mapped_store import MappedStore
from overtone.data.natural_parts import natural_parts
from overtone.data.packing import Packing, pack
from overtone.data.pipeline import class_images
from overtone.data.seeding import seeded
from overtone.data.sources import ImageList, open_splits
from overtone.data.transforms import evaluation_transform, recipe_transform
from overtone.published import IMAGENET_MEAN, IMAGENET_STD
from overtone.verbs.benchmark_report import machine

ROUNDING = 2  # grey levels: half of one after each of the two passes of a resize, whose order is Pillow's to choose
SIDE = 256  # pixels of the shorter side, of what is made smaller before
READERS: dict[str, dict[str, Any]] = {
    "usual": {},
    "files": {},
    "scaled": {"scaled_decoding": True},
    "shards": {},
    "decoded": {"cache": "decoded"},
    f"decoded {SIDE}": {"cache": "decoded", "cache_side": SIDE},
}


@dataclass(frozen=True)
class Kind:
    """Images to make."""

    name: str
    size: tuple[int, int]
    noise: float
    quality: int
    subsampling: str
    share: float = 1.0  # of the number of images asked for


KINDS = (
    Kind("500x375, quality 90, 4:2:0", (500, 375), 4, 90, "4:2:0"),
    Kind("500x375, quality 95, 4:2:0", (500, 375), 7.5, 95, "4:2:0"),
    Kind("2000x1500, quality 90, 4:2:0", (2000, 1500), 4, 90, "4:2:0", 0.2),
)


def draw(folder: Path, kind: Kind, count: int) -> list[Path]:
    """Images of soft fields, straight edges and noise."""
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
        image = Image.fromarray((values + 127.5).clip(0, 255).astype(np.uint8))
        values = np.asarray(image.resize(kind.size, Image.Resampling.BICUBIC), dtype=np.float32)
        values = values + random.normal(0, kind.noise, values.shape)
        paths.append(folder / str(number % 2) / f"{number:04}.jpg")
        paths[-1].parent.mkdir(parents=True, exist_ok=True)
        image = Image.fromarray(values.clip(0, 255).astype(np.uint8))
        image.save(paths[-1], quality=kind.quality, subsampling=kind.subsampling)
    return paths


def usual(folder: Path, batch: int, size: int) -> DataLoader:
    """The pipeline of torchvision's tutorials."""
    steps = [
        transforms.RandomResizedCrop(size),
        transforms.RandomHorizontalFlip(),
        transforms.ToTensor(),
        transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
    ]
    return DataLoader(ImageFolder(str(folder), transforms.Compose(steps)), batch, shuffle=True)


def reader(name: str, folder: Path, batch: int, size: int) -> DataLoader | Loader:
    """What is compared: `folder` holds `files`, `shards` and, made when needed, the decoded images."""
    if name == "usual":
        return usual(folder / "files", batch, size)
    root = folder / ("shards" if name == "shards" else "files")
    preprocess = Preprocess(size=size, interpolation="bilinear")
    recipe = Recipe(data=Data(root=root, preprocess=preprocess, val_fraction=0, **READERS[name]))
    source = open_splits(recipe.data, "label").train
    cache = None
    if recipe.data.cache == "decoded":
        cache = DecodedCache(MappedStore(folder / name, len(source), 10**11))
    pipeline = class_images(recipe_transform(recipe), channels_last=True)
    return Loader(source, pipeline, batch_size=batch, shuffle=True, cache=cache)


def evaluation_difference(paths: list[Path], size: int) -> float:
    """The largest difference of normalised values between the evaluation transforms."""
    published: Any = transforms.Compose(
        [
            transforms.Resize(int(size / 0.875)),
            transforms.CenterCrop(size),
            transforms.ToTensor(),
            transforms.Normalize(IMAGENET_MEAN, IMAGENET_STD),
        ]
    )
    ours = evaluation_transform(Preprocess(size=size))
    images: list[Any] = [Image.open(path).convert("RGB") for path in paths]
    return max(float((published(image) - ours(image)).abs().max()) for image in images)


def training_difference(loader: Any, size: int) -> dict[str, float]:
    """Grey levels between a loader's images and torchvision's functions on the crops and flips it has drawn."""
    scale, augment = 255 * torch.tensor(IMAGENET_STD).view(3, 1, 1), Augment()
    loader.set_epoch(0)
    largest, total, differ, values = 0.0, 0.0, 0, 0
    files = loader.source
    assert isinstance(files, ImageList)
    for batch in loader:
        for position, found in zip(batch.ids.tolist(), batch.inputs, strict=True):
            image: Any = Image.open(files.paths[position]).convert("RGB")
            with seeded(0, 0, position):
                box = RandomResizedCropAndInterpolation.get_params(image, augment.scale, augment.ratio)
                flipped = torch.rand(1) < augment.hflip
            image = F.resized_crop(image, *box, [size, size], F.InterpolationMode.BILINEAR)
            image = F.hflip(image) if flipped else image
            expected = F.normalize(F.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))
            difference = (found - expected).abs() * scale
            largest = max(largest, float(difference.max()))
            total, values = total + float(difference.sum()), values + difference.numel()
            differ += int((difference > 0.5).sum())
    return {"largest": round(largest, 3), "mean": total / values, "share_that_differs": differ / values}


def check(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """How far the pixels lie apart.

    Raises:
        SystemExit: they are not the same.
    """
    paths = sorted((folder / "files").rglob("*.jp*g"))
    evaluation = evaluation_difference(paths[:8], args.size)
    apart = {name: training_difference(reader(name, folder, 32, args.size), args.size) for name in ("files", "scaled")}
    if evaluation > 0 or apart["files"]["largest"] > ROUNDING + 0.01:
        raise SystemExit(f"not the same pixels: evaluation differs by {evaluation}, training by {apart} grey levels")
    fresh, kept = (reader(name, folder, 32, args.size) for name in ("files", "decoded"))
    for _ in range(2):  # the first time fills the cache
        if not all(torch.equal(a.inputs, b.inputs) for a, b in zip(fresh, kept, strict=True)):
            raise SystemExit("not the same pixels: decoded images from the cache differ from the files")
    return {"evaluation_difference": evaluation, "training_difference_in_grey_levels": apart}


def serve(line: Any, name: str, folder: Path, args: argparse.Namespace) -> None:
    """In a process of its own: read an epoch whenever asked, and say how long it took."""
    torch.set_num_threads(1)
    batches: Any = reader(name, folder, args.batch, args.size)
    before, epoch = _peak_mb(), 0
    while line.recv():
        if hasattr(batches, "set_epoch"):
            batches.set_epoch(epoch)
        wall, cpu = time.perf_counter(), time.process_time()
        count = sum(len(batch[1]) for batch in batches)
        line.send((count / (time.perf_counter() - wall), count / (time.process_time() - cpu), _peak_mb() - before))
        epoch += 1


def _peak_mb() -> float:
    """Largest resident size of this process so far."""
    lines = Path(f"/proc/{os.getpid()}/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith("VmHWM")) / 1024


def measure(folder: Path, args: argparse.Namespace) -> dict[str, Any]:
    """Rates of an epoch of each reader in turn."""
    data = Data(root=folder / "files", val_fraction=0)
    pack(natural_parts(data, "label"), folder / "shards", Packing(size_mb=8, max_side=SIDE, quality=92))
    result = check(folder, args)
    context, lines, found = multiprocessing.get_context("spawn"), {}, {name: [] for name in READERS}
    for name in READERS:
        lines[name], other = context.Pipe()
        context.Process(target=serve, args=(other, name, folder, args), daemon=True).start()
    for _ in range(args.rounds + 1):
        for name, line in lines.items():
            line.send(True)
            found[name].append(line.recv())
    for line in lines.values():
        line.send(False)
    rows = {}
    for name, values in found.items():
        counted = list(zip(values[1:], found["usual"][1:], strict=True))
        rows[name] = {
            "images_per_second": round(statistics.median(own[0] for own, _ in counted), 1),
            "images_per_cpu_second": round(statistics.median(own[1] for own, _ in counted), 1),
            "ratio": round(statistics.median(own[0] / other[0] for own, other in counted), 2),
            "cpu_ratio": round(statistics.median(own[1] / other[1] for own, other in counted), 2),
            "memory_mb": round(values[-1][2]),
        }
    sizes = [path.stat().st_size for path in (folder / "files").rglob("*.jp*g")]
    return {"files": len(sizes), "kilobytes": round(sum(sizes) / len(sizes) / 1000, 1), **result, "rows": rows}


def show(name: str, found: dict[str, Any]) -> None:
    """Print what was measured."""
    print(f"\n{name}: {found['files']} files of {found['kilobytes']:.0f} kB")
    for row, rates in found["rows"].items():
        apart = found["training_difference_in_grey_levels"].get(row)
        pixels = (
            "" if apart is None else f"  pixels: {apart['largest']:.0f} apart at most, {apart['mean']:.3f} on average"
        )
        print(
            f"  {row:12}{rates['images_per_second']:8.1f} images/s by the clock ({rates['ratio']:.2f}x),"
            f"{rates['images_per_cpu_second']:8.1f} per second of the processor ({rates['cpu_ratio']:.2f}x),"
            f"{rates['memory_mb']:5d} MB{pixels}"
        )


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, help="folder of JPEG files, also in folders inside")
    parser.add_argument("--count", type=int, default=100, help="images at most")
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
        "images": {},
    }
    print(f"{result['machine']['processor']}, 1 thread, no workers; {args.size} pixels, batches of {args.batch}")
    kinds = KINDS if args.images is None else (dataclasses.replace(KINDS[0], name=args.images.name),)
    for kind in kinds:
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if args.images is None:
                draw(folder / "files", kind, args.count)
            elif not linked(args.images, folder / "files", args.count):
                parser.error(f"{args.images} holds no JPEG files")
            result["images"][kind.name] = measure(folder, args)
        show(kind.name, result["images"][kind.name])
    if args.json is not None:
        args.json.write_text(json.dumps(result, indent=2) + "\n", encoding="utf-8")
    return 0


def linked(images: Path, folder: Path, count: int) -> int:
    """Links to JPEG files as two classes; gives their number."""
    found = sorted(path for path in images.rglob("*") if path.suffix.lower() in (".jpg", ".jpeg"))[:count]
    for number, path in enumerate(found):
        place = folder / str(number % 2) / f"{number:06}.jpg"
        place.parent.mkdir(parents=True, exist_ok=True)
        place.symlink_to(path.resolve())
    return len(found)


if __name__ == "__main__":
    sys.exit(main())
