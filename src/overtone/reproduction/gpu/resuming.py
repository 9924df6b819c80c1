"""Resuming bit for bit where PyTorch promises determinism."""

import functools
import os
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from overtone.checkpoint import read_checkpoint
from overtone.config import Augment, Data, Model, Optim, Preprocess, Recipe, Run, Train
from overtone.engine import folder as files
from overtone.engine.training import train
from overtone.reproduction.gpu.place import Cases, Place, Row

_NETS, _DRY_NETS = ("mobilenetv2_x035", "hbonet_x025", "hornet_tiny_7x7"), ("hbonet_x010",)
_BATCH, _STEPS_PER_EPOCH, _STOP = 4, 3, 4  # stopped within the second of two epochs


def resuming(place: Place) -> Cases:
    """Trainings of six steps, at once and stopped after four: the same weights and the same state, bit for bit.

    With `torch.use_deterministic_algorithms`, everything on that draws at random, and a moving average.
    """
    os.environ["CUBLAS_WORKSPACE_CONFIG"] = ":4096:8"  # what PyTorch asks for, before cuBLAS begins
    torch.use_deterministic_algorithms(True)
    return {name: functools.partial(_resumed, place, name) for name in (_DRY_NETS if place.is_dry else _NETS)}


def _resumed(place: Place, name: str) -> list[Row]:
    with tempfile.TemporaryDirectory() as folder:
        size = 32 if place.is_dry else 128
        recipe = Recipe(
            model=Model(name=name),
            data=Data(root=_images(Path(folder) / "images", size), preprocess=Preprocess(size=size, resize="squash")),
            augment=Augment(crop="pad", mixup=0.4, cutmix=1.0, mix_prob=0.5, random_erasing=0.5),
            optim=Optim(lr=0.01, clip_grad=5.0),
            train=Train(epochs=2, batch_size=_BATCH, ema_decay=0.9),
        )

        def run(where: str, max_steps: int | None = None) -> Path:
            out = Path(folder) / where
            options = {"workers": 0, "tensorboard": False, "plots": False, "max_steps": max_steps}
            train(recipe, Run(out=out, device=place.device, **options), "resume")
            return out / files.LAST

        whole, stopped = run("whole"), run("parts", _STOP)
        begun = {key: values.clone() for key, values in read_checkpoint(stopped).weights.items()}
        one, two = read_checkpoint(whole), read_checkpoint(run("parts"))
        differing = [
            key
            for first, second in ((one.weights, two.weights), (one.training, two.training))
            for key in first.keys() | second.keys()
            if key not in first or key not in second or not torch.equal(first[key], second[key])
        ]
        moved = any(not torch.equal(values, begun[key]) for key, values in two.weights.items())
    row = {"steps": 2 * _STEPS_PER_EPOCH, "tensors": len(one.weights) + len(one.training)}
    return [{**row, "differing": len(differing), "passed": moved and not differing}]


def _images(root: Path, size: int) -> Path:
    """Images of noise, of two classes."""
    random = np.random.default_rng(0)
    for part, count in (("train", _BATCH * _STEPS_PER_EPOCH // 2), ("val", 1)):
        for name in ("a", "b"):
            (root / part / name).mkdir(parents=True)
            for number in range(count):
                pixels = random.integers(0, 256, (size, size, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(root / part / name / f"{number}.png")
    return root
