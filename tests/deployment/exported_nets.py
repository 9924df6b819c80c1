"""Small networks that are exported in a second or two, and what their logits are held against."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from nets_to_fold import fill, reduced_net
from torch import nn

from overtone.config import Preprocess
from overtone.deployment.export import Origin
from overtone.deployment.images import generated_images
from overtone.deployment.inputs import as_batch, input_transform
from overtone.deployment.runtimes import RUNTIMES
from overtone.deployment.runtimes.runtime import computes_bfloat16

SIZE = 32
PREPROCESS = Preprocess(size=SIZE)
CLASSES = tuple("abcdefg")
FAMILIES = {
    "mobilenetv2": "mobilenetv2_x010",
    "hbonet": "hbonet_x010",
    "harmonic": "harm_resnet50",
    "hornet": "hornet_tiny_gf",
}


def net_of(architecture: str) -> nn.Module:
    net = reduced_net(architecture).float()
    if hasattr(net, "stages"):
        for index, stage in enumerate(net.stages):
            net.stages[index] = stage[:1]
    for later in ("layer2", "layer3", "layer4"):  # the first keeps two: its second block changes no shape
        if hasattr(net, later):
            setattr(net, later, getattr(net, later)[:1])
    return net


def tiny_net() -> nn.Module:
    """A harmonic wide ResNet of three blocks."""
    net = timm.create_model("harm_wrn16_4", num_classes=7, depth=10, width=1, level=3)
    return fill(net, "tiny").eval()


def plain_net() -> nn.Module:
    """What takes a runtime the least time."""
    layers = (nn.Conv2d(3, 8, 3, 4), nn.ReLU(), nn.Conv2d(8, 8, 3, 2), nn.Flatten(), nn.Linear(72, 7))
    return fill(nn.Sequential(*layers), "plain").eval()


def origin(name: str = "harm_wrn16_4", preprocess: Preprocess = PREPROCESS, **more: Any) -> Origin:
    labels = tuple(letter.upper() for letter in CLASSES)
    return Origin(name, preprocess, "a test", classes=CLASSES, labels=labels, **more)


def logits_of(net: nn.Module, number: int, seed: int = 7, preprocess: Preprocess = PREPROCESS) -> np.ndarray:
    """What PyTorch says about generated images, (number, 7)."""
    with torch.inference_mode():
        return net(torch.from_numpy(inputs(number, seed, preprocess))).numpy()


def inputs(number: int, seed: int = 7, preprocess: Preprocess = PREPROCESS) -> np.ndarray:
    transform = input_transform("normalised", preprocess)
    return np.concatenate([as_batch(transform, p).numpy() for p in generated_images(number, SIZE, seed)])


def images_in(folder: Path, number: int) -> Path:
    folder.mkdir()
    for index, image in enumerate(generated_images(number, SIZE, seed=11)):
        image.save(folder / f"{index:03d}.png")
    return folder


def needs(runtime: str, precision: str = "float32") -> None:
    """Skip where an optional package is not installed, or the processor has no bfloat16."""
    reason = RUNTIMES[runtime].missing()
    if reason is not None:
        pytest.skip(reason)
    if "bfloat16" in precision and not computes_bfloat16():
        pytest.skip("this processor has no bfloat16")
