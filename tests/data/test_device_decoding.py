"""Decoding on the device, with stand-ins on the CPU for the two calls: order, draws, pixels, bad files, messages."""

import functools
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter

from overtone.config import Augment, Data, Preprocess, Recipe, Run
from overtone.data.decoders import dali, decoder_named, gpu
from overtone.data.decoding import decode_pixels
from overtone.data.device_decoding import DevicePipeline, Drawn, on_cpu
from overtone.data.loader import Loader
from overtone.data.pipeline import Batch, class_images
from overtone.data.sources import ImageList
from overtone.data.transforms import recipe_transform
from overtone.engine.distributed import World
from overtone.engine.loaders import Loaders
from overtone.engine.placement import place
from overtone.errors import OvertoneError
from overtone.tasks.classification.task import Classification
from overtone.tasks.task import Setup

CPU = torch.device("cpu")
RECIPE = Recipe(
    data=Data(preprocess=Preprocess(size=24, mean=(0.0, 0.0, 0.0), std=(1.0, 1.0, 1.0))), augment=Augment(vflip=0.5)
)


class DaliPipeline:
    """What `dali.built` gives, on the CPU: it decodes a slice, resizes it and flips it, as it is fed."""

    def __init__(self, batch_size: int, side: int) -> None:
        self.batch_size, self.side, self.fed = batch_size, side, {}

    def images(self) -> torch.Tensor:
        files = [
            Drawn(content, (*start.tolist(), *shape.tolist()), (bool(across), bool(down)))
            for content, start, shape, across, down in zip(*self.fed.values(), strict=True)
        ]
        assert len(files) <= self.batch_size
        return torch.stack([on_cpu(file, self.side, "bilinear").permute(1, 2, 0) for file in files])


@pytest.fixture(params=["gpu", "dali"])
def decoder(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[[], Any]:
    def decode(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        assert device == CPU and all(file.ndim == 1 for file in files)
        try:
            return [decode_pixels(file.numpy().tobytes()).permute(2, 0, 1) for file in files]
        except Exception as error:
            raise RuntimeError("nvJPEG failed") from error

    def run(pipeline: DaliPipeline, inputs: dict[str, list[np.ndarray]], device: torch.device) -> torch.Tensor:
        assert list(inputs) == ["files", "starts", "shapes", "across", "down"]
        pipeline.fed = inputs
        try:
            return pipeline.images()
        except Exception as error:
            raise RuntimeError("DALI failed") from error

    monkeypatch.setattr(gpu, "decode_files", decode)
    monkeypatch.setattr(dali, "built", lambda count, side, device, interpolation: DaliPipeline(count, side))
    monkeypatch.setattr(dali, "run", run)
    return functools.partial(gpu.Gpu if request.param == "gpu" else dali.Dali, CPU, "bilinear")


@pytest.fixture
def files(tmp_path: Path) -> ImageList:
    """Nine files: JPEGs of several sizes, a grey one, a PNG, and two that cannot be read."""
    random, paths = np.random.default_rng(0), []
    for number in range(9):
        noise = random.integers(0, 256, (60 + number, 90 - number, 3), dtype=np.uint8)
        image = Image.fromarray(noise).filter(ImageFilter.GaussianBlur(3))
        paths.append(tmp_path / (f"{number}.png" if number == 3 else f"{number}.jpg"))
        (image.convert("L") if number == 5 else image).save(paths[-1])
    paths[6].write_bytes(paths[6].read_bytes()[:400])
    paths[8].unlink()
    return ImageList(("a", "b"), paths, [number % 2 for number in range(9)])


def batches(files: ImageList, decoder: Callable[[], Any] | None, workers: int = 0) -> list[Batch]:
    pipeline: Any = class_images(recipe_transform(RECIPE), channels_last=True)
    if decoder is not None:
        pipeline = DevicePipeline(pipeline, decoder, CPU)
    loader = Loader(files, pipeline, batch_size=4, shuffle=True, seed=1, workers=workers)
    found = []
    for epoch in range(2):
        loader.set_epoch(epoch)
        found += list(loader)
    loader.close()
    return found


@pytest.mark.parametrize("workers", [0, 1])
def test_order_draws_targets_and_bad_files_are_those_of_the_cpu(files, decoder, workers: int) -> None:
    found, expected = batches(files, decoder, workers), batches(files, None)
    assert len(found) == len(expected) == 6
    for here, there in zip(found, expected, strict=True):
        assert torch.equal(here.ids, there.ids) and torch.equal(here.targets, there.targets)
        assert sorted(here.bad) == sorted(there.bad)
        assert here.inputs.is_contiguous(memory_format=torch.channels_last)
        # the resize in floating point is rounded once, that of whole numbers after each direction
        assert (here.inputs - there.inputs).abs().max() * 255 < 2.01
    assert sorted(position for batch in found for position, _ in batch.bad) == [6, 6, 8, 8]


def test_a_batch_without_any_image(tmp_path: Path, decoder) -> None:
    lost = ImageList(("a",), [tmp_path / "none.jpg"] * 2, [0, 0])
    for batch in batches(lost, decoder):
        assert batch.num_samples == 0 and len(batch.bad) == 2


def test_running_out_of_memory_is_an_error(files, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(files: list[torch.Tensor], device: torch.device) -> list[torch.Tensor]:
        raise RuntimeError("CUDA out of memory")

    monkeypatch.setattr(gpu, "decode_files", fails)
    with pytest.raises(RuntimeError, match="out of memory"):
        batches(files, functools.partial(gpu.Gpu, CPU, "bilinear"))


@pytest.mark.parametrize(
    "augment",
    [Augment(color_jitter=0.4), Augment(rand_augment="rand-m9"), Augment(crop="pad"), Augment(random_erasing=0.2)],
)
def test_what_a_device_does_not_do_is_refused(augment: Augment) -> None:
    pipeline = class_images(recipe_transform(replace(RECIPE, augment=augment)))
    with pytest.raises(OvertoneError, match=r"data\.decoder .* augment\.crop"):
        DevicePipeline(pipeline, lambda: pytest.fail("made"), CPU)
    with pytest.raises(OvertoneError, match=r"data\.decoder is for whole images"):
        DevicePipeline(object(), lambda: pytest.fail("made"), CPU)


@pytest.mark.parametrize("name", ["gpu", "dali"])
def test_without_a_gpu_the_option_is_one_clear_error(name: str, files: ImageList) -> None:
    recipe, run = replace(RECIPE, data=replace(RECIPE.data, decoder=name)), Run(device="cpu", workers=0)
    loaders = Loaders(recipe, run, place(run), World(), lambda line: None)
    task = Classification(Setup(("a", "b"), recipe))
    with pytest.raises(OvertoneError, match=rf"data\.decoder is {name}, and the run is on cpu"):
        loaders.training(files, task)
    loaders.evaluation(files, task)  # is decoded on the CPU whatever trains


def test_without_the_package_or_the_filter_too(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = torch.device("cuda", 0)
    monkeypatch.setattr(dali.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(OvertoneError, match=r"overtone\[dali\]"):
        decoder_named("dali", cuda, "bilinear")
    with pytest.raises(OvertoneError, match="no filter lanczos"):
        decoder_named("gpu", cuda, "lanczos")
    decoder_named("gpu", cuda, "bicubic")
