"""A few images that look like part of ImageNet's validation set, and what a network should say of them."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from overtone.config import Preprocess
from overtone.data.imagenet import synsets

SIZES = ((260, 200), (180, 333), (97, 140), (500, 375), (64, 64), (401, 300))  # width, height


def draw_images(folder: Path) -> list[Path]:
    """JPEGs of several sizes, larger and smaller than any network's input; the first is grey, as some of ImageNet's."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(0)
    paths = []
    for number, (width, height) in enumerate(SIZES, 1):
        coarse = Image.fromarray(random.integers(0, 256, (7, 9, 3), dtype=np.uint8))
        image = coarse.resize((width, height), Image.Resampling.BICUBIC)
        path = folder / f"ILSVRC2012_val_{number:08d}.JPEG"
        (image.convert("L") if number == 1 else image).save(path, "JPEG", quality=90)
        paths.append(path)
    return paths


def with_pillow(path: Path, preprocess: Preprocess) -> Tensor:
    """The input (1, 3, size, size) that the published loaders made of an image, with Pillow and NumPy alone."""
    filters = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC}
    image, size = Image.open(path).convert("RGB"), preprocess.size
    if preprocess.resize == "squash":
        image = image.resize((size, size), filters[preprocess.interpolation])
    else:
        shorter, (width, height) = int(size / preprocess.crop_fraction), image.size
        if width <= height:
            target = (shorter, int(shorter * height / width))
        else:
            target = (int(shorter * width / height), shorter)
        image = image.resize(target, filters[preprocess.interpolation])
        left, top = round((image.width - size) / 2), round((image.height - size) / 2)
        image = image.crop((left, top, left + size, top + size))
    pixels = np.asarray(image).astype(np.float32) / np.float32(255)
    mean, std = (np.asarray(values, dtype=np.float32) for values in (preprocess.mean, preprocess.std))
    return torch.from_numpy(((pixels - mean) / std).transpose(2, 0, 1))[None]


def label(paths: list[Path], logits: Callable[[Path], Tensor], folder: Path) -> dict[str, str]:
    """Write a label file by which a network gets all but two right: one is its second choice, one its last.

    Returns:
        WordNet id by the name of the image.
    """
    classes = {}
    for number, path in enumerate(paths):
        ranked = logits(path).flatten().argsort(descending=True).tolist()
        classes[path.name] = synsets()[ranked[{1: 1, 2: -1}.get(number, 0)]]
    lines = [f"{name.removesuffix('.JPEG')},{synset} 1 2 3 4\n" for name, synset in classes.items()]
    (folder / "LOC_val_solution.csv").write_text("ImageId,PredictionString\n" + "".join(lines))
    return classes


@torch.no_grad()
def answers(model: nn.Module, preprocess: Preprocess) -> Callable[[Path], Tensor]:
    """The logits of a network for an image, by way of Pillow alone."""
    model.eval()

    def logits(path: Path) -> Tensor:
        with torch.no_grad():
            return model(with_pillow(path, preprocess))

    return logits
