"""Reading JPEG files for training: nvJPEG (`--data.decoder gpu`) against the CPU."""

import functools
import io
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from PIL import Image, ImageFilter

from overtone.config import Data, Preprocess, Recipe, Run, Train
from overtone.data.decoders.gpu import decode_files
from overtone.data.decoding import decode_pixels
from overtone.data.loader import Loader
from overtone.data.sources import ImageList
from overtone.engine.distributed import World
from overtone.engine.loaders import Loaders
from overtone.machine import usable_cores
from overtone.reproduction.gpu.place import Cases, Place, Row
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup

_PHOTO = (500, 375)  # the middle of ImageNet's
_FILES, _LARGEST_GREY_DIFFERENCE = 64, 2.0


def decoding(place: Place) -> Cases:
    """Images a second of an epoch of random crops, as `overtone train` reads them, normalised on the device.

    nvJPEG by itself is `torchvision.io.decode_jpeg` of whole files; `grey_levels` is the mean distance of its pixels
    from the CPU's, of 255.
    """
    files = [_jpeg(seed) for seed in range(4 if place.is_dry else _FILES)]
    workers = [0] if place.is_dry else [1, min(usable_cores(), 16)]
    cases = {f"CPU, {count} workers": functools.partial(_epoch, place, files, "cpu", count) for count in workers}
    cases["nvJPEG"] = functools.partial(_nvjpeg, place, files)
    for count in workers:
        cases[f"GPU, {count} workers"] = functools.partial(_epoch, place, files, "gpu", count)
    return cases


def _jpeg(seed: int) -> bytes:
    noise = np.random.default_rng(seed).integers(0, 256, (_PHOTO[1], _PHOTO[0], 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(noise).filter(ImageFilter.GaussianBlur(2)).save(file, "JPEG", quality=92)
    return file.getvalue()


def _epoch(place: Place, files: Sequence[bytes], decoder: Literal["cpu", "gpu"], workers: int) -> list[Row]:
    if decoder == "gpu":
        place.need_cuda()
    batch = 4 if place.is_dry else 128
    data = Data(preprocess=Preprocess(size=place.size), decoder=decoder)
    recipe = Recipe(data=data, train=Train(batch_size=batch))
    placement, count = place.placement(), 8 if place.is_dry else 2048
    with tempfile.TemporaryDirectory() as folder:
        paths = [Path(folder) / f"{number}.jpg" for number in range(len(files))]
        for path, content in zip(paths, files, strict=True):
            path.write_bytes(content)
        source = ImageList(("a",), [paths[number % len(paths)] for number in range(count)], [0] * count)
        loaders = Loaders(recipe, Run(workers=workers), placement, World(), lambda line: None)
        task: Any = Classification(Setup(("a",), recipe, train=source))
        loader = loaders.training(source, task)
        pipeline: Any = loader._loader.dataset.pipeline  # type: ignore[attr-defined]
        try:
            seconds = [_read(place, loader, epoch) for epoch in range(2)]  # the first one starts processes and kernels
        finally:
            loader.close()
    row: Row = {"workers": workers, "images": count, "images_per_second": count / seconds[1]}
    if decoder == "gpu":  # a batch that fails there is decoded on the CPU, and the pipeline drops its decoder
        row["passed"] = pipeline._decoder is not None
    return [row]


def _read(place: Place, loader: Loader, epoch: int) -> float:
    """Seconds until every batch of an epoch is on the device."""
    loader.set_epoch(epoch)
    started = time.perf_counter()
    for batch in loader:
        place.placement().batch(batch)
    place.wait()
    return time.perf_counter() - started


def _nvjpeg(place: Place, files: Sequence[bytes]) -> list[Row]:
    place.need_cuda()
    contents = [torch.frombuffer(bytearray(file), dtype=torch.uint8) for file in files]
    device = torch.device(place.device)
    images = decode_files(contents, device)
    (timing,) = place.race([functools.partial(decode_files, contents, device)])
    greys = [
        (image.cpu().float() - decode_pixels(file).permute(2, 0, 1).float()).abs().mean().item()
        for image, file in zip(images, files, strict=True)
    ]
    row = {"images": len(files), "images_per_second": 1000 * len(files) / timing.median, "grey_levels": max(greys)}
    return [{**row, "passed": max(greys) <= _LARGEST_GREY_DIFFERENCE}]
